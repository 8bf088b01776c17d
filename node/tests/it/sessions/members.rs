//! Members that change: an operator adds nodes, takes nodes out, and replaces nodes whose disk is gone.
//!
//! What is wished for is asked of any node, as `skein cluster` does, until it is so. One wish comes after
//! the other, and none before all groups have the voters that they shall have.

use std::collections::{BTreeMap, BTreeSet};

use axum::Json;
use axum::extract::State;
use cluster::GroupId;
use fleet::registry::{Member, MemberStatus};
use node::admin::change::{Wish, change};
use node::host::Machine;
use storage::dice::Dice;

use super::life::{Life, SHARDS, address_of};
use super::world::{World, config};

/// Milliseconds between two looks at how far a wish is, and until it is asked for again.
const LOOKS: u64 = 100;
const ASKS_AGAIN: u64 = 1000;

/// As many nodes have to be left, and so many may there be.
const FEWEST: usize = 3;
const MOST: usize = 6;

/// What is wished for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    /// A node more, with an empty disk.
    Add,
    /// A node less, once it is drained.
    Remove,
    /// A node is gone with its disk, and has to be taken out; then comes [`Goal::Add`].
    Lose,
}

/// See the module.
pub(super) struct Operator {
    dice: Dice,
    goal: Option<(Goal, u64)>,
    /// The nodes that belong to the cluster when nothing is wished for.
    pub(super) members: BTreeSet<u64>,
    /// Which data folder each node has.
    folders: BTreeMap<u64, u64>,
    rests_until: u64,
    asked: u64,
    pub(super) added: usize,
    pub(super) removed: usize,
    pub(super) lost: usize,
}

impl Operator {
    /// Chance is its own.
    pub(super) fn new(seed: u64, founders: &[u64]) -> Self {
        Self {
            dice: Dice::new(seed ^ 0x0be2_a702_0be2_a702),
            goal: None,
            members: founders.iter().copied().collect(),
            folders: BTreeMap::new(),
            rests_until: 0,
            asked: 0,
            added: 0,
            removed: 0,
            lost: 0,
        }
    }

    /// Chance for something beside it.
    pub(super) fn split(&mut self) -> Dice {
        Dice::new(self.dice.bits())
    }

    /// The name of a node's data folder.
    pub(super) fn folder(&self, node: u64) -> String {
        format!("folder-{node}-{}", self.folders.get(&node).copied().unwrap_or_default())
    }

    fn member(&mut self) -> u64 {
        let at = self.dice.below(self.members.len() as u64) as usize;
        self.members.iter().copied().nth(at).expect("there are some")
    }

    /// A wish, and the node that it is about; `nodes` were there at any time.
    fn wish(&mut self, nodes: usize) -> (Goal, u64) {
        match self.dice.below(3) {
            0 => (Goal::Lose, self.member()),
            1 if self.members.len() > FEWEST => (Goal::Remove, self.member()),
            2 if self.members.len() >= MOST => (Goal::Remove, self.member()),
            _ => {
                let gone: Vec<u64> =
                    (1..=nodes as u64).filter(|node| !self.members.contains(node)).collect();
                if gone.is_empty() || self.dice.one_in(2) {
                    return (Goal::Add, nodes as u64 + 1);
                }
                (Goal::Add, gone[self.dice.below(gone.len() as u64) as usize])
            }
        }
    }
}

impl World {
    /// The nodes that belong to the cluster.
    pub(super) fn members(&self) -> Vec<u64> {
        match &self.operator {
            Some(operator) => operator.members.iter().copied().collect(),
            None => self.founders.clone(),
        }
    }

    /// The nodes that a node is told of when it starts: founders always of each other.
    pub(super) fn known(&self, id: u64) -> Vec<u64> {
        let founds = !self.cluster.nodes[&id].config.groups[0].voters.is_empty();
        if founds { self.founders.clone() } else { self.members() }
    }

