//! HTTP without TLS on the control runtime: the REST APIs, metrics and health.
//!
//! Bounds: a listener has at most [`Listener::max_connections`] open, and closes one that has not
//! sent the head of its next request within [`Listener::connect_timeout`], or takes nothing of an answer for
//! half a minute. Heads over `SMALL_HEAD` are read of `LARGE_HEADS` connections at once: nobody has proved
//! anything before the head is there.

mod stream;

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::response::Response;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tower::ServiceExt;
use tower::util::Oneshot;
use tracing::debug;

use crate::config::Listener;
use crate::gateway;
use crate::metrics;

use stream::{Answering, Progress};

pub use stream::{Bounds, refuse};

/// Bytes of a request's head, or some more: the longest topic in a URL fits, and all properties in headers.
const LONGEST_HEAD: usize = 128 << 10;

/// Serves a listener for as long as the runtime lives.
pub async fn serve(listener: TcpListener, config: Listener, router: Router) {
    let places = Arc::new(Semaphore::new(config.max_connections as usize));
    let head_timeout = config.connect_timeout;
    let bounds = Bounds::default();
    loop {
        let (stream, peer) = gateway::accept_next(&listener).await;
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            metrics::http_refused();
            continue;
        };
        let (router, bounds) = (router.clone(), bounds.clone());
        tokio::spawn(async move {
            debug!(%peer, "HTTP connection");
            // Answers are written at once; without this they might still wait for the next.
            let _ = stream.set_nodelay(true);
            let source = Some(peer.ip().to_canonical());
            if answer(router, stream, head_timeout, source, bounds).await.is_err() {
                metrics::http_unread();
            }
            drop(place);
        });
    }
}

/// Why a connection was ended within the head of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    /// It did not come to its end in time.
    Late,
    /// It is none, or too large.
    Malformed,
}

/// Answers the requests of one connection, until it ends or is silent for so long. They carry where
/// it comes from, if that is known. An error says that it was ended within a head.
pub async fn answer<S>(
    router: Router,
    stream: S,
    head_timeout: Duration,
    source: Option<IpAddr>,
    bounds: Bounds,
) -> Result<(), Unread>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let progress = Arc::<Progress>::default();
    let service = Sourced { router, source, progress: Arc::clone(&progress) };
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(head_timeout).max_buf_size(LONGEST_HEAD);
    let stream = TokioIo::new(Answering::new(stream, bounds, Arc::clone(&progress)));
    let Err(error) = http.serve_connection(stream, service).await else { return Ok(()) };
    debug!(%error, "HTTP connection ended");
    if error.is_parse() {
        return Err(Unread::Malformed);
    }
    let is_late = error.is_timeout() && progress.is_begun();
    if is_late { Err(Unread::Late) } else { Ok(()) }
}

/// What answers the requests of a connection, which carry where it comes from.
struct Sourced {
    router: Router,
    source: Option<IpAddr>,
    progress: Arc<Progress>,
}

