//! Whether a node knows of every subscription that others have been granted.
//!
//! What is published here goes to the sessions that this node knows of: a group whose replica is behind
//! or lacks something has sessions that it does not know, and what was acknowledged would not reach
//! them. So a node of a cluster lets nobody in, leaves publications unread, takes none over REST and
//! hands out nothing of its outboxes until it has had all of every group that was acknowledged anywhere before: after its
//! start, after a damage, and after it heard no leader for so long that others may have gone on without
//! it.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Waker;

use cluster::GroupId;
use tracing::info;

use crate::core::Core;
use crate::identity;
use crate::shared::Shared;

/// See the module.
#[derive(Debug)]
pub struct Currency {
    is_current: AtomicBool,
    /// Moves when the node is not current any more.
    lost: AtomicU64,
    is_catching_up: AtomicBool,
}

impl Currency {
    /// That of a node which begins; alone, it knows of everything that there is.
    pub fn new(is_alone: bool) -> Self {
        Self {
            is_current: AtomicBool::new(is_alone),
            lost: AtomicU64::new(0),
            is_catching_up: AtomicBool::new(false),
        }
    }

    /// Whether it knows of everything.
    pub fn is_current(&self) -> bool {
        self.is_current.load(Ordering::Acquire)
    }

    /// Others may have gone on without this node, or it has lost something.
    pub fn lose(&self) {
        self.lost.fetch_add(1, Ordering::AcqRel);
        if self.is_current.swap(false, Ordering::AcqRel) {
            info!("this node may not know of all subscriptions: nobody is let in until it does");
        }
    }

    /// Everything that was acknowledged since `lost` was read is known here.
    fn gain(&self, lost: u64) {
        self.is_current.store(true, Ordering::Release);
        if self.lost.load(Ordering::Acquire) != lost {
            self.is_current.store(false, Ordering::Release);
            return;
        }
        info!("this node knows of all subscriptions");
    }
}

/// Tries to know of everything; in vain while a group has no leader, or this node has lost something.
pub async fn catch_up(shared: &Arc<Shared>) {
    let currency = &shared.currency;
    if currency.is_current() || currency.is_catching_up.swap(true, Ordering::AcqRel) {
        return;
    }
    let lost = currency.lost.load(Ordering::Acquire);
    let groups = (0..=u32::from(shared.shards)).map(GroupId);
    let is_caught_up = identity::catch_up(shared, groups).await.is_some();
    // Before it is known how shared subscriptions are served, nothing is: an entry of an outbox that went
    // one way must not go another one when that is known, past what came after it.
    if is_caught_up && shared.known_data_version() > 0 {
        currency.gain(lost);
        shared.on_every_core(|core| core.wake_publishers());
    }
    currency.is_catching_up.store(false, Ordering::Release);
}

impl Core {
    /// Whether publications have to wait because this node does not know of everything. `waker` is
    /// called when they may go on.
    pub fn must_wait_for_currency(&self, waker: &Waker) -> bool {
        let waits = !self.shared.currency.is_current();
        if waits {
            self.credit_waiters.borrow_mut().push(waker.clone());
        }
        waits
    }

    /// Has the node catch up if it is not current. The first core does it for all.
    /// Called at every tick.
    pub fn stay_current(self: &Rc<Self>) {
        if self.shared.currency.is_current() {
            return;
        }
        // Whoever waits says so anew, and is there once.
        self.wake_publishers();
        if self.id == 0 {
            let core = Rc::clone(self);
            actix_rt::spawn(async move { catch_up(&core.shared).await });
        }
    }
}
