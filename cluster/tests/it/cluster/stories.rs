//! What should happen in a cluster, one thing at a time.

use std::collections::BTreeMap;

use cluster::{GroupId, OnFull, Order, Refusal, Status};
use storage::store::Store;

use super::world::{Plan, World};

pub(super) const GROUP: GroupId = GroupId(1);

/// A cluster whose groups have leaders.
pub(super) fn cluster(members: u64, others: u64) -> World {
    let mut world = World::new(1, Plan { size: Some((members, others)), ..Plan::default() });
    until(&mut world, |world| world.leaders(GROUP).count() == 1);
    world
}

/// Lets time pass until something is so.
pub(super) fn until(world: &mut World, mut is_so: impl FnMut(&mut World) -> bool) {
    let end = world.millis + 30_000;
    while !is_so(world) {
        world.step(0).unwrap();
        assert!(world.millis < end, "it does not come to that");
    }
}

pub(super) fn leader(world: &World) -> u64 {
    world.leaders(GROUP).next().unwrap()
}

/// Cuts a node off from all others.
pub(super) fn isolate(world: &mut World, node: u64) {
    let part = |&id: &u64| (id, u64::from(id == node));
    let parts: BTreeMap<_, _> = world.nodes.keys().map(part).collect();
    world.network.split(&parts);
}

/// Commands that a leader has time to commit, more than a log of this size keeps.
pub(super) fn much(world: &mut World) {
    for _ in 0..300 {
        let leader = leader(world);
        world.propose(leader, GROUP, 300);
        (0..8).for_each(|_| world.step(0).unwrap());
    }
    // A checkpoint of it, and the compaction behind.
    (0..2000).for_each(|_| world.step(0).unwrap());
}

pub(super) fn order(world: &mut World, order: Order) {
    let leader = leader(world);
    world.nodes.get_mut(&leader).unwrap().input.orders.push(order);
}

#[test]
fn a_crash_amid_the_installation_of_a_snapshot_leaves_the_old_state_or_the_new_one() {
    let mut world = cluster(3, 0);
    let behind = 1 + leader(&world) % 3;
    isolate(&mut world, behind);
    much(&mut world);
    world.network.heal();
    // The store has it, the log not yet.
    until(&mut world, |world| {
        let applied = world.status(behind, GROUP).unwrap().applied;
        let stored = world.nodes.get_mut(&behind).unwrap().store.applied(GROUP.0).unwrap();
        stored.index > applied
    });
    world.crash(behind);
    until(&mut world, |world| world.check_same_end().is_ok());
}

#[test]
fn a_snapshot_leaves_no_faster_than_it_may() {
    const CHUNK: u8 = 2;
    let mut world = cluster(3, 0);
    for id in 1..=3 {
        let config = &mut world.nodes.get_mut(&id).unwrap().config;
        (config.snapshot_chunk_bytes, config.snapshot_bytes_per_second) = (100, 2000);
        config.snapshot_window_bytes = 1 << 20;
        world.crash(id);
    }
    until(&mut world, |world| world.check_same_end().is_ok());
    let behind = 1 + leader(&world) % 3;
    isolate(&mut world, behind);
    much(&mut world);
    world.network.heal();
    world.network.trap = Some(CHUNK);
    let (mut ticks, mut seen) = (0, 0);
    until(&mut world, |world| {
        let of_group = world.network.trapped.iter().filter(|(_, it)| it.group == GROUP);
        let bytes: Vec<_> = of_group.map(|(_, it)| it.message.len()).collect();
        // A tick's share, and what the last chunk exceeds it by; a tick is more than a step.
        let (now, most) = (bytes.iter().sum::<usize>(), 200 + bytes.iter().max().unwrap_or(&0));
        assert!(now <= seen + most, "{now} bytes after {seen}");
        ticks += usize::from(now > seen);
        seen = now;
        ticks > 2
    });
    world.network.trap = None;
    until(&mut world, |world| world.check_same_end().is_ok());
}

#[test]
fn a_node_that_joins_learns_before_it_votes_and_one_that_leaves_knows() {
    let mut world = cluster(3, 1);
    much(&mut world);
    // Also when it is the leader who leaves.
    let leaving = leader(&world);
    let voters: Vec<_> = (1..=4).filter(|&id| id != leaving).collect();
    let change = Order::ChangeMembers { group: GROUP, voters: voters.clone(), learners: vec![] };
    order(&mut world, change);
    let mut has_learned = false;
    until(&mut world, |world| {
        let status = world.status(4, GROUP).unwrap();
        has_learned |= status.learners == [4];
        status.voters == voters && status.wanted.is_none()
    });
    assert!(has_learned);
    until(&mut world, |world| world.status(leaving, GROUP).unwrap().removed);
    until(&mut world, |world| world.check_same_end().is_ok());
    assert!(world.snapshots > 0);
}

