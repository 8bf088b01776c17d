//! Histories that must pass, and histories that must not.

use super::*;
use crate::record::At;
use mqtt::QoS;

/// Events, separated by `;`, a second apart. `asked` is a second, too; `put`, `try` and `get` were
/// asked half a second later.
///
/// ```text
/// sub CLIENT PREFIX QOS        pub TOPIC NUMBER QOS     ack TOPIC NUMBER     no TOPIC NUMBER
/// got CLIENT TOPIC NUMBER QOS [dup] [again] [left SECS] con CLIENT CONNECTION ASKED [clean] [present]
/// ping CONNECTION ASKED        stop SINCE               wait SECONDS
/// put KEY VALUE ASKED [VERSION]   try KEY VALUE ASKED   get KEY VALUE ASKED [VERSION]
/// told CLIENT KEY VALUE VERSION          woke CLIENT LEFT ASKED KEPT [present]
/// shared SHARE TOPIC NUMBER              withdrawn TOPIC NUMBER
/// out CLIENT ASKED      end             exp TOPIC NUMBER INTERVAL [again]
/// is CLIENT TOPIC PRINCIPAL              revoked PRINCIPAL       restoring PRINCIPAL       troubled SINCE
/// ```
fn history(text: &str) -> Vec<Event> {
    let mut now = 0;
    let mut events = Vec::new();
    for line in text.split(';').map(str::trim).filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        now += if words[0] == "wait" { words[1].parse().unwrap() } else { 1 };
        let at = At::from_secs(now);
        events.extend(event(&words).map(|what| Event { at, what }));
    }
    events
}

fn event(words: &[&str]) -> Option<What> {
    let text = |at: usize| words[at].to_owned();
    let number = |at: usize| words[at].parse::<u64>().unwrap();
    let second = |at: usize| At::from_secs(number(at));
    let later = |at: usize| second(at) + At::from_millis(500);
    let has = |word| words.contains(&word);
    let qos = |at: usize| QoS::try_from(number(at) as u8).unwrap();
    let version = words.get(4).and_then(|word| word.parse().ok());
    let wrote = |acknowledged| What::Wrote {
        key: text(1),
        value: number(2),
        asked: later(3),
        acknowledged,
        version,
    };
    Some(match words[0] {
        "wait" => return None,
        "end" => What::Fault("none".to_owned()),
        "sub" => What::Subscribed { client: text(1), prefix: text(2), qos: qos(3) },
        "pub" => What::Published { topic: text(1), number: number(2), qos: qos(3) },
        "exp" => What::Expiring {
            topic: text(1),
            number: number(2),
            attempt: u32::from(has("again")),
            interval: number(3) as u32,
        },
        "ack" => What::Acknowledged { topic: text(1), number: number(2) },
        "no" => What::Refused { topic: text(1), number: number(2) },
        "got" => What::Delivered {
            client: text(1),
            topic: text(2),
            number: number(3),
            attempt: u32::from(has("again")),
            qos: qos(4),
            dup: has("dup"),
            interval: words.iter().position(|word| *word == "left").map(|at| number(at + 1) as u32),
        },
        "con" => What::Connected {
            client: text(1),
            connection: number(2),
            node: number(2),
            asked: second(3),
            clean: has("clean"),
            present: has("present"),
        },
        "out" => What::Unconnected { client: text(1), asked: second(2) },
        "ping" => What::Pinged { connection: number(1), asked: second(2) },
        "stop" => What::Stopped { node: 1, since: second(1) },
        "troubled" => What::Troubled { since: second(1) },
        "is" => What::Identified { client: text(1), topic: text(2), principal: text(3) },
        "revoked" => What::Revoked { principal: text(1) },
        "restoring" => What::Restoring { principal: text(1) },
        "put" => wrote(true),
        "try" => wrote(false),
        "get" => What::Read { key: text(1), value: number(2), asked: later(3), version },
        "told" => {
            What::Told { client: text(1), key: text(2), value: number(3), version: number(4) }
        }
        "shared" => What::Shared { share: text(1), topic: text(2), number: number(3) },
        "withdrawn" => What::Withdrawn { topic: text(1), number: number(2) },
        "woke" => What::Woke {
            client: text(1),
            left: second(2),
            asked: second(3),
            kept: second(4),
            present: has("present"),
        },
        other => panic!("{other}"),
    })
}

