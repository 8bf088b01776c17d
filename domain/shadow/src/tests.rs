//! Scripts of requests against one shadow, from `testdata/`, and properties of merge and delta.

use std::fmt::Write;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::*;

/// A case is a title (`#`), requests, `----`, and what they answer.
struct Case<'a> {
    title: &'a str,
    input: Vec<&'a str>,
    expected: String,
}

fn cases(file: &str) -> Vec<Case<'_>> {
    let mut cases = Vec::new();
    for block in file.split("\n\n").map(str::trim).filter(|block| !block.is_empty()) {
        let (head, expected) = block.split_once("\n----\n").expect(block);
        let (title, input) = head.split_once('\n').expect(block);
        let title = title.strip_prefix("# ").expect(block);
        cases.push(Case { title, input: input.lines().collect(), expected: expected.to_owned() });
    }
    cases
}

/// One shadow, the time, and what was answered so far.
struct Script {
    record: Option<Record>,
    now_secs: u64,
    limits: Limits,
    answers: String,
}

impl Script {
    fn run(input: &[&str]) -> String {
        let (record, limits) = (None, Limits::default());
        let mut script = Self { record, now_secs: 1_700_000_000, limits, answers: String::new() };
        for line in input {
            let (verb, argument) = line.split_once(' ').unwrap_or((line, ""));
            script.step(verb, argument);
        }
        script.answers.trim_end().to_owned()
    }

    fn step(&mut self, verb: &str, argument: &str) {
        match verb {
            "at" => self.now_secs = argument.parse().unwrap(),
            "depth" => self.limits.depth = argument.parse().unwrap(),
            // As before version 2 of the data.
            "empty" => self.limits.takes_empty = argument != "refused",
            "bytes" => self.limits.document_bytes = argument.parse().unwrap(),
            "size" => {
                let bytes = self.record.as_ref().unwrap().document().unwrap().state_bytes();
                self.answer("size", &bytes.to_string());
            }
            "update" | "messages" => {
                let result = parse_update(argument.as_bytes(), &self.limits)
                    .and_then(|it| update(self.record.as_ref(), &it, self.now_secs, &self.limits));
                match result {
                    Ok(change) => self.changed(change, verb == "messages"),
                    Err(rejected) => self.rejected(&rejected),
                }
            }
            "get" => match parse_request(argument.as_bytes(), &self.limits).and_then(|token| {
                get(self.record.as_ref(), "lamp", token.as_deref(), self.now_secs)
            }) {
                Ok(json) => self.answer("get", text(&json)),
                Err(rejected) => self.rejected(&rejected),
            },
            "delete" => match parse_request(argument.as_bytes(), &self.limits).and_then(|token| {
                delete(self.record.as_ref(), "lamp", token.as_deref(), self.now_secs)
            }) {
                Ok(deletion) => {
                    self.store(Record::Deleted(deletion.tombstone));
                    self.answer("deleted", text(&deletion.accepted));
                }
                Err(rejected) => self.rejected(&rejected),
            },
            _ => panic!("no such verb: {verb}"),
        }
    }

    fn changed(&mut self, change: Change, show_all: bool) {
        let delta = change.delta.as_deref();
        if show_all {
            self.answer("accepted", text(&change.accepted));
            self.answer("delta", delta.map_or("none", text));
            self.answer("documents", text(&change.documents));
        } else {
            let state = delta.map_or(json!("none"), |delta| parsed(delta)["state"].take());
            let state = state.as_str().map_or_else(|| state.to_string(), str::to_owned);
            let version = change.document.version();
            self.answer("version", &format!("{version} delta {state}"));
        }
        self.store(Record::Present(change.document));
    }

    /// Every record goes through its stored form.
    fn store(&mut self, record: Record) {
        let read = Record::from_bytes(&record.to_bytes()).unwrap();
        assert_eq!(read, record);
        self.record = Some(read);
    }

    fn rejected(&mut self, rejected: &Rejected) {
        self.answer("rejected", text(&rejected.to_json(self.now_secs)));
    }

    fn answer(&mut self, what: &str, text: &str) {
        writeln!(self.answers, "{what} {text}").unwrap();
    }
}

fn text(json: &[u8]) -> &str {
    let text = std::str::from_utf8(json).unwrap();
    serde_json::from_str::<Value>(text).expect(text);
    text
}

fn parsed(json: &[u8]) -> Value {
    serde_json::from_slice(json).unwrap()
}