#[test]
fn who_was_removed_hears_so_from_nodes_that_only_another_group_knows() {
    let mut world = cluster(3, 2);
    let other = GroupId(GROUP.0 - 1);
    let leader_of = |world: &World, group| world.leaders(group).next().unwrap();
    let change = |world: &mut World, group, voters: &[u64], learners: &[u64]| {
        let (voters, learners) = (voters.to_vec(), learners.to_vec());
        let leader = leader_of(world, group);
        let order = Order::ChangeMembers { group, voters, learners };
        world.nodes.get_mut(&leader).unwrap().input.orders.push(order);
    };
    until(&mut world, |world| world.leaders(other).count() == 1);
    let leaders = [GROUP, other].map(|group| leader_of(&world, group));
    let away = (1..=3).find(|id| !leaders.contains(id)).unwrap();
    change(&mut world, other, &[1, 2, 3], &[5]);
    until(&mut world, |world| world.status(away, other).unwrap().learners == [5]);
    isolate(&mut world, away);
    change(&mut world, GROUP, &[4, 5], &[]);
    let is_done = |it: Status| it.voters == [4, 5] && it.wanted.is_none();
    until(&mut world, |world| {
        [4, 5].iter().all(|&id| world.status(id, GROUP).is_some_and(is_done))
    });
    // Those that it takes for members are gone when it comes back.
    let part = |id| if id <= 3 && id != away { id } else { 0 };
    world.network.split(&(1..=5).map(|id| (id, part(id))).collect());
    assert!(!world.status(away, GROUP).unwrap().removed);
    until(&mut world, |world| world.status(away, GROUP).unwrap().removed);
}

#[test]
fn a_node_that_knows_nobody_joins_by_a_snapshot_though_the_log_has_everything() {
    let mut world = cluster(3, 0);
    let joining = world.add_unfounded();
    let leader = leader(&world);
    world.propose(leader, GROUP, 100);
    until(&mut world, |world| world.checker.acknowledged.len() == 1);
    assert_eq!(world.status(joining, GROUP).unwrap().voters, [0; 0]);
    let (voters, learners) = (vec![1, 2, 3], vec![joining]);
    order(&mut world, Order::ChangeMembers { group: GROUP, voters: voters.clone(), learners });
    until(&mut world, |world| {
        let status = world.status(joining, GROUP).unwrap();
        status.voters == voters && status.leader.is_some()
    });
    assert!(world.snapshots > 0);
    until(&mut world, |world| world.check_same_end().is_ok());
    world.crash(joining);
    until(&mut world, |world| world.check_same_end().is_ok());
}

#[test]
fn a_node_joins_by_a_snapshot_while_commands_come_without_a_pause() {
    let mut world = cluster(3, 1);
    much(&mut world);
    let voters = (1..=4).collect();
    order(&mut world, Order::ChangeMembers { group: GROUP, voters, learners: vec![] });
    until(&mut world, |world| {
        let leader = leader(world);
        world.propose(leader, GROUP, 30);
        world.status(leader, GROUP).unwrap().voters == [1, 2, 3, 4]
    });
}

#[test]
fn a_survivor_goes_on_alone_with_all_it_has_and_takes_in_others() {
    // Before anything is stored, and after; also while members are being changed.
    for (stores, changes) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut world = cluster(3, 1);
        if stores {
            much(&mut world);
        }
        let survivor = 1 + leader(&world) % 3;
        if changes {
            let voters = (1..=4).filter(|&id| id != survivor).collect();
            order(&mut world, Order::ChangeMembers { group: GROUP, voters, learners: vec![] });
            let knows = |it: &cluster::Status| it.learners.contains(&4);
            until(&mut world, |world| world.status(survivor, GROUP).is_some_and(|it| knows(&it)));
        }
        let lead = leader(&world);
        world.propose(lead, GROUP, 100);
        until(&mut world, |world| !world.checker.acknowledged.is_empty());
        (0..200).for_each(|_| world.step(0).unwrap());
        for id in 1..=4 {
            world.crash(id);
            world.nodes.get_mut(&id).unwrap().up_at = u64::MAX;
        }
        (0..2).for_each(|_| world.nodes.get_mut(&survivor).unwrap().recover().unwrap());
        world.nodes.get_mut(&survivor).unwrap().up_at = 0;
        until(&mut world, |world| world.leaders(GROUP).eq([survivor]));
        let status = world.status(survivor, GROUP).unwrap();
        assert_eq!((&*status.voters, status.learners.len()), (&[survivor][..], 0));
        let joining = world.add_unfounded();
        let (voters, learners) = (vec![survivor], vec![joining]);
        order(&mut world, Order::ChangeMembers { group: GROUP, voters, learners });
        world.propose(survivor, GROUP, 100);
        let has_all = |world: &World| {
            let node = &world.nodes[&joining];
            let machine = node.engine.as_ref().and_then(|it| it.machine(GROUP));
            machine.is_some_and(|it| it.numbers.len() == world.checker.count(GROUP))
        };
        until(&mut world, |world| has_all(world) && world.checker.count(GROUP) > 1);
        world.crash(survivor);
        until(&mut world, |world| world.leaders(GROUP).eq([survivor]));
    }
}