#[test]
fn histories_are_judged() {
    use Promise::*;
    let table: &[(&str, &[Promise])] = &[
        // Delivery.
        ("sub c t 1; pub t 0 1; ack t 0; got c t 0 1", &[]),
        ("sub c t 1; pub t 0 1; ack t 0", &[Delivered]),
        ("sub c t 1; pub t 0 1", &[]),
        ("sub c u 1; pub t 0 1; ack t 0", &[]),
        ("pub t 0 1; ack t 0; sub c t 1", &[]),
        ("sub c t 2; pub t 0 2; got c t 0 2; ack t 0", &[]),
        ("sub c t 2; sub d t 2; pub t 0 2; ack t 0; got c t 0 2", &[Delivered]),
        ("sub c t 2; pub t 0 2; ack t 0; got c t 0 2; got c t 0 2 dup", &[Once]),
        ("sub c t 2; pub t 0 2; ack t 0; got c t 0 2; got c t 0 2 again", &[Once]),
        ("sub c t 1; pub t 0 2; ack t 0; got c t 0 1; got c t 0 1 dup", &[]),
        ("sub c t 1; pub t 0 1; ack t 0; got c t 0 1; got c t 0 1 dup", &[]),
        ("sub c t 1; pub t 0 1; ack t 0; got c t 0 1; got c t 0 1 again", &[]),
        ("sub c t 1; pub t 0 1; ack t 0; got c t 0 1; got c t 0 1", &[Marked]),
        ("sub c t 1; pub t 0 1; pub t 1 1; got c t 0 1; got c t 1 1; got c t 0 1 dup", &[]),
        ("sub c t 1; pub t 0 1; pub t 1 1; got c t 1 1; got c t 0 1", &[Ordered]),
        ("sub c t 1; pub t 0 1; no t 0; pub t 1 1; got c t 1 1; got c t 0 1", &[]),
        ("pub t 0 1; sub c t 1; pub t 1 1; got c t 1 1; got c t 0 1", &[]),
        (
            "sub c t 1; pub t 0 1; no t 0; pub t 1 1; got c t 1 1; pub t 2 1; got c t 0 1; got c t 2 1",
            &[],
        ),
        ("sub c t 1; pub t 0 1; pub t 1 1; got c t 1 1; got c t 0 1 again", &[Ordered]),
        ("sub c t 1; pub t 0 1; pub u 0 1; no u 0; pub t 1 1; got c t 1 1; got c t 0 1 again", &[]),
        (
            "sub c t 1; pub t 0 1; pub u 0 1; no u 0; pub t 1 1; got c t 1 1; got c t 0 1",
            &[Ordered],
        ),
        (
            "sub c t 1; pub t 0 1; wait 2; pub u 0 1; no u 0; pub t 1 1; got c t 1 1; got c t 0 1 again",
            &[Ordered],
        ),
        ("sub c t 1; pub t 0 1; got c t 1 1", &[Sent]),
        ("sub c t 1; got c t 0 1; pub t 0 1", &[Sent]),
        ("sub c t 1; got c t 0 1", &[Sent]),
        // Sessions.
        ("con c 1 0; con c 2 1 present", &[]),
        ("con c 1 0; con c 2 1", &[Present]),
        ("con c 1 0 clean; con c 2 1 clean", &[]),
        ("con c 1 0 clean; con c 2 1 clean present", &[Present]),
        ("sub c t 1; con c 1 0; pub t 0 1; ack t 0; con c 2 4 present", &[Delivered]),
        // What expires at second 9: one without a session of its own to be owed it.
        ("sub c t 1; exp t 0 5; pub t 0 1; ack t 0", &[Delivered]),
        ("sub c t 1; exp t 0 5; pub t 0 1; ack t 0; wait 9; end", &[]),
        ("sub c t 1; exp t 0 5; pub t 0 1; ack t 0; got c t 0 1 left 5; wait 9; end", &[]),
        ("sub c t 1; exp t 0 5; pub t 0 1; ack t 0; got c t 0 1", &[Fresh]),
        ("sub c t 1; exp t 0 5; pub t 0 1; ack t 0; got c t 0 1 left 6", &[Fresh]),
        ("sub c t 1; pub t 0 1; ack t 0; got c t 0 1 left 5", &[Fresh]),
        // It came with the connection of second 8, which was asked for at 7 or 6.
        ("sub c t 1; exp t 0 5; pub t 0 1; ack t 0; wait 3; con c 1 7; got c t 0 1 left 3", &[]),
        (
            "sub c t 1; exp t 0 5; pub t 0 1; ack t 0; wait 3; con c 1 7; got c t 0 1 left 4",
            &[Fresh],
        ),
        ("sub c t 1; exp t 0 5; pub t 0 1; ack t 0; wait 3; con c 1 6; got c t 0 1 left 4", &[]),
        (
            "sub c t 1; exp t 0 5; pub t 0 1; ack t 0; wait 3; con c 1 7; got c t 0 1 left 4 dup",
            &[Fresh],
        ),
        // Sent again before it was acknowledged: the last sending counts.
        (
            "sub c t 1; exp t 0 5; pub t 0 1; wait 2; exp t 0 5 again; ack t 0; wait 3; con c 1 8; got c t 0 1 again left 5",
            &[],
        ),
        (
            "sub c t 1; exp t 0 5; pub t 0 1; wait 2; exp t 0 5 again; ack t 0; wait 3; con c 1 9; got c t 0 1 again left 5",
            &[Fresh],
        ),
        (
            "sub c t 1; exp t 0 5; pub t 0 1; exp t 0 5 again; ack t 0; wait 9; con c 1 13; got c t 0 1 left 1",
            &[],
        ),
        // Its first sending may have expired, and then another one comes behind what was sent before that.
        (
            "sub c t 1; exp t 0 1; pub t 0 1; pub t 1 1; exp t 0 1 again; got c t 1 1; got c t 0 1 again left 1",
            &[],
        ),
        ("sub c t 1; exp t 0 1; pub t 0 1; pub t 1 1; got c t 1 1; got c t 0 1 left 1", &[Ordered]),
        // Too late, unless it was begun before, or not even acknowledged.
        (
            "sub c t 1; exp t 0 5; pub t 0 1; ack t 0; wait 9; con c 1 11; got c t 0 1 left 1",
            &[Fresh],
        ),
        (
            "sub c t 1; exp t 0 5; pub t 0 1; ack t 0; wait 9; con c 1 11; got c t 0 1 dup left 0",
            &[],
        ),
        ("sub c t 1; exp t 0 5; pub t 0 1; wait 9; con c 1 11; got c t 0 1 left 1; ack t 0", &[]),
        // Too late on a connection that was there, but for what a process that stands still takes.
        ("con c 1 0; sub c t 1; exp t 0 2; pub t 0 1; ack t 0; wait 7; got c t 0 1 left 0", &[]),
        ("con c 1 0; sub c t 1; exp t 0 2; pub t 0 1; ack t 0; wait 9; got c t 0 1", &[Fresh]),
        (
            "con c 1 0; sub c t 1; exp t 0 2; pub t 0 1; ack t 0; wait 9; stop 5; got c t 0 1 left 2",
            &[],
        ),
        // Who is connected for three seconds while all is well has what was to expire at second 13.
        (
            "sub c t 1; exp t 0 9; pub t 0 1; ack t 0; con c 1 4; wait 3; ping 1 8; wait 9; end",
            &[Delivered],
        ),
        ("sub c t 1; exp t 0 9; pub t 0 1; ack t 0; con c 1 4; wait 3; ping 1 7; wait 9; end", &[]),
        (
            "sub c t 1; exp t 0 9; pub t 0 1; ack t 0; con c 1 4; wait 2; ping 1 7; con c 2 8 present; ping 2 10; wait 9; end",
            &[],
        ),
        ("sub c t 1; exp t 0 9; pub t 0 1; ack t 0; con d 1 4; wait 3; ping 1 8; wait 9; end", &[]),
        (
            "sub c t 1; exp t 0 9; pub t 0 1; ack t 0; con c 1 4; wait 1; troubled 0; ping 1 9; wait 9; end",
            &[],
        ),
        (
            "sub c t 1; exp t 0 9; pub t 0 1; ack t 0; con c 1 4; wait 1; troubled 0; wait 2; ping 1 10; wait 9; end",
            &[Delivered],
        ),
        // Shared subscriptions: some member has it.
        ("sub s t 1; pub t 0 1; pub t 1 1; ack t 0; shared s t 1; shared s t 0; shared s t 0", &[]),
        ("sub s t 1; pub t 0 1; pub t 1 1; ack t 0; ack t 1; shared s t 1", &[Delivered]),
        ("sub s t 1; pub t 0 1; shared s t 1", &[Sent]),
        // Wills are published as if their clients did it when they are gone.
        ("sub c w 2; pub w 0 2; withdrawn w 0", &[]),
        ("sub c w 2; pub w 0 2; withdrawn w 0; got c w 0 2", &[Withdrawn]),
        ("sub c w 2; pub w 0 2; ack w 0", &[Delivered]),
        ("sub c w 2; pub w 0 2; ack w 0; got c w 0 2; got c w 0 2", &[Once]),
        // Sessions that end.
        ("wait 9; woke c 1 9 10 present", &[]),
        ("wait 9; woke c 1 9 10", &[Expired]),
        ("wait 9; woke c 1 9 9", &[]),
        ("wait 9; woke c 1 9 9 present", &[]),
        ("wait 39; woke c 1 37 10", &[]),
        ("wait 39; woke c 1 37 10 present", &[Expired]),
        ("wait 39; woke c 1 36 10 present", &[]),
        // Connections: the first lives from second 1 on.
        ("con c 1 0 clean; ping 1 1; con c 2 2 clean; ping 2 3", &[]),
        ("con c 1 0 clean; con c 2 1 clean; ping 1 1; ping 2 3", &[]),
        ("con c 1 0 clean; con c 2 2 clean; wait 1; ping 1 3", &[Alone]),
        ("con c 1 0 clean; con d 2 2 clean; wait 1; ping 1 3", &[]),
        // Which of these is the later one is not known; one of them has to go.
        ("con c 1 0 clean; con c 2 0 clean; wait 1; ping 1 3", &[]),
        ("con c 1 0 clean; con c 2 0 clean; wait 1; ping 2 3", &[]),
        ("con c 1 0 clean; con c 2 0 clean; wait 1; ping 1 3; ping 2 3", &[Alone]),
        // A process that stood still for long may not know yet.
        ("con c 1 0 clean; wait 10; con c 2 3 clean; stop 2; ping 1 13", &[]),
        ("con c 1 0 clean; wait 10; con c 2 3 clean; stop 9; ping 1 13", &[Alone]),
        ("con c 1 0 clean; wait 10; con c 2 3 clean; stop 2; wait 9; ping 1 13", &[Alone]),
        // Nobody may be let in so soon after it began to, and what came later it has to know.
        ("con c 1 0 clean; wait 3; con c 2 3 clean; wait 9; stop 2; ping 1 14", &[Alone]),
        ("wait 9; stop 0; con c 1 9 clean; wait 1; con c 2 12 clean; ping 1 14", &[]),
        ("wait 9; stop 0; con c 1 10 clean; wait 1; con c 2 12 clean; ping 1 14", &[Alone]),
        // Who was revoked at second 2 may be heard until the third, and what began by then is all right.
        ("is c t x; revoked x; pub t 0 1; wait 5; ack t 0", &[]),
        ("is c t x; revoked x; wait 1; pub t 0 1; ack t 0", &[Silent]),
        ("is c t x; revoked x; wait 1; pub t 0 1; no t 0", &[]),
        ("is c t x; revoked x; wait 1; pub u 0 1; ack u 0", &[]),
        ("is c t x; is d u y; revoked x; wait 1; pub u 0 1; ack u 0", &[]),
        ("is c t x; revoked x; wait 9; con c 1 3 clean", &[]),
        ("is c t x; revoked x; wait 9; con c 1 4 clean", &[Silent]),
        ("is c t x; revoked x; wait 9; con d 1 4 clean", &[]),
        ("is c t x; con c 1 1 clean; revoked x; wait 1; ping 1 4", &[]),
        ("is c t x; con c 1 1 clean; revoked x; wait 5; ping 1 5", &[Silent]),
        // One that has another certificate by then, or its own again.
        (
            "is c t x; revoked x; is c t y; wait 9; pub t 0 1; ack t 0; con c 1 4 clean; ping 1 9",
            &[],
        ),
        ("is c t x; pub t 0 1; revoked x; is c t y; revoked y; wait 9; ack t 0", &[]),
        ("is c t x; revoked x; is c t y; revoked y; wait 9; con c 1 9 clean", &[Silent]),
        ("is c t x; revoked x; wait 3; restoring x; pub t 0 1; ack t 0; con c 1 5 clean", &[]),
        ("is c t x; revoked x; wait 3; pub t 0 1; restoring x; ack t 0", &[]),
        ("is c t x; revoked x; wait 3; pub t 0 1; ack t 0; restoring x", &[Silent]),
        ("is c t x; revoked x; restoring x; revoked x; wait 1; pub t 0 1; ack t 0", &[Silent]),
        // A node that is cut off hears of it later, one that stands still when it goes on.
        ("is c t x; revoked x; wait 5; pub t 0 1; ack t 0; troubled 1", &[]),
        ("is c t x; revoked x; wait 6; pub t 0 1; ack t 0; troubled 1", &[Silent]),
        ("is c t x; revoked x; troubled 1; wait 5; con c 1 8 clean", &[]),
        ("troubled 0; is c t x; revoked x; wait 5; con c 1 7 clean", &[Silent]),
        ("is c t x; revoked x; wait 5; con c 1 7 clean; wait 1; troubled 8", &[Silent]),
        ("is c t x; revoked x; wait 8; stop 1; pub t 0 1; ack t 0; troubled 0", &[]),
        ("is c t x; revoked x; wait 8; stop 1; wait 6; pub t 0 1; ack t 0; troubled 0", &[Silent]),
        ("stop 0; is c t x; revoked x; wait 8; pub t 0 1; ack t 0; troubled 0", &[Silent]),
        // Values without versions.
        ("put k 1 0; put k 2 1; get k 2 2", &[]),
        ("put k 1 0; put k 2 1; get k 1 3", &[Latest]),
        ("put k 1 0; put k 2 0; get k 1 3", &[]),
        ("put k 1 0; get k 1 1; put k 2 0; get k 2 3", &[]),
        ("put k 1 0; put k 2 0; get k 1 2; get k 2 3", &[Latest]),
        ("put k 1 0; try k 2 1; get k 1 2; get k 2 3", &[]),
        ("put k 1 0; try k 2 1; get k 2 2; get k 1 3", &[Latest]),
        ("put k 1 0; try k 2 1; put k 3 2; get k 2 3", &[]),
        ("put k 1 0; try k 2 1; put k 3 2; get k 2 3; get k 3 4", &[Latest]),
        ("put k 1 0; get k 7 1", &[Latest]),
        ("get k 0 0; put k 1 1; get k 1 2", &[]),
        ("put k 1 0; get k 0 2", &[Latest]),
        ("try k 1 0; get k 0 2; get k 1 3", &[]),
        ("put k 1 0; put l 2 0; get k 1 2; get l 2 2", &[]),
        // Values with versions.
        ("put k 10 0 1; put k 20 1 2; get k 20 2 2", &[]),
        ("put k 10 0 1; put k 20 1 2; get k 10 3 1", &[Latest]),
        ("put k 10 0 2; put k 20 2 1", &[Latest]),
        ("put k 10 0 1; put k 20 2 1", &[Versions, Latest]),
        ("put k 10 0 1; get k 20 0 1", &[Versions]),
        ("put k 10 0 1; told c k 10 1; put k 20 2 2; told c k 20 2; told c k 10 1", &[]),
        ("put k 10 0 1; told c k 10 1; put k 20 2 2", &[Versions]),
        ("told c k 10 1; told c k 20 3", &[Versions]),
        ("told c k 20 2; told c k 10 1", &[Versions]),
        ("told c k 10 1; told d k 20 1", &[Versions]),
        ("told c k 10 1; told c k 10 2", &[Versions]),
    ];
    for (text, expected) in table {
        let verdict = check(&history(text));
        let found: Vec<Promise> = verdict.violations.iter().map(|it| it.promise).collect();
        assert_eq!(&found, expected, "{text}: {:?}", verdict.violations);
    }
}

