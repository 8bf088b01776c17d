//! Three nodes in network namespaces, troubled for a while; what clients saw is judged.

use std::time::Duration;

use chaos_tests::{Dice, Fault, Story};

fn story(name: &str, seconds: u64, faults: &[Fault]) {
    let length = Duration::from_secs(seconds);
    let story = Story { dice: Dice::of(name), length, faults: faults.to_vec(), keep: false };
    let Some(report) = story.tell().unwrap() else { return };
    println!("{report}");
    assert!(report.is_good(), "{report}");
}

#[test]
fn a_cluster_keeps_its_promises_when_nodes_are_killed_stopped_and_cut_off() {
    story("trouble", 20, &[Fault::Kill, Fault::Stop, Fault::Cut]);
}