#[test]
fn requests_are_answered_as_documented() {
    for file in [
        include_str!("../testdata/update.txt"),
        include_str!("../testdata/messages.txt"),
        include_str!("../testdata/rejected.txt"),
        include_str!("../testdata/versions.txt"),
    ] {
        for case in cases(file) {
            assert_eq!(Script::run(&case.input), case.expected, "{}", case.title);
        }
    }
}

#[test]
fn a_payload_that_is_not_utf8_is_refused() {
    let rejected = parse_update(b"{\"state\":{\"desired\":{\"a\":\"\xff\"}}}", &Limits::default());
    let rejected = rejected.unwrap_err();
    assert_eq!(rejected.code, 415);
    assert_eq!(rejected.message, "Unsupported documented encoding; supported encoding is UTF-8");
    assert_eq!(parse_request(b"\xff", &Limits::default()).unwrap_err().code, 415);
}

/// One byte more is refused before anything of it is read.
#[test]
fn a_request_has_a_largest_size_whatever_it_says() {
    let update = br#"{"state":{"desired":{"a":1}}}"#;
    for (request, code) in [(&update[..], None), (b"{}", Some(400)), (b" ", Some(400))] {
        let fill = |bytes: usize| [request, &b" ".repeat(bytes - request.len())].concat();
        let limits = Limits::default();
        let rejected = |payload: &[u8]| parse_update(payload, &limits).err().map(|it| it.code);
        assert_eq!(rejected(&fill(MAX_REQUEST_BYTES)), code);
        assert_eq!(rejected(&fill(MAX_REQUEST_BYTES + 1)), Some(413));
        assert_eq!(parse_request(&fill(MAX_REQUEST_BYTES), &limits), Ok(None));
        let rejected = parse_request(&fill(MAX_REQUEST_BYTES + 1), &limits);
        assert_eq!(rejected, Err(Rejected::too_large()));
    }
}

