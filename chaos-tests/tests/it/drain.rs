//! The two ends of a life: ready means served; at SIGTERM clients are told, and queues stay.

use std::thread;
use std::time::Instant;

use chaos_tests::{Client, Dice, Node, PATIENCE};
use mqtt::{Reason, Version};

use crate::kill;

#[test]
fn sigterm_says_goodbye_and_keeps_the_queues() {
    let mut dice = Dice::of("drain");
    let mut node = Node::started(&mut dice);
    let mut crowd = kill::crowd(&mut dice);
    crowd.subscribe(node.address());
    for _ in 0..2 {
        let farewells = crowd.live(&mut node, &[true, true, true, false], |node, life| {
            thread::sleep(dice.millis(100..300));
            life.end();
            node.sigterm();
            let status = node.wait_ended();
            assert!(status.success(), "it ended with {status}\n{}", node.said());
        });
        // MQTT 3.1.1 has no such packet.
        let expected = |version| match version {
            Version::V5 => Some(Reason::ServerShuttingDown),
            Version::V311 => None,
        };
        let wrong: Vec<_> =
            farewells.iter().filter(|(version, reason)| *reason != expected(*version)).collect();
        assert_eq!(farewells.len(), 9, "{farewells:?} {:?}", crowd.faults);
        assert!(wrong.is_empty(), "{wrong:?} of {farewells:?}");
        node.start();
        let said = node.said();
        assert!(!said.contains("WARN") && !said.contains("ERROR"), "{said}");
    }
    crowd.finish(&mut node);
    crowd.check(&node, &dice);
}

#[test]
fn ready_means_that_clients_are_served() {
    let mut dice = Dice::of("ready");
    let mut node = Node::new(&mut dice);
    let mut refused = Vec::new();
    for start in 0..6 {
        node.spawn();
        let asked = Instant::now();
        // Asked without a pause: the moment right after the answer is what matters.
        while !node.is_ready() {
            assert!(asked.elapsed() < PATIENCE, "not ready\n{}", node.said());
        }
        if let Err(end) = Client::brief(node.address(), "early") {
            refused.push((start, end));
        }
        node.kill9();
    }
    assert!(refused.is_empty(), "refused right after /readyz said 200: {refused:?}");
}
