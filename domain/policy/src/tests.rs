//! Tables of decisions and of malformed documents, from `testdata/`.

use std::fmt::Write;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::action::Kind;
use crate::*;

const ARN: &str = "arn:aws:iot:us-east-1:123456789012:";

fn arns() -> Arns {
    Arns {
        partition: "aws".to_owned(),
        region: "us-east-1".to_owned(),
        account: "123456789012".to_owned(),
    }
}

/// Blocks of a title (`#`), lines of input, `----`, and lines that are expected.
fn cases(file: &str) -> impl Iterator<Item = (&str, &str, &str)> {
    file.split("\n\n").map(str::trim).filter(|block| !block.is_empty()).map(|block| {
        let (head, expected) = block.split_once("\n----\n").expect(block);
        let (title, input) = head.split_once('\n').expect(block);
        (title.strip_prefix("# ").expect(block), input, expected)
    })
}

/// `with client_id lamp`: one value of a variable; lists take several lines.
fn set(variables: &mut Variables, name: &str, value: &str) {
    let value = value.to_owned();
    if let Some(name) = name.strip_prefix("thing.") {
        let thing = variables.thing.get_or_insert_default();
        match name {
            "name" => thing.name = value,
            "type" => thing.type_name = Some(value),
            "is_attached" => thing.is_attached = value == "true",
            _ => drop(thing.attributes.insert(name.to_owned(), value)),
        }
        return;
    }
    if let Some(name) = name.strip_prefix("certificate.") {
        let certificate = variables.certificate.get_or_insert_default();
        match name.split_once('.') {
            Some(("subject", name)) => {
                certificate.subject.entry(name.to_owned()).or_default().push(value);
            }
            Some(("issuer", name)) => {
                certificate.issuer.entry(name.to_owned()).or_default().push(value);
            }
            _ if name == "id" => certificate.id = value,
            _ => certificate.serial_number = Some(value),
        }
        return;
    }
    match name {
        "client_id" => variables.client_id = Some(value),
        "source_ip" => variables.source_ip = Some(value.parse().unwrap()),
        "domain_name" => variables.domain_name = Some(value),
        _ => variables.others.entry(name.to_owned()).or_default().push(value),
    }
}

/// `Allow iot:Publish,iot:Receive topic/a,topic/b {"StringEquals": …}`: `!` before the actions or the
/// resources makes them NotAction and NotResource; resources are the ends of ARNs, or whole.
fn statement(line: &str) -> Value {
    let mut words = line.splitn(4, ' ');
    let effect = words.next().unwrap();
    let (action, actions) = list(words.next().expect(line), "Action", "NotAction");
    let (resource, resources) = list(words.next().expect(line), "Resource", "NotResource");
    let resources: Vec<String> = resources
        .into_iter()
        .map(|it| if it == "*" || it.starts_with("arn") { it } else { format!("{ARN}{it}") })
        .collect();
    let mut statement = json!({ "Effect": effect, action: actions, resource: resources });
    if let Some(condition) = words.next() {
        statement["Condition"] = serde_json::from_str(condition).expect(line);
    }
    statement
}

fn list<'a>(words: &str, these: &'a str, except: &'a str) -> (&'a str, Vec<String>) {
    let (key, words) = match words.strip_prefix('!') {
        Some(words) => (except, words),
        None => (these, words),
    };
    (key, words.split(',').map(str::to_owned).collect())
}

fn compile(input: &str) -> Compiled {
    let mut variables = Variables::default();
    let mut documents = Vec::new();
    for line in input.lines() {
        let (verb, rest) = line.split_once(' ').expect(line);
        if verb == "with" {
            let (name, value) = rest.split_once(' ').expect(line);
            set(&mut variables, name, value);
            continue;
        }
        let json = match verb {
            "policy" => rest.to_owned(),
            _ => json!({ "Version": "2012-10-17", "Statement": statement(line) }).to_string(),
        };
        documents.push(Arc::new(Document::parse(&json).expect(line)));
    }
    Compiled::new(&documents, &arns(), &variables)
}

/// `Publish topic/a = allowed`; between resource and `=` stands what the request brings.
fn ask(compiled: &Compiled, line: &str) -> String {
    let question = line.split(" = ").next().unwrap();
    let mut words = question.split(' ');
    let action = words.next().unwrap();
    let action = Action::ALL.into_iter().find(|it| format!("{it:?}") == action).expect(line);
    let resource = words.next().expect(line);
    let mut request = Request::default();
    for word in words {
        match word.split_once(':') {
            None => request.persistent_connect = true,
            Some(("will", topic)) => request.last_will_topic = Some(topic),
            Some((_, secs)) => request.now_secs = Some(secs.parse().unwrap()),
        }
    }
    let decision = compiled.decide(action, resource, &request);
    if let Some(topic) = resource.strip_prefix("topic/").filter(|_| action.kind() == Kind::Topic) {
        assert_eq!(compiled.decide_topic(action, topic, &request), decision, "{line}");
    }
    let decision = match decision {
        Decision::Allowed => "allowed",
        Decision::ExplicitDeny => "denied",
        Decision::ImplicitDeny => "not allowed",
    };
    format!("{question} = {decision}")
}

#[test]
fn policies_decide_as_documented() {
    for file in [
        include_str!("../testdata/resources.txt"),
        include_str!("../testdata/actions.txt"),
        include_str!("../testdata/variables.txt"),
        include_str!("../testdata/conditions.txt"),
    ] {
        for (title, input, expected) in cases(file) {
            let compiled = compile(input);
            let mut actual = String::new();
            for line in expected.lines() {
                writeln!(actual, "{}", ask(&compiled, line)).unwrap();
            }
            assert_eq!(actual.trim_end(), expected, "{title}");
        }
    }
}