    /// Whether nothing is wished for any more, and all that was is so.
    pub(super) fn is_as_wished(&self) -> bool {
        self.operator.as_ref().is_none_or(|it| it.goal.is_none() && self.is_placed())
    }

    /// The operator does what is next.
    pub(super) fn operate(&mut self) {
        let now = self.cluster.millis;
        let Some(operator) = self.operator.as_ref().filter(|_| now.is_multiple_of(LOOKS)) else {
            return;
        };
        let members = self.registered();
        let is_out = |node: &&u64| {
            members.get(node).is_some_and(|member| member.status == MemberStatus::Removed)
        };
        match operator.goal {
            // A wish to take it out was heard again, late, by a node that had stood still.
            None if let Some(&node) = operator.members.iter().find(is_out) => {
                let operator = self.operator.as_mut().expect("there is one");
                operator.members.remove(&node);
                (operator.goal, operator.asked) = (Some((Goal::Add, node)), 0);
                self.crash(node);
                self.empty(node, true);
            }
            None if self.wishes && operator.rests_until <= now && self.is_placed() => self.begin(),
            None => {}
            Some((goal, node)) => self.pursue(goal, node, members.get(&node)),
        }
    }

    /// The members, as the node knows them that has heard most.
    fn registered(&self) -> BTreeMap<u64, Member> {
        let engines = self.cluster.nodes.values().filter_map(|node| node.engine.as_ref());
        let latest = engines.max_by_key(|it| it.status(GroupId::META).map(|status| status.applied));
        let machine = latest.and_then(|engine| engine.machine(GroupId::META));
        machine.and_then(Machine::registry).map(|it| it.members().clone()).unwrap_or_default()
    }

    /// Whether every group has as many voters as it shall have, all of them members with a known folder.
    fn is_placed(&self) -> bool {
        let Some(operator) = &self.operator else { return true };
        let voters = operator.members.len().min(fleet::placement::VOTERS);
        let is_settled = |status: cluster::Status| {
            status.leads
                && status.wanted.is_none()
                && status.voters.len() == voters
                && status.voters.iter().all(|voter| operator.members.contains(voter))
        };
        // A folder that is lost before the members know it is not missed (ADR 13).
        let members = self.registered();
        let is_known = |node| members.get(node).is_some_and(|member| member.folder.is_some());
        if !operator.members.iter().all(is_known) {
            return false;
        }
        let ids: Vec<_> = self.cluster.nodes.keys().copied().collect();
        (0..=u32::from(SHARDS)).map(GroupId).all(|group| {
            ids.iter().any(|&id| self.cluster.status(id, group).is_some_and(is_settled))
        })
    }

    /// What is wished for, and how far it is, for people.
    pub(super) fn wished(&self) -> String {
        let groups = (0..=u32::from(SHARDS)).map(GroupId);
        let of = |group| {
            let ids = self.cluster.nodes.keys();
            let statuses = ids.filter_map(|id| Some((*id, self.cluster.status(*id, group)?)));
            statuses
                .filter(|(_, it)| it.leads)
                .map(|(id, it)| (id, it.voters, it.learners, it.wanted))
                .collect::<Vec<_>>()
        };
        let groups: Vec<_> = groups.map(of).collect();
        let goal = self.operator.as_ref().map(|it| (it.goal, &it.members));
        let up: Vec<_> = self.lives.keys().collect();
        let members = self.registered();
        let members: Vec<_> = members.iter().map(|(id, it)| (id, it.status, it.drain)).collect();
        format!("wished {goal:?}, up {up:?}, members {members:?}, groups {groups:?}")
    }

    fn begin(&mut self) {
        let nodes = self.cluster.nodes.len();
        let operator = self.operator.as_mut().expect("there is one");
        let (goal, node) = operator.wish(nodes);
        (operator.goal, operator.asked) = (Some((goal, node)), 0);
        // Some are there before they are let in.
        let comes_early = operator.dice.one_in(2);
        match goal {
            Goal::Remove => {}
            Goal::Lose => {
                operator.lost += 1;
                self.crash(node);
                self.empty(node, comes_early);
            }
            Goal::Add => self.empty(node, comes_early),
        }
    }