impl Service<Request<Incoming>> for Sourced {
    type Response = Response;
    type Error = Infallible;
    type Future = Oneshot<Router, Request<Incoming>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        // At once, not when it is first looked at: hyper reads of the body before.
        self.progress.ends();
        if let Some(ip) = self.source {
            request.extensions_mut().insert(api::Source(ip));
        }
        self.router.clone().oneshot(request)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::io;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use axum::routing::get;
    use futures_util::FutureExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadBuf};
    use tokio::net::TcpStream;

    use super::*;

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

    async fn start(config: Listener) -> std::net::SocketAddr {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", get(|| async { "here" }));
        tokio::spawn(serve(listener, config, router));
        address
    }

    /// What comes until the server closes.
    async fn rest(stream: &mut TcpStream) -> String {
        let mut text = String::new();
        // A reset is an end as well.
        let _ = stream.read_to_string(&mut text).await;
        text
    }

    #[tokio::test]
    async fn a_head_that_does_not_end_ends_the_connection() {
        let config =
            Listener { connect_timeout: Duration::from_millis(200), ..Listener::default() };
        let address = start(config).await;
        for sent in [&b""[..], b"GET / HTTP/1.1\r\nHost:", REQUEST] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(sent).await.unwrap();
            assert_eq!(rest(&mut stream).await.contains("here"), sent == REQUEST, "{sent:?}");
        }
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_answered_like_the_rest() {
        let address = start(Listener::default()).await;
        let get = |path: &str, header: &str| {
            format!("GET /{path} HTTP/1.1\r\nHost: localhost\r\nX: {header}\r\n\r\n")
        };
        let many = "a: b\r\n".repeat(200);
        for (sent, status, code) in [
            (get(&"a".repeat(70_000), ""), 414, "RequestUriTooLongException"),
            (get("", &"a".repeat(1 << 20)), 431, "RequestHeaderFieldsTooLargeException"),
            (format!("GET / HTTP/1.1\r\n{many}\r\n"), 431, "RequestHeaderFieldsTooLargeException"),
            ("GET / HTTP/1.1\r\na b: c\r\n\r\n".into(), 400, "InvalidRequestException"),
        ] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(sent.as_bytes()).await.unwrap();
            let answer = rest(&mut stream).await;
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
            assert!(head.contains(&format!("\r\nx-amzn-errortype: {code}\r\n")), "{answer}");
            assert!(head.ends_with(&format!("\r\ncontent-length: {}", body.len())), "{answer}");
            let body: serde_json::Value = serde_json::from_str(body).unwrap();
            assert!(body["message"].is_string(), "{body}");
        }
        // What handlers answer stays as it is.
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(get("nothing", "").as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let answer = rest(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 404 ") && answer.ends_with("\r\n\r\n"), "{answer}");
    }

    #[tokio::test]
    async fn an_answer_reaches_whoever_is_still_sending() {
        let address = start(Listener::default()).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        let bytes = 16 << 20;
        let head = format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {bytes}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        for _ in 0..bytes >> 20 {
            stream.write_all(&vec![0; 1 << 20]).await.unwrap();
        }
        assert!(rest(&mut stream).await.starts_with("HTTP/1.1 405 "));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_sends_nothing_is_not_waited_for() {
        let (mut client, server) = tokio::io::duplex(1024);
        let left = tokio::time::timeout(
            stream::SILENCE * 2,
            refuse(server, Vec::new(), Bounds::default()),
        );
        left.await.unwrap();
        let mut text = Vec::new();
        assert_eq!(client.read_to_end(&mut text).await.unwrap(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_listener_has_places_of_its_own_to_linger() {
        let taken = Bounds::default();
        let mut lingering = Vec::new();
        for _ in 0..stream::AT_ONCE {
            let (client, server) = tokio::io::duplex(64);
            let mut refusing = Box::pin(refuse(server, Vec::new(), taken.clone()));
            assert!(refusing.as_mut().now_or_never().is_none());
            lingering.push((client, refusing));
        }
        for (of, lingers) in [(taken.clone(), false), (Bounds::default(), true)] {
            let (_client, server) = tokio::io::duplex(64);
            assert_eq!(refuse(server, Vec::new(), of).now_or_never().is_none(), lingers);
        }
        drop(lingering);
        let (_client, server) = tokio::io::duplex(64);
        assert!(refuse(server, Vec::new(), taken).now_or_never().is_none());
    }

    /// Whatever the node answers, it fills the buffer of a client that does not read.
    #[tokio::test(start_paused = true)]
    async fn whoever_does_not_read_is_not_waited_for() {
        let much = || async { "x".repeat(1 << 20) };
        let unreadable = "GET / HTTP/1.1\r\na b: c\r\n\r\n";
        for requests in [
            "GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n".repeat(10),
            "GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
            unreadable.to_owned(),
        ] {
            let (mut client, server) = tokio::io::duplex(64);
            let router = Router::new().route("/", get(much));
            let bounds = Bounds::default();
            let answering = answer(router, server, stream::STALLS * 10, None, bounds);
            let asking = async {
                let _ = client.write_all(requests.as_bytes()).await;
            };
            let both = futures_util::future::join(answering, asking);
            let (_, ()) = tokio::time::timeout(stream::STALLS * 2, both).await.expect(&requests);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_reads_slowly_gets_everything() {
        let bytes = 64 << 10;
        let router = Router::new().route("/", get(move || async move { "x".repeat(bytes) }));
        let (mut client, server) = tokio::io::duplex(1 << 10);
        tokio::spawn(answer(router, server, stream::STALLS, None, Bounds::default()));
        let request = String::from_utf8_lossy(REQUEST);
        let request = request.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        let (mut read, mut piece) = (0, [0; 1 << 10]);
        loop {
            tokio::time::sleep(stream::STALLS / 2).await;
            match client.read(&mut piece).await.unwrap() {
                0 => break,
                count => read += count,
            }
        }
        assert!(read > bytes, "{read}");
    }

    /// Nobody has proved anything before the head is there, so it may not cost much to begin it.
    #[tokio::test(start_paused = true)]
    async fn so_many_heads_are_large_at_once() {
        let bounds = Bounds::default();
        let router = Router::new().route("/", get(|| async { "here" }));
        let large = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}", "x".repeat(stream::SMALL_HEAD));
        let timeout = Duration::from_secs(10);
        let connect = || {
            let (client, server) = tokio::io::duplex(1 << 20);
            let answering = answer(router.clone(), server, timeout, None, bounds.clone());
            (client, tokio::spawn(answering))
        };
        let mut held = Vec::new();
        for _ in 0..stream::LARGE_HEADS {
            let (mut client, answering) = connect();
            client.write_all(large.as_bytes()).await.unwrap();
            held.push((client, answering));
        }
        tokio::task::yield_now().await;
        let (mut client, answering) = connect();
        client.write_all(large.as_bytes()).await.unwrap();
        let mut text = String::new();
        client.read_to_string(&mut text).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 503 ") && text.contains("try again"), "{text}");
        assert_eq!(answering.await.unwrap(), Ok(()), "it is closed before its time is up");

        let (mut small, answering) = connect();
        small.write_all(REQUEST).await.unwrap();
        let mut text = vec![0; 15];
        small.read_exact(&mut text).await.unwrap();
        assert_eq!(text, b"HTTP/1.1 200 OK");
        small.write_all(large.as_bytes()).await.unwrap();
        assert_eq!(answering.await.unwrap(), Ok(()), "nor is a later head of a connection large");

        let mut whole = held.split_off(1);
        for (client, _) in &mut whole {
            // Who has sent it whole gives its place to others.
            client.write_all(b"\r\nConnection: close\r\n\r\n").await.unwrap();
        }
        for (mut client, answering) in whole {
            let mut text = String::new();
            client.read_to_string(&mut text).await.unwrap();
            assert!(text.ends_with("here"), "{text}");
            assert_eq!(answering.await.unwrap(), Ok(()));
        }
        let (mut client, answering) = connect();
        client.write_all(large.as_bytes()).await.unwrap();
        let (_first, late) = held.remove(0);
        for answering in [answering, late] {
            assert_eq!(answering.await.unwrap(), Err(Unread::Late));
        }
    }

    /// A stream of which each read gives a piece, and that takes what is written.
    struct Pieces(VecDeque<Vec<u8>>);

    impl AsyncRead for Pieces {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            into: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let Some(mut piece) = self.0.pop_front() else { return Poll::Pending };
            let rest = piece.split_off(piece.len().min(into.remaining()));
            into.put_slice(&piece);
            if !rest.is_empty() {
                self.0.push_front(rest);
            }
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Pieces {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// Neither a body that follows on a small head, nor a large one that is whole, is in the way of others.
    #[tokio::test(start_paused = true)]
    async fn whoever_waits_for_an_answer_takes_no_place_of_a_head() {
        let body = vec![b'x'; stream::SMALL_HEAD];
        // Alone, in two pieces, and together with the body.
        let cuts = [usize::MAX, 20, 0];
        for (bytes, cut) in cuts.iter().flat_map(|cut| [(0, *cut), (stream::SMALL_HEAD, *cut)]) {
            let head = format!(
                "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\nX: {}\r\n\r\n",
                body.len(),
                "x".repeat(bytes)
            );
            let (bounds, timeout) = (Bounds::default(), Duration::from_secs(10));
            if bytes == 0 {
                for _ in 0..stream::LARGE_HEADS {
                    let large = [&head[..head.len() - 2], &"x".repeat(stream::SMALL_HEAD)].concat();
                    let stream = Pieces([large.into_bytes()].into());
                    tokio::spawn(answer(Router::new(), stream, timeout, None, bounds.clone()));
                }
                tokio::task::yield_now().await;
            }
            let (sender, mut arrived) = tokio::sync::mpsc::unbounded_channel();
            let router = Router::new().route(
                "/",
                axum::routing::post(async move |body: axum::body::Bytes| {
                    sender.send(body.len()).unwrap();
                    std::future::pending::<()>().await;
                }),
            );
            for _ in 0..=stream::LARGE_HEADS {
                let (first, rest) = head.as_bytes().split_at(cut.min(head.len()));
                let pieces = [first.to_vec(), [rest, &*body].concat()].into_iter();
                let stream = Pieces(pieces.filter(|piece| !piece.is_empty()).collect());
                tokio::spawn(answer(router.clone(), stream, timeout, None, bounds.clone()));
            }
            for _ in 0..=stream::LARGE_HEADS {
                assert_eq!(arrived.recv().await, Some(body.len()), "{bytes} {cut}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_is_left_between_requests_has_not_failed() {
        for (requests, then, ended) in [
            (0, &b""[..], Ok(())),
            (1, b"", Ok(())),
            (0, b"GET", Err(Unread::Late)),
            (1, b"GET", Err(Unread::Late)),
            (0, b"what\r\n\r\n", Err(Unread::Malformed)),
        ] {
            let (mut client, server) = tokio::io::duplex(1 << 20);
            let router = Router::new().route("/", get(|| async { "here" }));
            let timeout = Duration::from_secs(10);
            let answering = tokio::spawn(answer(router, server, timeout, None, Bounds::default()));
            for _ in 0..requests {
                client.write_all(REQUEST).await.unwrap();
                client.read_exact(&mut [0; 15]).await.unwrap();
            }
            client.write_all(then).await.unwrap();
            client.read_to_end(&mut Vec::new()).await.unwrap();
            drop(client);
            assert_eq!(answering.await.unwrap(), ended, "{requests} {then:?}");
        }
    }

    #[tokio::test]
    async fn connections_beyond_the_bound_are_closed() {
        let address = start(Listener { max_connections: 1, ..Listener::default() }).await;
        let mut first = TcpStream::connect(address).await.unwrap();
        first.write_all(REQUEST).await.unwrap();
        let mut byte = [0; 1];
        first.read_exact(&mut byte).await.unwrap();
        let mut second = TcpStream::connect(address).await.unwrap();
        assert_eq!(rest(&mut second).await, "");
        drop(first);
        loop {
            let mut third = TcpStream::connect(address).await.unwrap();
            // May come before the first is seen to have gone.
            let request = String::from_utf8_lossy(REQUEST)
                .replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
            if third.write_all(request.as_bytes()).await.is_ok()
                && rest(&mut third).await.contains("here")
            {
                break;
            }
        }
    }
}
