//! One thread, one epoll, many connections: publishes and receives as fast as the broker lets it.
//!
//! The byte stream of a publisher is a function of its position alone, so nothing is encoded or
//! kept per publication: a batch is stamped into shared scratch, and what the socket did not take
//! is at most one frame. Publishers are held back by the window of unacknowledged publications
//! (QoS 1 and 2) and by the backlog of publications on their way to the subscribers, so a flood
//! keeps the broker busy without hiding minutes of traffic in kernel buffers.

mod ledger;
mod link;
mod verdict;

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use mio::{Events, Poll, Token};

use self::ledger::Ledger;
pub use self::ledger::Receivers;
use self::link::Link;
use self::verdict::Irregularities;
pub use self::verdict::Verdict;
use crate::client::Client;
use crate::frame::{Pace, Qos, Shape, Stamper, acknowledgement, packet_id};
use crate::histogram::Histogram;
use crate::live::Live;
use crate::scan::{self, Packet, Publication};

/// Bytes that one write takes at most.
const WRITE_BYTES: usize = 64 * 1024;

/// Bytes that one read takes at most.
const READ_BYTES: usize = 256 * 1024;

/// How long nothing may move before a drain gives up.
const IDLE: Duration = Duration::from_secs(2);

/// How long a flood may stand still before lost publications no longer count against the backlog.
const STALL: Duration = Duration::from_millis(500);

/// How traffic flows.
#[derive(Clone, Debug)]
pub struct Flow<'a> {
    /// What is published.
    pub shape: Shape<'a>,
    /// Who receives it.
    pub receivers: Receivers,
    /// Unacknowledged publications per publisher, at QoS 1 and 2.
    pub window: u64,
    /// Publications per publisher on their way to the subscribers.
    pub backlog: u64,
    /// Publications per publisher, without end if `None`.
    pub limit: Option<u64>,
    /// Publications per second of all publishers together: an open loop without window or backlog.
    pub rate: Option<f64>,
    /// Whether brokers use the generator's core, too: then an open loop does not spin.
    pub shares_cores: bool,
}

/// How long the generator looks away when it has nothing to do in a flood, or takes a core from the
/// brokers. A thread that waits in
/// epoll is woken by each write of a broker on the same machine, which costs the broker a tenth of
/// its time and would cost it nothing with devices that are elsewhere.
const NAP: Duration = Duration::from_micros(50);

/// Publications that must be on their way for a nap not to leave the broker without work.
const ENOUGH_FOR_NAPS: u64 = 1_000;

/// What has happened so far.
#[derive(Clone, Copy, Debug)]
pub struct Counters {
    /// When this was read.
    pub at: Instant,
    /// Publications sent.
    pub sent: u64,
    /// Publications received, by all subscribers.
    pub received: u64,
    /// Publications whose exchange the broker has completed.
    pub acknowledged: u64,
}

#[derive(Debug, Default)]
struct Publisher {
    sent: u64,
    acknowledged: u64,
    /// PUBRECs seen.
    recorded: u64,
    /// Deliveries, of all its receivers together.
    delivered: u64,
    /// Waits in the run queue.
    queued: bool,
}

/// Drives the connections of one run.
pub struct Engine<'a> {
    flow: Flow<'a>,
    poll: Poll,
    epoch: Instant,
    /// Publishers' links first, then subscribers'.
    links: Vec<Link>,
    publishers: Vec<Publisher>,
    runnable: VecDeque<usize>,
    ledger: Ledger,
    stamper: Stamper,
    buffer: Vec<u8>,
    received: u64,
    sending: bool,
    /// The next place in the schedule of an open loop.
    scheduled: u64,
    pace: Option<Pace>,
    latencies: Option<Histogram>,
    irregular: Irregularities,
    naps: bool,
}

