//! Who is in a group, and how that changes.
//!
//! What was asked for stands in the entries that change the members, so that the next leader goes on
//! with it: nodes that join learn first, and once they have what is committed all changes of voters
//! are made in one joint step. A leader that is to go hands over before that step ends.

use std::collections::BTreeSet;

use protobuf::Message as _;
use raft::ProgressState;
use raft::prelude::{
    ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState,
};
use tracing::{info, warn};

use super::Engine;
use super::group::Group;
use crate::host::Host;
use crate::input::Order;
use crate::machine::StateMachine;
use crate::peers::Letter;

/// A node that lacks fewer entries than this has caught up.
const CAUGHT_UP: u64 = 64;

/// What a leader does next to change members.
enum Step {
    Propose(ConfChangeV2),
    HandOver(u64),
}

impl<R, S> Group<R, S> {
    /// A change of members is committed.
    pub(super) fn change_members(&mut self, change: &ConfChangeV2) {
        self.members_changed = true;
        self.dirty = true;
        match self.raft.apply_conf_change(change) {
            Ok(conf) => self.members.conf = conf,
            // Every replica finds the same.
            Err(error) => return warn!(group = %self.id, %error, "a change of members is void"),
        }
        if !change.context.is_empty() {
            self.members.target = ConfState::parse_from_bytes(&change.context).ok();
        }
        if self.members.are_as_asked() {
            self.members.target = None;
        }
        self.asked = None;
        let node = self.raft.raft.id;
        self.removed = !self.members.contain(node);
        info!(group = %self.id, voters = ?self.members.conf.voters, "members have changed");
        let conf = &self.members.conf;
        let decides = conf.voters.contains(&node) || conf.voters_outgoing.contains(&node);
        if !decides && self.is_leader() {
            // The voters elect another one. Raft would go on, and take a sole voter's word, which it
            // thinks is its own, for that of a quorum when it is asked what is committed.
            let term = self.raft.raft.term;
            self.raft.raft.become_follower(term, raft::INVALID_ID);
        }
    }

    /// The last entry that every member has, as far as a leader knows.
    pub(super) fn last_of_all(&self) -> u64 {
        if !self.is_leader() {
            return u64::MAX;
        }
        let raft = &self.raft.raft;
        let others = raft.prs().iter().filter(|(id, _)| **id != raft.id);
        others.map(|(_, progress)| progress.matched).min().unwrap_or(u64::MAX)
    }

    /// A member has nothing at all and cannot begin with entries: it gets a snapshot instead.
    pub(super) fn owe_snapshot(&mut self, to: u64) {
        if !self.is_leader() {
            return;
        }
        let progress = self.raft.raft.mut_prs().get_mut(to);
        if let Some(progress) = progress.filter(|it| it.state != ProgressState::Snapshot) {
            // Any that there is.
            progress.pending_request_snapshot = 1;
        }
    }

    /// Whether a node could be a voter at once.
    fn has_caught_up(&self, node: u64) -> bool {
        let raft = &self.raft.raft;
        raft.prs().get(node).is_some_and(|it| {
            it.recent_active
                && it.state == ProgressState::Replicate
                && it.matched + CAUGHT_UP >= raft.raft_log.committed
        })
    }

    fn next_step(&self) -> Option<Step> {
        if self.led.is_none() || self.raft.raft.has_pending_conf() {
            return None;
        }
        let (node, conf) = (self.raft.raft.id, &self.members.conf);
        if !conf.voters_outgoing.is_empty() {
            let heir = conf.voters.iter().copied().filter(|&id| self.has_caught_up(id));
            let heir = heir.max_by_key(|&id| self.raft.raft.prs().get(id).map(|it| it.matched));
            return match heir.filter(|_| !conf.voters.contains(&node)) {
                Some(heir) => Some(Step::HandOver(heir)),
                None => Some(Step::Propose(ConfChangeV2::default())),
            };
        }
        let target = self.asked.as_ref().or(self.members.target.as_ref())?;
        if ![&conf.voters, &target.voters].into_iter().all(|it| self.decide_without_damaged(it)) {
            // It would never come to its end: the damaged need a majority to be mended.
            return None;
        }
        let mut changes = changes_to(conf, target, |id| self.has_caught_up(id));
        if changes.is_empty() {
            // Nothing can be done yet; but what is asked for must be known to the next leader.
            self.asked.as_ref()?;
            changes.push(single(ConfChangeType::AddNode, *conf.voters.first()?));
        }
        let mut change = ConfChangeV2::default();
        if changes.len() > 1 {
            change.set_transition(ConfChangeTransition::Explicit);
        }
        change.set_changes(changes.into());
        change.context = target.write_to_bytes().ok()?.into();
        Some(Step::Propose(change))
    }

