//! What a connection that falls behind does to those who publish to it, and for how long.

use std::task::Waker;
use std::time::{Duration, Instant};

use super::{Delivered, DropReason, Endpoint, Pressure, State};
use crate::clock::Clock;
use crate::outbox::Outbox;

/// Nobody waits longer than this many times the patience for a connection that stays behind,
/// whatever progress it makes.
const BEHIND: u32 = 5;

impl Endpoint {
    /// What became of a delivery, and whether its publisher has to wait.
    pub(super) fn after(&self, state: &mut State, sent: bool, clock: Clock) -> Delivered {
        if !sent {
            return Delivered::Dropped(DropReason::TooLarge);
        }
        let pressed = state.outbox.len() >= self.budget.outbox / 2
            || state.pending_bytes >= self.budget.pending / 2;
        if !pressed || state.slow {
            return Delivered::Taken;
        }
        let pressure = &mut state.rare.get_or_insert_default().pressure;
        pressure.behind_since.get_or_insert(clock.now);
        if pressure.since.is_none() {
            pressure.since = Some(clock.now);
            // It may itself wait for somebody, with its acknowledgements unread.
            self.wake(state);
        }
        match state.give_up(clock.now, self.budget.patience) {
            true => Delivered::Taken,
            false => Delivered::Pressed,
        }
    }

    /// Whether so much waits for this client that it should not be asked for more.
    pub fn is_crowded(&self) -> bool {
        self.state.borrow().outbox.len() >= self.budget.outbox / 2
    }

    /// Whether publishers have to wait for this client.
    pub fn is_waited_for(&self) -> bool {
        let state = self.state.borrow();
        state.is_pressed() && !state.slow
    }

    /// Whether nobody waits for it any more, though it is behind.
    pub fn is_slow(&self) -> bool {
        self.state.borrow().slow
    }

    /// Resolves when the connection has caught up, or counts as slow.
    pub async fn room(&self) {
        std::future::poll_fn(|cx| match self.wait_for_room(cx.waker()) {
            true => std::task::Poll::Pending,
            false => std::task::Poll::Ready(()),
        })
        .await;
    }

    /// Wakes `waiter` when the connection has caught up; false when it has already.
    pub fn wait_for_room(&self, waiter: &Waker) -> bool {
        let mut state = self.state.borrow_mut();
        if state.closed || state.slow {
            return false;
        }
        let Some(pressure) = state.pressure().filter(|pressure| pressure.since.is_some()) else {
            return false;
        };
        if !pressure.waiters.iter().any(|other| other.will_wake(waiter)) {
            pressure.waiters.push(waiter.clone());
        }
        true
    }

    /// Lets publishers go on when the connection made no progress for too long, or is behind for
    /// much longer than that. True while it is worth asking again.
    pub fn check_patience(&self, now: Instant) -> bool {
        let mut state = self.state.borrow_mut();
        state.is_pressed() && !state.give_up(now, self.budget.patience) && !state.closed
    }

    /// Runs `write` over the outbox with the actor's waker in place.
    pub fn flush<R>(&self, waker: &Waker, write: impl FnOnce(&mut Outbox) -> R) -> R {
        let mut state = self.state.borrow_mut();
        self.woken.set(false);
        if !state.waker.as_ref().is_some_and(|old| old.will_wake(waker)) {
            state.waker = Some(waker.clone());
        }
        let before = state.outbox.len();
        let result = write(&mut state.outbox);
        let calm = state.outbox.len() <= self.budget.outbox / 4
            && state.pending_bytes <= self.budget.pending / 4;
        if calm {
            state.slow = false;
            if let Some(pressure) = state.pressure() {
                (pressure.since, pressure.behind_since) = (None, None);
                state.wake_waiters();
            }
        } else if state.outbox.len() < before
            && let Some(since) = state.pressure().and_then(|pressure| pressure.since.as_mut())
        {
            // Progress counts as patience regained.
            *since = Clock::read().now;
        }
        result
    }
}

impl State {
    /// Whether nobody is to wait for this connection any more; those who do go on.
    fn give_up(&mut self, now: Instant, patience: Duration) -> bool {
        let passed = |since: Instant| now.duration_since(since);
        let is_over = |pressure: &Pressure| {
            pressure.since.is_some_and(|since| passed(since) >= patience)
                || pressure.behind_since.is_some_and(|since| passed(since) >= patience * BEHIND)
        };
        self.slow = self.slow || self.rare.as_ref().is_some_and(|rare| is_over(&rare.pressure));
        if self.slow {
            self.wake_waiters();
        }
        self.slow
    }

    pub(super) fn wake_waiters(&mut self) {
        let waiters = self.pressure().map(|pressure| std::mem::take(&mut pressure.waiters));
        waiters.into_iter().flatten().for_each(Waker::wake);
    }

    fn pressure(&mut self) -> Option<&mut Pressure> {
        self.rare.as_mut().map(|rare| &mut rare.pressure)
    }

    fn is_pressed(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| rare.pressure.since.is_some())
    }
}