#[test]
fn a_connection_of_a_process_that_stood_still_is_counted() {
    let verdict = check(&history("con c 1 0 clean; wait 10; con c 2 3 clean; stop 2; ping 1 13"));
    assert_eq!((verdict.revenants, verdict.violations.len()), (1, 0));
}

#[test]
fn revocations_that_somebody_tried_to_break_are_counted() {
    let table = [
        ("is c t x; revoked x; wait 9", 0),
        ("is c t x; revoked x; wait 9; out c 3", 0),
        ("is c t x; revoked x; wait 9; out c 4", 1),
        ("is c t x; revoked x; wait 9; out d 4", 0),
        ("is c t x; revoked x; wait 9; out c 4; out c 5", 1),
        ("is c t x; revoked x; wait 9; out c 4; troubled 3", 0),
        ("is c t x; revoked x; wait 9; restoring x; out c 4", 0),
        ("is c t x; revoked x; pub t 0 1", 0),
        ("is c t x; revoked x; wait 1; pub t 0 1", 1),
        ("is c t x; is d u y; revoked x; revoked y; wait 9; out c 6; out d 6", 2),
    ];
    for (text, expected) in table {
        let verdict = check(&history(text));
        let count = verdict.counts.get("revocations judged by the second").copied();
        assert_eq!(count.unwrap_or_default(), expected, "{text}");
    }
}

#[test]
fn what_the_protocol_forbids_is_told() {
    let text = "PUBREL before its PUBREC".to_owned();
    let what = What::Broken { client: "c".into(), text };
    let verdict = check(&[Event { at: At::ZERO, what }]);
    assert_eq!(verdict.violations[0].promise, Promise::Protocol);
}
