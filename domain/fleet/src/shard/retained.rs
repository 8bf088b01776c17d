//! Retained messages by topic.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use topic::TopicTree;

use super::command::Publication;

/// How many expired messages one command clears away, so that none pays for all.
const CLEARED: usize = 4;

#[derive(Default)]
pub(super) struct Retained {
    topics: TopicTree<Arc<Publication>>,
    /// Expiry and topic of those that expire.
    expiring: BTreeSet<(u64, Bytes)>,
    /// Topics whose message is not what the last checkpoint holds.
    changed: BTreeSet<Bytes>,
    pub(super) bytes: usize,
}

impl Retained {
    pub(super) fn topics(&self) -> &TopicTree<Arc<Publication>> {
        &self.topics
    }

    /// Replaces the retained message of a topic; an empty payload removes it
    /// [v5 MQTT-3.3.1-6].
    pub(super) fn store(&mut self, name: &str, publication: &Publication) {
        self.clear_expired(publication.published_at);
        if publication.payload.is_empty() {
            self.remove(name);
            return;
        }
        let publication = Arc::new(publication.detached());
        self.changed.insert(publication.topic.clone());
        self.restore(name, publication);
    }

    /// Puts a message in its place without noting a change.
    pub(super) fn restore(&mut self, name: &str, publication: Arc<Publication>) {
        self.bytes += publication.bytes();
        if let Some(at) = publication.expires_at {
            self.expiring.insert((at, publication.topic.clone()));
        }
        if let Some(old) = self.topics.insert(name, publication.clone()) {
            self.forget(&old, publication.expires_at);
        }
    }

    /// What changed since the last checkpoint, ordered by topic.
    pub(super) fn settle(&mut self, mut change: impl FnMut(&[u8], Option<&Publication>)) {
        for topic in std::mem::take(&mut self.changed) {
            let name = std::str::from_utf8(&topic).unwrap_or_default();
            change(&topic, self.topics.get(name).map(AsRef::as_ref));
        }
    }

    fn remove(&mut self, name: &str) {
        if let Some(old) = self.topics.remove(name) {
            self.changed.insert(old.topic.clone());
            self.forget(&old, None);
        }
    }

    fn forget(&mut self, old: &Publication, successor_expires_at: Option<u64>) {
        self.bytes -= old.bytes();
        if let Some(at) = old.expires_at
            && successor_expires_at != old.expires_at
        {
            self.expiring.remove(&(at, old.topic.clone()));
        }
    }

    fn clear_expired(&mut self, now: u64) {
        for _ in 0..CLEARED {
            let Some((at, topic)) = self.expiring.first() else { break };
            if *at > now {
                break;
            }
            let topic = topic.clone();
            self.remove(std::str::from_utf8(&topic).unwrap_or_default());
        }
    }
}
