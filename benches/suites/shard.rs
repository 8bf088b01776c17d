//! The state machine of a shard: what a QoS 1 publication pays from the log to its session and back.
//!
//! Each step takes commands as they lie in the log. `publish_deliver_acknowledge` is all three steps
//! of one message to one session of a hundred; the others are its parts, and a fan-out to all.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fleet::shard::delivery::Dispatcher;
use fleet::shard::{
    Acknowledge, Command, Connect, Options, Outcome, Publication, Publish, Shard, Subscribe,
    Subscription,
};

const SESSIONS: usize = 100;
const WINDOW: u16 = 100;
/// Messages per iteration: what one turn of the log may bring.
const BATCH: usize = 1_000;
/// Why every command here can be applied.
const READS: &str = "this version has written it";

/// A shard that has a connection for each session, and what was sent to it so far.
struct Bench {
    shard: Shard,
    dispatcher: Dispatcher<usize>,
    /// Session id, client id, token.
    sessions: Vec<(u64, Bytes, u64)>,
    /// The last seq of each session.
    seqs: Vec<u64>,
    next: usize,
}

/// The commands of one message each, and the session it goes to.
struct Step {
    session: u64,
    publish: Bytes,
    acknowledge: Bytes,
    seq: u64,
}

fn topic(session: usize) -> String {
    format!("fleet/vehicles/truck-{session:04}/commands")
}

fn publish(topic: String) -> Bytes {
    let publication = Publication {
        topic: topic.into(),
        payload: Bytes::from_static(&[b'x'; 256]),
        qos: 1,
        publisher: Bytes::from_static(b"dispatcher-0001"),
        published_at: 1_700_000_000_000,
        ..Publication::default()
    };
    Command::from(Publish { publication, enqueue: true, ..Publish::default() }).encoded()
}

impl Bench {
    fn new(filter: impl Fn(usize) -> String) -> Self {
        let mut shard = Shard::new();
        let mut dispatcher = Dispatcher::new();
        let mut sessions = Vec::new();
        for n in 0..SESSIONS {
            let client = Bytes::from(format!("truck-{n:04}"));
            let connect = Connect {
                client: client.clone(),
                expiry_secs: 3_600,
                version: 5,
                queue_limit_bytes: 1 << 30,
                queue_limit_messages: 1 << 20,
                ..Connect::default()
            };
            let Outcome::Connected(connected) =
                shard.apply(Command::from(connect).encoded()).expect(READS)
            else {
                panic!("not connected")
            };
            let (session, epoch) = (connected.session, connected.epoch);
            let options = Options { qos: 1, ..Options::default() };
            let filters = vec![Subscription { filter: filter(n), options }];
            let subscribe = Subscribe { client: client.clone(), epoch, filters };
            shard.apply(Command::from(subscribe).encoded()).expect(READS);
            assert!(dispatcher.attach(&shard, session, epoch, WINDOW, n));
            sessions.push((session, client, epoch));
        }
        Self { shard, dispatcher, sessions, seqs: vec![0; SESSIONS], next: 0 }
    }

    /// The next messages, one session after the other. `per_command` acknowledgements share a
    /// command.
    fn steps(&mut self, per_command: usize) -> Vec<Step> {
        let mut steps = Vec::with_capacity(BATCH);
        for _ in 0..BATCH / per_command {
            let (session, client, epoch) = self.sessions[self.next].clone();
            let mut seqs = Vec::new();
            for n in 0..per_command {
                self.seqs[self.next] += 1;
                let seq = self.seqs[self.next];
                seqs.push(seq);
                let acknowledge = if n + 1 == per_command {
                    let (client, seqs) = (client.clone(), std::mem::take(&mut seqs));
                    Command::from(Acknowledge { client, epoch, seqs, refused: vec![] }).encoded()
                } else {
                    Bytes::new()
                };
                steps.push(Step { session, publish: publish(topic(self.next)), acknowledge, seq });
            }
            self.next = (self.next + 1) % SESSIONS;
        }
        steps
    }

