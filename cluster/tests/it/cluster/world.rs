//! A cluster in one thread: time, faults and clients from a seed.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use cluster::{Config, Error, GroupConfig, GroupId, Now, OnFull, Order, Proposal, Refusal, Status};
use storage::dice::Dice;
use storage::store::{Failing, StoreError};

use super::checker::Checker;
use super::network::{Network, Weather};
use super::node::{Heard, SimNode};
use crate::chronicle::command;

const GROUPS: u32 = 3;
/// Milliseconds between two looks at everything.
const STEP: u64 = 5;
/// How long faults go on, and how soon after their end everything must be well.
const TROUBLE: u64 = 40_000;
const RECOVERY: u64 = 30_000;

/// What may happen.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Plan {
    /// Disks say that they have synced and have not.
    pub(super) lying: bool,
    /// Disks rot, one at a time. Groups then always have three voters, since two of them cannot do
    /// without one.
    pub(super) rotting: bool,
    /// How many nodes are members at first, and how many are not; the seed decides if it is not said.
    pub(super) size: Option<(u64, u64)>,
}

pub(super) struct World {
    seed: u64,
    plan: Plan,
    dice: Dice,
    pub(super) millis: u64,
    /// Whether the disks say that they have synced and have not.
    lies: bool,
    pub(super) nodes: BTreeMap<u64, SimNode>,
    pub(super) network: Network,
    pub(super) checker: Checker,
    /// Proposals without an answer, and the node that was asked.
    asked: BTreeMap<u64, u64>,
    next_number: u64,
    /// The node whose disk has rotted last, until it is whole again.
    rotten: Option<u64>,
    /// What happened how often.
    pub(super) looks: usize,
    pub(super) unseen: usize,
    pub(super) refused: Vec<Refusal>,
    pub(super) snapshots: usize,
    pub(super) changes: usize,
    pub(super) damages: usize,
    /// Sums up everything that was heard.
    pub(super) trace: u64,
}

impl World {
    pub(super) fn new(seed: u64, plan: Plan) -> Self {
        let mut dice = Dice::new(seed);
        let (count, others) = plan.size.unwrap_or_else(|| {
            let count = if dice.one_in(3) { 5 } else { 3 };
            (count, dice.below(3))
        });
        let founders: Vec<u64> = (1..=count).collect();
        let mut nodes = BTreeMap::new();
        // Some run at first without being members, and of these some without knowing any.
        for id in 1..=count + others {
            let is_unfounded = id > count && plan.size.is_none() && dice.one_in(2);
            let voters = if is_unfounded { &[][..] } else { &founders };
            nodes.insert(id, SimNode::new(id, seed, config(id, voters, &mut dice)));
        }
        Self {
            seed,
            plan,
            millis: 0,
            lies: false,
            nodes,
            network: Network::new(),
            checker: Checker::default(),
            asked: BTreeMap::new(),
            next_number: 1,
            rotten: None,
            looks: 0,
            unseen: 0,
            refused: Vec::new(),
            snapshots: 0,
            changes: 0,
            damages: 0,
            trace: 0,
            dice,
        }
    }

    /// Another node, which knows nobody.
    pub(super) fn add_unfounded(&mut self) -> u64 {
        let id = self.nodes.len() as u64 + 1;
        let config = config(id, &[], &mut self.dice);
        self.nodes.insert(id, SimNode::new(id, self.seed, config));
        self.step(0).expect("it starts");
        id
    }