    /// A node is there, or will be, with an empty disk.
    fn empty(&mut self, node: u64, comes: bool) {
        let operator = self.operator.as_mut().expect("there is one");
        *operator.folders.entry(node).or_default() += 1;
        let lives = self.cluster.nodes.get(&node).map_or(0, |before| before.lives);
        let config = config(&mut self.cluster.dice, node, &[], self.plan);
        self.cluster.add(node, config);
        let new = self.cluster.nodes.get_mut(&node).expect("it was just added");
        // As it is when it begins with the time.
        new.lives = lives;
        new.up_at = if comes { self.cluster.millis } else { u64::MAX };
        self.stage.nodes.set(self.cluster.nodes.len() as u64);
    }

    fn pursue(&mut self, goal: Goal, node: u64, member: Option<&Member>) {
        let status = member.map(|member| member.status);
        let operator = self.operator.as_mut().expect("there is one");
        let done = match (goal, status) {
            (Goal::Add, Some(MemberStatus::Active)) => {
                operator.added += 1;
                operator.members.insert(node)
            }
            (Goal::Remove, Some(MemberStatus::Removed)) => {
                operator.removed += 1;
                operator.members.remove(&node)
            }
            (Goal::Lose, Some(MemberStatus::Removed)) => {
                operator.members.remove(&node);
                operator.goal = Some((Goal::Add, node));
                false
            }
            _ => false,
        };
        let now = self.cluster.millis;
        if done {
            operator.goal = None;
            operator.rests_until = now + operator.dice.below(1500);
            return;
        }
        let folder = operator.folder(node);
        let is_former = member.is_some_and(|member| member.former_folders.contains(&folder));
        if goal == Goal::Add && is_former {
            // A wish to take it out was heard again, late, by a node that had stood still.
            self.crash(node);
            self.empty(node, true);
        }
        let operator = self.operator.as_mut().expect("there is one");
        if goal == Goal::Add {
            // Whoever supervises it starts it again, too.
            let joining = self.cluster.nodes.get_mut(&node).expect("it was added");
            joining.up_at = joining.up_at.min(now + 500);
        }
        let address = address_of(node);
        let wish = match (goal, status) {
            (Goal::Add, None | Some(MemberStatus::Removed)) => Wish::Add { node, address },
            (Goal::Remove, Some(MemberStatus::Active)) => Wish::Remove { node, dead: false },
            (Goal::Lose, Some(MemberStatus::Active | MemberStatus::Joining)) => {
                Wish::Remove { node, dead: true }
            }
            _ => return,
        };
        if operator.asked + ASKS_AGAIN <= now {
            operator.asked = now;
            self.ask(wish);
        }
    }

    /// Asks some node that serves clients.
    fn ask(&mut self, wish: Wish) {
        let serving: Vec<u64> = self.stage.entrances.borrow().keys().copied().collect();
        let operator = self.operator.as_mut().expect("there is one");
        if serving.is_empty() {
            return;
        }
        let node = serving[operator.dice.below(serving.len() as u64) as usize];
        let Some(life) = self.lives.get(&node) else { return };
        let shared = life.shared();
        life.tasks.spawn_local(async move {
            // What came of it, the members tell.
            let _ = change(State(shared), None, Json(wish)).await;
        });
    }

    /// Nodes that have learnt everything let clients in, and those that are no members stop.
    pub(super) fn open_and_stop(&mut self) {
        for (&id, life) in &self.lives {
            if !self.stage.entrances.borrow().contains_key(&id) && !life.is_joining() {
                self.stage.entrances.borrow_mut().insert(id, life.entrance());
            }
        }
        let expelled = |(id, life): (&u64, &Life)| life.is_expelled().then_some(*id);
        for id in self.lives.iter().filter_map(expelled).collect::<Vec<_>>() {
            self.end(id);
            self.cluster.nodes.get_mut(&id).expect("it is one of them").up_at = u64::MAX;
        }
    }
}