    /// Brings the members nearer to what is asked for.
    fn converge(&mut self) {
        match self.next_step() {
            Some(Step::HandOver(heir)) => self.raft.transfer_leader(heir),
            Some(Step::Propose(change)) => {
                // Refused while it hands over; tried again at the next tick.
                let _ = self.raft.propose_conf_change(Vec::new(), change);
            }
            None => {}
        }
    }
}

fn single(kind: ConfChangeType, node: u64) -> ConfChangeSingle {
    let mut change = ConfChangeSingle::default();
    change.set_change_type(kind);
    change.node_id = node;
    change
}

/// The next changes on the way from members to others; none while a learner has not caught up.
fn changes_to(
    conf: &ConfState,
    target: &ConfState,
    has_caught_up: impl Fn(u64) -> bool,
) -> Vec<ConfChangeSingle> {
    let known = |id: &&u64| conf.voters.contains(id) || conf.learners.contains(id);
    let learner = |&id: &u64| single(ConfChangeType::AddLearnerNode, id);
    let wanted = || target.voters.iter().chain(&target.learners);
    let joining: Vec<_> = wanted().filter(|id| !known(id)).map(learner).collect();
    if !joining.is_empty() {
        return joining;
    }
    let promoted = || target.voters.iter().filter(|id| !conf.voters.contains(id));
    if !promoted().all(|&id| has_caught_up(id)) {
        return Vec::new();
    }
    let promoted = promoted().map(|&id| single(ConfChangeType::AddNode, id));
    let demoted = target.learners.iter().filter(|id| conf.voters.contains(id)).map(learner);
    let gone = conf.voters.iter().chain(&conf.learners);
    let gone = gone.filter(|id| !wanted().any(|it| it == *id));
    let gone = gone.map(|&id| single(ConfChangeType::RemoveNode, id));
    promoted.chain(demoted).chain(gone).collect()
}

impl<M: StateMachine, H: Host<M>> Engine<M, H> {
    /// Takes what operators want of groups that this node leads.
    pub(super) fn obey(&mut self, orders: &mut Vec<Order>) {
        for order in orders.drain(..) {
            let group = match &order {
                Order::ChangeMembers { group, .. } | Order::Transfer { group, .. } => group,
                Order::Abstain(leaves) => {
                    self.room.leaves = *leaves;
                    continue;
                }
            };
            let Some(&place) = self.places.get(group) else { continue };
            let group = &mut self.groups[place];
            if group.led.is_none() || self.held.is_some() || group.stands_still {
                warn!(group = %group.id, ?order, "this node does not lead the group");
                continue;
            }
            match order {
                Order::ChangeMembers { voters, learners, .. } if !voters.is_empty() => {
                    let mut asked = ConfState::default();
                    asked.set_voters(voters);
                    asked.set_learners(learners);
                    group.asked = Some(asked);
                    self.roles_changed = true;
                }
                Order::ChangeMembers { .. } => warn!(group = %group.id, "no group without voters"),
                Order::Transfer { to, .. } if group.is_damaged(to) => {
                    warn!(group = %group.id, to, "a damaged replica leads nothing");
                }
                Order::Transfer { to, .. } => group.raft.transfer_leader(to),
                Order::Abstain(_) => {}
            }
        }
    }

    /// Who hears no leader may be a member no more. Those that it takes for members may not be either,
    /// and not know: so all are asked whom any group knows.
    pub(super) fn ask_whether_removed(&mut self, place: usize) {
        let (node, group) = (self.config.node, &self.groups[place]);
        if !group.members.contain(node) {
            return;
        }
        let letter = Letter::Asking { applied: group.applied.index };
        let known: BTreeSet<u64> = self.groups.iter().flat_map(|it| it.members.all()).collect();
        for other in known.into_iter().filter(|&id| id != node) {
            self.outgoing.add(other, group.id, &letter);
        }
    }

    /// A node that hears no leader may have been removed. Whoever has seen more can tell.
    pub(super) fn tell_member(&mut self, from: u64, place: usize, applied: u64) {
        let group = &self.groups[place];
        if group.applied.index > applied && !group.members.contain(from) {
            let letter = Letter::Removed { applied: group.applied.index };
            self.outgoing.add(from, group.id, &letter);
        }
    }

    /// Somebody says that this node is no member; who has seen as much knows better.
    pub(super) fn hear_removed(&mut self, place: usize, applied: u64) {
        let group = &mut self.groups[place];
        if applied > group.applied.index && !group.is_leader() && !group.removed {
            info!(group = %group.id, "this node is no member any more");
            group.removed = true;
            // It may be about to win an election of members that are no more.
            let term = group.raft.raft.term;
            group.raft.raft.become_follower(term, raft::INVALID_ID);
            self.roles_changed = true;
        }
    }

    /// Goes on with changes of members.
    pub(super) fn tick_members(&mut self) {
        for group in &mut self.groups {
            if group.led.is_none() {
                group.asked = None;
            }
            group.converge();
        }
    }
}
