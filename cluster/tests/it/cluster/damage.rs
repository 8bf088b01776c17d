//! What should happen when a disk does not give back what was written.

use cluster::{PeerMessage, Refusal};

use super::stories::{GROUP, cluster, isolate, leader, much, until};
use super::world::World;

/// The node is down, and its log is gone.
fn lose_log(world: &mut World, id: u64) {
    world.crash(id);
    world.nodes.get_mut(&id).unwrap().lose_log();
}

fn stay_down(world: &mut World, id: u64) {
    world.crash(id);
    world.nodes.get_mut(&id).unwrap().up_at = u64::MAX;
}

fn is_damaged(world: &World, id: u64) -> bool {
    world.status(id, GROUP).is_some_and(|status| status.damaged)
}

#[test]
fn a_replica_that_lost_its_log_helps_nobody_before_it_is_mended() {
    for stores in [false, true] {
        let mut world = cluster(3, 0);
        if stores {
            much(&mut world);
        }
        let (first, second) = (leader(&world), 1 + leader(&world) % 3);
        let third = 6 - first - second;
        // Only the first and the second have these.
        isolate(&mut world, third);
        let before = world.checker.acknowledged.len();
        (0..5).for_each(|_| world.propose(first, GROUP, 100));
        until(&mut world, |world| world.checker.acknowledged.len() == before + 5);
        lose_log(&mut world, second);
        stay_down(&mut world, first);
        world.network.heal();
        until(&mut world, |world| is_damaged(world, second));
        // The third would lead with its vote, and five commands would be gone.
        (0..4000).for_each(|_| world.step(0).unwrap());
        assert_eq!(world.leaders(GROUP).count(), 0);
        assert!(is_damaged(&world, second));
        world.nodes.get_mut(&first).unwrap().up_at = 0;
        until(&mut world, |world| world.check_same_end().is_ok());
        assert!(!is_damaged(&world, second) && world.snapshots > 0);
        // And then another.
        lose_log(&mut world, third);
        until(&mut world, |world| is_damaged(world, third));
        until(&mut world, |world| world.check_same_end().is_ok());
        // What is mended decides again.
        let lead = leader(&world);
        stay_down(&mut world, 6 - lead - second);
        let lead = (lead, world.checker.acknowledged.len());
        world.propose(lead.0, GROUP, 100);
        until(&mut world, |world| world.checker.acknowledged.len() == lead.1 + 1);
    }
}

#[test]
fn a_crash_at_any_time_of_the_mending_does_no_harm() {
    for steps in (0..400).step_by(80) {
        let mut world = cluster(3, 0);
        much(&mut world);
        let damaged = 1 + leader(&world) % 3;
        lose_log(&mut world, damaged);
        until(&mut world, |world| is_damaged(world, damaged));
        (0..steps).for_each(|_| world.step(20).unwrap());
        world.crash(damaged);
        (0..20).for_each(|_| world.step(20).unwrap());
        until(&mut world, |world| world.check_same_end().is_ok());
    }
}

#[test]
fn a_leader_that_cannot_read_its_log_leads_no_more_and_is_mended() {
    let mut world = cluster(3, 0);
    let (first, behind) = (leader(&world), 1 + leader(&world) % 3);
    isolate(&mut world, behind);
    (0..5).for_each(|_| world.propose(first, GROUP, 100));
    until(&mut world, |world| world.checker.acknowledged.len() == 5);
    world.nodes.get_mut(&first).unwrap().harm_log();
    world.network.heal();
    until(&mut world, |world| is_damaged(world, first));
    until(&mut world, |world| world.check_same_end().is_ok() && !is_damaged(world, first));
    assert!(world.refused.iter().all(|why| *why != Refusal::Unknown));
}

#[test]
fn with_a_majority_damaged_nobody_leads_until_a_survivor_goes_on_alone() {
    let mut world = cluster(3, 0);
    much(&mut world);
    let survivor = leader(&world);
    let others: Vec<_> = (1..=3).filter(|&id| id != survivor).collect();
    others.iter().for_each(|&id| lose_log(&mut world, id));
    until(&mut world, |world| others.iter().all(|&id| is_damaged(world, id)));
    (0..4000).for_each(|_| world.step(0).unwrap());
    assert_eq!(world.leaders(GROUP).count(), 0);
    (1..=3).for_each(|id| stay_down(&mut world, id));
    world.nodes.get_mut(&survivor).unwrap().recover().unwrap();
    world.nodes.get_mut(&survivor).unwrap().up_at = 0;
    until(&mut world, |world| world.leaders(GROUP).eq([survivor]));
}

#[test]
fn who_decides_alone_does_not_start_with_a_damaged_log_or_store() {
    for stored in [false, true] {
        let mut world = cluster(1, 0);
        much(&mut world);
        stay_down(&mut world, 1);
        let now = world.now();
        let node = world.nodes.get_mut(&1).unwrap();
        match stored {
            true => node.store.damage(GROUP.0),
            false => node.harm_log(),
        }
        let files = node.disk.files();
        assert!(node.start(1, now).is_err());
        assert_eq!(node.disk.files(), files);
    }
}

/// What a damaged replica says, and how a leader's answer begins.
const CALL: [u8; 9] = [11, 7, 0, 0, 0, 0, 0, 0, 0];
const ANSWER: u8 = 12;

#[test]
fn a_leader_promises_nothing_after_it_was_deposed_in_the_same_turn() {
    let mut world = cluster(5, 0);
    let first = leader(&world);
    // It hears of the next leader and of the damage at once.
    world.nodes.get_mut(&first).unwrap().busy_until = u64::MAX;
    until(&mut world, |world| world.leaders(GROUP).any(|id| id != first));
    let next = world.leaders(GROUP).find(|&id| id != first).unwrap();
    let damaged = (1..=5).find(|id| ![first, next].contains(id)).unwrap();
    (0..100).for_each(|_| world.step(0).unwrap());
    for (id, answers) in [(first, false), (next, true)] {
        let now = world.now();
        let node = world.nodes.get_mut(&id).unwrap();
        let call = CALL.to_vec().into();
        node.input.messages.push(PeerMessage { from: damaged, group: GROUP, message: call });
        node.busy_until = 0;
        assert!(node.turn(world.millis, now).unwrap());
        let said = node.unsent.iter().filter(|(to, _)| *to == damaged).flat_map(|(_, batch)| batch);
        let mut kinds = said.filter(|(group, _)| *group == GROUP).map(|(_, message)| message[0]);
        assert_eq!(kinds.any(|kind| kind == ANSWER), answers, "node {id}");
    }
}
