//! kill -9 while the state is written to the store and the log behind it is given back.

use std::thread;

use chaos_tests::{Crowd, Dice, Node, Publisher, Subscriber, eventually, rounds};
use mqtt::QoS::{AtLeastOnce, ExactlyOnce};
use mqtt::Version::V5;

/// The log grows by this between two checkpoints.
const CHECKPOINT_BYTES: f64 = (32 << 20) as f64;

#[test]
fn a_kill_during_a_checkpoint_loses_nothing() {
    let mut dice = Dice::of("checkpoint");
    let mut node = Node::started(&mut dice);
    let publisher = |topic: &str, qos| {
        let mut publisher = Publisher::new(&format!("crowd/{topic}"), V5, qos);
        (publisher.payload_bytes, publisher.window, publisher.per_life) = (48 << 10, 8, 600);
        publisher
    };
    let mut crowd = Crowd {
        publishers: vec![publisher("a", AtLeastOnce), publisher("b", ExactlyOnce)],
        subscribers: vec![
            Subscriber::new("here", V5, ExactlyOnce, "crowd/#", &mut dice),
            Subscriber::new("away", V5, ExactlyOnce, "crowd/#", &mut dice),
        ],
        ..Crowd::default()
    };
    crowd.subscribe(node.address());
    let mut checkpoints = 0.0;
    for round in 0..rounds(3) {
        let delay = dice.millis(0..150);
        crowd.live(&mut node, &[true, false], |node, life| {
            let grown = || node.metric("storage_log_written_bytes_total") > CHECKPOINT_BYTES;
            eventually("the log grows", || grown().then_some(()));
            let done = || Some(node.metric("storage_checkpoint_seconds_count"));
            // In turn: somewhere in the checkpoint, and soon after it.
            if round % 2 == 1 {
                eventually("a checkpoint is done", || done().filter(|count| *count > 0.0));
            }
            thread::sleep(delay);
            checkpoints += done().unwrap_or_default();
            life.end();
            node.kill9();
        });
        node.start();
    }
    crowd.finish(&mut node);
    crowd.check(&node, &dice);
    assert!(checkpoints > 0.0 || rounds(3) < 2, "no checkpoint was done");
}