    fn run(&mut self, steps: &[Step]) {
        for step in steps {
            black_box(self.shard.apply(step.publish.clone()).expect(READS));
            self.dispatcher.pump(&self.shard, step.session, 0, &mut |target, delivery| {
                black_box((target, delivery));
            });
            self.dispatcher.acknowledged(step.session, step.seq);
            if !step.acknowledge.is_empty() {
                black_box(self.shard.apply(step.acknowledge.clone()).expect(READS));
            }
        }
        assert_eq!(self.shard.stats().queued, 0, "every message has arrived");
    }
}

fn publish_deliver_acknowledge(c: &mut Criterion) {
    let mut group = c.benchmark_group("shard_publish_deliver_acknowledge");
    group.throughput(Throughput::Elements(BATCH as u64));
    for per_command in [1, 10] {
        let name = format!("{per_command}_per_acknowledge");
        let bench = std::cell::RefCell::new(Bench::new(topic));
        group.bench_function(BenchmarkId::from_parameter(name), |b| {
            b.iter_batched(
                || bench.borrow_mut().steps(per_command),
                |steps| {
                    bench.borrow_mut().run(&steps);
                    steps
                },
                BatchSize::SmallInput,
            );
        });
    }
}

/// Only the queue's side: one session away, its queue emptied from time to time by a new session.
fn publish_offline(c: &mut Criterion) {
    let mut group = c.benchmark_group("shard_publish_offline");
    group.throughput(Throughput::Elements(BATCH as u64));
    let commands: Vec<_> = (0..BATCH).map(|n| publish(topic(n % SESSIONS))).collect();
    group.bench_function("one_of_100", |b| {
        b.iter_batched_ref(
            || Bench::new(topic).shard,
            |shard| {
                for command in &commands {
                    black_box(shard.apply(command.clone()).expect(READS));
                }
            },
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

/// One message for every session: stored once, an entry each.
fn publish_to_all(c: &mut Criterion) {
    let mut group = c.benchmark_group("shard_publish_to_100");
    group.throughput(Throughput::Elements(SESSIONS as u64));
    let command = publish(topic(0));
    let mut bench = Bench::new(|_| "fleet/#".to_owned());
    let mut seq = 0;
    group.bench_function("publish_deliver_acknowledge", |b| {
        b.iter(|| {
            seq += 1;
            black_box(bench.shard.apply(command.clone()).expect(READS));
            for (session, client, epoch) in &bench.sessions {
                bench.dispatcher.pump(&bench.shard, *session, 0, &mut |target, delivery| {
                    black_box((target, delivery));
                });
                bench.dispatcher.acknowledged(*session, seq);
                let (client, epoch) = (client.clone(), *epoch);
                let command =
                    Command::from(Acknowledge { client, epoch, seqs: vec![seq], refused: vec![] });
                black_box(bench.shard.apply(command.encoded()).expect(READS));
            }
        });
    });
}

/// What the turn of a checkpoint costs per message that is still queued.
fn checkpoint(c: &mut Criterion) {
    let mut group = c.benchmark_group("shard_checkpoint");
    group.throughput(Throughput::Elements(BATCH as u64));
    let commands: Vec<_> = (0..BATCH).map(|n| publish(topic(n % SESSIONS))).collect();
    group.bench_function("1000_queued", |b| {
        b.iter_batched_ref(
            || {
                let mut shard = Bench::new(topic).shard;
                shard.checkpoint();
                for command in &commands {
                    shard.apply(command.clone()).expect(READS);
                }
                shard
            },
            |shard| black_box(shard.checkpoint()),
            BatchSize::LargeInput,
        );
    });
}

criterion_group!(benches, publish_deliver_acknowledge, publish_offline, publish_to_all, checkpoint);
criterion_main!(benches);
