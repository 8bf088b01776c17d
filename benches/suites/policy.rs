//! Policies: what every publication and every connection pays for them.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use policy::{Action, Arns, Compiled, Decision, Document, Request, Variables};

fn arns() -> Arns {
    Arns {
        partition: "aws".to_owned(),
        region: "us-east-1".to_owned(),
        account: "123456789012".to_owned(),
    }
}

fn variables() -> Variables {
    Variables { client_id: Some("truck-0042".to_owned()), ..Variables::default() }
}

/// A statement that allows an action on a resource.
fn allow(action: &str, resource: &str) -> String {
    let arn = "arn:aws:iot:us-east-1:123456789012";
    format!(r#"{{"Effect":"Allow","Action":"{action}","Resource":"{arn}:{resource}"}}"#)
}

/// As many documents as the statements take: each has a size that it must not exceed.
fn documents(statements: &[String]) -> Vec<Arc<Document>> {
    let document = |statements: &[String]| {
        let json = format!(r#"{{"Version":"2012-10-17","Statement":[{}]}}"#, statements.join(","));
        Arc::new(Document::parse(&json).expect("a policy"))
    };
    statements.chunks(10).map(document).collect()
}

/// What a device that speaks of itself only needs.
fn typical() -> Vec<Arc<Document>> {
    documents(&[
        allow("iot:Connect", "client/${iot:ClientId}"),
        allow("iot:Publish", "topic/fleet/${iot:ClientId}/*"),
        allow("iot:Receive", "topic/fleet/${iot:ClientId}/*"),
        allow("iot:Subscribe", "topicfilter/fleet/${iot:ClientId}/*"),
    ])
}

/// One decision on the way of a publication; the statement that allows it is the last.
fn decide_topic(c: &mut Criterion) {
    let mut group = c.benchmark_group("decide_topic");
    let topic = "fleet/truck-0042/telemetry";
    let request = Request { now_secs: Some(1_775_053_230), ..Request::default() };
    let mut decide = |name: &str, count: usize, documents: &[Arc<Document>]| {
        let compiled = Compiled::new(documents, &arns(), &variables());
        assert_eq!(compiled.decide_topic(Action::Publish, topic, &request), Decision::Allowed);
        group.bench_with_input(BenchmarkId::new(name, count), &compiled, |b, compiled| {
            b.iter(|| compiled.decide_topic(Action::Publish, black_box(topic), &request));
        });
    };
    decide("typical", 4, &typical());
    for count in [1, 10, 100] {
        for (name, pattern) in [
            ("exact", "topic/fleet/truck-{}/telemetry"),
            ("prefix", "topic/fleet/truck-{}/*"),
            ("wildcard", "topic/*/truck-{}/tele?etry*"),
            ("variable", "topic/fleet/${iot:ClientId}/{}*"),
        ] {
            let last = if name == "variable" { "telemetry" } else { "0042" };
            let numbers = (1..count).map(|number| format!("{:04}", 1000 + number));
            let statements: Vec<String> = numbers
                .chain([last.to_owned()])
                .map(|number| allow("iot:Publish", &pattern.replace("{}", &number)))
                .collect();
            decide(name, count, &documents(&statements));
        }
    }
    let until = r#"{"Effect":"Allow","Action":"iot:Publish","Resource":"*","Condition":
        {"DateLessThan":{"aws:CurrentTime":"2030-01-01T00:00:00Z"}}}"#;
    decide("condition", 1, &documents(&[until.to_owned()]));
    group.finish();
}

/// What a CONNECT adds to the policies that are parsed already.
fn compile(c: &mut Criterion) {
    let (documents, arns, variables) = (typical(), arns(), variables());
    c.bench_function("compile/typical", |b| {
        b.iter(|| Compiled::new(black_box(&documents), &arns, &variables));
    });
}

fn parse(c: &mut Criterion) {
    let statements: Vec<String> = (0..10)
        .map(|n| allow("iot:Publish", &format!("topic/fleet/${{iot:ClientId}}/{n}/*")))
        .collect();
    let json = format!(r#"{{"Version":"2012-10-17","Statement":[{}]}}"#, statements.join(","));
    c.bench_function("parse/10", |b| b.iter(|| Document::parse(black_box(&json))));
}

criterion_group!(benches, decide_topic, compile, parse);
criterion_main!(benches);
