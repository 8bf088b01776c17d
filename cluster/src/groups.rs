//! The node's handle to its groups, and the bounded inbox behind it.
//!
//! Everything that arrives between two turns of the raft thread is taken at once, so an inbox is a
//! vector behind a lock that is held for a push. It is bounded in bytes and in count: `try_propose`
//! is refused beyond that, `propose` waits. Signals that must arrive have no bound of their own here;
//! see [`Groups::signal`].

use std::future::poll_fn;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use bytes::Bytes;

use crate::backup::GroupBackup;
use crate::config::Config;
use crate::host::Refusal;
use crate::input::{Input, OnFull, Order, Proposal};
use crate::machine::GroupId;
use crate::metrics;
use crate::peers::PeerMessage;

/// What a waiting command costs besides its bytes.
const OVERHEAD: usize = 64;

/// What was not taken, given back with the reason.
#[derive(Debug)]
pub struct Refused<T> {
    /// What was offered and not taken, in order.
    pub what: T,
    /// Why it was not taken.
    pub why: Refusal,
}

struct Shared<R, S> {
    waiting: Mutex<Waiting<R, S>>,
    arrived: Condvar,
    max_bytes: usize,
    max_count: usize,
    max_command: usize,
}

struct Waiting<R, S> {
    input: Input<R, S>,
    /// Bytes of the proposals, and of what other nodes say.
    bytes: usize,
    message_bytes: usize,
    /// Proposers that wait for room.
    wakers: Vec<Waker>,
    asleep: bool,
    /// Something besides the inbox wants a turn.
    nudged: bool,
    stopping: bool,
}

impl<R, S> Shared<R, S> {
    fn lock(&self) -> MutexGuard<'_, Waiting<R, S>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets go of the lock and wakes the raft thread if it sleeps.
    fn wake(&self, mut waiting: MutexGuard<'_, Waiting<R, S>>) {
        if std::mem::take(&mut waiting.asleep) {
            drop(waiting);
            self.arrived.notify_one();
        }
    }

    /// Takes all proposals but those that are larger than a command may be, or says why it takes
    /// none; leaves what was not taken.
    fn push(&self, proposals: &mut Vec<Proposal<R>>, waker: Option<&Waker>) -> Result<(), Refusal> {
        let is_too_large = |it: &Proposal<R>| it.command.len() > self.max_command;
        let (mut bytes, mut count) = (0, 0);
        for proposal in proposals.iter().filter(|it| !is_too_large(it)) {
            bytes += OVERHEAD + proposal.command.len();
            count += 1;
        }
        let mut waiting = self.lock();
        if waiting.stopping {
            return Err(Refusal::Stopping);
        }
        if count > 0 {
            let fits = waiting.bytes + bytes <= self.max_bytes
                && waiting.input.proposals.len() + count <= self.max_count;
            // What is larger than the inbox passes when it has it for itself.
            if !fits && !waiting.input.proposals.is_empty() {
                if let Some(waker) = waker {
                    waiting.wakers.push(waker.clone());
                }
                return Err(Refusal::Busy);
            }
            waiting.bytes += bytes;
            waiting.input.proposals.extend(proposals.extract_if(.., |it| !is_too_large(it)));
            self.wake(waiting);
        }
        if proposals.is_empty() { Ok(()) } else { Err(Refusal::TooLarge) }
    }
}

/// Handle to the groups of this node; cheap to clone. `R` travels with a proposal, `S` is the
/// host's signal.
pub struct Groups<R, S> {
    shared: Arc<Shared<R, S>>,
}

impl<R, S> Clone for Groups<R, S> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<R: Send + 'static, S: Send + 'static> Groups<R, S> {
    /// A handle and its inbox, so that the host can be made with the handle in it.
    pub fn new(config: &Config) -> (Self, Inbox<R, S>) {
        let waiting = Waiting {
            input: Input::default(),
            bytes: 0,
            message_bytes: 0,
            wakers: Vec::new(),
            asleep: false,
            nudged: false,
            stopping: false,
        };
        let shared = Arc::new(Shared {
            waiting: Mutex::new(waiting),
            arrived: Condvar::new(),
            max_bytes: config.inbox_bytes,
            max_count: config.inbox_count,
            max_command: config.max_command_bytes,
        });
        (Self { shared: Arc::clone(&shared) }, Inbox { shared })
    }