#[test]
fn a_decision_that_time_may_change_is_known_as_such() {
    for (condition, expected) in [
        ("", false),
        (r#" {"DateLessThan": {"aws:CurrentTime": "2027-01-01T00:00:00Z"}}"#, true),
        (r#" {"NumericGreaterThan": {"aws:EpochTime": "1775053230"}}"#, true),
        (r#" {"StringEquals": {"iot:ClientId": "c"}}"#, false),
        (r#" {"Bool": {"iot:Connection.Thing.IsAttached": "true"}}"#, false),
        (r#" {"ForAllValues:StringEquals": {"iot:ConnectAttributes": ["LastWill"]}}"#, false),
    ] {
        for effect in ["Allow", "Deny"] {
            let compiled = compile(&format!("{effect} iot:Publish topic/a{condition}"));
            assert_eq!(compiled.depends_on_time(), expected, "{effect}{condition}");
        }
    }
    let except = r#"Deny iot:Publish !topic/a {"Null": {"aws:CurrentTime": "false"}}"#;
    assert!(compile(except).depends_on_time());
}

#[test]
fn malformed_documents_are_explained() {
    for (title, input, expected) in cases(include_str!("../testdata/malformed.txt")) {
        let actual: Vec<String> = input
            .lines()
            .map(|json| match Document::parse(json) {
                Ok(_) => "ok".to_owned(),
                Err(error) => error.to_string(),
            })
            .collect();
        assert_eq!(actual.join("\n"), expected, "{title}");
    }
}

#[test]
fn white_space_does_not_count_towards_the_size() {
    let document = |sid: usize, space: usize| {
        let (sid, space) = ("s".repeat(sid), " \n".repeat(space));
        format!(
            r#"{{"Statement":{space}{{"Sid":"{sid}","Effect":"Allow","Action":"*","Resource":"*"}}}}"#
        )
    };
    let frame = document(0, 0).len();
    assert!(Document::parse(&document(MAX_DOCUMENT_CHARS - frame, 5000)).is_ok());
    let error = Document::parse(&document(MAX_DOCUMENT_CHARS - frame + 1, 0)).unwrap_err();
    let expected = "document: 2049 characters without white space, at most 2048 are allowed";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn everything_is_allowed_where_there_are_no_policies_to_ask() {
    let compiled = Compiled::allow_all();
    for action in Action::ALL {
        let resource = format!("{}x", action.kind().prefix());
        assert_eq!(compiled.decide(action, &resource, &Request::default()), Decision::Allowed);
    }
    let nothing = Compiled::new(&[], &arns(), &Variables::default());
    for action in Action::ALL {
        let resource = format!("{}x", action.kind().prefix());
        assert_eq!(nothing.decide(action, &resource, &Request::default()), Decision::ImplicitDeny);
    }
}

#[test]
fn documents_say_whether_connections_differ() {
    for (line, expected) in [
        ("Allow iot:Publish topic/a/*", false),
        ("Allow iot:Publish topic/${*}", false),
        ("Allow iot:Publish topic/${iot:ClientId}", true),
        ("Allow iot:Publish !topic/${iot:ClientId}", true),
        ("Allow iot:Publish topic/${unknown}", true),
        (r#"Allow iot:Publish * {"IpAddress":{"aws:SourceIp":"10.0.0.0/8"}}"#, true),
        (r#"Allow iot:Publish * {"Bool":{"unknown":true}}"#, true),
        (
            r#"Allow iot:Connect * {"ForAllValues:StringEquals":{"iot:ConnectAttributes":[""]}}"#,
            false,
        ),
        (
            r#"Allow iot:Connect * {"ArnEquals":{"iot:LastWillTopic":"topic/${iot:ClientId}"}}"#,
            true,
        ),
        (r#"Allow iot:Publish * {"DateLessThan":{"aws:CurrentTime":"2030-01-01"}}"#, false),
    ] {
        let json = json!({ "Version": "2012-10-17", "Statement": statement(line) });
        let document = Document::parse(&json.to_string()).unwrap();
        assert_eq!(document.uses_variables(), expected, "{line}");
    }
}

#[test]
fn a_compiled_policy_is_small() {
    let compiled = compile(
        "with client_id lamp-4711\n\
         Allow iot:Connect client/${iot:ClientId}\n\
         Allow iot:Publish,iot:Receive topic/fleet/${iot:ClientId}/*\n\
         Allow iot:Subscribe topicfilter/fleet/${iot:ClientId}/*\n\
         Deny iot:Publish topic/fleet/*/secret",
    );
    assert!(compiled.held_bytes() < 400, "{}", compiled.held_bytes());
}

proptest! {
    /// Statements over few topics, against the definition of a decision.
    #[test]
    fn denials_win_over_allowances(
        statements in prop::collection::vec((any::<bool>(), "[ab*?]{1,3}"), 0..6),
        topic in "[ab]{1,3}",
    ) {
        let mut input = String::new();
        for (allow, pattern) in &statements {
            let effect = if *allow { "Allow" } else { "Deny" };
            writeln!(input, "{effect} iot:Publish topic/{pattern}").unwrap();
        }
        let matching = |allow: bool| {
            statements.iter().any(|(it, pattern)| {
                *it == allow && glob::matches(&glob::from_wildcards(pattern), &topic)
            })
        };
        let expected = match (matching(false), matching(true)) {
            (true, _) => Decision::ExplicitDeny,
            (false, true) => Decision::Allowed,
            (false, false) => Decision::ImplicitDeny,
        };
        let compiled = compile(&input);
        prop_assert_eq!(compiled.decide_topic(Action::Publish, &topic, &Request::default()), expected);
    }
}
