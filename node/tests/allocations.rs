//! What memory is asked for: nothing by a message, once its connections have been there for a while, and
//! little by a connection that only stays. These tests are a program of their own for the sake of its
//! allocator, which counts.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::alloc::System;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use node::config::Config;
use node::node::Node;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tempfile::TempDir;
use tokio::sync::oneshot;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Publications that are written at once.
const BATCH: usize = 32;
/// Batches before anything is counted, so that all buffers and tables have their size.
const WARMUP: usize = 200;
/// Batches that are counted.
const COUNTED: usize = 500;

/// What anybody may do.
const POLICY: &str = r#"{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "iot:*",
    "Resource": "*"}]}"#;

/// A whole node with one core, in threads of this process.
struct Running {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    _data: TempDir,
}

impl Running {
    fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut config = Config::default();
        config.data = data.path().join("data");
        config.cores = Some(1);
        config.listeners.mqtt.address = Some(address);
        config.listeners.mqtt.anonymous_policy = Some(POLICY.to_owned());
        let (stop, stopped) = oneshot::channel::<()>();
        let (tell, ready) = mpsc::channel();
        let thread = thread::spawn(move || {
            let node = Node::restore(config, None, None).unwrap();
            let verifier = api::sigv4::Verifier::new([], None);
            let ready = move || tell.send(()).unwrap();
            let stop = async { drop(stopped.await) };
            actix::System::new().block_on(node.serve(None, verifier, ready, stop)).unwrap();
        });
        ready.recv().unwrap();
        Self { address, stop: Some(stop), thread: Some(thread), _data: data }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        self.thread.take().unwrap().join().unwrap();
    }
}

/// A client that has been let in.
fn client(node: &Running, id: &str) -> TcpStream {
    let mut client = TcpStream::connect(node.address).unwrap();
    client.set_nodelay(true).unwrap();
    let mut connect = b"\x10\x00\x00\x04MQTT\x04\x02\x00\x00\x00".to_vec();
    connect.push(id.len() as u8);
    connect.extend_from_slice(id.as_bytes());
    connect[1] = connect.len() as u8 - 2;
    client.write_all(&connect).unwrap();
    let mut connack = [0; 4];
    client.read_exact(&mut connack).unwrap();
    assert_eq!(connack, *b"\x20\x02\x00\x00");
    client
}

fn subscribe(client: &mut TcpStream, filter: &str, qos: u8) {
    let mut subscribe = b"\x82\x00\x00\x01\x00".to_vec();
    subscribe.push(filter.len() as u8);
    subscribe.extend_from_slice(filter.as_bytes());
    subscribe.push(qos);
    subscribe[1] = subscribe.len() as u8 - 2;
    client.write_all(&subscribe).unwrap();
    let mut suback = [0; 5];
    client.read_exact(&mut suback).unwrap();
    assert_eq!(suback, [0x90, 3, 0, 1, qos]);
}

/// Where the packet identifier is in a publication of this test.
const ID_AT: usize = 2 + 2 + 3;
const PAYLOAD_BYTES: usize = 64;

/// A batch of publications to `t/0`.
fn publications(qos: u8) -> Vec<u8> {
    let mut batch = Vec::new();
    for id in 1..=BATCH as u16 {
        let start = batch.len();
        batch.extend_from_slice(b"\x30\x00\x00\x03t/0");
        if qos > 0 {
            batch.extend_from_slice(&id.to_be_bytes());
        }
        batch.extend_from_slice(&[b'x'; PAYLOAD_BYTES]);
        batch[start] |= qos << 1;
        batch[start + 1] = (batch.len() - start - 2) as u8;
    }
    batch
}

/// A client and where it keeps a batch of what it reads and writes.
struct End {
    client: TcpStream,
    read: Vec<u8>,
    answers: Vec<u8>,
}

impl End {
    fn new(client: TcpStream) -> Self {
        let [read, answers] = [(); 2].map(|()| Vec::with_capacity(BATCH * 128));
        Self { client, read, answers }
    }