impl<'a> Engine<'a> {
    /// Takes over connected clients.
    pub fn new(flow: Flow<'a>, publishers: Vec<Client>, subscribers: Vec<Client>) -> Result<Self> {
        let poll = Poll::new()?;
        let count = publishers.len();
        let mut flow = flow;
        let mut links = Vec::with_capacity(count + subscribers.len());
        for (token, client) in publishers.into_iter().chain(subscribers).enumerate() {
            if token < count {
                flow.window = flow.window.min(u64::from(client.accepted.receive_maximum));
            }
            links.push(Link::register(client.stream, poll.registry(), Token(token))?);
        }
        let stamper = {
            let one = Stamper::new(&flow.shape, 1).frame_bytes();
            Stamper::new(&flow.shape, (WRITE_BYTES / one).max(1))
        };
        let open = if flow.shape.qos > Qos::Zero { flow.window } else { flow.backlog };
        let mut engine = Self {
            naps: match flow.rate {
                Some(_) => flow.shares_cores,
                None => open.saturating_mul(count as u64) >= ENOUGH_FOR_NAPS,
            },
            ledger: Ledger::new(flow.receivers),
            poll,
            epoch: Instant::now(),
            links,
            publishers: (0..count).map(|_| Publisher::default()).collect(),
            runnable: VecDeque::new(),
            buffer: vec![0; READ_BYTES.max(4 * stamper.frame_bytes())],
            stamper,
            received: 0,
            sending: true,
            scheduled: 0,
            pace: None,
            latencies: None,
            irregular: Irregularities::default(),
            flow,
        };
        // What came with the answers to handshakes may be in a stream's own buffer, of which epoll knows
        // nothing.
        (0..engine.links.len()).try_for_each(|token| engine.read(token))?;
        engine.wake_all();
        Ok(engine)
    }

    /// Runs for a time.
    pub fn run_for(&mut self, duration: Duration) -> Result<()> {
        let deadline = Instant::now() + duration;
        self.run_until(STALL, |_, now| now >= deadline, Self::forgive)
    }

    /// Runs until all that is limited has been sent and has arrived, or nothing moves any more.
    /// Returns whether it all arrived, and when the last thing moved.
    pub fn run_out(&mut self) -> Result<(bool, Instant)> {
        let mut given_up = None;
        self.run_until(
            IDLE,
            |engine, _| engine.settled(),
            |_, moved| {
                given_up = Some(moved);
                true
            },
        )?;
        Ok((given_up.is_none(), given_up.unwrap_or_else(Instant::now)))
    }

    /// Sends nothing new and waits for what is on its way.
    pub fn drain(&mut self) -> Result<(bool, Instant)> {
        self.sending = false;
        self.run_out()
    }

    /// Counts latencies from now on.
    pub fn record_latencies(&mut self) {
        self.latencies = Some(Histogram::default());
    }

    /// Stops counting latencies and returns them.
    pub fn take_latencies(&mut self) -> Option<Histogram> {
        self.latencies.take()
    }

    /// What has happened so far.
    pub fn counters(&self) -> Counters {
        Counters {
            at: Instant::now(),
            sent: self.publishers.iter().map(|publisher| publisher.sent).sum(),
            received: self.received,
            acknowledged: self.publishers.iter().map(|publisher| publisher.acknowledged).sum(),
        }
    }

    /// How many publications each publisher has sent.
    pub fn sent(&self) -> Vec<u64> {
        self.publishers.iter().map(|publisher| publisher.sent).collect()
    }

    /// What was wrong, if each publisher has sent as many as this.
    pub fn verdict(mut self, sent: &[u64]) -> Verdict {
        if self.flow.shape.qos > Qos::Zero {
            let open =
                |publisher: &Publisher| publisher.sent.saturating_sub(publisher.acknowledged);
            self.irregular.unacknowledged = self.publishers.iter().map(open).sum();
        }
        self.irregular.closed = self.links.iter().filter(|link| link.closed).count() as u64;
        Verdict { faults: self.ledger.faults(sent), failures: self.irregular.failures() }
    }

    fn run_until(
        &mut self,
        patience: Duration,
        mut done: impl FnMut(&Self, Instant) -> bool,
        mut stalled: impl FnMut(&mut Self, Instant) -> bool,
    ) -> Result<()> {
        let mut events = Events::with_capacity(2_048);
        let mut live = Live::new("messages");
        let before = self.received;
        let mut moved = (Instant::now(), self.progress());
        loop {
            let now = Instant::now();
            if done(self, now) {
                return Ok(());
            }
            let progress = self.progress();
            if progress != moved.1 {
                moved = (now, progress);
            } else if now - moved.0 > patience && stalled(self, moved.0) {
                return Ok(());
            }
            live.show(now, self.received - before);
            self.send_scheduled(now)?;
            self.turn(&mut events)?;
        }
    }

    /// Whatever grows while anything moves.
    fn progress(&self) -> u64 {
        self.received + self.publishers.iter().map(|p| p.sent + p.acknowledged).sum::<u64>()
    }

