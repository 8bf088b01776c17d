//! The streams that this node dials.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{error::Elapsed, sleep, timeout};
use tonic::{Code, Status, Streaming};
use tracing::{debug, warn};

use crate::handshake::{self, Refusal};
use crate::message::{Direction, Stream};
use crate::outbox::Outbox;
use crate::peers::{Open, Shared, Trouble, Troubled};
use crate::proto::{Frame, Hello, peer_client::PeerClient};
use crate::{metrics, resolve, tls};

/// Why a stream could not be opened.
#[derive(Debug, Error)]
enum DialError {
    #[error("no handshake in time")]
    TimedOut(#[from] Elapsed),
    #[error("cannot resolve its name: {0}")]
    Name(std::io::Error),
    #[error("cannot connect: {0}")]
    Io(#[from] std::io::Error),
    #[error("none of {0} addresses is this peer's")]
    Nowhere(usize),
    #[error("cannot speak HTTP/2: {0}")]
    Http(#[from] hyper::Error),
    #[error("this node refuses the peer: {0}")]
    Refused(#[from] Refusal),
    #[error("the peer refuses: {}", said(.0))]
    Status(#[from] Status),
}

impl DialError {
    /// Who would not have whom, as a metric label.
    fn refusal(&self) -> Option<&'static str> {
        match self {
            Self::Refused(refusal) => Some(refusal.label()),
            Self::Status(status) if is_said(status) => Some("by_peer"),
            _ => None,
        }
    }

    /// Whether nobody listens there.
    fn is_refused(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == std::io::ErrorKind::ConnectionRefused)
    }

    /// Whether the peer may be somewhere else.
    fn is_elsewhere(&self) -> bool {
        matches!(
            self,
            Self::TimedOut(_)
                | Self::Io(_)
                | Self::Refused(Refusal::Node(_) | Refusal::Certificate(_))
        )
    }

    /// Whether the peer may know too little of this node.
    fn is_doubt(&self) -> bool {
        matches!(self, Self::Status(status) if status.code() == Code::Aborted)
    }

    /// The life of the peer that refuses this node.
    fn incarnation(&self) -> Option<u64> {
        let Self::Status(status) = self else { return None };
        status.metadata().get(handshake::INCARNATION)?.to_str().ok()?.parse().ok()
    }

    /// Why the peer never wants this node, with such a status.
    fn denial(&self, code: Code) -> Option<&str> {
        match self {
            Self::Status(status) if status.code() == code => Some(status.message()),
            _ => None,
        }
    }
}

/// What a peer has said, without the words of gRPC around it.
fn said(status: &Status) -> String {
    match is_said(status) {
        true => status.message().to_owned(),
        // It comes from the connection: what caused it says more.
        false => tls::chain(status),
    }
}

/// Whether a peer has said it.
fn is_said(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::FailedPrecondition | Code::Aborted | Code::PermissionDenied | Code::DataLoss
    )
}

/// A stream after its handshake.
struct Dialled {
    answers: Streaming<Frame>,
    hello: Hello,
    /// Drives the connection, which ends with it.
    _connection: JoinSet<()>,
}

/// Keeps a stream open to a peer.
pub(crate) async fn run(
    shared: Arc<Shared>,
    stream: Stream,
    outbox: Arc<Outbox>,
    mut addresses: watch::Receiver<Vec<String>>,
    trouble: Troubled,
) {
    let Stream { peer, purpose, .. } = stream;
    let label = purpose.label();
    let (mut at, mut found) = (Vec::new(), None);
    let mut backoff = Backoff::new(shared.config.backoff_min, shared.config.backoff_max);
    let mut opened_before = false;
    let mut said = String::new();
    loop {
        let dialled_before = std::mem::replace(&mut at, addresses.borrow_and_update().clone());
        found = found.filter(|it: &Found| at.contains(&it.address));
        if let Some(found) = found.as_mut().filter(|_| dialled_before != at) {
            found.is_first = false;
        }
        match find(&shared, stream, &outbox, &at, &mut found).await {
            Ok((mut dialled, elsewhere)) => {
                if let Some(why) = elsewhere.as_ref().filter(|why| **why != said) {
                    warn!(peer, purpose = label, why, "a node is not where it says");
                }
                said = elsewhere.clone().unwrap_or_default();
                *trouble.lock() = elsewhere.map(Trouble::Elsewhere);
                let open = Open::new(&shared, stream, &dialled.hello, Some(outbox.clone()));
                metrics::reconnects(purpose).increment(opened_before.into());
                opened_before = true;
                backoff.reset();
                let error = match dialled.answers.message().await {
                    Ok(None) => "the peer ended the stream".to_owned(),
                    Ok(Some(_)) => "the peer sends where it may not".to_owned(),
                    Err(status) => tls::chain(&status),
                };
                drop(open);
                warn!(peer, purpose = label, error, "link down");
            }
            Err(error) => {
                *trouble.lock() = Some(Trouble::NotLinked(error.clone()));
                // The same error again and again is said once.
                if error == said {
                    debug!(peer, purpose = label, error, "still cannot link");
                } else {
                    warn!(peer, purpose = label, error, "cannot link");
                    said = error;
                }
            }
        }
        tokio::select! {
            () = sleep(backoff.next(rand::random())) => {}
            Ok(()) = addresses.changed() => backoff.reset(),
        }
    }
}

/// Where a peer was last.
struct Found {
    address: String,
    place: SocketAddr,
    life: u64,
    /// Whether it is dialled there first: not if it should be elsewhere, or its addresses have changed.
    is_first: bool,
}

/// Dials a peer at each of its addresses in turn; an error tells of all of them. Also gives back why it was
/// not found where it says that it is.
async fn find(
    shared: &Shared,
    stream: Stream,
    outbox: &Arc<Outbox>,
    addresses: &[String],
    found: &mut Option<Found>,
) -> Result<(Dialled, Option<String>), String> {
    let mut errors = Vec::new();
    let before = found.as_ref().map(|it| (it.place, it.life));
    let mut in_turn: Vec<_> = addresses.iter().collect();
    let was_at = found.as_ref().map(|it| it.address.clone());
    let first = found.as_ref().filter(|it| it.is_first).map(|it| &it.address);
    in_turn.sort_by_key(|address| first.is_some_and(|first| first != *address));
    for (turn, address) in in_turn.into_iter().enumerate() {
        // There is less patience where it only may be: where it should be is dialled again after that.
        let is_likely = turn == 0 || *address == addresses[0] || was_at.as_ref() == Some(address);
        let patience = shared.config.handshake_timeout / if is_likely { 1 } else { ELSEWHERE };
        match find_at(shared, stream, outbox, Trial { address, before, patience }).await {
            Ok((dialled, place)) => {
                let Hello { address: said, incarnation: life, .. } = &dialled.hello;
                let error = errors.into_iter().find(|(tried, _)| *tried == said);
                let elsewhere = error.map(|(_, error)| format!("found at {address}: {error}"));
                let (address, life, is_first) = (address.clone(), *life, elsewhere.is_none());
                *found = Some(Found { address, place, life, is_first });
                return Ok((dialled, elsewhere));
            }
            Err(error) => {
                tell(shared, stream.peer, address, &error);
                errors.push((address, format!("{address}: {error}")));
            }
        }
    }
    Err(errors.into_iter().map(|(_, error)| error).collect::<Vec<_>>().join("; "))
}

/// What others may conclude from a failure.
fn tell(shared: &Shared, peer: u64, address: &str, error: &DialError) {
    if let Some(why) = error.denial(Code::PermissionDenied) {
        shared.receiver.denied(peer, why);
    }
    if let Some(incarnation) = error.incarnation() {
        shared.receiver.found(peer, address, incarnation);
    }
    if error.is_doubt() {
        shared.receiver.doubted(peer);
    }
    if let Some(reason) = error.refusal() {
        metrics::refusals(Direction::Outgoing, reason).increment(1);
    }
}

/// How many times less patience there is with addresses where a peer only may be.
const ELSEWHERE: u32 = 5;

/// An address that is dialled.
struct Trial<'a> {
    address: &'a str,
    /// Where the peer was last, and in which life.
    before: Option<(SocketAddr, u64)>,
    patience: Duration,
}

/// Dials a peer wherever an address leads, one place after the other: who is where, certificates say.
async fn find_at(
    shared: &Shared,
    stream: Stream,
    outbox: &Arc<Outbox>,
    Trial { address, before, patience }: Trial<'_>,
) -> Result<(Dialled, SocketAddr), DialError> {
    let resolving = timeout(patience, shared.config.resolver.resolve(address)).await;
    let resolved = resolving.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
    let resolved = resolved.map_err(DialError::Name)?;
    let places = resolve::order(resolved, before.map(|(place, _)| place));
    let mut why = DialError::Nowhere(places.len());
    for place in &places {
        let dialling = timeout(patience, dial(shared, stream, outbox, (address, *place))).await;
        let error = match dialling.unwrap_or_else(|elapsed| Err(elapsed.into())) {
            Ok(dialled) => return Ok((dialled, *place)),
            Err(error) => error,
        };
        let is_alone = places.len() == 1;
        // Where nobody listens, what was there has ended. At the other places of a name others may be, and
        // what was elsewhere goes on where the name led before.
        let is_its_own = before.map_or(is_alone, |(before, _)| before == *place);
        if error.is_refused() && is_its_own {
            let life = before.map(|(_, life)| life).filter(|_| !is_alone);
            shared.receiver.refused(stream.peer, address, life);
        }
        if is_alone || !error.is_elsewhere() {
            return Err(error);
        }
        if !matches!(error, DialError::Refused(Refusal::Node(_))) {
            why = error;
        }
    }
    Err(why)
}

async fn dial(
    shared: &Shared,
    Stream { peer, purpose, .. }: Stream,
    outbox: &Arc<Outbox>,
    (address, place): (&str, SocketAddr),
) -> Result<Dialled, DialError> {
    let socket = TcpStream::connect(place).await?;
    socket.set_nodelay(true)?;
    let connecting = shared.tls.connector.connect(tls::server_name(peer), socket);
    let tls = connecting.await.map_err(|error| match tls::refusal(&error, peer) {
        Some(refusal) => DialError::Refused(refusal),
        None => DialError::Io(error),
    })?;
    let (mut sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(shared.config.ping_interval)
        .keep_alive_timeout(shared.config.ping_timeout)
        .handshake(TokioIo::new(tls))
        .await?;
    let mut driving = JoinSet::new();
    // How the connection ended is what the stream says, too.
    driving.spawn(connection.map(|_| ()));

    let service = tower::service_fn(move |request| sender.send_request(request));
    let origin = format!("https://{}", tls::certificate_name(peer));
    let origin = origin.parse().expect("a DNS name is a host");
    let frames = outbox.stream(handshake::hello(&shared.config, purpose));
    let mut answers = PeerClient::with_origin(service, origin).stream(frames).await?.into_inner();
    let (hello, answered) = handshake::judge(&shared.config, answers.message().await?)?;
    if hello.node != peer {
        return Err(Refusal::Node(peer).into());
    }
    if answered != purpose {
        return Err(Refusal::Contract("it answers for another purpose").into());
    }
    handshake::admit(&*shared.receiver, &hello, address)?;
    Ok(Dialled { answers, hello, _connection: driving })
}

/// How long to wait before each attempt.
struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, next: min }
    }

    fn reset(&mut self) {
        self.next = self.min;
    }

    /// The next wait: `chance`, from 0 to 1, chooses from the upper half of what it may be.
    fn next(&mut self, chance: f64) -> Duration {
        let wait = self.next.mul_f64(0.5 + chance / 2.0);
        self.next = (self.next * 2).min(self.max);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_longer_each_time_up_to_a_bound() {
        let millis = Duration::from_millis;
        let mut backoff = Backoff::new(millis(100), millis(350));
        let waits: Vec<_> = (0..4).map(|_| backoff.next(1.0)).collect();
        assert_eq!(waits, [millis(100), millis(200), millis(350), millis(350)]);
        backoff.reset();
        assert_eq!(backoff.next(0.0), millis(50));
    }
}
