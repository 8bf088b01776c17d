//! How far a node may be behind the registry before it no longer trusts what it knows of certificates.
//!
//! A certificate is revoked by a command of group 0, which a node hears of as soon as its replica
//! applies it: at once, unless the node is cut off, its link is so slow that its replica falls behind,
//! or its disk stands still. So every node sees to it that it has looked at the registry, as a leader
//! that a quorum has confirmed knows it, within the last `TRUSTED_FOR`; else what rests on
//! certificates ends. Every look at the registry counts, whoever wanted it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use cluster::GroupId;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::core::Core;
use crate::host::Signal;

/// How long the connections of those who have certificates outlast the last look at the registry.
/// Longer than it takes to elect a leader.
const TRUSTED_FOR: Duration = Duration::from_secs(5);
/// How old the last look may be before the node looks by itself.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// When a node last had all of the registry that was acknowledged anywhere.
#[derive(Debug)]
pub struct Freshness {
    since: Instant,
    /// Milliseconds after `since`.
    seen: AtomicU64,
    /// Whether what rests on certificates has ended for want of a look.
    is_stale: AtomicBool,
}

impl Default for Freshness {
    fn default() -> Self {
        Self { since: Instant::now(), seen: AtomicU64::new(0), is_stale: AtomicBool::new(false) }
    }
}

impl Freshness {
    /// This node now has all of the registry that was acknowledged before `asked`.
    pub fn seen(&self, asked: Instant) {
        let asked = asked.saturating_duration_since(self.since).as_millis();
        self.seen.fetch_max(u64::try_from(asked).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// This node has all of the registry that was acknowledged before.
    pub fn as_of(&self) -> Instant {
        self.since + Duration::from_millis(self.seen.load(Ordering::Relaxed))
    }

    fn age(&self) -> Duration {
        let seen = Duration::from_millis(self.seen.load(Ordering::Relaxed));
        self.since.elapsed().saturating_sub(seen)
    }

    /// Whether revocations may have passed this node by; tells the log when that changes.
    fn is_stale(&self) -> bool {
        let age = self.age();
        let is_stale = age > TRUSTED_FOR;
        if self.is_stale.swap(is_stale, Ordering::Relaxed) != is_stale {
            match is_stale {
                true => warn!(
                    seconds = age.as_secs(),
                    "the registry was not heard of: certificates may have been revoked, \
                    authorizers taken away, so connections that rest on them end; see why group 0 \
                    has no leader that this node hears in time"
                ),
                false => info!("the registry is heard of again"),
            }
        }
        is_stale
    }
}

impl Core {
    /// Ends what rests on certificates or authorizers while other nodes may have taken these away
    /// without this one hearing of it. The first core looks at the registry for all of them.
    pub fn mind_the_registry(&self) {
        let registry = &self.shared.registry;
        if !self.shared.mesh.has_peers() {
            registry.seen(Instant::now());
            return;
        }
        if registry.is_stale() {
            for (_, endpoint) in self.endpoints.borrow().iter() {
                if endpoint.profile.principal.follows_registry() {
                    endpoint.doom(mqtt::Reason::ServerBusy);
                }
            }
        }
        if self.id == 0 && registry.age() > LOOK_EVERY {
            let (registry, asked) = (Arc::clone(registry), Instant::now());
            let look = Signal::Read(Box::new(move |_| registry.seen(asked)));
            // Refused, it is asked again at the next tick.
            let _ = self.shared.groups.read(GroupId::META, look);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_look_counts_from_when_it_was_asked_for() {
        let registry = Freshness::default();
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(registry.is_stale());
        let asked = Instant::now();
        tokio::time::advance(Duration::from_secs(3)).await;
        registry.seen(asked);
        assert_eq!(registry.age(), Duration::from_secs(3));
        assert!(!registry.is_stale());
        assert_eq!(registry.as_of(), asked);
        registry.seen(asked.checked_sub(Duration::from_secs(1)).unwrap());
        assert_eq!(registry.age(), Duration::from_secs(3), "an older answer that comes later");
        tokio::time::advance(Duration::from_millis(2001)).await;
        assert!(registry.is_stale());
    }
}