    fn turn(&mut self, events: &mut Events) -> Result<()> {
        let spins = self.flow.rate.is_some() && !self.naps;
        let busy = !self.runnable.is_empty() || spins;
        let mut timeout = Duration::ZERO;
        if self.naps && !busy {
            sleep(NAP);
        } else if !busy {
            timeout = Duration::from_millis(5);
        }
        match self.poll.poll(events, Some(timeout)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            polled => polled?,
        }
        for event in events.iter() {
            let token = event.token().0;
            if event.is_writable() {
                self.links[token].blocked = false;
                if token < self.publishers.len() {
                    self.wake(token);
                } else {
                    self.flush(token)?;
                }
            }
            if event.is_readable() {
                self.links[token].ending |= event.is_read_closed();
                self.read(token)?;
            }
        }
        // Each publisher gets one batch, then received bytes get their turn again.
        for _ in 0..self.runnable.len() {
            let publisher = self.runnable.pop_front().expect("counted");
            self.publishers[publisher].queued = false;
            if self.send(publisher)? {
                self.wake(publisher);
            }
        }
        Ok(())
    }

    fn wake(&mut self, publisher: usize) {
        if !self.publishers[publisher].queued {
            self.publishers[publisher].queued = true;
            self.runnable.push_back(publisher);
        }
    }

    fn wake_all(&mut self) {
        (0..self.publishers.len()).for_each(|publisher| self.wake(publisher));
    }

    /// Lost publications would block the backlog for ever: what stands still is written off.
    fn forgive(&mut self, _: Instant) -> bool {
        for publisher in &mut self.publishers {
            publisher.delivered = publisher.sent * self.ledger.receivers_of_each();
        }
        self.wake_all();
        false
    }

    fn settled(&self) -> bool {
        let each = self.ledger.receivers_of_each();
        let acknowledged = |p: &Publisher| p.acknowledged >= p.sent;
        if self.publishers.is_empty() {
            return self
                .flow
                .limit
                .is_some_and(|limit| self.received >= limit * self.ledger.streams());
        }
        self.publishers.iter().all(|publisher| {
            (self.flow.shape.qos == Qos::Zero || acknowledged(publisher))
                && publisher.delivered >= publisher.sent * each
                && !(self.sending && self.flow.limit.is_some_and(|limit| publisher.sent < limit))
        })
    }

    /// How many more publications this publisher may send now.
    fn allowance(&self, publisher: &Publisher) -> u64 {
        if !self.sending || self.flow.rate.is_some() {
            return 0;
        }
        let mut allowance = self.flow.limit.map_or(u64::MAX, |limit| limit - publisher.sent);
        if self.flow.shape.qos > Qos::Zero {
            let open = publisher.sent.saturating_sub(publisher.acknowledged);
            allowance = allowance.min(self.flow.window.saturating_sub(open));
        }
        if let Some(delivered) = publisher.delivered.checked_div(self.ledger.receivers_of_each()) {
            let open = publisher.sent.saturating_sub(delivered);
            let room = self.flow.backlog.saturating_sub(open);
            // A flood comes in pieces worth a system call.
            let worthwhile = room >= self.flow.backlog / 8 || self.flow.shape.qos > Qos::Zero;
            allowance = allowance.min(if worthwhile { room } else { 0 });
        }
        allowance
    }

    /// Sends one batch; returns whether more may follow at once.
    fn send(&mut self, index: usize) -> Result<bool> {
        if !self.flush(index)? {
            return Ok(false);
        }
        let publisher = &self.publishers[index];
        let allowance = self.allowance(publisher);
        let count = allowance.min(self.stamper.batch() as u64) as usize;
        if count == 0 {
            return Ok(false);
        }
        let frame = self.stamper.frame_bytes();
        let first = publisher.sent;
        let bytes = self.stamper.stamp(index as u32, first, count, None);
        let written = self.links[index].write(bytes);
        let frames = written.div_ceil(frame);
        self.links[index].outbox.extend_from_slice(&bytes[written..frames * frame]);
        self.publishers[index].sent += frames as u64;
        Ok(!self.links[index].blocked && allowance > count as u64)
    }

