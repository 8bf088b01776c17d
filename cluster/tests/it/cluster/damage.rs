//! What should happen when a disk does not give back what was written.

use cluster::{GroupId, Order, PeerMessage, Refusal};
use protobuf::Message as _;
use raft::prelude::{Message, MessageType};
use storage::store::{Failing, Store};

use super::stories::{GROUP, cluster, isolate, leader, much, order, until};
use super::witness::Witness;
use super::world::World;
use crate::chronicle::Chronicle;

/// The node is down, and its log is gone.
fn lose_log(world: &mut World, id: u64) {
    world.crash(id);
    world.nodes.get_mut(&id).unwrap().lose_log();
}

fn stay_down(world: &mut World, id: u64) {
    world.crash(id);
    world.nodes.get_mut(&id).unwrap().up_at = u64::MAX;
}

/// Has a node bring its store up to its log.
fn store(world: &mut World, id: u64) {
    until(world, |world| {
        let now = world.now(id);
        let engine = world.nodes.get_mut(&id).unwrap().engine.as_mut().unwrap();
        engine.begin_checkpoint(now);
        engine.is_stored()
    });
}

/// A node is killed, and is up again.
fn restart(world: &mut World, id: u64) {
    world.crash(id);
    until(world, |world| world.status(id, GROUP).is_some());
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
            // What the second has left then ends where the third ends.
            (1..=3).for_each(|id| store(&mut world, id));
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
    // Nor do they ask for votes.
    world.network.trap = Some(RAFT);
    (0..1000).for_each(|_| world.step(0).unwrap());
    let trapped = std::mem::take(&mut world.network.trapped);
    assert!(!trapped.is_empty() && trapped.iter().all(|(_, it)| it.from == survivor));
    world.network.trap = None;
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
        let now = world.now(1);
        let node = world.nodes.get_mut(&1).unwrap();
        match stored {
            true => node.store.damage(GROUP.0),
            false => node.harm_log(),
        }
        let files = node.disk.files();
        assert!(node.start(1, now, |_| Chronicle::default(), |_| Witness::default()).is_err());
        assert_eq!(node.disk.files(), files);
    }
}

/// A message of Raft, a piece of a snapshot, and how much of it has been taken.
const RAFT: u8 = 1;
const CHUNK: u8 = 2;
const TAKEN: u8 = 3;
/// What a damaged replica says: this, and a number.
const CALL: u8 = 11;
/// What a leader answers: this, the number, its term, and where its fence is.
const ANSWER: u8 = 12;

/// Somebody hears something.
fn tell(world: &mut World, to: u64, from: u64, kind: u8, numbers: &[u64]) {
    let mut message = vec![kind];
    numbers.iter().for_each(|number| message.extend(number.to_le_bytes()));
    let message = PeerMessage { from, group: GROUP, message: message.into() };
    world.nodes.get_mut(&to).unwrap().input.messages.push(message);
}

/// A node takes a turn; gives what it then says of a kind to another.
fn says(world: &mut World, by: u64, to: u64, kind: u8) -> Vec<Vec<u8>> {
    let (now, millis) = (world.now(by), world.millis);
    let node = world.nodes.get_mut(&by).unwrap();
    node.busy_until = 0;
    node.turn(millis, now).unwrap();
    let all = node.unsent.iter().filter(|(whom, _)| *whom == to).flat_map(|(_, batch)| batch);
    let of_kind = all.filter(|(group, message)| *group == GROUP && message[0] == kind);
    of_kind.map(|(_, message)| message[1..].to_vec()).collect()
}

/// The same, where it is made of numbers.
fn said(world: &mut World, by: u64, to: u64, kind: u8) -> Vec<Vec<u64>> {
    let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
    let all = says(world, by, to, kind).into_iter();
    all.map(|message| message.chunks(8).map(number).collect()).collect()
}

