//! A cluster in one thread: time, faults and clients from a seed.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::{Deref, DerefMut};

use cluster::{GroupId, OnFull, Order, Proposal, Refusal, Status};
use simulation::{Cluster, Turned, small};
use storage::dice::Dice;

use super::checker::Checker;
use super::witness::{Heard, Witness};
use crate::chronicle::{Chronicle, command};

const GROUPS: u32 = 3;
/// How long faults go on, and how soon after their end everything must be well: some nodes send
/// snapshots a few bytes at a time.
const TROUBLE: u64 = 40_000;
const RECOVERY: u64 = 60_000;

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

/// What a node has shown in its present life.
#[derive(Default)]
struct Shown {
    /// How many commands of each group.
    seen: [usize; GROUPS as usize],
    /// Which groups it leads, by what its host heard.
    leads: [bool; GROUPS as usize],
    /// Whether it was a member of all groups after its last turn: within one that can change.
    was_member: bool,
}

pub(super) struct World {
    plan: Plan,
    cluster: Cluster<Chronicle, Witness>,
    shown: BTreeMap<u64, Shown>,
    /// Whether the disks say that they have synced and have not.
    lies: bool,
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

impl Deref for World {
    type Target = Cluster<Chronicle, Witness>;

    fn deref(&self) -> &Self::Target {
        &self.cluster
    }
}

impl DerefMut for World {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.cluster
    }
}

impl World {
    pub(super) fn new(seed: u64, plan: Plan) -> Self {
        let mut dice = Dice::new(seed);
        let (count, others) = plan.size.unwrap_or_else(|| {
            let count = if dice.one_in(3) { 5 } else { 3 };
            (count, dice.below(3))
        });
        let founders: Vec<u64> = (1..=count).collect();
        let mut cluster = Cluster::new(seed, dice);
        // Some run at first without being members, and of these some without knowing any.
        for id in 1..=count + others {
            let is_unfounded = id > count && plan.size.is_none() && cluster.dice.one_in(2);
            let voters = if is_unfounded { &[][..] } else { &founders };
            let config = small(id, GROUPS, voters, &mut cluster.dice);
            cluster.add(id, config);
        }
        Self {
            plan,
            cluster,
            shown: BTreeMap::new(),
            lies: false,
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
        }
    }

    /// Another node, which knows nobody.
    pub(super) fn add_unfounded(&mut self) -> u64 {
        let id = self.nodes.len() as u64 + 1;
        let config = small(id, GROUPS, &[], &mut self.dice);
        self.add(id, config);
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
        let leads = move |(_, shown): &(&u64, &Shown)| shown.leads[group.0 as usize];
        self.shown.iter().filter(leads).map(|(id, _)| *id)
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

    /// A moment passes; clients ask with a chance of `busy` in a hundred.
    pub(super) fn step(&mut self, busy: u64) -> Result<(), String> {
        self.pass();
        if self.dice.below(100) < busy {
            self.ask();
        }
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            let turned = self.turn(id, |_| Chronicle::default(), |_| Witness::default());
            match turned.map_err(|error| format!("node {id} cannot go on: {error}"))? {
                Turned::Idle => {}
                Turned::Started | Turned::Took => self.listen(id)?,
                Turned::Failed => {
                    self.listen(id)?;
                    self.crash(id);
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
        for id in self.cluster.nodes.keys().copied() {
            match self.cluster.dice.below(4) {
                0 | 1 => voters.push(id),
                2 if self.cluster.dice.one_in(2) => learners.push(id),
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
        let node = self.cluster.nodes.get_mut(&id).expect("nodes are numbered from 1");
        if node.engine.is_none() {
            return;
        }
        if self.cluster.dice.one_in(5) {
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
        self.checker.proposed(number, id, self.cluster.nodes[&id].lives, on_full);
        let command = command(number, len);
        let reply = Some(number);
        let node = self.nodes.get_mut(&id).expect("only known nodes are asked");
        node.input.proposals.push(Proposal { group, command, reply, on_full });
    }

    /// Checks what a node shows after a turn.
    fn listen(&mut self, id: u64) -> Result<(), String> {
        let node = self.cluster.nodes.get_mut(&id).expect("only known nodes take turns");
        let shown = self.shown.entry(id).or_default();
        let Some(engine) = &mut node.engine else { return Ok(()) };
        let heard = std::mem::take(&mut engine.host().heard);
        for group in (0..GROUPS).map(GroupId) {
            let machine = engine.machine(group).expect("every group has a machine");
            let applied = engine.status(group).expect("every group has a status").applied;
            let seen = &mut shown.seen[group.0 as usize];
            self.checker
                .applied(group, machine, *seen, applied)
                .map_err(|e| format!("node {id} group {group}: {e}"))?;
            *seen = machine.numbers.len();
        }
        let mut hasher = DefaultHasher::new();
        (self.trace, self.cluster.millis, id, format!("{heard:?}")).hash(&mut hasher);
        self.trace = hasher.finish();
        let takes_part =
            |it: Status| !it.removed && (it.voters.contains(&id) || it.learners.contains(&id));
        let is_member = (0..GROUPS).filter_map(|it| engine.status(GroupId(it))).all(takes_part);
        for event in heard {
            match event {
                Heard::Led(group, count) => {
                    let leads = &mut shown.leads[group.0 as usize];
                    if std::mem::replace(leads, true) {
                        return Err(format!("node {id} is told twice that it leads {group}"));
                    }
                    let term = engine.status(group).expect("every group has a status").term;
                    self.checker.led(group, id, term, count)?;
                }
                Heard::Lost(group) => {
                    let leads = &mut shown.leads[group.0 as usize];
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
                    self.checker.refused(number, why, shown.was_member && is_member)?;
                }
            }
        }
        shown.was_member = is_member;
        Ok(())
    }

    pub(super) fn crash(&mut self, id: u64) {
        self.cluster.crash(id);
        self.shown.remove(&id);
        // Nobody is left to answer.
        self.asked.retain(|_, of| *of != id);
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
        if self.dice.one_in(6) {
            self.order();
        } else if let Some(id) = self.cluster.trouble() {
            self.crash(id);
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
        let Cluster { nodes, dice, .. } = &mut self.cluster;
        nodes.get_mut(&id).expect("only known nodes rot").rot(dice);
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
}

fn answered(asked: &mut BTreeMap<u64, u64>, number: u64) -> Result<(), String> {
    asked.remove(&number).map(drop).ok_or(format!("{number} is answered twice"))
}