#[test]
fn who_leads_and_shall_only_learn_leads_no_more() {
    let mut world = cluster(2, 0);
    let before = leader(&world);
    let other = 3 - before;
    order(
        &mut world,
        Order::ChangeMembers { group: GROUP, voters: vec![other], learners: vec![before] },
    );
    until(&mut world, |world| world.status(before, GROUP).unwrap().voters == [other]);
    assert!(!world.status(before, GROUP).unwrap().leads);
    until(&mut world, |world| world.leaders(GROUP).eq([other]));
}

#[test]
fn a_lead_is_handed_over_at_once() {
    let mut world = cluster(3, 0);
    let (from, to) = (leader(&world), 1 + leader(&world) % 3);
    let asked = world.millis;
    order(&mut world, Order::Transfer { group: GROUP, to });
    until(&mut world, |world| world.leaders(GROUP).eq([to]));
    assert!(world.millis - asked < 500, "node {from} took {} ms", world.millis - asked);
}

#[test]
fn whoever_is_asked_hands_commands_and_looks_on_to_the_leader() {
    let mut world = cluster(3, 0);
    let other = 1 + leader(&world) % 3;
    for _ in 0..10 {
        world.propose(other, GROUP, 100);
    }
    until(&mut world, |world| world.checker.acknowledged.len() == 10);
    world.nodes.get_mut(&other).unwrap().input.reads.push((GROUP, (GROUP, 10)));
    until(&mut world, |world| world.looks == 1);
    assert_eq!(world.refused, []);
}

#[test]
fn who_shall_lead_nothing_is_handed_no_lead_and_says_so() {
    let mut world = cluster(3, 0);
    let old = leader(&world);
    let other = 1 + old % 3;
    world.nodes.get_mut(&other).unwrap().input.orders.push(Order::Abstain(true));
    (0..200).for_each(|_| world.step(0).unwrap());
    order(&mut world, Order::Transfer { group: GROUP, to: other });
    (0..3000).for_each(|_| world.step(0).unwrap());
    assert!(world.leaders(GROUP).all(|id| id != other));
    world.nodes.get_mut(&other).unwrap().input.orders.push(Order::Abstain(false));
    (0..200).for_each(|_| world.step(0).unwrap());
    order(&mut world, Order::Transfer { group: GROUP, to: other });
    until(&mut world, |world| world.leaders(GROUP).eq([other]));
}

#[test]
fn commands_outlive_the_leader_they_were_handed_to() {
    let mut world = cluster(3, 0);
    let old = leader(&world);
    let other = 1 + old % 3;
    for at in 0..20 {
        world.propose(other, GROUP, 100);
        if at == 10 {
            world.crash(old);
            world.nodes.get_mut(&old).unwrap().up_at = u64::MAX;
        }
        world.step(0).unwrap();
    }
    until(&mut world, |world| world.checker.acknowledged.len() == 20);
    assert_eq!(world.refused, []);
}

#[test]
fn a_leader_that_is_cut_off_shows_nothing_and_knows_nothing_of_its_commands() {
    let mut world = cluster(3, 0);
    let old = leader(&world);
    isolate(&mut world, old);
    world.propose(old, GROUP, 10);
    world.nodes.get_mut(&old).unwrap().input.reads.push((GROUP, (GROUP, 0)));
    let looks = world.looks;
    until(&mut world, |world| !world.leaders(GROUP).any(|id| id == old));
    // It may still be applied if the cut ends soon enough, so nothing is said at first.
    assert_eq!((world.unseen, &world.refused[..]), (0, &[][..]));
    until(&mut world, |world| world.unseen == 1 && !world.refused.is_empty());
    assert_eq!(world.refused, [Refusal::Unknown]);
    assert_eq!(world.looks, looks);
}