#[test]
fn a_leader_appends_one_fence_for_each_damage() {
    let mut world = cluster(3, 0);
    let (first, damaged) = (leader(&world), 1 + leader(&world) % 3);
    let before = world.status(first, GROUP).unwrap();
    isolate(&mut world, damaged);
    for (number, index) in [(7, before.applied + 1), (8, before.applied + 2)] {
        for _ in 0..2 {
            tell(&mut world, first, damaged, CALL, &[number]);
            let answers = said(&mut world, first, damaged, ANSWER);
            assert_eq!(answers, [[number, before.term, index]]);
            world.step(0).unwrap();
            until(&mut world, |world| world.status(first, GROUP).unwrap().applied == index);
        }
    }
}

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
    for (id, answers) in [(first, 0), (next, 1)] {
        tell(&mut world, id, damaged, CALL, &[7]);
        assert_eq!(said(&mut world, id, damaged, ANSWER).len(), answers, "node {id}");
    }
}

#[test]
fn a_leader_waits_for_no_damaged_replica() {
    let mut world = cluster(3, 0);
    let (first, damaged) = (leader(&world), 1 + leader(&world) % 3);
    isolate(&mut world, damaged);
    tell(&mut world, first, damaged, CALL, &[7]);
    world.step(0).unwrap();
    let voters = vec![first, damaged];
    order(&mut world, Order::ChangeMembers { group: GROUP, voters, learners: vec![] });
    order(&mut world, Order::Transfer { group: GROUP, to: damaged });
    world.step(0).unwrap();
    for _ in 0..10 {
        let before = world.checker.acknowledged.len();
        world.propose(first, GROUP, 100);
        // Not while a lead is handed over, nor while both are to decide.
        (0..10).for_each(|_| world.step(0).unwrap());
        assert_eq!(world.checker.acknowledged.len(), before + 1);
    }
    world.network.heal();
    until(&mut world, |world| world.check_same_end().is_ok());
    assert_eq!(world.status(first, GROUP).unwrap().voters.len(), 2);
}

#[test]
fn a_damaged_replica_does_not_keep_a_leader_in_office() {
    let mut world = cluster(3, 0);
    let (first, damaged) = (leader(&world), 1 + leader(&world) % 3);
    lose_log(&mut world, damaged);
    stay_down(&mut world, 6 - first - damaged);
    until(&mut world, |world| is_damaged(world, damaged));
    until(&mut world, |world| world.leaders(GROUP).count() == 0);
    (0..1000).for_each(|_| world.step(0).unwrap());
    assert_eq!(world.leaders(GROUP).count(), 0);
}

#[test]
fn a_damaged_replica_believes_only_an_answer_to_its_own_call() {
    let mut world = cluster(3, 0);
    let (first, damaged) = (leader(&world), 1 + leader(&world) % 3);
    let term = world.status(first, GROUP).unwrap().term;
    isolate(&mut world, damaged);
    lose_log(&mut world, damaged);
    until(&mut world, |world| is_damaged(world, damaged));
    // It hears, and is not heard.
    world.network.heal();
    (1..=3).for_each(|id| world.network.cut(damaged, id));
    world.nodes.get_mut(&damaged).unwrap().busy_until = u64::MAX;
    until(&mut world, |world| {
        let messages = &world.nodes[&damaged].input.messages;
        messages.iter().any(|it| (it.from, it.group) == (first, GROUP))
    });
    let calls = said(&mut world, damaged, first, CALL);
    let number = calls[0][0];
    for (number, heard, then) in
        [(number + 1, term + 5, 0), (number, term + 5, term + 5), (number, term, term + 5)]
    {
        tell(&mut world, damaged, first, ANSWER, &[number, heard, 1]);
        said(&mut world, damaged, first, CALL);
        assert_eq!(world.status(damaged, GROUP).unwrap().term, then);
    }
    // Whoever leads must get to that term to mend it.
    world.network.heal();
    until(&mut world, |world| world.check_same_end().is_ok());
    assert!(world.status(leader(&world), GROUP).unwrap().term > term + 5);
}

