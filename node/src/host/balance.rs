//! Spreads the leads of a cluster's groups: each has a node that leads it when that is up.
//!
//! Which one is decided by rendezvous hashing among the voters that are linked and have room on their
//! disks, so that all nodes find the same without asking, and the loss of a node moves only what it led.

use std::time::{Duration, Instant};

use cluster::{GroupId, GroupsView, Order};
use tracing::debug;

use super::{Machine, NodeHost};

/// A lead at a time, and no more often: whoever gets one must have all there is first.
const EVERY: Duration = Duration::from_secs(3);

/// The node that should lead a group.
fn leader_of(group: GroupId, nodes: impl Iterator<Item = u64>) -> Option<u64> {
    nodes.max_by_key(|node| (weight(group, *node), *node))
}

/// The finalizer of SplitMix64: every bit of the result depends on every bit of both.
fn weight(group: GroupId, node: u64) -> u64 {
    let mut mixed = (u64::from(group.0) << 32 | node).wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
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
        let may_lead = |node: &u64| match *node == own {
            true => !groups.is_full(),
            false => linked.contains(node) && !groups.is_full_at(*node),
        };
        let led = groups.ids().into_iter().filter(|id| groups.leads(*id));
        let misplaced = led.filter_map(|id| {
            let voters = groups.status(id)?.voters.iter().copied();
            leader_of(id, voters.filter(may_lead)).filter(|to| *to != own).map(|to| (id, to))
        });
        // What a full disk keeps a node from leading has to move at once.
        let at_once = if groups.is_full() { usize::MAX } else { 1 };
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
