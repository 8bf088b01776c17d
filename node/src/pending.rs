//! Publications of the core itself (outbox entries, REST requests) that wait to be safe.

use std::sync::Arc;

use slab::Slab;
use tokio::sync::oneshot;

use crate::core::Core;
use crate::fanout::Placing;
use crate::host::Failure;

/// Who asked for a publication that no connection made.
#[derive(Debug)]
pub enum Asker {
    /// A group's outbox: this entry may be trimmed once every entry before it may be.
    Outbox {
        /// The group.
        group: u16,
        /// The entry.
        seq: u64,
        /// A shared subscription's queue has given it, and gets it back if nobody can have it.
        is_given: bool,
    },
    /// A peer, for a member of a shared subscription: the parcel in a batch of its.
    Peer(Arc<Placing>, u32),
    /// A REST request, answered with the first failure.
    Request(oneshot::Sender<Result<(), Failure>>),
}

#[derive(Debug)]
struct Pending {
    waiting: u16,
    failure: Option<Failure>,
    asker: Asker,
}

/// See the module. Bounded by the outbox entries that groups hand out and by open requests.
#[derive(Debug, Default)]
pub struct Pendings {
    open: Slab<Pending>,
}

impl Pendings {
    /// Waits for takers; how many is said by [`Core::pending_sent`].
    pub fn open(&mut self, asker: Asker) -> u32 {
        let at = self.open.insert(Pending { waiting: u16::MAX, failure: None, asker });
        u32::try_from(at).expect("bounded")
    }
}

impl Core {
    /// Now it is known how many takers a pending publication has.
    pub fn pending_sent(&self, number: u32, takers: u16) {
        if let Some(pending) = self.pendings.borrow_mut().open.get_mut(number as usize) {
            // Those that reported already were subtracted from the maximum.
            pending.waiting = takers - (u16::MAX - pending.waiting);
        }
        self.pending_done(number);
    }

    /// A taker has a pending publication safe, or will not take it.
    pub fn pending_taken(&self, number: u32, taken: Result<(), Failure>) {
        if let Some(pending) = self.pendings.borrow_mut().open.get_mut(number as usize) {
            pending.waiting -= 1;
            let wants_a_member =
                matches!(pending.asker, Asker::Peer(..) | Asker::Outbox { is_given: true, .. });
            let failure = taken.err().filter(|why| wants_a_member || *why != Failure::NoMember);
            pending.failure = pending.failure.or(failure);
        }
        self.pending_done(number);
    }

    fn pending_done(&self, number: u32) {
        let mut pendings = self.pendings.borrow_mut();
        if pendings.open.get(number as usize).is_none_or(|pending| pending.waiting > 0) {
            return;
        }
        let Pending { failure, asker, .. } = pendings.open.remove(number as usize);
        drop(pendings);
        match asker {
            Asker::Outbox { group, seq, .. } => self.outbox_entry_done(group, seq, failure),
            Asker::Peer(placing, parcel) => match failure {
                Some(Failure::NoMember) => placing.unplaced(parcel, 0),
                Some(failure) => {
                    placing.unplaced(parcel, failure.reason_for_peer().code().into());
                }
                None => {}
            },
            // Whoever asked may have gone away.
            Asker::Request(answer) => drop(answer.send(failure.map_or(Ok(()), Err))),
        }
    }
}