    /// Trouble, then peace; an error says what must not have happened.
    pub(super) fn run(&mut self) -> Result<(), String> {
        while self.millis < TROUBLE {
            self.trouble();
            self.step(20)?;
        }
        self.heal();
        let healed = self.millis;
        let mut calm_since = None;
        while calm_since.is_none_or(|since| self.millis < since + 3000) {
            self.step(60)?;
            if self.millis > healed + RECOVERY {
                return Err(format!("not well after {RECOVERY} ms: {}", self.complaints()));
            }
            if calm_since.is_none() && self.complaints().is_empty() {
                calm_since = Some(self.millis);
            }
        }
        // No new commands: everybody gets to the same end, and everybody an answer.
        let quiet = self.millis;
        while let Err(why) = self.check_same_end() {
            self.step(0)?;
            if self.millis > quiet + RECOVERY {
                return Err(format!("not the same after {RECOVERY} ms: {why}"));
            }
        }
        self.checker.finish()
    }

    pub(super) fn check_same_end(&self) -> Result<(), String> {
        let complaints = self.complaints();
        if !complaints.is_empty() || !self.asked.is_empty() {
            return Err(format!("{complaints}; without an answer: {:?}", self.asked));
        }
        for group in (0..GROUPS).map(GroupId) {
            let leader = self.leaders(group).next().expect("there is one");
            let status = self.status(leader, group).expect("it is up");
            let all = self.checker.count(group);
            for (&id, node) in &self.nodes {
                let Some(engine) = &node.engine else { continue };
                let here = engine.status(group).expect("every group has a status");
                let has = engine.machine(group).unwrap().numbers.len();
                let is_in =
                    |status: &Status| status.voters.contains(&id) || status.learners.contains(&id);
                if is_in(&status) && (has != all || here.voters != status.voters) {
                    return Err(format!("node {id} has {has} of {all} commands of {group}"));
                }
                if !is_in(&status) && is_in(&here) && !here.removed {
                    return Err(format!("node {id} does not know that it left {group}"));
                }
            }
        }
        Ok(())
    }

    pub(super) fn leaders(&self, group: GroupId) -> impl Iterator<Item = u64> {
        let leads = move |node: &&SimNode| node.leads[group.0 as usize];
        self.nodes.values().filter(leads).map(|node| node.id)
    }

    pub(super) fn status(&self, id: u64, group: GroupId) -> Option<Status> {
        self.nodes[&id].engine.as_ref()?.status(group)
    }

    /// What is not as it should be when nothing is in the way.
    fn complaints(&self) -> String {
        let mut complaints = Vec::new();
        for group in (0..GROUPS).map(GroupId) {
            let leaders: Vec<_> = self.leaders(group).collect();
            if leaders.len() != 1 {
                complaints.push(format!("group {group} has the leaders {leaders:?}"));
            }
            if leaders
                .iter()
                .any(|&id| self.status(id, group).is_some_and(|it| it.wanted.is_some()))
            {
                complaints.push(format!("the members of group {group} are not as asked"));
            }
        }
        let down = self.nodes.values().filter(|node| node.engine.is_none()).count();
        if down > 0 {
            complaints.push(format!("{down} nodes are down"));
        }
        let damaged = self.nodes.keys().filter(|id| self.is_damaged(**id));
        complaints.extend(damaged.map(|id| format!("node {id} is damaged")));
        complaints.join(", ")
    }

    /// Whether a node still has to be brought what it has lost, as far as can be told. Who is no member
    /// is mended when it becomes one.
    pub(super) fn is_damaged(&self, id: u64) -> bool {
        let is_damaged_in = |group| {
            let of_leader =
                self.leaders(group).filter_map(|leader| self.status(leader, group)).last();
            let (Some(here), Some(status)) = (self.status(id, group), of_leader) else {
                return true;
            };
            let is_in = status.voters.contains(&id) || status.learners.contains(&id);
            here.damaged && (is_in || status.wanted.is_some())
        };
        (0..GROUPS).any(|group| is_damaged_in(GroupId(group)))
    }

    pub(super) fn now(&self) -> Now {
        Now { monotonic: Duration::from_millis(self.millis), unix_ms: self.millis }
    }

