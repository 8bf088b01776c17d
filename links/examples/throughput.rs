//! Messages of 256 bytes a second over one stream between two nodes, next to the same bytes over a
//! bare TCP connection: `cargo run --release -p links --example throughput`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use links::proto::GroupMessage;
use links::{
    Batch, Config, Identity, Links, Message, PeerAddress, Receiver, Refused, Stream,
    certificate_name,
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const MESSAGE_BYTES: usize = 256;
const WRITE_BYTES: usize = 64 << 10;
const TIME: Duration = Duration::from_secs(3);
const ROUNDS: usize = 5;

#[derive(Clone, Default)]
struct Counting {
    messages: Arc<AtomicU64>,
    batches: Arc<AtomicU64>,
}

impl Receiver for Counting {
    fn connected(&self, _: Stream, _: u64) {}

    fn lost(&self, _: Stream) {}

    fn received(&self, _: u64, batch: Batch) {
        let Batch::Raft(messages) = batch else { return };
        self.messages.fetch_add(messages.len() as u64, Ordering::Relaxed);
        self.batches.fetch_add(1, Ordering::Relaxed);
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("the system gives threads");
    let (links, counting) = started(&runtime);
    println!("round   link msg/s   per batch   bare TCP msg/s");
    for round in 1..=ROUNDS {
        let (link, per_batch) = over_a_link(&links[0], &counting);
        let bare = runtime.block_on(over_tcp()) / MESSAGE_BYTES as f64;
        println!("{round:>5}   {link:>10.0}   {per_batch:>9.0}   {bare:>14.0}");
    }
}

/// Two nodes, and what they count.
fn started(runtime: &tokio::runtime::Runtime) -> ([Links; 2], Counting) {
    let ca_key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = params.self_signed(&ca_key).expect("a certificate").pem();
    let issuer = Issuer::new(params, ca_key);
    let start = |node: u64, counting: &Counting| {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new([certificate_name(node)]).expect("a DNS name");
        let identity = Identity {
            ca: ca.clone().into_bytes(),
            certificate: params.signed_by(&key, &issuer).expect("a certificate").pem().into_bytes(),
            private_key: key.serialize_pem().into_bytes(),
        };
        let config = Config::new(node, 1, [0; 16], ([127, 0, 0, 1], 0).into(), identity);
        Links::start(config, counting.clone(), runtime.handle()).expect("a free port")
    };
    let counting = Counting::default();
    let nodes = [1, 2].map(|node| start(node, &counting));
    let peers: Vec<_> = [1, 2]
        .into_iter()
        .zip(&nodes)
        .map(|(node, links)| PeerAddress { node, address: links.address().to_string() })
        .collect();
    for links in &nodes {
        links.set_peers(peers.clone());
    }
    while !nodes[0].reachable(2) {
        std::thread::yield_now();
    }
    (nodes, counting)
}

/// Messages a second, and messages in a batch.
fn over_a_link(links: &Links, counting: &Counting) -> (f64, f64) {
    let payload = Bytes::from(vec![1; MESSAGE_BYTES]);
    let before =
        (counting.messages.load(Ordering::Relaxed), counting.batches.load(Ordering::Relaxed));
    let begun = Instant::now();
    let mut sent = 0;
    while begun.elapsed() < TIME {
        for _ in 0..1000 {
            let message = GroupMessage { group: 1, message: payload.clone() };
            match links.send(2, Message::Raft(message)) {
                Ok(()) => sent += 1,
                Err(Refused::Full) => std::thread::sleep(Duration::from_millis(1)),
                Err(error) => panic!("{error}"),
            }
        }
    }
    while counting.messages.load(Ordering::Relaxed) < before.0 + sent {
        std::thread::sleep(Duration::from_millis(1));
    }
    let seconds = begun.elapsed().as_secs_f64();
    let batches = counting.batches.load(Ordering::Relaxed) - before.1;
    (sent as f64 / seconds, sent as f64 / batches as f64)
}

/// Bytes a second.
async fn over_tcp() -> f64 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let reading = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.expect("a connection");
        let mut buffer = vec![0; WRITE_BYTES];
        let mut total = 0;
        loop {
            match socket.read(&mut buffer).await.expect("bytes") {
                0 => return total,
                count => total += count,
            }
        }
    });
    let begun = Instant::now();
    let mut socket = TcpStream::connect(address).await.expect("a connection");
    let bytes = vec![1; WRITE_BYTES];
    while begun.elapsed() < TIME {
        socket.write_all(&bytes).await.expect("a reader");
    }
    drop(socket);
    reading.await.expect("no panic") as f64 / begun.elapsed().as_secs_f64()
}