    /// Offers a command that a full disk refuses; refused at once when the inbox is full.
    pub fn try_propose(
        &self,
        group: GroupId,
        command: Bytes,
        reply: R,
    ) -> Result<(), Refused<Proposal<R>>> {
        let proposals = vec![Proposal::asked(group, command, reply)];
        self.try_propose_all(proposals).map_err(only)
    }

    /// Offers many commands with one wake-up; all are taken, in order, or none. Those that are too
    /// large are an exception: they alone come back, with [`Refusal::TooLarge`].
    pub fn try_propose_all(
        &self,
        mut proposals: Vec<Proposal<R>>,
    ) -> Result<(), Refused<Vec<Proposal<R>>>> {
        match self.shared.push(&mut proposals, None) {
            Ok(()) => Ok(()),
            Err(why) => Err(refuse(proposals, why)),
        }
    }

    /// Offers a command that a full disk refuses, and waits while the inbox is full; never refused
    /// with [`Refusal::Busy`].
    pub async fn propose(
        &self,
        group: GroupId,
        command: Bytes,
        reply: R,
    ) -> Result<(), Refused<Proposal<R>>> {
        let proposals = vec![Proposal::asked(group, command, reply)];
        self.propose_all(proposals).await.map_err(only)
    }

    /// Offers many commands and waits while the inbox is full; all are taken, in order, or none, but
    /// for those that are too large, as with [`Groups::try_propose_all`].
    pub async fn propose_all(
        &self,
        mut proposals: Vec<Proposal<R>>,
    ) -> Result<(), Refused<Vec<Proposal<R>>>> {
        let taken =
            poll_fn(|context| match self.shared.push(&mut proposals, Some(context.waker())) {
                Err(Refusal::Busy) => Poll::Pending,
                taken => Poll::Ready(taken),
            })
            .await;
        taken.map_err(|why| refuse(proposals, why))
    }

    /// Sends the host a node-local message that must not get lost; refused only when the raft thread
    /// has ended. The inbox does not bound it: whoever sends must be bound by something that the
    /// host's turns give back, like its connections or its receive windows.
    pub fn signal(&self, signal: S) -> Result<(), Refused<S>> {
        self.push_signal(signal, usize::MAX)
    }

    /// As [`Groups::signal`] for what may be refused: it is, with [`Refusal::Busy`], while the raft
    /// thread is so far behind that as many signals wait as the inbox may count.
    pub fn try_signal(&self, signal: S) -> Result<(), Refused<S>> {
        self.push_signal(signal, self.shared.max_count)
    }

    /// Brings what another node says. Raft can do without: beyond the inbox's bytes it is dropped.
    pub fn receive(&self, messages: impl IntoIterator<Item = PeerMessage>) {
        let mut waiting = self.shared.lock();
        for message in messages {
            let bytes = OVERHEAD + message.message.len();
            if waiting.message_bytes + bytes > self.shared.max_bytes {
                metrics::messages_dropped();
                continue;
            }
            waiting.message_bytes += bytes;
            waiting.input.messages.push(message);
        }
        self.shared.wake(waiting);
    }

    /// Sends the host a message that must see a group as it is: [`crate::Host::signal`] is called once a
    /// leader, whom a quorum has confirmed, has said what was committed when it was asked, and all of
    /// that is applied here; else [`crate::Host::unread`]. Bounded as [`Groups::try_signal`] is.
    pub fn read(&self, group: GroupId, signal: S) -> Result<(), Refused<S>> {
        let mut waiting = self.shared.lock();
        if waiting.stopping {
            return Err(Refused { what: signal, why: Refusal::Stopping });
        }
        if waiting.input.reads.len() >= self.shared.max_count {
            return Err(Refused { what: signal, why: Refusal::Busy });
        }
        waiting.input.reads.push((group, signal));
        self.shared.wake(waiting);
        Ok(())
    }

    /// Has the states of all groups sent, one after the other, each including all that this node has
    /// applied by now; for a backup. The channel's bound is how many wait there in memory. It is
    /// closed behind the last one, and before that when another backup is under way or the node stops.
    pub fn capture(&self, taker: SyncSender<GroupBackup>) {
        let mut waiting = self.shared.lock();
        waiting.input.captures.push(taker);
        self.shared.wake(waiting);
    }

    /// Asks for something of a group; see [`Order`].
    pub fn order(&self, order: Order) {
        let mut waiting = self.shared.lock();
        waiting.input.orders.push(order);
        self.shared.wake(waiting);
    }