#[test]
fn a_command_whose_place_another_has_taken_finds_a_new_one() {
    let mut world = cluster(3, 0);
    let old = leader(&world);
    isolate(&mut world, old);
    world.propose(old, GROUP, 10);
    until(&mut world, |world| world.leaders(GROUP).any(|id| id != old));
    world.network.heal();
    until(&mut world, |world| world.checker.acknowledged.len() == 1);
    assert_eq!(world.refused, []);
    until(&mut world, |world| world.check_same_end().is_ok());
}

#[test]
fn who_sees_no_leader_for_long_takes_nothing_more() {
    let mut world = cluster(3, 0);
    isolate(&mut world, 1);
    (0..1000).for_each(|_| world.step(0).unwrap());
    world.propose(1, GROUP, 10);
    world.nodes.get_mut(&1).unwrap().input.reads.push((GROUP, (GROUP, 0)));
    until(&mut world, |world| !world.refused.is_empty() && world.unseen == 1);
    assert_eq!(world.refused, [Refusal::NoLeader]);
    world.network.heal();
    until(&mut world, |world| world.status(1, GROUP).unwrap().leader.is_some());
    (0..40).for_each(|_| world.step(0).unwrap());
    world.propose(1, GROUP, 10);
    until(&mut world, |world| world.checker.acknowledged.len() == 1);
}

#[test]
fn what_is_owed_is_not_given_up() {
    let mut world = cluster(3, 0);
    isolate(&mut world, 1);
    world.propose(1, GROUP, 10);
    world.propose_as(1, GROUP, 10, OnFull::Wait);
    until(&mut world, |world| !world.refused.is_empty());
    (0..1000).for_each(|_| world.step(0).unwrap());
    world.propose_as(1, GROUP, 10, OnFull::Wait);
    (0..1000).for_each(|_| world.step(0).unwrap());
    assert_eq!(world.refused.len(), 1, "the one that may be refused");
    world.network.heal();
    until(&mut world, |world| world.checker.acknowledged.len() == 2);
}

#[test]
fn who_only_follows_notices_that_nobody_leads() {
    let mut world = cluster(3, 1);
    let (voters, learners) = (vec![1, 2, 3], vec![4]);
    order(&mut world, Order::ChangeMembers { group: GROUP, voters, learners });
    until(&mut world, |world| world.status(4, GROUP).unwrap().leader.is_some());
    for id in 1..=3 {
        world.crash(id);
        world.nodes.get_mut(&id).unwrap().up_at = u64::MAX;
    }
    until(&mut world, |world| world.status(4, GROUP).unwrap().leader.is_none());
}

#[test]
fn a_follower_without_room_hands_on_what_it_owes_and_knows_that_it_is_behind() {
    let mut world = cluster(3, 0);
    let leader = leader(&world);
    let full = 1 + leader % 3;
    let disk = world.nodes[&full].disk.clone();
    disk.set_capacity(disk.used_bytes());
    for _ in 0..20 {
        world.propose_as(full, GROUP, 3000, OnFull::Wait);
        (0..100).for_each(|_| world.step(0).unwrap());
    }
    until(&mut world, |world| world.checker.count(GROUP) == 20);
    for _ in 0..100 {
        world.propose(leader, GROUP, 3000);
        (0..10).for_each(|_| world.step(0).unwrap());
    }
    until(&mut world, |world| world.status(full, GROUP).unwrap().leader.is_none());
    disk.set_capacity(u64::MAX);
    // A snapshot may bring it what came of its commands.
    until(&mut world, |world| world.checker.acknowledged.len() + world.refused.len() == 120);
    assert!(world.refused.iter().all(|why| *why == Refusal::Unseen));
    until(&mut world, |world| world.status(full, GROUP).unwrap().leader.is_some());
}

#[test]
fn a_sole_voter_that_was_replaced_does_not_elect_itself_after_a_crash() {
    let mut world = cluster(1, 3);
    let voters = vec![2, 3, 4];
    let change = Order::ChangeMembers { group: GROUP, voters: voters.clone(), learners: vec![] };
    order(&mut world, change);
    until(&mut world, |world| world.leaders(GROUP).any(|id| id != 1));
    until(&mut world, |world| (2..=4).all(|id| world.status(id, GROUP).unwrap().voters == voters));
    isolate(&mut world, 1);
    world.crash(1);
    for _ in 0..20 {
        let leader = world.leaders(GROUP).find(|&id| id != 1);
        if let Some(leader) = leader {
            world.propose(leader, GROUP, 300);
        }
        (0..100).for_each(|_| world.step(0).unwrap());
    }
    assert!(world.status(1, GROUP).is_some(), "it is up again");
    assert!(world.leaders(GROUP).all(|id| id != 1));
    world.network.heal();
    until(&mut world, |world| world.check_same_end().is_ok());
}