    /// Reads a batch of packets, of so many bytes each.
    fn read(&mut self, bytes: usize) {
        self.read.resize(BATCH * bytes, 0);
        self.client.read_exact(&mut self.read).unwrap();
    }

    /// Answers each of the packets that were read last, whose identifiers are there.
    fn answer(&mut self, bytes: usize, id_at: usize, first: u8) {
        self.answers.clear();
        for packet in self.read.chunks_exact(bytes) {
            self.answers.extend_from_slice(&[first, 2, packet[id_at], packet[id_at + 1]]);
        }
        self.client.write_all(&self.answers).unwrap();
    }
}

/// Publishes a batch, which all subscribers take, and completes its exchanges.
fn exchange(qos: u8, batch: &[u8], publisher: &mut End, subscribers: &mut [End]) {
    publisher.client.write_all(batch).unwrap();
    let bytes = batch.len() / BATCH;
    for subscriber in &mut *subscribers {
        subscriber.read(bytes);
        match qos {
            0 => {}
            1 => subscriber.answer(bytes, ID_AT, 0x40),
            _ => {
                subscriber.answer(bytes, ID_AT, 0x50);
                subscriber.read(4);
                subscriber.answer(4, 2, 0x70);
            }
        }
    }
    if qos > 0 {
        publisher.read(4);
    }
    if qos > 1 {
        publisher.answer(4, 2, 0x62);
        publisher.read(4);
    }
}

/// How often memory is asked for meanwhile, by any thread.
fn allocations(run: impl FnOnce()) -> usize {
    let region = Region::new(ALLOCATOR);
    run();
    let change = region.change();
    change.allocations + change.reallocations
}

/// The allocator counts for the whole process, so that one test at a time may run.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn a_connection_that_only_stays_holds_little() {
    const CONNECTIONS: usize = 400;
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let node = Running::start();
    let (client_id, ping) = (|number| format!("device-{number:013}"), b"\xc0\x00");
    let mut first = client(&node, &client_id(CONNECTIONS));
    let region = Region::new(ALLOCATOR);
    let mut clients = Vec::with_capacity(CONNECTIONS);
    for number in 0..CONNECTIONS {
        clients.push(client(&node, &client_id(number)));
    }
    for client in clients.iter_mut().chain([&mut first]) {
        client.write_all(ping).unwrap();
        let mut pong = [0; 2];
        client.read_exact(&mut pong).unwrap();
        assert_eq!(pong, *b"\xd0\x00");
    }
    let change = region.change();
    let own = size_of_val(&clients[..]) as isize;
    let held = change.bytes_allocated as isize - change.bytes_deallocated as isize - own;
    let each = held / CONNECTIONS as isize;
    assert!(each <= 1_750, "{each} bytes each");
}

#[test]
fn a_message_allocates_nothing_in_steady_state() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let node = Running::start();
    let all = [(0, 1), (1, 1), (2, 1), (0, 5), (1, 5), (2, 5)].map(|it| (it, "t/+"));
    let shared = [0, 1, 2].map(|qos| ((qos, 1), "$share/group/t/+"));
    for ((qos, count), filter) in all.into_iter().chain(shared) {
        let mut publisher = End::new(client(&node, "p"));
        let mut subscribers = Vec::new();
        for number in 0..count {
            let mut subscriber = client(&node, &format!("s{number}"));
            subscribe(&mut subscriber, filter, qos);
            subscribers.push(End::new(subscriber));
        }
        let batch = publications(qos);
        for _ in 0..WARMUP {
            exchange(qos, &batch, &mut publisher, &mut subscribers);
        }
        let start = Instant::now();
        let made = allocations(|| {
            for _ in 0..COUNTED {
                exchange(qos, &batch, &mut publisher, &mut subscribers);
            }
        });
        // Those who keep the time and the groups make some, whatever is sent.
        let busy = start.elapsed();
        let idle = allocations(|| thread::sleep(busy));
        let more = made.saturating_sub(2 * idle);
        assert!(
            more < COUNTED / 2,
            "QoS {qos} to {count} of {filter}: {made} in {COUNTED} batches, {idle} in none"
        );
    }
}
