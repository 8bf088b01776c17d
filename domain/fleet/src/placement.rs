//! Which nodes decide in a group, and the next change on the way there.
//!
//! Every group has a replica on every node. [`VOTERS`] of them decide, chosen by rendezvous hashing, so
//! that all nodes find the same without asking and a node that comes or goes moves only its own part;
//! the others follow. Carrying out a change is for the group's leader.
//!
//! Invariant: no change is planned whose old or new voters have no live majority.

use std::collections::{BTreeMap, BTreeSet};

use crate::registry::Member;

/// How many nodes decide in a group, where there are as many.
pub const VOTERS: usize = 3;

/// The members of a group, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// Who decides.
    pub voters: Vec<u64>,
    /// Who follows.
    pub learners: Vec<u64>,
}

/// How much a node is wanted in a group: the finalizer of SplitMix64, where every bit of the result
/// depends on every bit of both.
pub fn weight(group: u32, node: u64) -> u64 {
    let mut mixed = (u64::from(group) << 32 | node).wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// What a group's members should be changed to, if to anything. `now` are its members, `wanted` is what
/// they are being changed to, and `live` are the nodes that can be reached.
pub fn next_change(
    group: u32,
    members: &BTreeMap<u64, Member>,
    now: &Placement,
    wanted: Option<&Placement>,
    live: &BTreeSet<u64>,
) -> Option<Placement> {
    let target = target(group, members, &now.voters, live)?;
    let is_possible = has_majority(&now.voters, live) && has_majority(&target.voters, live);
    (wanted.unwrap_or(now) != &target && is_possible).then_some(target)
}

/// The members a group should have. Who neither decides yet nor can be reached cannot begin to.
fn target(
    group: u32,
    members: &BTreeMap<u64, Member>,
    voters: &[u64],
    live: &BTreeSet<u64>,
) -> Option<Placement> {
    let can_vote = |(node, member): &(&u64, &Member)| {
        member.may_vote() && (live.contains(node) || voters.contains(node))
    };
    let mut candidates: Vec<u64> = members.iter().filter(can_vote).map(|(node, _)| *node).collect();
    candidates.sort_by_key(|&node| std::cmp::Reverse((weight(group, node), node)));
    candidates.truncate(VOTERS);
    candidates.sort_unstable();
    let follows =
        |(node, member): &(&u64, &Member)| member.is_placed() && !candidates.contains(node);
    let learners = members.iter().filter(follows).map(|(node, _)| *node).collect();
    (!candidates.is_empty()).then_some(Placement { voters: candidates, learners })
}

fn has_majority(voters: &[u64], live: &BTreeSet<u64>) -> bool {
    voters.iter().filter(|node| live.contains(node)).count() > voters.len() / 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{Command, Drain, Registry};

    fn apply(registry: &mut Registry, commands: impl IntoIterator<Item = Command>) {
        for command in commands {
            registry.apply(command).unwrap();
        }
    }

    /// A cluster of so many nodes.
    fn cluster(count: u64) -> Registry {
        let mut registry = Registry::default();
        let nodes = (1..=count).map(|node| (node, String::new())).collect();
        apply(&mut registry, [Command::FoundCluster { nodes }]);
        registry
    }

    fn add(node: u64) -> Command {
        Command::AddMember { node, address: String::new() }
    }

    fn placed(voters: &[u64], learners: &[u64]) -> Placement {
        Placement { voters: voters.into(), learners: learners.into() }
    }

    /// The members of a group of a cluster that had always been so.
    fn ideal(group: u32, registry: &Registry) -> Placement {
        let all: BTreeSet<u64> = registry.members().keys().copied().collect();
        target(group, registry.members(), &[], &all).unwrap()
    }

    #[test]
    fn groups_follow_their_cluster() {
        use Command::{ActivateMember, DrainMember, RemoveMember, RetireMember};
        let three = placed(&[1, 2, 3], &[]);
        let drained = |node| DrainMember { node, drain: Drain::Done };
        let removed = |dead| RemoveMember { node: 3, dead };
        let join = || vec![add(4), ActivateMember { node: 4 }];
        let with = |more: Vec<Command>| [join(), more].concat();
        for (case, commands, now, wanted, live, next) in [
            ("nothing to do", vec![], &three, None, &[1, 2, 3][..], None),
            ("one joins", vec![add(4)], &three, None, &[1, 2, 3], Some(placed(&[1, 2, 3], &[4]))),
            (
                "it is on its way",
                vec![add(4)],
                &three,
                Some(placed(&[1, 2, 3], &[4])),
                &[1, 2, 3, 4],
                None,
            ),
            (
                "it leaves again before it decides",
                vec![add(4), RemoveMember { node: 4, dead: false }],
                &placed(&[1, 2, 3], &[4]),
                None,
                &[1, 2, 3, 4],
                Some(placed(&[1, 2, 3], &[])),
            ),
            ("one leaves and is not drained", vec![removed(false)], &three, None, &[1, 2, 3], None),
            (
                "it is drained",
                vec![removed(false), drained(3)],
                &three,
                None,
                &[1, 2, 3],
                Some(placed(&[1, 2], &[])),
            ),
            ("it is dead", vec![removed(true)], &three, None, &[1, 2], Some(placed(&[1, 2], &[]))),
            (
                "it is gone",
                vec![removed(true), RetireMember { node: 3 }],
                &placed(&[1, 2], &[]),
                None,
                &[1, 2],
                None,
            ),
            ("no live majority now", vec![removed(true)], &three, None, &[1], None),
            (
                "another takes the place of a dead one",
                with(vec![removed(true)]),
                &placed(&[1, 2, 3], &[4]),
                None,
                &[1, 2, 4],
                Some(placed(&[1, 2, 4], &[])),
            ),
            (
                "which is gone, too, and the change is taken back",
                with(vec![removed(true), RemoveMember { node: 4, dead: true }]),
                &placed(&[1, 2, 3], &[4]),
                Some(placed(&[1, 2, 4], &[])),
                &[1, 2],
                Some(placed(&[1, 2], &[])),
            ),
            (
                "who cannot be reached does not begin to decide",
                with(vec![removed(true)]),
                &placed(&[1, 2, 3], &[4]),
                None,
                &[1, 2],
                Some(placed(&[1, 2], &[4])),
            ),
            (
                "one is drained and stays",
                vec![DrainMember { node: 3, drain: Drain::Wanted }, drained(3)],
                &three,
                None,
                &[1, 2, 3],
                None,
            ),
        ] {
            let mut registry = cluster(3);
            apply(&mut registry, commands);
            let live = live.iter().copied().collect();
            let found = next_change(7, registry.members(), now, wanted.as_ref(), &live);
            assert_eq!(found, next, "{case}");
        }
        assert_eq!(next_change(7, &BTreeMap::new(), &three, None, &[1, 2, 3].into()), None);
    }

    #[test]
    fn voters_are_spread_and_move_only_for_who_comes_or_goes() {
        let (five, mut six) = (cluster(5), cluster(5));
        apply(&mut six, [add(6), Command::ActivateMember { node: 6 }]);
        let mut counts = BTreeMap::<u64, usize>::new();
        for group in 0..=64 {
            let (before, after) = (ideal(group, &five), ideal(group, &six));
            assert_eq!((before.voters.len(), before.learners.len()), (VOTERS, 2));
            let left = before.voters.iter().filter(|node| !after.voters.contains(node)).count();
            assert_eq!(left, usize::from(after.voters.contains(&6)), "of group {group}");
            after.voters.iter().for_each(|node| *counts.entry(*node).or_default() += 1);
        }
        // 65 groups with three voters among six nodes.
        assert!(counts.values().all(|count| (20..=45).contains(count)), "{counts:?}");
    }
}