    /// A moment passes; clients ask with a chance of `busy` in a hundred.
    pub(super) fn step(&mut self, busy: u64) -> Result<(), String> {
        self.millis += STEP;
        for (to, message) in self.network.arrived(self.millis) {
            let node = self.nodes.get_mut(&to).expect("nobody knows of other nodes");
            if node.engine.is_some() {
                node.input.messages.push(message);
            }
        }
        if self.dice.below(100) < busy {
            self.ask();
        }
        let now = self.now();
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            let node = self.nodes.get_mut(&id).expect("it was just there");
            if node.engine.is_none() && node.up_at <= self.millis {
                match node.start(self.seed, now) {
                    Ok(()) => self.listen(id)?,
                    // On a full disk it tries again.
                    Err(_) if node.is_full => self.crash(id),
                    // And with a store that cannot be written, where it has a damage to note.
                    Err(Error::Store(StoreError::Failed { .. } | StoreError::Full { .. })) => {
                        self.crash(id);
                    }
                    Err(error) => return Err(format!("node {id} does not start: {error}")),
                }
                continue;
            }
            match node.turn(self.millis, now) {
                Ok(true) => self.listen(id)?,
                Ok(false) => {}
                // The disk was made to fail: what it told until then counts.
                Err(_) => {
                    self.listen(id)?;
                    self.crash(id);
                    continue;
                }
            }
            let node = self.nodes.get_mut(&id).expect("it was just there");
            if node.busy_until <= self.millis {
                for (to, batch) in std::mem::take(&mut node.unsent) {
                    self.network.send(&mut self.dice, self.millis, (id, to), batch);
                }
            }
        }
        Ok(())
    }

    /// Somebody who leads a group, or just anybody.
    fn likely_leader(&mut self, group: GroupId) -> u64 {
        let leaders: Vec<_> = self.leaders(group).collect();
        if leaders.is_empty() || self.dice.one_in(10) {
            return self.anybody();
        }
        leaders[self.dice.below(leaders.len() as u64) as usize]
    }

    /// An operator wants other members, or another leader.
    fn order(&mut self) {
        let group = GroupId(self.dice.below(GROUPS.into()) as u32);
        let id = self.likely_leader(group);
        let (mut voters, mut learners) = (Vec::new(), Vec::new());
        for id in self.nodes.keys().copied() {
            match self.dice.below(4) {
                0 | 1 => voters.push(id),
                2 if self.dice.one_in(2) => learners.push(id),
                _ => {}
            }
        }
        if self.plan.rotting && voters.len() < 3 {
            voters = self.nodes.keys().copied().take(3).collect();
            learners.retain(|id| !voters.contains(id));
        }
        let to = self.anybody();
        let order = match voters.is_empty() || self.dice.one_in(3) {
            true => Order::Transfer { group, to },
            false => Order::ChangeMembers { group, voters, learners },
        };
        self.changes += 1;
        self.nodes.get_mut(&id).expect("it is one of them").input.orders.push(order);
    }

    /// A client proposes something to somebody, or looks at something.
    fn ask(&mut self) {
        let group = GroupId(self.dice.below(GROUPS.into()) as u32);
        let id = self.anybody();
        let node = self.nodes.get_mut(&id).expect("nodes are numbered from 1");
        if node.engine.is_none() {
            return;
        }
        if self.dice.one_in(5) {
            let look = (group, self.checker.acknowledged_count(group));
            node.input.reads.push((group, look));
            return;
        }
        for _ in 0..1 + self.dice.below(4) {
            let len = if self.dice.one_in(30) { 3000 } else { self.dice.below(200) };
            let on_full = if self.dice.one_in(4) { OnFull::Wait } else { OnFull::Refuse };
            self.propose_as(id, group, len as usize, on_full);
        }
    }

    /// A client proposes a command to a node that is up.
    pub(super) fn propose(&mut self, id: u64, group: GroupId, len: usize) {
        self.propose_as(id, group, len, OnFull::Refuse);
    }

    /// The same, and what happens to the command while the disk is full.
    pub(super) fn propose_as(&mut self, id: u64, group: GroupId, len: usize, on_full: OnFull) {
        let number = self.next_number;
        self.next_number += 1;
        self.asked.insert(number, id);
        self.checker.proposed(number, id, self.nodes[&id].lives, on_full);
        let command = command(number, len);
        let reply = Some(number);
        let node = self.nodes.get_mut(&id).expect("only known nodes are asked");
        node.input.proposals.push(Proposal { group, command, reply, on_full });
    }

    /// Checks what a node shows after a turn.
    fn listen(&mut self, id: u64) -> Result<(), String> {
        let node = self.nodes.get_mut(&id).expect("only known nodes take turns");
        let Some(engine) = &mut node.engine else { return Ok(()) };
        let heard = std::mem::take(&mut engine.host().heard);
        for group in (0..GROUPS).map(GroupId) {
            let machine = engine.machine(group).expect("every group has a machine");
            let applied = engine.status(group).expect("every group has a status").applied;
            let seen = &mut node.seen[group.0 as usize];
            self.checker
                .applied(group, machine, *seen, applied)
                .map_err(|e| format!("node {id} group {group}: {e}"))?;
            *seen = machine.numbers.len();
        }
        let mut hasher = DefaultHasher::new();
        (self.trace, self.millis, id, format!("{heard:?}")).hash(&mut hasher);
        self.trace = hasher.finish();
        let takes_part =
            |it: Status| !it.removed && (it.voters.contains(&id) || it.learners.contains(&id));
        let is_member = (0..GROUPS).filter_map(|it| engine.status(GroupId(it))).all(takes_part);
        for event in heard {
            match event {
                Heard::Led(group, count) => {
                    let leads = &mut node.leads[group.0 as usize];
                    if std::mem::replace(leads, true) {
                        return Err(format!("node {id} is told twice that it leads {group}"));
                    }
                    let term = engine.status(group).expect("every group has a status").term;
                    self.checker.led(group, id, term, count)?;
                }
                Heard::Lost(group) => {
                    let leads = &mut node.leads[group.0 as usize];
                    if !std::mem::replace(leads, false) {
                        return Err(format!("node {id} loses {group}, which it did not lead"));
                    }
                }
                Heard::Applied(group, number) => {
                    answered(&mut self.asked, number)?;
                    self.checker.acknowledged(group, number)?;
                }
                Heard::Seen(group, found, acknowledged) => {
                    self.looks += 1;
                    if found < acknowledged {
                        return Err(format!(
                            "node {id} shows {found} of {acknowledged} commands of {group}"
                        ));
                    }
                }
                Heard::Unseen => self.unseen += 1,
                Heard::Replaced => self.snapshots += 1,
                Heard::Refused(number, why) => {
                    answered(&mut self.asked, number)?;
                    self.refused.push(why);
                    self.checker.refused(number, why, node.was_member && is_member)?;
                }
            }
        }
        node.was_member = is_member;
        Ok(())
    }

    pub(super) fn crash(&mut self, id: u64) {
        let up_at = self.millis + 50 + self.dice.below(3000);
        let node = self.nodes.get_mut(&id).expect("only known nodes crash");
        node.crash(&mut self.dice, up_at);
        // Nobody is left to answer.
        self.asked.retain(|_, of| *of != id);
    }

    fn anybody(&mut self) -> u64 {
        1 + self.dice.below(self.nodes.len() as u64)
    }

    /// Now and then something goes wrong, or is mended.
    fn trouble(&mut self) {
        if self.plan.lying {
            self.lie();
        }
        if self.plan.rotting && self.dice.one_in(200) {
            self.rot();
        }
        if !self.dice.one_in(120) {
            return;
        }
        let id = self.anybody();
        match self.dice.below(17) {
            0..3 => self.crash(id),
            3 => {
                // Its disk takes nothing any more; it finds out with its next sync.
                if self.nodes[&id].engine.is_some() {
                    self.nodes[&id].disk.fail_syncs();
                }
            }
            4 => {
                let parts = 2 + self.dice.below(2);
                let part = |dice: &mut Dice| dice.below(parts);
                let ids: Vec<_> = self.nodes.keys().copied().collect();
                let parts = ids.into_iter().map(|id| (id, part(&mut self.dice))).collect();
                self.network.split(&parts);
            }
            5 => {
                let ids = self.nodes.keys().copied();
                self.network.split(&ids.map(|other| (other, u64::from(other == id))).collect());
            }
            6 => {
                let other = self.anybody();
                self.network.cut(id, other);
            }
            7 => {
                self.network.weather = Weather {
                    lost: self.dice.below(200),
                    doubled: self.dice.below(100),
                    overtaking: self.dice.below(500),
                    delay: 1 + self.dice.below(300),
                };
            }
            8..10 => self.network.heal(),
            10 => {
                let slow = if self.dice.one_in(2) { self.dice.below(300) } else { 0 };
                self.nodes.get_mut(&id).expect("it is one of them").sync_ms = slow;
            }
            11 => {
                let failing = if self.dice.one_in(2) { Failing::Yes } else { Failing::Full };
                self.nodes[&id].store.set_failing(failing);
            }
            12 => self.nodes[&id].store.set_failing(Failing::No),
            13..16 => self.order(),
            _ => {
                let node = self.nodes.get_mut(&id).expect("it is one of them");
                node.is_full = self.dice.one_in(2);
                let room = if node.is_full { 2000 } else { u64::MAX };
                node.disk.set_capacity(node.disk.used_bytes().saturating_add(room));
            }
        }
    }

    /// A node goes down and its disk rots, if all that rotted before is mended.
    fn rot(&mut self) {
        if self.rotten.is_some_and(|id| self.is_damaged(id)) {
            return;
        }
        let id = self.anybody();
        self.damage(id);
    }

    /// A node goes down and its disk rots.
    pub(super) fn damage(&mut self, id: u64) {
        self.crash(id);
        self.rotten = Some(id);
        self.damages += 1;
        let node = self.nodes.get_mut(&id).expect("only known nodes rot");
        node.rot(&mut self.dice);
    }

    /// All disks begin to lie, and soon after the power fails.
    fn lie(&mut self) {
        if self.lies && self.dice.one_in(50) {
            self.lies = false;
            (1..=self.nodes.len() as u64).for_each(|id| self.crash(id));
        } else if !self.lies && self.dice.one_in(200) {
            self.lies = true;
            self.nodes.values().for_each(|node| node.disk.lie_about_syncs());
        }
    }

    fn heal(&mut self) {
        self.network.heal();
        for node in self.nodes.values_mut() {
            (node.sync_ms, node.is_full) = (0, false);
            node.store.set_failing(Failing::No);
            node.disk.set_capacity(u64::MAX);
            node.up_at = node.up_at.min(self.millis + 500);
        }
    }
}

/// How a node runs its groups: everything is small.
fn config(id: u64, voters: &[u64], dice: &mut Dice) -> Config {
    let group = |group| GroupConfig { id: GroupId(group), voters: voters.to_vec() };
    Config {
        node: id,
        groups: (0..GROUPS).map(group).collect(),
        segment_bytes: 16 << 10,
        checkpoint_bytes: 24 << 10,
        checkpoint_interval: Duration::from_secs(3),
        max_log_bytes: 16 << 20,
        max_command_bytes: 4 << 10,
        min_free_bytes: 0,
        lag_bytes: if dice.one_in(2) { 0 } else { 64 << 10 },
        snapshot_chunk_bytes: 1 + dice.below(1000) as usize,
        snapshot_window_bytes: 2000,
        ..Config::new("/data", 0)
    }
}

fn answered(asked: &mut BTreeMap<u64, u64>, number: u64) -> Result<(), String> {
    asked.remove(&number).map(drop).ok_or(format!("{number} is answered twice"))
}
