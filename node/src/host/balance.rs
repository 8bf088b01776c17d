//! Spreads the leads of a cluster's groups: each has a node that leads it when that is up.
//!
//! Which one is decided by rendezvous hashing among the voters that are linked, in service, and have room
//! on their disks, so that all nodes find the same without asking, and the loss of a node moves only
//! what it led; an operator may prefer another of these.

use std::time::Duration;

use cluster::{GroupId, GroupsView, Order};
use fleet::placement::weight;
use tokio::time::Instant;
use tracing::{debug, info};

use super::{Machine, NodeHost};

/// A lead at a time, and no more often: whoever gets one must have all there is first.
const EVERY: Duration = Duration::from_secs(3);

/// For so long whoever got the lead of the members' group keeps it.
const RESTS_FOR: Duration = Duration::from_secs(5);

/// As often that lead is given up for those who do not believe its leader.
const GIVES_WAY_EVERY: Duration = Duration::from_secs(60);

/// The node that should lead a group.
fn leader_of(group: GroupId, nodes: impl Iterator<Item = u64>) -> Option<u64> {
    nodes.max_by_key(|node| (weight(group.0, *node), *node))
}

impl NodeHost {
    /// Hands a lead over that is another node's.
    pub(super) fn balance(&mut self, groups: &GroupsView<'_, Machine>) {
        let is_time = self.balanced.elapsed() >= EVERY;
        if !is_time || !self.shared.mesh.has_peers() || self.shared.draining() {
            return;
        }
        self.balanced = Instant::now();
        // Unless this node should lead nothing.
        let rests = self.meta_lead_rests(groups.leads(GroupId::META)) && !groups.abstains();
        let (own, linked) = (self.shared.mesh.own.node(), self.shared.mesh.linked());
        let registry = groups.get(GroupId::META).and_then(Machine::registry);
        let preferred = |id: GroupId| registry?.preferred_leaders().get(&id.0).copied();
        let may_lead = |node: &u64| {
            let can = match *node == own {
                true => !groups.abstains(),
                false => linked.contains(node) && !groups.abstains_at(*node),
            };
            can && self.shared.mesh.roster.may_lead(*node)
        };
        let led = groups.ids().into_iter().filter(|id| groups.leads(*id));
        let voters =
            |id| groups.status(id).map(|it| it.voters.clone()).unwrap_or_default().into_iter();
        let misplaced = led.filter(|id| !(rests && *id == GroupId::META)).filter_map(|id| {
            let mut up = voters(id).filter(may_lead);
            let leader = match preferred(id) {
                Some(preferred) if up.clone().any(|node| node == preferred) => Some(preferred),
                _ => leader_of(id, up.by_ref()),
            };
            leader.filter(|to| *to != own).map(|to| (id, to))
        });
        // What a node should not lead has to move at once.
        let at_once = if groups.abstains() { usize::MAX } else { 1 };
        for (group, to) in misplaced.take(at_once) {
            debug!(%group, to, "a lead is handed over");
            self.shared.groups.order(Order::Transfer { group, to });
        }
        // Who does not know that this node is a member hears nothing of it, nor who the members are:
        // somebody else has to tell.
        let others = voters(GroupId::META).filter(|node| *node != own).filter(may_lead);
        if self.shared.mesh.is_doubted()
            && groups.leads(GroupId::META)
            && self.gave_way.is_none_or(|at| at.elapsed() >= GIVES_WAY_EVERY)
            && let Some(to) = leader_of(GroupId::META, others)
        {
            info!(to, "group 0 is handed over: a node does not know that this one is a member");
            self.gave_way = Some(Instant::now());
            self.shared.groups.order(Order::Transfer { group: GroupId::META, to });
        }
    }

    /// Whether the lead of the members' group stays where it is for now: whoever got it may have to tell
    /// somebody who does not believe the leader before.
    fn meta_lead_rests(&mut self, leads: bool) -> bool {
        self.leads_meta_since = leads.then(|| self.leads_meta_since.unwrap_or_else(Instant::now));
        self.leads_meta_since.is_some_and(|since| since.elapsed() < RESTS_FOR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leads_are_spread_and_stay_where_they_are_when_others_go() {
        let groups = || (0..=64).map(GroupId);
        let leaders = |nodes: &[u64]| -> Vec<u64> {
            groups().filter_map(|group| leader_of(group, nodes.iter().copied())).collect()
        };
        let all = leaders(&[1, 2, 3]);
        for node in 1..=3 {
            let count = all.iter().filter(|leader| **leader == node).count();
            assert!((12..=32).contains(&count), "node {node} leads {count} of 65");
        }
        for (before, after) in all.iter().zip(leaders(&[1, 3])) {
            assert!(*before == 2 || *before == after);
        }
    }
}
