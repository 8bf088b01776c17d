//! The streams that peers dial.

use std::future::ready;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls_pki_types::CertificateDer;
use tokio::io::BufReader;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tonic::{Code, Request, Response, Status, Streaming};
use tracing::{debug, info, warn};

use crate::handshake::{self, Refusal};
use crate::message::{Batch, Direction, MAX_MESSAGE_BYTES, Stream};
use crate::peers::{Open, Shared};
use crate::proto::{Frame, Hello, peer_server};
use crate::{Certainty, Denied, metrics, tls};

/// Connections whose handshake is not done; the next ones wait in the kernel's queue.
const MAX_HANDSHAKES: usize = 64;

/// What a frame may have beside the longest message.
const FRAME_SLACK_BYTES: usize = 1 << 10;

/// How much a peer may send before this node has read it, so that a stream is not held up by the
/// time an acknowledgement takes.
const WINDOW_BYTES: u32 = 4 << 20;

/// What a peer may send in one frame of HTTP/2; by default it is 16 KiB, and a batch many of them.
const HTTP_FRAME_BYTES: u32 = 1 << 20;

/// How much is read at once: TLS itself asks for 4 KiB at a time.
const READ_BYTES: usize = 64 << 10;

/// Serves every connection. Those end with this future.
pub(crate) async fn listen(shared: Arc<Shared>, listener: TcpListener) {
    let room = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    let mut connections = JoinSet::new();
    loop {
        let permit = room.clone().acquire_owned().await.expect("nobody closes the semaphore");
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((socket, from)) => {
                let shared = shared.clone();
                connections.spawn(async move {
                    let greeted = Arc::new(Notify::new());
                    let serving = serve(&shared, socket, greeted.clone());
                    let mut serving = pin!(serving);
                    tokio::select! {
                        () = &mut serving => return,
                        () = greeted.notified() => drop(permit),
                        () = sleep(shared.config.handshake_timeout) => {
                            debug!(%from, "no handshake in time");
                            return;
                        }
                    }
                    serving.await;
                });
            }
            Err(error) => {
                warn!(%error, "cannot accept a link");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(shared: &Arc<Shared>, socket: TcpStream, greeted: Arc<Notify>) {
    if let Err(error) = socket.set_nodelay(true) {
        debug!(%error, "cannot set nodelay");
    }
    let socket = BufReader::with_capacity(READ_BYTES, socket);
    let tls = match shared.tls.acceptor.accept(socket).await {
        Ok(tls) => tls,
        Err(error) => {
            match tls::refusal(&error, shared.config.node) {
                Some(refusal) => refuse(shared, &refusal),
                None => debug!(%error, "no TLS handshake"),
            }
            return;
        }
    };
    let certificate = tls.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let certificate = certificate.expect("TLS requires a certificate").clone().into_owned();
    let peer = Accepted { shared: shared.clone(), certificate, greeted };
    let service = peer_server::PeerServer::new(peer)
        .max_decoding_message_size(MAX_MESSAGE_BYTES + FRAME_SLACK_BYTES);
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(shared.config.ping_interval)
        .keep_alive_timeout(shared.config.ping_timeout)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_frame_size(HTTP_FRAME_BYTES)
        .max_concurrent_streams(1)
        .serve_connection(TokioIo::new(tls), TowerToHyperService::new(service));
    if let Err(error) = connection.await {
        debug!(%error, "link broke");
    }
}

/// How long a refusal is not said again.
const SAID_FOR: Duration = Duration::from_secs(60);

/// Refusals that are remembered as said.
const SAID: usize = 16;

/// Counts and says why a peer is refused.
fn refuse(shared: &Shared, refusal: &Refusal) {
    let (reason, now) = (refusal.label(), Instant::now());
    let mut said = shared.refused.lock();
    said.retain(|(_, at)| now.duration_since(*at) < SAID_FOR);
    if said.iter().any(|(said, _)| said == refusal) {
        debug!(reason, error = %refusal, "link refused again");
    } else {
        warn!(reason, error = %refusal, "link refused");
        said.truncate(SAID - 1);
        said.push((refusal.clone(), now));
    }
    metrics::refusals(Direction::Incoming, reason).increment(1);
}

/// A connection that some node has made.
struct Accepted {
    shared: Arc<Shared>,
    certificate: CertificateDer<'static>,
    greeted: Arc<Notify>,
}

impl Accepted {
    fn refuse(&self, refusal: Refusal) -> Status {
        refuse(&self.shared, &refusal);
        let code = match &refusal {
            Refusal::Denied { denied: Denied { certainty, .. }, .. } => match certainty {
                Certainty::ForGood => Code::PermissionDenied,
                Certainty::Unsure => Code::Aborted,
                Certainty::ForNow => Code::FailedPrecondition,
            },
            _ => Code::FailedPrecondition,
        };
        let mut status = Status::new(code, refusal.to_string());
        status.metadata_mut().insert(handshake::INCARNATION, self.shared.config.incarnation.into());
        status
    }
}

#[tonic::async_trait]
impl peer_server::Peer for Accepted {
    type StreamStream = Pin<Box<dyn futures_util::Stream<Item = Result<Frame, Status>> + Send>>;

    async fn stream(
        &self,
        request: Request<Streaming<Frame>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let config = &self.shared.config;
        let mut frames = request.into_inner();
        let judged = handshake::judge(config, frames.message().await?);
        let (hello, purpose) = judged.map_err(|refusal| self.refuse(refusal))?;
        let node = hello.node;
        if !tls::is_of(&self.certificate, node) {
            return Err(self.refuse(Refusal::Node(node)));
        }
        let admitted = handshake::admit(&*self.shared.receiver, &hello, "");
        admitted.map_err(|refusal| self.refuse(refusal))?;
        let unknown = || self.refuse(Refusal::UnknownPeer(node));
        let peer = self.shared.peers.read().get(&node).cloned().ok_or_else(unknown)?;
        let mut place = peer.incoming[purpose as usize].lock().await;
        let reading = place.as_mut().ok_or_else(unknown)?;
        reading.shutdown().await;
        let (end, ended) = oneshot::channel();
        let stream = Stream { peer: node, purpose, direction: Direction::Incoming };
        let answer = handshake::answer(config, purpose, &*self.shared.receiver, &hello);
        reading.spawn(receive(self.shared.clone(), stream, hello, frames, end));
        self.greeted.notify_one();
        // The answer ends when the stream is read no more.
        let ended = stream::once(ended).filter_map(|_| ready(None));
        let answer = stream::once(ready(Ok(answer)));
        Ok(Response::new(Box::pin(answer.chain(ended))))
    }
}

/// Hands over what a peer sends until the stream ends; `_end` is dropped then.
async fn receive(
    shared: Arc<Shared>,
    stream: Stream,
    hello: Hello,
    mut frames: Streaming<Frame>,
    _end: oneshot::Sender<()>,
) {
    let _open = Open::new(&shared, stream, &hello, None);
    let bytes = metrics::bytes(stream.purpose, stream.direction);
    let end = loop {
        match frames.message().await {
            Ok(Some(frame)) => match Batch::from_frame(frame, stream.purpose) {
                Some(batch) => {
                    bytes.increment(batch.bytes() as u64);
                    shared.receiver.received(stream.peer, batch);
                }
                None => break "a frame that does not belong here".to_owned(),
            },
            Ok(None) => break "the peer ended the stream".to_owned(),
            Err(status) => break tls::chain(&status),
        }
    };
    info!(peer = stream.peer, purpose = stream.purpose.label(), end, "incoming link down");
}
