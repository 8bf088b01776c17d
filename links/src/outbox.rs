//! What waits for one peer and purpose, bounded in bytes.
//!
//! Only an open stream has a queue: what is sent while there is none is refused, and what waits
//! when a stream ends is dropped. So no stream begins with what was meant for the one before.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use ::metrics::{Counter, Gauge};
use parking_lot::Mutex;
use thiserror::Error;

use crate::message::{Direction, MAX_MESSAGE_BYTES, Message, Purpose, frame};
use crate::metrics;
use crate::proto::Frame;

/// A frame takes what waits up to this many bytes, and at least one message.
const BATCH_BYTES: usize = 256 << 10;

/// What a message costs beside its payload.
const OVERHEAD_BYTES: usize = 64;

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    /// No stream to this peer is open.
    #[error("the peer is not reachable")]
    Unreachable,
    /// More waits for the peer than may.
    #[error("too much waits for the peer")]
    Full,
    /// The peer speaks an older version of the contract, without such messages.
    #[error("the peer does not know such messages")]
    Unknown,
    /// The message is longer than [`MAX_MESSAGE_BYTES`], or than what may wait.
    #[error("the message is too large")]
    TooLarge,
}

impl Refused {
    /// The reason as a metric label.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Full => "full",
            Self::Unknown => "unknown",
            Self::TooLarge => "too_large",
        }
    }
}

/// The queue of one peer and purpose.
pub(crate) struct Outbox {
    purpose: Purpose,
    limit: usize,
    queue_bytes: Gauge,
    sent_bytes: Counter,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Which stream takes from here; an older one finds its end.
    stream: u64,
    open: bool,
    /// What the peer of the open stream speaks.
    version: u32,
    waiting: VecDeque<Message>,
    /// What `waiting` costs.
    bytes: usize,
    /// Of the stream that found nothing.
    waker: Option<Waker>,
}

impl Outbox {
    /// `limit` is in bytes.
    pub(crate) fn new(purpose: Purpose, limit: usize) -> Self {
        let queue_bytes = metrics::queue_bytes(purpose);
        let sent_bytes = metrics::bytes(purpose, Direction::Outgoing);
        Self { purpose, limit, queue_bytes, sent_bytes, state: Mutex::default() }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.state.lock().open
    }

    /// Takes a message for the open stream.
    pub(crate) fn push(&self, message: Message) -> Result<(), Refused> {
        self.push_below(self.limit, message)
    }

    /// Takes a message for the open stream if with it no more waits than half of what may.
    pub(crate) fn push_patient(&self, message: Message) -> Result<(), Refused> {
        self.push_below(self.limit / 2, message)
    }

    fn push_below(&self, limit: usize, message: Message) -> Result<(), Refused> {
        let cost = message.bytes() + OVERHEAD_BYTES;
        if message.bytes() > MAX_MESSAGE_BYTES || cost > self.limit {
            return Err(Refused::TooLarge);
        }
        let mut state = self.state.lock();
        if !state.open {
            return Err(Refused::Unreachable);
        }
        if message.since() > state.version {
            return Err(Refused::Unknown);
        }
        if state.bytes + cost > limit && state.bytes > 0 {
            return Err(Refused::Full);
        }
        state.bytes += cost;
        state.waiting.push_back(message);
        self.queue_bytes.increment(cost as f64);
        if let Some(waker) = state.waker.take() {
            drop(state);
            waker.wake();
        }
        Ok(())
    }

    /// A new stream for this queue: it sends `hello`, and what is pushed once [`Self::open`] was
    /// called.
    pub(crate) fn stream(self: &Arc<Self>, hello: Frame) -> Frames {
        let mut state = self.state.lock();
        state.stream += 1;
        Frames { hello: Some(hello), stream: state.stream, outbox: self.clone() }
    }

    /// Messages that this version of the contract has are taken from now on, for the newest stream.
    pub(crate) fn open(&self, version: u32) {
        let mut state = self.state.lock();
        (state.open, state.version) = (true, version);
    }

    /// Drops what waits, ends the newest stream and takes nothing more.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.open = false;
        state.stream += 1;
        metrics::dropped(self.purpose, "lost").increment(state.waiting.len() as u64);
        self.queue_bytes.decrement(state.bytes as f64);
        state.bytes = 0;
        state.waiting = VecDeque::new();
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }

    fn poll_take(&self, stream: u64, context: &Context<'_>) -> Poll<Option<Frame>> {
        let mut state = self.state.lock();
        if state.stream != stream {
            return Poll::Ready(None);
        }
        if state.waiting.is_empty() {
            state.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        let (mut count, mut cost, mut payload) = (0, 0, 0);
        for message in &state.waiting {
            let next = message.bytes() + OVERHEAD_BYTES;
            if count > 0 && cost + next > BATCH_BYTES {
                break;
            }
            count += 1;
            cost += next;
            payload += message.bytes();
        }
        let frame = frame(self.purpose, state.waiting.drain(..count));
        state.bytes -= cost;
        drop(state);
        self.queue_bytes.decrement(cost as f64);
        self.sent_bytes.increment(payload as u64);
        Poll::Ready(Some(frame))
    }
}

