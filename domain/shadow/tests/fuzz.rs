//! Update requests, one per line, against one shadow.

#[path = "../../fuzz.rs"]
mod fuzz;

use serde_json::Value;
use shadow::{Limits, Record};

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/merge");

const SEEDS: &[&[u8]] = &[
    br#"{"state":{"desired":{"a":1,"b":{"c":[1,{"d":2}]}},"reported":{"a":0}},"clientToken":"t"}"#,
    br#"{"state":{"desired":{"a":1}}}
{"state":{"desired":{"a":null}},"version":1}
{"state":{"desired":null,"reported":{"b":{"c":{}}}}}"#,
    br#"{"state":{"desired":{"a":{"b":{"c":{"d":{"e":{"f":{"g":{"h":1}}}}}}}}}}
{"state":{"desired":{"a":[[[[[[[1]]]]]]]}}}"#,
    br#"{"state":{"reported":{"\u0000":"\ud83d\ude00","n":-0.0,"m":1e308}}}"#,
];

#[test]
fn merging_never_panics_and_keeps_its_promises() {
    fuzz::run("merge", CORPUS, SEEDS, |input| {
        let limits = Limits { document_bytes: 200, ..Limits::default() };
        let mut record: Option<Record> = None;
        for payload in input.split(|byte| *byte == b'\n') {
            let _ = shadow::parse_request(payload, &limits);
            let Ok(update) = shadow::parse_update(payload, &limits) else { continue };
            let Ok(change) = shadow::update(record.as_ref(), &update, 1, &limits) else { continue };

            let version = record.as_ref().and_then(Record::document).map_or(0, |it| it.version());
            assert_eq!(change.document.version(), version + 1);
            assert!(change.document.state_bytes() <= limits.document_bytes);
            for json in [&change.accepted, &change.documents].into_iter().chain(&change.delta) {
                serde_json::from_slice::<Value>(json).expect("messages are JSON");
            }
            let stored = Record::Present(change.document);
            assert_eq!(Record::from_bytes(&stored.to_bytes()).expect("reads back"), stored);
            record = Some(stored);
        }
    });
}

#[test]
fn reading_a_record_never_panics() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/record");
    let seeds: &[&[u8]] = &[
        b"\x01D{\"version\":1,\"desired\":{\"a\":[1700000000,1],\"b\":{\"c\":[1,[2]]}}}",
        b"\x01T{\"version\":1,\"deleted_at\":1700000000}",
    ];
    fuzz::run("record", corpus, seeds, |input| {
        if let Ok(record) = Record::from_bytes(input) {
            let again = Record::from_bytes(&record.to_bytes()).expect("reads back");
            assert_eq!(again, record);
        }
    });
}
