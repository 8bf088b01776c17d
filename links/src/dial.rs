//! The streams that this node dials.

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
use crate::message::{Direction, Purpose, Stream};
use crate::outbox::Outbox;
use crate::peers::{Open, Shared};
use crate::proto::{Frame, peer_client::PeerClient};
use crate::{metrics, tls};

/// Why a stream could not be opened.
#[derive(Debug, Error)]
enum DialError {
    #[error("no handshake in time")]
    TimedOut(#[from] Elapsed),
    #[error("cannot connect: {0}")]
    Io(#[from] std::io::Error),
    #[error("cannot speak HTTP/2: {0}")]
    Http(#[from] hyper::Error),
    #[error("this node refuses the peer: {0}")]
    Refused(#[from] Refusal),
    #[error("the peer refuses: {}", tls::chain(.0))]
    Status(#[from] Status),
}

impl DialError {
    /// Who would not have whom, as a metric label.
    fn refusal(&self) -> Option<&'static str> {
        match self {
            Self::Refused(refusal) => Some(refusal.label()),
            Self::Status(status) if status.code() == Code::FailedPrecondition => Some("by_peer"),
            Self::Status(status) if status.code() == Code::PermissionDenied => Some("by_peer"),
            _ => None,
        }
    }

    /// Why the peer never wants this node.
    fn denial(&self) -> Option<&str> {
        match self {
            Self::Status(status) if status.code() == Code::PermissionDenied => {
                Some(status.message())
            }
            _ => None,
        }
    }
}

/// A stream after its handshake.
struct Dialled {
    answers: Streaming<Frame>,
    incarnation: u64,
    /// Drives the connection, which ends with it.
    _connection: JoinSet<()>,
}

/// Keeps a stream open to a peer.
pub(crate) async fn run(
    shared: Arc<Shared>,
    peer: u64,
    purpose: Purpose,
    outbox: Arc<Outbox>,
    mut address: watch::Receiver<String>,
) {
    let label = purpose.label();
    let stream = Stream { peer, purpose, direction: Direction::Outgoing };
    let mut backoff = Backoff::new(shared.config.backoff_min, shared.config.backoff_max);
    let mut opened_before = false;
    let mut said = String::new();
    loop {
        let at = address.borrow_and_update().clone();
        let dialling =
            timeout(shared.config.handshake_timeout, dial(&shared, stream, &outbox, &at));
        match dialling.await.unwrap_or_else(|elapsed| Err(elapsed.into())) {
            Ok(mut dialled) => {
                let open = Open::new(&shared, stream, dialled.incarnation, Some(outbox.clone()));
                metrics::reconnects(purpose).increment(opened_before.into());
                opened_before = true;
                backoff.reset();
                said.clear();
                let error = match dialled.answers.message().await {
                    Ok(None) => "the peer ended the stream".to_owned(),
                    Ok(Some(_)) => "the peer sends where it may not".to_owned(),
                    Err(status) => tls::chain(&status),
                };
                drop(open);
                warn!(peer, purpose = label, error, "link down");
            }
            Err(error) => {
                if let DialError::Io(error) = &error
                    && error.kind() == std::io::ErrorKind::ConnectionRefused
                {
                    shared.receiver.refused(peer);
                }
                if let Some(why) = error.denial() {
                    shared.receiver.denied(peer, why);
                }
                if let Some(reason) = error.refusal() {
                    metrics::refusals(Direction::Outgoing, reason).increment(1);
                }
                // The same error again and again is said once.
                let error = error.to_string();
                if error == said {
                    debug!(peer, purpose = label, address = at, error, "still cannot link");
                } else {
                    warn!(peer, purpose = label, address = at, error, "cannot link");
                    said = error;
                }
            }
        }
        tokio::select! {
            () = sleep(backoff.next(rand::random())) => {}
            Ok(()) = address.changed() => backoff.reset(),
        }
    }
}

async fn dial(
    shared: &Shared,
    Stream { peer, purpose, .. }: Stream,
    outbox: &Arc<Outbox>,
    address: &str,
) -> Result<Dialled, DialError> {
    let socket = TcpStream::connect(address).await?;
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
    handshake::admit(&*shared.receiver, &hello)?;
    Ok(Dialled { answers, incarnation: hello.incarnation, _connection: driving })
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
