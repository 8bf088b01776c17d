//! Shadows: what an update costs the thread that applies it, by the size of the document.

use std::fmt::Write;
use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use shadow::{Limits, Record};

/// An update that reports some groups of readings, of about 100 bytes each.
fn reported(groups: usize, first_value: usize) -> String {
    let mut json = String::from(r#"{"state":{"reported":{"#);
    for group in 0..groups {
        let comma = if group == 0 { "" } else { "," };
        let value = first_value + group;
        write!(
            json,
            r#"{comma}"sensor-{group:03}":{{"temperature":{value}.25,"humidity":{value},"door":"closed","samples":[{value},2,3,4],"at":1775053230}}"#
        )
        .expect("strings take everything");
    }
    json.push_str(r#"}},"clientToken":"bench"}"#);
    json
}

fn record(state_bytes: usize) -> Record {
    let groups = (1..).take_while(|it| reported(*it, 0).len() < state_bytes).last().unwrap_or(1);
    let update = shadow::parse_update(reported(groups, 0).as_bytes(), &Limits::default());
    let change = shadow::update(None, &update.expect("well formed"), 1, &Limits::default());
    Record::Present(change.expect("accepted").document)
}

/// Parse, merge, and write the three messages.
fn merge(c: &mut Criterion) {
    let limits = Limits::default();
    let mut group = c.benchmark_group("shadow_merge");
    for state_bytes in [1024, 8192] {
        let record = record(state_bytes);
        group.throughput(Throughput::Bytes(state_bytes as u64));
        for (name, payload) in [
            ("one key", r#"{"state":{"desired":{"sensor-000":{"door":"open"}}}}"#.to_owned()),
            ("half of it", reported(state_bytes / 240, 7)),
        ] {
            group.bench_with_input(BenchmarkId::new(name, state_bytes), &payload, |b, payload| {
                b.iter(|| {
                    let update = shadow::parse_update(black_box(payload.as_bytes()), &limits)?;
                    shadow::update(Some(&record), &update, 2, &limits)
                });
            });
        }
    }
    group.finish();
}

fn read(c: &mut Criterion) {
    let mut group = c.benchmark_group("shadow_read");
    for state_bytes in [1024, 8192] {
        let record = record(state_bytes);
        let stored = record.to_bytes();
        group.throughput(Throughput::Bytes(state_bytes as u64));
        group.bench_function(BenchmarkId::new("get", state_bytes), |b| {
            b.iter(|| shadow::get(Some(black_box(&record)), "lamp", None, 2));
        });
        group.bench_function(BenchmarkId::new("to_bytes", state_bytes), |b| {
            b.iter(|| black_box(&record).to_bytes());
        });
        group.bench_function(BenchmarkId::new("from_bytes", state_bytes), |b| {
            b.iter(|| Record::from_bytes(black_box(&stored)));
        });
    }
    group.finish();
}

criterion_group!(benches, merge, read);
criterion_main!(benches);