    fn push_signal(&self, signal: S, max_count: usize) -> Result<(), Refused<S>> {
        let mut waiting = self.shared.lock();
        if waiting.stopping {
            return Err(Refused { what: signal, why: Refusal::Stopping });
        }
        if waiting.input.signals.len() >= max_count {
            return Err(Refused { what: signal, why: Refusal::Busy });
        }
        waiting.input.signals.push(signal);
        self.shared.wake(waiting);
        Ok(())
    }
}

fn refuse<R>(what: Vec<Proposal<R>>, why: Refusal) -> Refused<Vec<Proposal<R>>> {
    metrics::refused(why, what.len() as u64);
    Refused { what, why }
}

fn only<R>(refused: Refused<Vec<Proposal<R>>>) -> Refused<Proposal<R>> {
    let what = refused.what.into_iter().next().expect("one was offered");
    Refused { what, why: refused.why }
}

/// What came of [`Inbox::take`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Whether the node shall stop.
    pub stopping: bool,
    /// Bytes of the proposals that were taken.
    pub bytes: usize,
}

impl<R, S> Waiting<R, S> {
    /// Moves proposals of so many bytes, and those that may not be parted from them.
    fn take_proposals(&mut self, input: &mut Input<R, S>, allowance: usize) -> usize {
        if self.bytes <= allowance {
            std::mem::swap(&mut self.input.proposals, &mut input.proposals);
            return std::mem::take(&mut self.bytes);
        }
        let (mut count, mut bytes) = (0, 0);
        for proposal in &self.input.proposals {
            if bytes >= allowance && proposal.on_full != OnFull::Follow {
                break;
            }
            (count, bytes) = (count + 1, bytes + OVERHEAD + proposal.command.len());
        }
        self.bytes -= bytes;
        input.proposals.extend(self.input.proposals.drain(..count));
        bytes
    }
}

/// The receiving end, given to [`crate::start`].
pub struct Inbox<R, S> {
    shared: Arc<Shared<R, S>>,
}

impl<R, S> Inbox<R, S> {
    /// Another receiver of the same inbox, to nudge and close it from elsewhere.
    pub(crate) fn share(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }

    /// Moves what waits into an empty input, at the beginning of a turn; tells whether the node shall stop. Blocks, up to
    /// `timeout`, while there is nothing. Of the proposals the first `allowance` bytes are taken, and what is
    /// begun: none with 0.
    pub fn take(&self, input: &mut Input<R, S>, allowance: usize, timeout: Duration) -> Taken {
        let accept = allowance > 0;
        let mut waiting = self.shared.lock();
        let idle = |waiting: &mut Waiting<R, S>| {
            let nothing = waiting.input.signals.is_empty()
                && waiting.input.reads.is_empty()
                && waiting.input.messages.is_empty()
                && waiting.input.orders.is_empty()
                && waiting.input.captures.is_empty()
                && (!accept || waiting.input.proposals.is_empty())
                && !waiting.nudged;
            waiting.asleep = nothing;
            nothing
        };
        if !timeout.is_zero() {
            let wait = self.shared.arrived.wait_timeout_while(waiting, timeout, idle);
            waiting = wait.unwrap_or_else(PoisonError::into_inner).0;
        }
        waiting.asleep = false;
        waiting.nudged = false;
        std::mem::swap(&mut waiting.input.signals, &mut input.signals);
        std::mem::swap(&mut waiting.input.reads, &mut input.reads);
        std::mem::swap(&mut waiting.input.messages, &mut input.messages);
        std::mem::swap(&mut waiting.input.orders, &mut input.orders);
        std::mem::swap(&mut waiting.input.captures, &mut input.captures);
        waiting.message_bytes = 0;
        let bytes = if accept { waiting.take_proposals(input, allowance) } else { 0 };
        let wakers = if accept { std::mem::take(&mut waiting.wakers) } else { Vec::new() };
        let stopping = waiting.stopping;
        drop(waiting);
        wakers.into_iter().for_each(Waker::wake);
        Taken { stopping, bytes }
    }

    /// Wants a turn of the raft thread.
    pub(crate) fn nudge(&self) {
        let mut waiting = self.shared.lock();
        waiting.nudged = true;
        self.shared.wake(waiting);
    }

