//! Whether a node knows of every subscription that others have been granted.
//!
//! What is published here goes to the sessions that this node knows of: a group whose replica is behind
//! or lacks something has sessions that it does not know, and what was acknowledged would not reach
//! them. So a node of a cluster lets nobody in, leaves publications unread, takes none over REST and
//! hands out nothing of its outboxes until it has had all of every group that was acknowledged anywhere
//! before: after its start, after a damage, after it heard no leader for so long that others may have
//! gone on without it, and after its process stood still: whoever looks first when it goes on finds
//! that, before the groups or the links do.
//!
//! A subscription is granted when all other nodes have heard of it that can be reached. A node that does
//! not hear of another may miss some, and learns of them only by the groups: so it looks at all of them as
//! confirmed leaders know them, again and again, and is not current when its last look is old.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Waker;
use std::time::Duration;

use cluster::GroupId;
use fleet::registry::{Member, MemberStatus};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::core::Core;
use crate::identity;
use crate::shared::Shared;

/// A process that ticked no more for so long stood still. Peers wait for its answers for longer than
/// that, however late it noticed a cut before.
const STOOD_STILL: Duration = Duration::from_secs(1);

/// How long a look at the groups is trusted while a node is not heard of. That one, and those who ask it
/// to wait, wait for a lease of ten seconds.
const TRUSTED_FOR: Duration = Duration::from_secs(4);
/// How often there is a look then.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// No loss has this number.
const NEVER: u64 = u64::MAX;

/// See the module.
#[derive(Debug)]
pub struct Currency {
    is_alone: bool,
    /// As of when the groups were looked at, or all nodes heard of, in milliseconds after `since`.
    looked: AtomicU64,
    is_looking: AtomicBool,
    since: Instant,
    /// When a core last ticked, in milliseconds after `since`.
    ticked: AtomicU64,
    /// Moves when the node is not current any more.
    lost: AtomicU64,
    /// As of which loss it knows of everything.
    gained: AtomicU64,
    is_catching_up: AtomicBool,
}

impl Currency {
    /// That of a node which begins; alone, it knows of everything that there is.
    pub fn new(is_alone: bool) -> Self {
        Self {
            is_alone,
            looked: AtomicU64::new(0),
            is_looking: AtomicBool::new(false),
            since: Instant::now(),
            ticked: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            gained: AtomicU64::new(if is_alone { 0 } else { NEVER }),
            is_catching_up: AtomicBool::new(false),
        }
    }

    /// Whether it knows of everything.
    pub fn is_current(&self) -> bool {
        // In this order: whoever finds that the process ticks sees what was lost before.
        !self.stood_still() && self.has_all()
    }

    fn has_all(&self) -> bool {
        self.gained.load(Ordering::Acquire) == self.lost.load(Ordering::Acquire)
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

    /// Nothing was missed that was acknowledged before `asked`.
    fn looked(&self, asked: u64) {
        self.looked.fetch_max(asked, Ordering::AcqRel);
    }

    fn age(&self) -> Duration {
        let looked = self.looked.load(Ordering::Acquire);
        Duration::from_millis(self.millis().saturating_sub(looked))
    }

    /// Whether no core has ticked for so long that others may have gone on without this node.
    fn stood_still(&self) -> bool {
        if self.is_alone {
            return false;
        }
        let ticked = self.ticked.load(Ordering::Acquire);
        let still = Duration::from_millis(self.millis().saturating_sub(ticked));
        let stood_still = still > STOOD_STILL;
        if stood_still && self.lose() {
            warn!(seconds = still.as_secs_f64(), "this process stood still");
        }
        stood_still
    }

    /// Others may have gone on without this node, or it has lost something; true if that is news.
    pub fn lose(&self) -> bool {
        let was_current = self.has_all();
        self.lost.fetch_add(1, Ordering::AcqRel);
        if was_current {
            info!("this node may not know of all subscriptions: nobody is let in until it does");
        }
        was_current
    }

    /// Everything that was acknowledged since `lost` was read is known here.
    fn gain(&self, lost: u64) {
        self.gained.store(lost, Ordering::Release);
        if self.has_all() {
            info!("this node knows of all subscriptions");
        }
    }
}

/// Tries to know of everything; in vain while a group has no leader, or this node has lost something.
pub async fn catch_up(shared: &Arc<Shared>) {
    let currency = &shared.currency;
    if currency.is_current() || currency.is_catching_up.swap(true, Ordering::AcqRel) {
        return;
    }
    let lost = currency.lost.load(Ordering::Acquire);
    let is_caught_up = look(shared).await;
    // Before it is known how shared subscriptions are served, nothing is: an entry of an outbox that went
    // one way must not go another one when that is known, past what came after it.
    if is_caught_up && shared.known_data_version() > 0 {
        currency.gain(lost);
        shared.on_every_core(|core| core.wake_publishers());
    }
    currency.is_catching_up.store(false, Ordering::Release);
}

/// Waits until this node has everything of all groups that was acknowledged before; false if that cannot
/// be had now.
async fn look(shared: &Shared) -> bool {
    let asked = shared.currency.millis();
    let groups = (0..=u32::from(shared.shards)).map(GroupId);
    let has_looked = identity::catch_up(shared, groups).await.is_some();
    if has_looked {
        shared.currency.looked(asked);
    }
    has_looked
}

/// Whether every node that may have subscribers is heard of.
fn hears_all(shared: &Shared) -> bool {
    let members = shared.mesh.roster.members();
    let may_have_subscribers = |member: &Member| match member.status {
        MemberStatus::Active => true,
        MemberStatus::Leaving => !member.dead,
        MemberStatus::Joining | MemberStatus::Removed => false,
    };
    let mut others = members
        .iter()
        .filter(|(node, member)| **node != shared.mesh.own.node() && may_have_subscribers(member));
    others.all(|(node, _)| u16::try_from(*node).is_ok_and(|node| shared.fanout.hears(node)))
}

impl Core {
    /// Looks at the groups by itself while another node is not heard of.
    fn mind_the_unheard(&self) {
        let currency = &self.shared.currency;
        if currency.is_alone || hears_all(&self.shared) {
            currency.looked(currency.millis());
            return;
        }
        let age = currency.age();
        if age > TRUSTED_FOR && currency.is_current() {
            warn!("a node is not heard of, nor do the groups answer");
            currency.lose();
        }
        if age > LOOK_EVERY && !currency.is_looking.swap(true, Ordering::AcqRel) {
            let shared = Arc::clone(&self.shared);
            actix_rt::spawn(async move {
                look(&shared).await;
                shared.currency.is_looking.store(false, Ordering::Release);
            });
        }
    }

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
        if self.id == 0 {
            self.mind_the_unheard();
        }
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
