//! Whether a node knows of every subscription that others have been granted.
//!
//! What is published here goes to the sessions that this node knows of: a group whose replica is behind
//! or lacks something has sessions that it does not know, and what was acknowledged would not reach
//! them. So a node of a cluster lets nobody in, leaves publications unread, takes none over REST and
//! hands out nothing of its outboxes until it has had all of every group that was acknowledged anywhere before: after its
//! start, after a damage, after it heard no leader for so long that others may have gone on without
//! it, and after its process stood still: whoever looks first when it goes on finds that, before the
//! groups or the links do.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Waker;
use std::time::Duration;

use cluster::GroupId;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::core::Core;
use crate::identity;
use crate::shared::Shared;

/// A process that ticked no more for so long stood still. Peers wait for its answers for longer than
/// that, however late it noticed a cut before.
const STOOD_STILL: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub struct Currency {
    is_alone: bool,
    since: Instant,
    /// When a core last ticked, in milliseconds after `since`.
    ticked: AtomicU64,
    is_current: AtomicBool,
    /// Moves when the node is not current any more.
    lost: AtomicU64,
    is_catching_up: AtomicBool,
}

impl Currency {
    /// That of a node which begins; alone, it knows of everything that there is.
    pub fn new(is_alone: bool) -> Self {
        Self {
            is_alone,
            since: Instant::now(),
            ticked: AtomicU64::new(0),
            is_current: AtomicBool::new(is_alone),
            lost: AtomicU64::new(0),
            is_catching_up: AtomicBool::new(false),
        }
    }

    /// Whether it knows of everything.
    pub fn is_current(&self) -> bool {
        self.is_current.load(Ordering::Acquire) && !self.stood_still()
    }

    /// A core ticks, as each does all the time.
    fn tick(&self) {
        // In this order: whoever sees that it ticked knows what was lost.
        self.stood_still();
        self.ticked.store(self.millis(), Ordering::Release);
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether no core has ticked for so long that others may have gone on without this node.
    fn stood_still(&self) -> bool {
        let ticked = self.ticked.load(Ordering::Acquire);
        let still = Duration::from_millis(self.millis().saturating_sub(ticked));
        let stood_still = !self.is_alone && still > STOOD_STILL;
        if stood_still {
            warn!(seconds = still.as_secs_f64(), "this process stood still");
            self.lose();
        }
        stood_still
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
        self.shared.currency.tick();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_stood_still_knows_of_nothing_until_it_has_asked() {
        for (millis, is_alone, expected) in
            [(300, false, true), (1100, false, false), (60_000, false, false), (60_000, true, true)]
        {
            let currency = Currency::new(is_alone);
            currency.gain(0);
            currency.tick();
            tokio::time::advance(Duration::from_millis(millis)).await;
            assert_eq!(currency.is_current(), expected, "the first to look, after {millis} ms");
            currency.tick();
            assert_eq!(currency.is_current(), expected, "it ticks again, after {millis} ms");
            currency.gain(currency.lost.load(Ordering::Acquire));
            assert!(currency.is_current());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_asked_before_a_standstill_counts_no_more() {
        let currency = Currency::new(false);
        currency.tick();
        let asked = currency.lost.load(Ordering::Acquire);
        tokio::time::advance(Duration::from_secs(9)).await;
        currency.tick();
        currency.gain(asked);
        assert!(!currency.is_current());
    }
}