/// What one stream sends. Each frame takes what has come to wait since the last one.
pub(crate) struct Frames {
    hello: Option<Frame>,
    stream: u64,
    outbox: Arc<Outbox>,
}

impl futures_util::Stream for Frames {
    type Item = Frame;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Frame>> {
        match self.hello.take() {
            Some(hello) => Poll::Ready(Some(hello)),
            None => self.outbox.poll_take(self.stream, context),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, StreamExt};

    use super::*;
    use crate::VERSION;
    use crate::message::Batch;
    use crate::proto::{GroupMessage, Question, control_message::Kind};

    fn message(group: u32, bytes: usize) -> Message {
        Message::Raft(GroupMessage { group, message: vec![0; bytes].into() })
    }

    fn outbox(limit: usize) -> Arc<Outbox> {
        Arc::new(Outbox::new(Purpose::Raft, limit))
    }

    /// The groups of the next batch; `None` when the stream has ended.
    fn next(frames: &mut Frames) -> Option<Vec<u32>> {
        let frame = frames.next().now_or_never().expect("something to send")?;
        let Some(Batch::Raft(messages)) = Batch::from_frame(frame, Purpose::Raft) else {
            panic!("not a batch");
        };
        Some(messages.iter().map(|message| message.group).collect())
    }

    #[test]
    fn what_waits_goes_as_one_batch() {
        let outbox = outbox(1 << 20);
        let mut frames = outbox.stream(Frame { kind: None });
        assert_eq!(outbox.push(message(0, 1)), Err(Refused::Unreachable));
        assert!(frames.next().now_or_never().is_some(), "the hello does not wait for the peer's");
        assert!(frames.next().now_or_never().is_none());
        outbox.open(VERSION);
        for group in 1..=3 {
            outbox.push(message(group, 10)).unwrap();
        }
        assert_eq!(next(&mut frames), Some(vec![1, 2, 3]));
        for group in 4..=6 {
            outbox.push(message(group, BATCH_BYTES / 2 - OVERHEAD_BYTES)).unwrap();
        }
        assert_eq!(next(&mut frames), Some(vec![4, 5]));
        assert_eq!(next(&mut frames), Some(vec![6]));
        outbox.push(message(7, 2 * BATCH_BYTES)).unwrap();
        assert_eq!(next(&mut frames), Some(vec![7]));
    }

    #[test]
    fn holds_no_more_than_its_bound() {
        let limit = 10 * (100 + OVERHEAD_BYTES);
        let outbox = outbox(limit);
        let mut frames = outbox.stream(Frame { kind: None });
        outbox.open(VERSION);
        for group in 0..10 {
            outbox.push(message(group, 100)).unwrap();
        }
        assert_eq!(outbox.push(message(10, 0)), Err(Refused::Full));
        assert_eq!(outbox.push(message(10, limit)), Err(Refused::TooLarge));
        assert!(frames.next().now_or_never().is_some());
        assert_eq!(next(&mut frames).map(|groups| groups.len()), Some(10));
        outbox.push(message(10, limit - OVERHEAD_BYTES)).unwrap();
    }

    #[test]
    fn an_older_peer_is_not_sent_what_it_does_not_know() {
        let outbox = Arc::new(Outbox::new(Purpose::Control, 1 << 20));
        let question = || Message::from(Kind::Question(Question::default()));
        for (version, pushed) in [(1, Err(Refused::Unknown)), (2, Ok(())), (3, Ok(()))] {
            outbox.open(version);
            assert_eq!(outbox.push(question()), pushed, "{version}");
            outbox.close();
        }
    }

    #[test]
    fn what_can_wait_leaves_half_to_what_cannot() {
        let limit = 10 * (100 + OVERHEAD_BYTES);
        let outbox = outbox(limit);
        let _frames = outbox.stream(Frame { kind: None });
        outbox.open(VERSION);
        for group in 0..5 {
            outbox.push_patient(message(group, 100)).unwrap();
        }
        assert_eq!(outbox.push_patient(message(5, 0)), Err(Refused::Full));
        for group in 5..10 {
            outbox.push(message(group, 100)).unwrap();
        }
        assert_eq!(outbox.push(message(10, 0)), Err(Refused::Full));
    }

    #[test]
    fn a_stream_sends_nothing_of_the_one_before() {
        let outbox = outbox(1 << 20);
        let mut first = outbox.stream(Frame { kind: None });
        outbox.open(VERSION);
        outbox.push(message(1, 1)).unwrap();
        outbox.close();
        assert_eq!(outbox.push(message(2, 1)), Err(Refused::Unreachable));
        let mut second = outbox.stream(Frame { kind: None });
        outbox.open(VERSION);
        outbox.push(message(3, 1)).unwrap();
        assert!(first.next().now_or_never().is_some());
        assert_eq!(next(&mut first), None);
        assert!(second.next().now_or_never().is_some());
        assert_eq!(next(&mut second), Some(vec![3]));
    }
}
