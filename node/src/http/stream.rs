//! The stream below HTTP: what hyper says by itself of a head that it cannot read gets the shape of all
//! other answers, a connection that ends has its last answer arrive, and whoever does not read is not
//! waited for.
//!
//! hyper's timeout of a head does not run while an answer is to be written. So a stream that takes nothing
//! for [`STALLS`] fails.
//!
//! Whoever is still sending when a connection is closed is sent a reset, which makes its system forget
//! the answer that it has not read yet. So a stream that is shut down goes on reading, and throws away
//! what comes: for a while, and up to a number of bytes.

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};
use wire::websocket::Refusal;

use crate::metrics;

/// How long whoever does not read is waited for.
pub(super) const STALLS: Duration = Duration::from_secs(30);
/// How long the end of what comes is waited for after the last of it.
pub(super) const SILENCE: Duration = Duration::from_secs(2);
/// How long that may go on.
const LINGERS: Duration = Duration::from_secs(20);
/// How many bytes are thrown away: more than anybody sends by mistake at once.
const MOST_BYTES: usize = 128 << 20;
/// How many streams of a listener may do so at once; the next one just ends.
pub(super) const AT_ONCE: usize = 64;
/// Bytes that are read at a time then.
const SCRATCH: usize = 8 * 1024;

/// A head up to this size is read from everybody, and of one that follows on something else, what was read
/// with that. No more is read at once.
pub(super) const SMALL_HEAD: usize = 8 * 1024;
/// Larger heads of a listener's connections that are read at the same time.
pub(super) const LARGE_HEADS: usize = 64;
/// What the next one is told.
const CROWDED: &str = "too many requests with large heads are being read: try again";

/// What only so many of a listener's connections do at once, so that those of others can.
#[derive(Clone)]
pub struct Bounds {
    lingering: Arc<Semaphore>,
    large_heads: Arc<Semaphore>,
}

impl Default for Bounds {
    fn default() -> Self {
        let places = |count| Arc::new(Semaphore::new(count));
        Self { lingering: places(AT_ONCE), large_heads: places(LARGE_HEADS) }
    }
}

/// How far a connection has got with the head of a request. The stream counts its bytes; that it has ended is
/// known to who answers it.
#[derive(Default)]
pub(super) struct Progress(Mutex<Head>);

#[derive(Default)]
struct Head {
    /// What was read of it; not what came together with something before it.
    bytes: usize,
    /// Its place, if it is large.
    place: Option<OwnedSemaphorePermit>,
    /// It has ended: what is read belongs to the body, until an answer begins.
    has_ended: bool,
}

impl Progress {
    /// The head has come to its end.
    pub(super) fn ends(&self) {
        *self.0.lock() = Head { has_ended: true, ..Head::default() };
    }

    /// Whether some of a head was read, and not its end.
    pub(super) fn is_begun(&self) -> bool {
        self.0.lock().bytes > 0
    }

    /// How much may be read: of a head, no more than makes it large, so that a body is not taken for it.
    /// None if this one is going to be large, and too many are.
    fn room(&self, bounds: &Bounds) -> Option<usize> {
        let mut head = self.0.lock();
        let left = SMALL_HEAD.saturating_sub(head.bytes);
        if head.has_ended || left == 0 && head.place.is_some() {
            return Some(SMALL_HEAD);
        }
        if left > 0 {
            return Some(left);
        }
        head.place = Arc::clone(&bounds.large_heads).try_acquire_owned().ok();
        if head.place.is_none() {
            // Who is told so is not waited for.
            *head = Head::default();
            return None;
        }
        Some(SMALL_HEAD)
    }

    /// So many bytes were read.
    fn read(&self, bytes: usize) {
        let mut head = self.0.lock();
        if !head.has_ended {
            head.bytes += bytes;
        }
    }

    /// Something is written. Where an answer begins the next head follows: nothing here answers before a body
    /// has come and goes on reading it. Of one that nobody wants hyper reads once, at most [`SMALL_HEAD`].
    fn writes(&self, written: &[u8]) {
        let asks_for_body = written == b"HTTP/1.1 100 Continue\r\n\r\n";
        let mut head = self.0.lock();
        if head.has_ended && !asks_for_body {
            *head = Head::default();
        }
    }
}

/// Ends a stream with an answer, so that it arrives.
pub async fn refuse<S>(stream: S, answer: Vec<u8>, bounds: Bounds)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut stream = Answering::new(stream, bounds, Arc::default());
    stream.instead = (answer, 0);
    // It ends either way.
    let _ = poll_fn(|cx| Pin::new(&mut stream).poll_shutdown(cx)).await;
}

/// What hyper answers by itself is known by having no body: nothing else here answers so with one of
/// these. Gives what is said instead.
fn better(written: &[u8]) -> Option<Vec<u8>> {
    let status = written.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
    let (status, why) = match status {
        b"400" => (400, "the head of the request cannot be read as HTTP/1.1"),
        b"414" => (414, "the address of the request is too long"),
        b"431" => (431, "the headers of the request are too many, or too long"),
        _ => return None,
    };
    let head = std::str::from_utf8(written).ok()?.strip_suffix("\r\n\r\n")?;
    head.split("\r\n")
        .any(|line| line == "content-length: 0")
        .then(|| Refusal::new(status, why).response())
}