#[test]
fn refusals_have_the_texts_of_aws() {
    for (rejected, expected) in [
        (Rejected::unauthorized(), r#"{"code":401,"message":"Unauthorized"}"#),
        (Rejected::forbidden(), r#"{"code":403,"message":"Forbidden"}"#),
        (Rejected::thing_not_found(), r#"{"code":404,"message":"Thing not found"}"#),
        (Rejected::too_many_requests(), r#"{"code":429,"message":"Too many requests"}"#),
        (Rejected::internal(), r#"{"code":500,"message":"Internal service failure"}"#),
    ] {
        let rejected = rejected.with_token(Some("not shown by REST"));
        assert_eq!(text(&rejected.to_rest_json()), expected);
    }
    let rejected = Rejected::forbidden().with_token(Some("t"));
    let expected = r#"{"code":403,"message":"Forbidden","timestamp":7,"clientToken":"t"}"#;
    assert_eq!(text(&rejected.to_json(7)), expected);
}

#[test]
fn names_are_validated() {
    for (name, valid) in [
        ("config", true),
        ("A-z_0:9$", true),
        (&"n".repeat(64), true),
        (&"n".repeat(65), false),
        ("", false),
        ("a b", false),
        ("a/b", false),
        ("a.b", false),
        ("über", false),
    ] {
        assert_eq!(is_valid_name(name), valid, "{name}");
    }
}

#[test]
fn records_of_another_format_are_refused() {
    for (bytes, expected) in [
        (&b""[..], "shadow record in format None, expected 1"),
        (b"\x02D{}", "shadow record in format Some(2), expected 1"),
        (b"\x01", "shadow record of kind None"),
        (b"\x01X{}", "shadow record of kind Some(88)"),
        (b"\x01D{}", "shadow record: missing field `version` at line 1 column 2"),
        (b"\x01T{\"version\":1}", "shadow record: missing field `deleted_at` at line 1 column 13"),
    ] {
        assert_eq!(Record::from_bytes(bytes).unwrap_err().to_string(), expected);
    }
}

/// Nesting as deep as the limits can be made still reads back.
#[test]
fn the_deepest_document_can_be_stored() {
    let limits = Limits { depth: usize::MAX, ..Limits::default() };
    let nested = |levels: usize| {
        let (open, close) = ("[".repeat(levels - 1), "]".repeat(levels - 1));
        format!("{{\"state\":{{\"desired\":{{\"a\":{open}1{close}}}}}}}")
    };
    let request = parse_update(nested(Limits::MAX_DEPTH).as_bytes(), &limits).unwrap();
    let document = update(None, &request, 1, &limits).unwrap().document;
    let record = Record::Present(document);
    assert_eq!(Record::from_bytes(&record.to_bytes()).unwrap(), record);
    for levels in [Limits::MAX_DEPTH + 1, 1000] {
        let rejected = parse_update(nested(levels).as_bytes(), &limits).unwrap_err();
        assert!(rejected.message.contains("too many levels"), "{levels}: {}", rejected.message);
    }
}

/// Parsing a number to the nearest but one would make a record differ from its stored form.
#[test]
fn numbers_read_back_as_they_were() {
    for number in ["118446744073709551614", "0.30000000000000004", "1.7976931348623157e308"] {
        let payload = format!(r#"{{"state":{{"reported":{{"n":{number}}}}}}}"#);
        let request = parse_update(payload.as_bytes(), &Limits::default()).unwrap();
        let record =
            Record::Present(update(None, &request, 1, &Limits::default()).unwrap().document);
        assert_eq!(Record::from_bytes(&record.to_bytes()).unwrap(), record, "{number}");
    }
}

/// A scalar, an array or an object with few keys, so that sections collide often.
fn value() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (0..3i64).prop_map(Value::from),
        "[a-b]{0,2}".prop_map(Value::from),
        prop::collection::vec(0..3u8, 0..3).prop_map(Value::from),
    ];
    scalar.prop_recursive(4, 24, 4, |inner| {
        prop::collection::btree_map("[a-d]", inner, 0..4).prop_map(|map| json!(map))
    })
}

fn section() -> impl Strategy<Value = Value> {
    prop::collection::btree_map("[a-d]", value(), 0..5).prop_map(|map| json!(map))
}

fn apply(record: Option<&Record>, state: Value) -> Change {
    let payload = serde_json::to_vec(&json!({ "state": state })).unwrap();
    let request = parse_update(&payload, &Limits::default()).unwrap();
    update(record, &request, 1, &Limits::default()).unwrap()
}

/// Merging as the documentation words it, over plain JSON.
fn merge_plainly(target: &mut Map<String, Value>, patch: &Map<String, Value>) {
    for (key, value) in patch {
        let Value::Object(entries) = value else {
            match value {
                Value::Null => drop(target.remove(key)),
                value => drop(target.insert(key.clone(), value.clone())),
            }
            continue;
        };
        let mut inner = match target.remove(key) {
            Some(Value::Object(inner)) => inner,
            _ => Map::new(),
        };
        merge_plainly(&mut inner, entries);
        if !inner.is_empty() || entries.is_empty() {
            target.insert(key.clone(), Value::Object(inner));
        }
    }
}

proptest! {
    #[test]
    fn merging_agrees_with_the_plain_definition(first in section(), second in section()) {
        let before = Record::Present(apply(None, json!({ "reported": first })).document);
        let after = apply(Some(&before), json!({ "reported": second })).document;
        let mut expected = Map::new();
        merge_plainly(&mut expected, first.as_object().unwrap());
        merge_plainly(&mut expected, second.as_object().unwrap());
        prop_assert_eq!(parsed(&after.reported()), Value::Object(expected));
    }

    /// A device that reports what the delta asks for has nothing left to do.
    #[test]
    fn reporting_the_delta_closes_it(desired in section(), reported in section()) {
        let change = apply(None, json!({ "desired": desired, "reported": reported }));
        let record = Record::Present(change.document);
        if let Some(delta) = change.delta {
            let change = apply(Some(&record), json!({ "reported": parsed(&delta)["state"] }));
            prop_assert_eq!(change.delta, None);
        }
    }

    /// Metadata has a timestamp wherever the state has a value, and nowhere else.
    #[test]
    fn metadata_mirrors_the_state(desired in section(), reported in section()) {
        let change = apply(None, json!({ "desired": desired, "reported": reported }));
        let shown = parsed(&get(Some(&Record::Present(change.document)), "t", None, 1).unwrap());
        fn stamped(value: &Value) -> Value {
            match value {
                Value::Object(map) => map.iter().map(|(k, v)| (k.clone(), stamped(v))).collect(),
                Value::Array(items) => items.iter().map(stamped).collect(),
                _ => json!({ "timestamp": 1 }),
            }
        }
        prop_assert_eq!(stamped(&shown["state"]), shown["metadata"].clone());
    }

    #[test]
    fn records_survive_storage(desired in section(), reported in section()) {
        let record = Record::Present(
            apply(None, json!({ "desired": desired, "reported": reported })).document,
        );
        prop_assert_eq!(Record::from_bytes(&record.to_bytes()).unwrap(), record);
    }
}
