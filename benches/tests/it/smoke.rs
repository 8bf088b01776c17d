//! Every scenario, small: against the raw relay, and against mosquitto where it is installed.

use std::process::Command;

fn compare(brokers: &str) {
    let run = Command::new(env!("CARGO_BIN_EXE_skein-load"))
        .args(["compare", "--quick", "--broker", brokers])
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(run.status.success(), "{}\n{}", text(&run.stdout), text(&run.stderr));
}

#[test]
fn the_relay_passes() {
    compare("relay");
}

#[test]
fn mosquitto_passes() {
    if Command::new("mosquitto").arg("-h").output().is_err() {
        eprintln!("skipped: mosquitto is not installed");
        return;
    }
    compare("mosquitto");
}