/// A stream as hyper has it.
pub(super) struct Answering<S> {
    stream: S,
    /// What is to be written before all else, and how much of it was.
    instead: (Vec<u8>, usize),
    /// Of what is written, and of what TLS still holds of it: that some of the one is taken says
    /// nothing about the other.
    writing: Patience,
    flushing: Patience,
    progress: Arc<Progress>,
    bounds: Bounds,
    /// Its head was large when too many were.
    is_refused: bool,
    leaving: Option<Leaving>,
}

/// How much longer a stream is waited for that takes nothing.
#[derive(Default)]
struct Patience(Option<Pin<Box<Sleep>>>);

impl Patience {
    /// Passes on what came of an attempt, or that there were none but vain ones for too long.
    fn with<T>(
        &mut self,
        cx: &mut Context<'_>,
        attempt: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if attempt.is_ready() {
            self.0 = None;
            return attempt;
        }
        ready!(self.0.get_or_insert_with(|| Box::pin(sleep(STALLS))).as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

/// A stream that is shut down.
struct Leaving {
    until: Pin<Box<Sleep>>,
    at_last: Instant,
    left: usize,
    _place: Option<OwnedSemaphorePermit>,
}

impl Leaving {
    fn begin(bounds: &Bounds) -> Self {
        let place = Arc::clone(&bounds.lingering).try_acquire_owned().ok();
        Self {
            until: Box::pin(sleep(SILENCE)),
            at_last: Instant::now() + LINGERS,
            left: if place.is_some() { MOST_BYTES } else { 0 },
            _place: place,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Answering<S> {
    pub(super) fn new(stream: S, bounds: Bounds, progress: Arc<Progress>) -> Self {
        let (writing, flushing) = Default::default();
        let (instead, leaving) = Default::default();
        let is_refused = false;
        Self { stream, instead, writing, flushing, progress, bounds, is_refused, leaving }
    }

    fn poll_instead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (bytes, written) = &mut self.instead;
        while *written < bytes.len() {
            let attempt = Pin::new(&mut self.stream).poll_write(cx, &bytes[*written..]);
            match ready!(self.writing.with(cx, attempt))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => *written += count,
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Takes the whole of an answer that is said otherwise.
    fn replaces(&mut self, written: &[u8]) -> bool {
        let better = better(written);
        let replaces = better.is_some();
        if let Some(better) = better {
            self.instead = (better, 0);
        }
        replaces
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Answering<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.is_refused {
            if let Some(room) = self.progress.room(&self.bounds) {
                let room = into.remaining().min(room);
                let mut read = ReadBuf::new(into.initialize_unfilled_to(room));
                ready!(Pin::new(&mut self.stream).poll_read(cx, &mut read))?;
                let bytes = read.filled().len();
                into.advance(bytes);
                self.progress.read(bytes);
                return Poll::Ready(Ok(()));
            }
            metrics::http_refused();
            self.is_refused = true;
            self.instead = (Refusal::new(503, CROWDED).response(), 0);
        }
        // hyper answers nothing to one that fails.
        ready!(self.poll_shutdown(cx))?;
        Poll::Ready(Err(io::Error::other(CROWDED)))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Answering<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_instead(cx))?;
        self.progress.writes(bytes);
        if self.replaces(bytes) {
            return Poll::Ready(Ok(bytes.len()));
        }
        let attempt = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.writing.with(cx, attempt)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_instead(cx))?;
        self.progress.writes(slices.first().map_or(&[], |slice| slice));
        if let [head] = slices
            && self.replaces(head)
        {
            return Poll::Ready(Ok(head.len()));
        }
        let attempt = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.writing.with(cx, attempt)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_instead(cx))?;
        let attempt = Pin::new(&mut self.stream).poll_flush(cx);
        self.flushing.with(cx, attempt)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_instead(cx))?;
        let Self { stream, flushing, bounds, leaving, .. } = &mut *self;
        let leaving = match leaving {
            Some(leaving) => leaving,
            None => {
                let attempt = Pin::new(&mut *stream).poll_shutdown(cx);
                ready!(flushing.with(cx, attempt))?;
                leaving.insert(Leaving::begin(bounds))
            }
        };
        while leaving.left > 0 && leaving.until.as_mut().poll(cx).is_pending() {
            let mut scratch = [0; SCRATCH];
            let mut read = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut *stream).poll_read(cx, &mut read)) {
                Ok(()) if !read.filled().is_empty() => {}
                Ok(()) | Err(_) => break,
            }
            leaving.left = leaving.left.saturating_sub(read.filled().len());
            let until = (Instant::now() + SILENCE).min(leaving.at_last);
            leaving.until.as_mut().reset(until);
        }
        Poll::Ready(Ok(()))
    }
}
