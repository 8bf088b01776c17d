//! Policy documents of any kind, and decisions by those that parse.

#[path = "../../fuzz.rs"]
mod fuzz;

use std::sync::Arc;

use policy::{
    Action, Arns, CertificateVariables, Compiled, Decision, Document, Request, ThingVariables,
    Variables,
};

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/document");

const SEEDS: &[&[u8]] = &[
    br#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["iot:Connect","iot:*"],"Resource":"arn:aws:iot:*:1:client/${iot:ClientId}*?${*}"}]}"#,
    br#"{"Statement":{"Effect":"Deny","NotAction":"iot:P*","NotResource":["*","arn:aws:iot:r:1:topic/a/*/${iot:Certificate.Subject.CommonName.1}"]}}"#,
    br#"{"Statement":[{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"ForAllValues:StringEquals":{"iot:ConnectAttributes":["LastWill"]},"IpAddress":{"aws:SourceIp":"10.0.0.0/8"},"DateLessThan":{"aws:CurrentTime":"2026-04-01T14:20:30Z"}}}]}"#,
    br#"{"Statement":[{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"ArnLikeIfExists":{"iot:LastWillTopic":["topic/*","arn:aws:iot:r:1:topic/${iot:Connection.Thing.Attributes[a]}"]},"NumericNotEquals":{"iot:Connection.Thing.Attributes[a]":-1.5e3},"Null":{"iot:ClientId":true}}}]}"#,
];

fn variables() -> Variables {
    let values = vec!["one".to_owned(), "tw\u{f6}".to_owned()];
    let subject = [("CommonName".to_owned(), values)].into();
    Variables {
        client_id: Some("c".to_owned()),
        source_ip: Some([10, 1, 2, 3].into()),
        certificate: Some(CertificateVariables { subject, ..Default::default() }),
        thing: Some(ThingVariables {
            attributes: [("a".to_owned(), "1".to_owned())].into(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

#[test]
fn parsing_and_deciding_never_panic() {
    let arns = Arns { partition: "aws".into(), region: "r".into(), account: "1".into() };
    let connections = [Variables::default(), variables()];
    fuzz::run("document", CORPUS, SEEDS, |input| {
        let Ok(json) = std::str::from_utf8(input) else { return };
        let document = match Document::parse(json) {
            Ok(document) => Arc::new(document),
            Err(error) => return assert!(!error.location.is_empty()),
        };
        let decided = connections.each_ref().map(|variables| {
            let compiled = Compiled::new(std::slice::from_ref(&document), &arns, variables);
            decide_all(&compiled)
        });
        if !document.uses_variables() {
            assert_eq!(decided[0], decided[1], "connections differ");
        }
    });
}

fn decide_all(compiled: &Compiled) -> Vec<Decision> {
    let requests = [
        Request::default(),
        Request {
            persistent_connect: true,
            last_will_topic: Some("a/\u{f6}"),
            now_secs: Some(1_775_053_230),
        },
    ];
    let resources =
        ["*", "topic/", "topic/a/\u{f6}/one", "topicfilter/a/#", "client/c", "thing/t/s"];
    let mut decisions = Vec::new();
    for action in Action::ALL {
        for resource in resources {
            for request in &requests {
                decisions.push(compiled.decide(action, resource, request));
            }
        }
    }
    decisions
}
