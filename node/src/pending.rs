//! Publications of the core itself (outbox entries, REST requests) that wait to be safe.

use std::collections::BTreeSet;
use std::rc::Rc;

use mqtt::Reason;
use rustc_hash::FxHashMap;
use slab::Slab;
use tokio::sync::oneshot;

use crate::core::Core;

/// Who asked for a publication that no connection made.
#[derive(Debug)]
pub enum Asker {
    /// A group's outbox: this entry may be trimmed once every entry before it may be.
    Outbox {
        /// The group.
        group: u16,
        /// The entry.
        seq: u64,
    },
    /// A REST request, answered with the first error.
    Request(oneshot::Sender<Option<Reason>>),
}

#[derive(Debug)]
struct Pending {
    waiting: u16,
    reason: Option<Reason>,
    asker: Asker,
}

/// Outbox entries of one group that this core has routed.
#[derive(Debug)]
struct Routed {
    /// The first that is not safe yet.
    next: u64,
    done: BTreeSet<u64>,
    /// Everything before this is trimmed.
    trimmed: u64,
}

/// See the module. Bounded by the outbox entries that a group hands out and by open requests.
#[derive(Debug, Default)]
pub struct Pendings {
    open: Slab<Pending>,
    outboxes: FxHashMap<u16, Routed>,
}

impl Pendings {
    /// Waits for `waiting` takers.
    pub fn open(&mut self, asker: Asker) -> u32 {
        if let Asker::Outbox { group, seq } = asker {
            let start = || Routed { next: seq, done: BTreeSet::new(), trimmed: seq };
            self.outboxes.entry(group).or_insert_with(start);
        }
        let at = self.open.insert(Pending { waiting: u16::MAX, reason: None, asker });
        u32::try_from(at).expect("bounded")
    }
}

impl Pendings {
    fn routed(&mut self, group: u16, seq: u64) {
        let Some(routed) = self.outboxes.get_mut(&group) else { return };
        routed.done.insert(seq);
        while routed.done.remove(&routed.next) {
            routed.next += 1;
        }
    }

    /// Per group the last outbox entry that may be trimmed, where that has moved.
    pub fn trims(&mut self) -> impl Iterator<Item = (u16, u64)> {
        self.outboxes.iter_mut().filter(|(_, routed)| routed.trimmed < routed.next).map(
            |(group, routed)| {
                routed.trimmed = routed.next;
                (*group, routed.next - 1)
            },
        )
    }
}

impl Core {
    /// Now it is known how many takers a pending publication has.
    pub fn pending_sent(self: &Rc<Self>, number: u32, takers: u16) {
        if let Some(pending) = self.pendings.borrow_mut().open.get_mut(number as usize) {
            // Those that reported already were subtracted from the maximum.
            pending.waiting = takers - (u16::MAX - pending.waiting);
        }
        self.pending_done(number);
    }

    /// A taker has a pending publication safe.
    pub fn pending_taken(self: &Rc<Self>, number: u32, reason: Option<Reason>) {
        if let Some(pending) = self.pendings.borrow_mut().open.get_mut(number as usize) {
            pending.waiting -= 1;
            pending.reason = pending.reason.or(reason);
        }
        self.pending_done(number);
    }

    fn pending_done(self: &Rc<Self>, number: u32) {
        let mut pendings = self.pendings.borrow_mut();
        if pendings.open.get(number as usize).is_none_or(|pending| pending.waiting > 0) {
            return;
        }
        let pending = pendings.open.remove(number as usize);
        drop(pendings);
        match pending.asker {
            Asker::Outbox { group, seq } => self.pendings.borrow_mut().routed(group, seq),
            // Whoever asked may have gone away.
            Asker::Request(answer) => drop(answer.send(pending.reason)),
        }
    }
}