#[test]
fn a_damage_is_noted_before_the_log_begins_anew_and_found_again_in_it() {
    let mut world = cluster(3, 0);
    much(&mut world);
    let damaged = 1 + leader(&world) % 3;
    isolate(&mut world, damaged);
    for _ in 0..3 {
        lose_log(&mut world, damaged);
        until(&mut world, |world| is_damaged(world, damaged));
        assert_eq!(world.nodes[&damaged].store.unflushed(), 0);
    }
    restart(&mut world, damaged);
    assert!(is_damaged(&world, damaged));
    world.network.heal();
    until(&mut world, |world| world.check_same_end().is_ok());
    restart(&mut world, damaged);
    assert!(!is_damaged(&world, damaged));
    // The leader does not take the next damage for the one that it knows.
    lose_log(&mut world, damaged);
    until(&mut world, |world| is_damaged(world, damaged));
    until(&mut world, |world| world.check_same_end().is_ok());
}

#[test]
fn a_fence_is_of_one_term() {
    let mut world = cluster(3, 0);
    let (first, second) = (leader(&world), 1 + leader(&world) % 3);
    let damaged = 6 - first - second;
    tell(&mut world, first, damaged, CALL, &[7]);
    let before = said(&mut world, first, damaged, ANSWER);
    for to in [second, first] {
        until(&mut world, |world| world.check_same_end().is_ok());
        order(&mut world, Order::Transfer { group: GROUP, to });
        until(&mut world, |world| world.leaders(GROUP).eq([to]));
    }
    until(&mut world, |world| world.check_same_end().is_ok());
    let status = world.status(first, GROUP).unwrap();
    tell(&mut world, first, damaged, CALL, &[7]);
    let after = said(&mut world, first, damaged, ANSWER);
    assert_eq!(after, [[7, status.term, status.applied + 1]], "{before:?}");
}

#[test]
fn no_snapshot_from_before_the_damage_mends_it() {
    let mut world = cluster(3, 0);
    let (first, behind) = (leader(&world), 1 + leader(&world) % 3);
    isolate(&mut world, behind);
    much(&mut world);
    world.network.heal();
    world.network.trap = Some(CHUNK);
    let chunks = |world: &World| {
        let all = world.network.trapped.iter().filter(|(to, _)| *to == behind);
        let of_group = all.filter(|(_, it)| it.group == GROUP);
        of_group.map(|(_, it)| it.clone()).collect::<Vec<_>>()
    };
    until(&mut world, |world| chunks(world).len() > 1);
    let chunks = chunks(&world);
    world.network.trap = None;
    isolate(&mut world, behind);
    let node = world.nodes.get_mut(&behind).unwrap();
    node.input.messages.push(chunks[0].clone());
    assert_eq!(says(&mut world, behind, first, TAKEN)[0][8..], [1, 0, 0, 0]);
    world.step(0).unwrap();
    // Amid this it hears that it had more than it has.
    let mut heartbeat = Message { from: first, to: behind, commit: 1 << 32, ..Message::default() };
    heartbeat.set_msg_type(MessageType::MsgHeartbeat);
    heartbeat.term = world.status(first, GROUP).unwrap().term;
    let message = [vec![RAFT], heartbeat.write_to_bytes().unwrap()].concat().into();
    let node = world.nodes.get_mut(&behind).unwrap();
    node.input.messages.push(PeerMessage { from: first, group: GROUP, message });
    node.input.messages.push(chunks[1].clone());
    assert_eq!(says(&mut world, behind, first, TAKEN)[0][8..], [0, 0, 0, 0]);
    assert!(is_damaged(&world, behind));
    store(&mut world, behind);
    restart(&mut world, behind);
    assert!(is_damaged(&world, behind));
    world.nodes.get_mut(&behind).unwrap().input.messages.push(chunks[0].clone());
    assert!(says(&mut world, behind, first, TAKEN).is_empty());
    world.network.heal();
    until(&mut world, |world| world.check_same_end().is_ok());
}

