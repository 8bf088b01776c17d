//! Deadlines of disconnected sessions: when a delayed will is published, when the session ends.

use std::collections::BTreeSet;

use super::session::Session;

/// What is due, in the order in which it happens at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    Will,
    Expiry,
}

#[derive(Default)]
pub(super) struct Timers {
    deadlines: BTreeSet<(u64, u64, Timer)>,
}

impl Timers {
    /// Forgets the deadlines of a session; call before it changes.
    pub(super) fn disarm(&mut self, session: &Session) {
        for deadline in deadlines(session) {
            self.deadlines.remove(&deadline);
        }
    }

    /// Notes the deadlines of a session; call after it changed.
    pub(super) fn arm(&mut self, session: &Session) {
        self.deadlines.extend(deadlines(session));
    }

    /// Time, session and what is due, earliest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, u64, Timer)> {
        self.deadlines.iter().copied()
    }
}

/// A will that falls due with the end of its session needs no timer of its own.
fn deadlines(session: &Session) -> impl Iterator<Item = (u64, u64, Timer)> {
    let expiry = session.expires_at();
    let will = session.will_due().filter(|&at| expiry.is_none_or(|end| at < end));
    let will = will.map(|at| (at, session.id, Timer::Will));
    will.into_iter().chain(expiry.map(|at| (at, session.id, Timer::Expiry)))
}
