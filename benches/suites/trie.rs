//! The filter trie: what one publication pays to find who wants it, and a subscription to be found.
//!
//! Names are drawn from all over the trie, so with a million filters most steps miss the cache, as
//! they do in a broker that has other things to do between two publications.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use topic::FilterTrie;

/// As large as what a node keeps per filter.
type Value = Vec<u32>;

const SIZES: [usize; 3] = [1_000, 100_000, 1_000_000];
/// Names to publish to, one after the other.
const NAMES: usize = 1 << 16;

/// A filter that spells one name, as a device subscribes to its own commands.
fn exact(device: usize) -> String {
    format!("things/device-{device:07}/commands")
}

/// A filter with wildcards: every form that fleets use, in turn.
fn wildcard(device: usize) -> String {
    match device % 4 {
        0 => format!("things/device-{device:07}/events/#"),
        1 => format!("things/device-{device:07}/+/state"),
        2 => format!("region-{}/+/device-{device:07}/#", device % 32),
        _ => format!("+/site-{}/device-{device:07}/+", device % 512),
    }
}

/// A name that `wildcard(device)` matches.
fn published(device: usize) -> String {
    match device % 4 {
        0 => format!("things/device-{device:07}/events/door/open"),
        1 => format!("things/device-{device:07}/lamp/state"),
        2 => format!("region-{}/floor-3/device-{device:07}/temperature", device % 32),
        _ => format!("region-7/site-{}/device-{device:07}/temperature", device % 512),
    }
}

fn trie(filters: impl Iterator<Item = String>) -> FilterTrie<Value> {
    let mut trie = FilterTrie::new();
    for filter in filters {
        trie.entry(filter.as_str());
    }
    trie
}

/// Names of devices in an order that follows none: the stride shares no factor with the sizes.
fn names(devices: usize, name: fn(usize) -> String) -> Vec<String> {
    (0..NAMES).map(|n| name(n * 7_919 % devices)).collect()
}

/// Matching where every filter spells a name.
fn match_exact(c: &mut Criterion) {
    let mut group = c.benchmark_group("match_exact");
    for filters in SIZES {
        let trie = trie((0..filters).map(exact));
        bench_matches(&mut group, filters, &trie, &names(filters, exact));
    }
}

/// Matching where half of the filters have wildcards, and one of those wants each publication.
fn match_wildcard(c: &mut Criterion) {
    let mut group = c.benchmark_group("match_wildcard");
    for filters in SIZES {
        let devices = filters / 2;
        let trie = trie((0..devices).flat_map(|device| [exact(device), wildcard(device)]));
        bench_matches(&mut group, filters, &trie, &names(devices, published));
    }
}

type Group<'a> = criterion::BenchmarkGroup<'a, criterion::measurement::WallTime>;

fn bench_matches(group: &mut Group<'_>, size: usize, trie: &FilterTrie<Value>, names: &[String]) {
    let mut next = names.iter().cycle();
    group.throughput(Throughput::Elements(1));
    group.bench_function(BenchmarkId::from_parameter(size), |b| {
        b.iter(|| {
            let mut found = 0;
            let name = next.next().expect("names repeat");
            trie.for_each_match(black_box(name), |value| found += 1 + value.len());
            assert_eq!(found, 1);
        });
    });
}

/// A subscription that comes and goes among many that stay.
fn insert_remove(c: &mut Criterion) {
    let mut group = c.benchmark_group("insert_remove");
    for filters in SIZES {
        let mut trie = trie((0..filters / 2).flat_map(|n| [exact(n), wildcard(n)]));
        let fresh = filters..filters + 10_000;
        for (kind, fresh) in [
            ("exact", fresh.clone().map(exact).collect::<Vec<_>>()),
            ("wildcard", fresh.map(wildcard).collect()),
        ] {
            let mut next = fresh.iter().cycle();
            group.throughput(Throughput::Elements(1));
            group.bench_function(BenchmarkId::new(kind, filters), |b| {
                b.iter(|| {
                    let filter = next.next().expect("filters repeat");
                    trie.entry(black_box(filter.as_str()));
                    black_box(trie.remove(filter));
                });
            });
        }
    }
}

criterion_group!(benches, match_exact, match_wildcard, insert_remove);
criterion_main!(benches);