#[test]
fn an_answer_that_comes_while_a_snapshot_is_stored_is_not_heard() {
    let mut world = cluster(3, 0);
    much(&mut world);
    let (first, damaged) = (leader(&world), 1 + leader(&world) % 3);
    world.crash(damaged);
    world.nodes[&damaged].store.damage(GROUP.0);
    world.network.trap = Some(CALL);
    let call = |world: &World| {
        let mut all = world.network.trapped.iter();
        all.find_map(|(_, it)| (it.group == GROUP).then(|| it.message.clone()))
    };
    until(&mut world, |world| call(world).is_some());
    let number = u64::from_le_bytes(call(&world).unwrap()[1..].try_into().unwrap());
    world.network.trap = None;
    world.nodes[&damaged].store.set_failing(Failing::Yes);
    (0..1000).for_each(|_| world.step(0).unwrap());
    assert!(is_damaged(&world, damaged));
    let (term, lives) = (world.status(first, GROUP).unwrap().term, world.nodes[&damaged].lives);
    tell(&mut world, damaged, first, ANSWER, &[number, term + 5, 1]);
    world.step(0).unwrap();
    world.nodes[&damaged].store.set_failing(Failing::No);
    until(&mut world, |world| world.check_same_end().is_ok());
    assert_eq!(world.nodes[&damaged].lives, lives);
}

#[test]
fn who_has_lost_everything_of_a_group_cannot_go_on_alone() {
    let mut world = cluster(3, 0);
    isolate(&mut world, 1);
    assert_eq!(world.nodes[&1].store.clone().applied(GROUP.0).unwrap().index, 0);
    lose_log(&mut world, 1);
    until(&mut world, |world| is_damaged(world, 1));
    stay_down(&mut world, 1);
    assert!(world.nodes.get_mut(&1).unwrap().recover().is_err());
}

#[test]
fn a_node_that_is_damaged_in_one_group_leads_no_other() {
    const OTHER: GroupId = GroupId(2);
    let mut world = cluster(3, 0);
    much(&mut world);
    until(&mut world, |world| world.leaders(OTHER).count() == 1);
    let lead = world.leaders(OTHER).next().unwrap();
    let damaged = 1 + lead % 3;
    // It cannot be mended as long as nobody leads the one group.
    stay_down(&mut world, 6 - lead - damaged);
    world.crash(damaged);
    world.nodes[&damaged].store.damage(GROUP.0);
    until(&mut world, |world| is_damaged(world, damaged) && world.leaders(OTHER).eq([lead]));
    let transfer = Order::Transfer { group: OTHER, to: damaged };
    world.nodes.get_mut(&lead).unwrap().input.orders.push(transfer);
    (0..1000).for_each(|_| world.step(0).unwrap());
    assert!(is_damaged(&world, damaged));
    assert!(world.leaders(OTHER).all(|id| id != damaged));
}

#[test]
fn a_node_that_has_more_than_its_leader_stops_and_keeps_what_it_has() {
    for stores in [false, true] {
        let mut world = cluster(3, 0);
        let first = leader(&world);
        let others: Vec<_> = (1..=3).filter(|id| *id != first).collect();
        let before = world.checker.acknowledged.len();
        for id in &others {
            world.nodes[id].disk.lie_about_syncs();
        }
        for count in 1..=5 {
            world.propose(first, GROUP, 100);
            until(&mut world, |world| world.checker.acknowledged.len() == before + count);
        }
        if stores {
            store(&mut world, first);
        }
        stay_down(&mut world, first);
        others.iter().for_each(|id| world.crash(*id));
        // The checker would not have what comes now.
        let found = (0..10_000).find_map(|_| {
            world.pass();
            let led = others
                .iter()
                .filter_map(|id| world.status(*id, GROUP))
                .any(|it| it.leader.is_some());
            if led {
                world.nodes.get_mut(&first).unwrap().up_at = 0;
            }
            let turn = |id| world.turn(id, |_| Chronicle::default(), |_| Witness::default()).err();
            (1..=3).find_map(turn)
        });
        let why = found.expect("it goes on").to_string();
        assert!(why.contains("which leads, has it in term"), "{why}");
        // What was the last to be acknowledged may not be known to be committed, yet.
        let engine = world.nodes[&first].engine.as_ref().unwrap();
        assert!(engine.machine(GROUP).unwrap().numbers.len() >= before + 4);
    }
}
