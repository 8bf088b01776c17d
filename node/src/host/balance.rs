//! Spreads the leads of a cluster's groups: each has a node that leads it when that is up.
//!
//! Which one is decided by rendezvous hashing among the voters that are linked, in service, and have room
//! on their disks, so that all nodes find the same without asking, and the loss of a node moves only
//! what it led; an operator may prefer another of these.

use std::time::Duration;

use cluster::{GroupId, GroupsView, Order};
use fleet::placement::weight;
use tokio::time::Instant;
use tracing::debug;

use super::{Machine, NodeHost};

/// A lead at a time, and no more often: whoever gets one must have all there is first.
const EVERY: Duration = Duration::from_secs(3);

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
        // Who does not know that this node is a member hears nothing of it, nor who the members are.
        let is_doubted = self.shared.mesh.is_doubted();
        let can_tell = |id: GroupId, node: u64| !(is_doubted && id == GroupId::META && node == own);
        let led = groups.ids().into_iter().filter(|id| groups.leads(*id));
        let misplaced = led.filter_map(|id| {
            let voters = groups.status(id)?.voters.iter().copied();
            let mut up = voters.filter(|node| may_lead(node) && can_tell(id, *node));
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