    /// From now on nothing is let in.
    pub(crate) fn close(&self) {
        let mut waiting = self.shared.lock();
        waiting.stopping = true;
        waiting.nudged = true;
        let wakers = std::mem::take(&mut waiting.wakers);
        self.shared.wake(waiting);
        wakers.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Context;

    use super::*;

    const LIMIT: usize = 100;

    /// A proposal that its reply tells from others.
    fn proposal(reply: u8, len: usize) -> Proposal<u8> {
        Proposal::asked(GroupId(0), vec![reply; len].into(), reply)
    }

    fn replies(proposals: &[Proposal<u8>]) -> Vec<u8> {
        proposals.iter().filter_map(|proposal| proposal.reply).collect()
    }

    fn taken(inbox: &Inbox<u8, ()>) -> Vec<u8> {
        let mut input = Input::default();
        inbox.take(&mut input, usize::MAX, Duration::ZERO);
        replies(&input.proposals)
    }

    #[test]
    fn a_command_that_is_too_large_is_given_back_alone() {
        let config =
            Config { max_command_bytes: LIMIT, inbox_count: 3, ..Config::new("unused", 1) };
        let (groups, inbox) = Groups::<u8, ()>::new(&config);
        let (small, large) = (LIMIT, LIMIT + 1);
        let mixed = [(1, small), (2, large), (3, 0), (4, large), (5, small)];
        let mixed = || mixed.iter().map(|&(reply, len)| proposal(reply, len)).collect::<Vec<_>>();

        let refused = groups.try_propose_all(mixed()).unwrap_err();
        assert_eq!((replies(&refused.what), refused.why), (vec![2, 4], Refusal::TooLarge));
        // No room: everything comes back, and what can never be taken does not wait.
        let refused = groups.try_propose_all(mixed()).unwrap_err();
        assert_eq!((replies(&refused.what), refused.why), (vec![1, 2, 3, 4, 5], Refusal::Busy));
        let refused = groups.try_propose_all(vec![proposal(6, large)]).unwrap_err();
        assert_eq!((replies(&refused.what), refused.why), (vec![6], Refusal::TooLarge));

        let mut waits = pin!(groups.propose_all(mixed()));
        let mut context = Context::from_waker(Waker::noop());
        assert!(waits.as_mut().poll(&mut context).is_pending());
        assert_eq!(taken(&inbox), [1, 3, 5]);
        let Poll::Ready(Err(refused)) = waits.poll(&mut context) else { panic!("still waits") };
        assert_eq!((replies(&refused.what), refused.why), (vec![2, 4], Refusal::TooLarge));
        assert_eq!(taken(&inbox), [1, 3, 5]);
    }

    #[test]
    fn what_is_allowed_is_taken_and_nothing_is_parted() {
        let (groups, inbox) = Groups::<u8, ()>::new(&Config::new("unused", 1));
        let follows = |reply| Proposal { on_full: OnFull::Follow, ..proposal(reply, 10) };
        let all = vec![proposal(1, 10), proposal(2, 10), follows(3), follows(4), proposal(5, 10)];
        groups.try_propose_all(all).unwrap();
        let each = OVERHEAD + 10;
        for (allowance, expected) in
            [(0, vec![]), (1, vec![1]), (each - 1, vec![2, 3, 4]), (each, vec![5]), (each, vec![])]
        {
            let mut input = Input::default();
            let taken = inbox.take(&mut input, allowance, Duration::ZERO);
            assert_eq!(replies(&input.proposals), expected);
            assert_eq!(taken.bytes, each * expected.len());
        }
    }

    #[test]
    fn only_what_may_get_lost_is_refused_by_a_full_inbox() {
        let config = Config { inbox_count: 2, ..Config::new("unused", 1) };
        let (groups, inbox) = Groups::<(), u8>::new(&config);
        groups.try_signal(1).unwrap();
        groups.try_signal(2).unwrap();
        assert_eq!(groups.try_signal(3).unwrap_err().why, Refusal::Busy);
        groups.signal(4).unwrap();

        let mut input = Input::default();
        inbox.take(&mut input, usize::MAX, Duration::ZERO);
        assert_eq!(input.signals, [1, 2, 4]);
        groups.try_signal(5).unwrap();
        inbox.close();
        assert_eq!(groups.signal(6).unwrap_err().why, Refusal::Stopping);
        assert_eq!(groups.try_signal(6).unwrap_err().why, Refusal::Stopping);
    }
}
