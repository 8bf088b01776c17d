//! Reading: when, how much at a time, and what stays until its packet is complete.

use std::rc::Rc;
use std::task::{Context as TaskContext, Poll, ready};

use mqtt::Reason;

use super::{Connection, End};
use crate::core::{Publisher, READ_BUFFER, Timer, Uses};

/// Reads per turn before other connections get theirs.
const READS_PER_TURN: usize = 4;

/// Acknowledgements owed to a client before it is not read any more.
const OWED: usize = 4096;

/// Lookups of retained messages that may wait before the client is not read any more.
const LOOKUPS: usize = 16;

/// Of a packet that is under way, so many bytes more are as good as a packet to the keep alive.
const PROGRESS: usize = 1024;

/// The packet type of PUBLISH.
const PUBLISH: u8 = 3;

impl Connection {
    /// Reads until the socket is empty, the turn is over or somebody has to be waited for.
    pub(super) fn read(&mut self, cx: &mut TaskContext<'_>) {
        let mut buffer = self.core.read_buffer.take();
        for turn in 0.. {
            if self.must_wait(cx) {
                break;
            }
            if turn == READS_PER_TURN {
                cx.waker().wake_by_ref();
                break;
            }
            let received = match self.unhandled {
                true => Poll::Ready(self.receive_unhandled()),
                false => self.read_once(&mut buffer, cx),
            };
            match received {
                Poll::Pending => break,
                Poll::Ready(Ok(())) => self.core.flush(),
                Poll::Ready(Err(end)) => {
                    self.core.flush();
                    self.finish(end);
                    break;
                }
            }
        }
        self.core.read_buffer.set(buffer);
    }

    /// Handles what is in `partial` already: what the client sent together with CONNECT, which it may
    /// [v5 MQTT-3.1.4-5], or what was left when somebody had to be waited for.
    fn receive_unhandled(&mut self) -> Result<(), End> {
        self.core.read_clock();
        self.unhandled = false;
        let mut partial = std::mem::take(&mut self.partial);
        let consumed = self.receive(&partial)?;
        if consumed > 0 {
            partial = partial[consumed..].to_vec();
        }
        self.partial = partial;
        self.hold_partial()
    }

    fn must_wait(&mut self, cx: &mut TaskContext<'_>) -> bool {
        self.withheld = self.has_to_wait(cx);
        self.withheld
    }

    /// Whether the client is to be read later. Whatever is waited for wakes the actor.
    fn has_to_wait(&mut self, cx: &mut TaskContext<'_>) -> bool {
        if self.endpoint.takes_no_more() {
            return true;
        }
        let now = self.core.clock().now;
        if let Some(rate) = self.rate.as_mut().filter(|rate| rate.is_paused(now)) {
            if let Some(until) = rate.watch() {
                let timer = Timer::Resume(self.endpoint.profile.live);
                self.core.wheel.borrow_mut().set(until, timer);
            }
            return true;
        }
        // Two that wait for each other would both wait for acknowledgements that nobody reads. A client
        // that gives none counts as slow before long, and then waits like everybody.
        let waited_for = self.endpoint.is_waited_for();
        if let Some(pressed) = &self.pressed {
            if !waited_for && pressed.wait_for_room(cx.waker()) {
                return true;
            }
            self.pressed = None;
        }
        if self.at_publish && self.core.must_wait_for_currency(cx.waker()) {
            return true;
        }
        // What the client is owed, and what it has not read, must not grow without bound.
        self.crowded = self.endpoint.is_crowded();
        let owed = self.endpoint.owed() >= OWED
            || self.endpoint.lookups() >= LOOKUPS
            || self.endpoint.owes_suback()
            || self
                .subscribed
                .as_ref()
                .is_some_and(|it| Rc::strong_count(&it.subscribing) > LOOKUPS);
        // An outbox may be long because this client is behind: then its acknowledgements are needed, up
        // to its next publication.
        self.only_acks = waited_for && !self.at_publish;
        let uses = match self.only_acks {
            true => self.uses.without_outboxes(),
            false => self.uses,
        };
        let publisher = (!waited_for).then_some(Publisher::Connection(self.endpoint.profile.live));
        if self.crowded || owed || self.core.must_wait(publisher, uses, cx.waker()) {
            return true;
        }
        self.at_publish = false;
        self.uses = match self.only_acks {
            true => self.uses.only_outboxes(),
            false => Uses::default(),
        };
        false
    }