    /// Sends what an open loop's schedule says is due.
    fn send_scheduled(&mut self, now: Instant) -> Result<()> {
        let Some(rate) = self.flow.rate.filter(|_| self.sending) else { return Ok(()) };
        let count = self.publishers.len() as u64;
        let now = (now - self.epoch).as_nanos() as u64;
        let start = Pace { start: now, interval: 1e9 / rate, publishers: count };
        let pace = *self.pace.get_or_insert(start);
        let first = self.scheduled;
        loop {
            let (index, sequence) = ((self.scheduled % count) as usize, self.scheduled / count);
            if pace.due(index as u32, sequence) > now {
                break;
            }
            let bytes = self.stamper.stamp(index as u32, sequence, 1, Some(&pace));
            self.links[index].outbox.extend_from_slice(bytes);
            self.publishers[index].sent += 1;
            self.scheduled += 1;
        }
        // What is due together takes one system call per publisher.
        for number in first..self.scheduled.min(first + count) {
            self.flush((number % count) as usize)?;
        }
        Ok(())
    }

    fn flush(&mut self, token: usize) -> Result<bool> {
        Ok(self.links[token].flush())
    }

    fn read(&mut self, token: usize) -> Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let result = self.read_into(token, &mut buffer);
        self.buffer = buffer;
        result
    }

    fn read_into(&mut self, token: usize, buffer: &mut [u8]) -> Result<()> {
        while let Some(length) = self.links[token].read(buffer) {
            ensure!(length <= buffer.len(), "a packet is longer than {} bytes", buffer.len());
            let mut rest = &buffer[..length];
            if token < self.publishers.len() {
                self.receive_acknowledgements(token, &mut rest)?;
            } else {
                self.receive_publications(token, &mut rest)?;
            }
            self.links[token].carry.extend_from_slice(rest);
            if self.links[token].is_drained(length, buffer.len()) {
                break;
            }
        }
        if !self.links[token].outbox.is_empty() {
            self.flush(token)?;
        }
        Ok(())
    }

    fn receive_publications(&mut self, token: usize, rest: &mut &[u8]) -> Result<()> {
        let version = self.flow.shape.version;
        let subscriber = token - self.publishers.len();
        let now = match self.latencies {
            Some(_) => self.epoch.elapsed().as_nanos() as u64,
            None => 0,
        };
        while let Some(packet) = scan::next(rest, version)? {
            match packet {
                Packet::Publish(publication) => self.receive(token, subscriber, &publication, now),
                // PUBREL is answered with PUBCOMP.
                Packet::Acknowledgement { kind: 6, id, .. } => {
                    self.links[token].outbox.extend_from_slice(&acknowledgement(0x70, id));
                }
                Packet::Acknowledgement { .. } | Packet::Other { .. } => {}
            }
        }
        Ok(())
    }

    #[inline]
    fn receive(&mut self, token: usize, subscriber: usize, publication: &Publication, now: u64) {
        let Publication { qos, id, payload, publisher, sequence, due, .. } = *publication;
        match qos {
            0 => {}
            1 => self.links[token].outbox.extend_from_slice(&acknowledgement(0x40, id)),
            _ => self.links[token].outbox.extend_from_slice(&acknowledgement(0x50, id)),
        }
        self.received += 1;
        self.irregular.wrong_qos += u64::from(qos != self.flow.shape.qos as u8);
        self.irregular.wrong_length += u64::from(payload != self.flow.shape.payload);
        let publisher = publisher as usize;
        let Some(advance) = self.ledger.receive(subscriber, publisher, sequence) else {
            self.irregular.foreign += 1;
            return;
        };
        if let Some(latencies) = &mut self.latencies {
            latencies.record(now.saturating_sub(due));
        }
        if let Some(state) = self.publishers.get_mut(publisher) {
            state.delivered += advance;
            if !state.queued {
                state.queued = true;
                self.runnable.push_back(publisher);
            }
        }
    }

    fn receive_acknowledgements(&mut self, index: usize, rest: &mut &[u8]) -> Result<()> {
        while let Some(packet) = scan::next(rest, self.flow.shape.version)? {
            let Packet::Acknowledgement { kind, id, reason } = packet else { continue };
            let publisher = &mut self.publishers[index];
            self.irregular.refused += u64::from(reason >= 0x80);
            let expected = match kind {
                4 => packet_id(publisher.acknowledged),
                5 => packet_id(publisher.recorded),
                _ => id,
            };
            self.irregular.acknowledged_out_of_order += u64::from(id != expected);
            match kind {
                // PUBREC is answered with PUBREL.
                5 if reason < 0x80 => {
                    publisher.recorded += 1;
                    self.links[index].outbox.extend_from_slice(&acknowledgement(0x62, id));
                }
                5 => publisher.recorded += 1,
                _ => publisher.acknowledged += 1,
            }
            self.wake(index);
        }
        Ok(())
    }
}