    fn read_once(&mut self, buffer: &mut [u8], cx: &mut TaskContext<'_>) -> Poll<Result<(), End>> {
        // A large packet gathers in `partial`; anything else is completed in the shared buffer.
        if self.partial.len() > buffer.len() / 2 {
            return self.read_large(buffer, cx);
        }
        let kept = self.partial.len();
        buffer[..kept].copy_from_slice(&self.partial);
        let read = ready!(self.poll_read(&mut buffer[kept..], cx))?;
        let all = &buffer[..kept + read];
        let consumed = self.receive(all);
        let rest = &all[*consumed.as_ref().unwrap_or(&0)..];
        self.partial.clear();
        if rest.is_empty() {
            self.partial = Vec::new();
        } else {
            self.partial.extend_from_slice(rest);
        }
        self.hear(kept, &consumed);
        self.hold_partial()?;
        Poll::Ready(consumed.map(drop))
    }

    /// Takes what the socket has, of which there is at least a byte, and reads the clock anew.
    fn poll_read(&mut self, into: &mut [u8], cx: &mut TaskContext<'_>) -> Poll<Result<usize, End>> {
        let read = match ready!(self.transport.poll_read(cx, into)) {
            Ok(0) => return Poll::Ready(Err(self.transport.end())),
            Ok(read) => read,
            Err(error) => return Poll::Ready(Err(End::lost(&error))),
        };
        self.core.read_clock();
        self.core.metrics.received(read);
        Poll::Ready(Ok(read))
    }

    fn read_large(&mut self, buffer: &mut [u8], cx: &mut TaskContext<'_>) -> Poll<Result<(), End>> {
        let read = ready!(self.poll_read(buffer, cx))?;
        let mut partial = std::mem::take(&mut self.partial);
        let before = partial.len();
        partial.extend_from_slice(&buffer[..read]);
        let consumed = self.receive(&partial);
        let done = *consumed.as_ref().unwrap_or(&0);
        if done > 0 {
            partial = partial[done..].to_vec();
        }
        self.partial = partial;
        self.hear(before, &consumed);
        self.hold_partial()?;
        Poll::Ready(consumed.map(drop))
    }

    /// Notes that the client lives, unless it only adds a few bytes to a packet that it does not
    /// finish [v5 MQTT-3.1.2-22]. `before` is how much of a packet there was before this read.
    fn hear(&mut self, before: usize, consumed: &Result<usize, End>) {
        let completed = consumed.as_ref().is_ok_and(|consumed| *consumed > 0);
        let grown = before / PROGRESS < self.partial.len() / PROGRESS;
        if completed || before == 0 || grown {
            self.heard = self.core.clock().now;
        }
    }

    /// Counts a large packet that is under way; too much of that on one core ends connections.
    fn hold_partial(&mut self) -> Result<(), End> {
        if self.partial.len() == self.partial_held {
            return Ok(());
        }
        let mut pool = self.core.pool.borrow_mut();
        pool.release_inbound(self.partial_held);
        self.partial_held = self.partial.len();
        match pool.hold_inbound(self.partial_held) {
            true => Ok(()),
            false => Err(End::by_server(Reason::QuotaExceeded)),
        }
    }

    /// Handles the complete packets and says how many bytes they were. Stops when somebody has to be
    /// waited for: what follows would be more than that one takes.
    fn receive(&mut self, bytes: &[u8]) -> Result<usize, End> {
        let limit = self.core.shared.limits.maximum_packet_size;
        let is_current = self.core.shared.currency.is_current();
        let mut at = 0;
        while let Some(length) = mqtt::frame(&bytes[at..], limit).map_err(|e| End::violated(&e))? {
            if bytes.len() - at < length {
                break;
            }
            let is_publish = bytes[at] >> 4 == PUBLISH;
            if is_publish
                && (!is_current
                    || self.endpoint.takes_no_more()
                    || self.stops_at_publish(bytes.len() - at))
            {
                (self.unhandled, self.at_publish) = (true, true);
                break;
            }
            let packet = mqtt::decode(&bytes[at..at + length], self.version())
                .map_err(|error| End::violated(&error))?;
            self.packet(packet)?;
            at += length;
            if (self.pressed.is_some() || length > READ_BUFFER) && self.leaves(bytes.len() - at) {
                self.unhandled = true;
                break;
            }
        }
        Ok(at)
    }

    /// Whether a publication is left until the outboxes that this client fills are shorter, together
    /// with so many bytes from it on.
    fn stops_at_publish(&self, bytes: usize) -> bool {
        self.only_acks
            && self.core.shared.is_long(self.uses.outboxes())
            && self.core.pool.borrow().has_room_inbound(bytes)
    }

    /// Whether the bytes after a packet are left until whoever it went to has caught up. Of another
    /// core only a packet that is larger than one read takes so much that this has to be asked before
    /// the next read.
    fn leaves(&self, bytes: usize) -> bool {
        let pressed = self.pressed.is_some() && !self.endpoint.is_waited_for();
        let behind = pressed || self.core.is_behind(self.uses);
        bytes > 0 && behind && self.core.pool.borrow().has_room_inbound(bytes)
    }
}
