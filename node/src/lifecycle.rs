//! Lifecycle events: whether anybody listens for those of a client, and what its connection says for
//! them.
//!
//! Events are made by the client's group when it applies what the connection does, and leave from its
//! outbox. Commands say whether anybody listens, so events cost nothing where nobody does.

use std::task::Poll;

use bytes::Bytes;
use fleet::shard::{self, Announce, DisconnectReason, Event, Presence};

use crate::core::{Core, Uses};
use crate::endpoint::Profile;
use crate::host::Proposal;
use crate::interest::Live;
use crate::shared::Shared;

/// Bytes of topic filters that one event tells.
const TOPICS_BYTES: usize = 64 * 1024;

impl Shared {
    /// Whether anybody listens for an event of a client.
    pub fn hears(&self, client: &str, event: Event) -> bool {
        self.lifecycle_events
            && event.topic(client).is_some_and(|topic| self.interest.is_wanted(&topic))
    }

    /// Whether anybody listens for the client's connections.
    pub fn hears_presence(&self, client: &str) -> bool {
        self.hears(client, Event::Connected) || self.hears(client, Event::Disconnected)
    }
}

impl Profile {
    /// Who it is, where its group has no session that says it.
    fn presence(&self, shared: &Shared) -> Option<Presence> {
        self.record.is_none().then(|| Presence {
            session: session_of(shared.mesh.own.node(), self.live, self.connected_at_ms).into(),
            principal: self.principal.name().to_owned(),
            thing: self.thing.as_ref().map(ToString::to_string),
            ip: None,
        })
    }

    fn announcement(&self, shared: &Shared, event: Event, at: u64) -> Announce {
        Announce {
            client: Bytes::copy_from_slice(self.client.as_bytes()),
            epoch: self.record.map_or(0, |record| record.epoch),
            at,
            presence: self.presence(shared),
            event: event.into(),
            ..Announce::default()
        }
    }
}

/// A version 8 UUID: when a connection began, and which one of the node's it is.
fn session_of(node: u64, live: Live, connected_at_ms: u64) -> Vec<u8> {
    let [_, _, time @ ..] = connected_at_ms.to_be_bytes();
    let mut bytes = [0; 16];
    bytes[..6].copy_from_slice(&time);
    bytes[6..8].copy_from_slice(&(node as u16).to_be_bytes());
    bytes[8..10].copy_from_slice(&live.core.to_be_bytes());
    bytes[10..12].copy_from_slice(&(live.slot as u16).to_be_bytes());
    bytes[12..].copy_from_slice(&live.generation.to_be_bytes());
    uuid::Builder::from_custom_bytes(bytes).into_uuid().into_bytes().to_vec()
}

impl Core {
    /// What is proposed when a connection has subscribed or unsubscribed; nothing when nobody listens.
    pub fn announce_filters<'a>(
        &self,
        profile: &Profile,
        event: Event,
        filters: impl Iterator<Item = &'a str>,
    ) -> Vec<shard::Command> {
        let mut filters = filters.peekable();
        let mut commands = Vec::new();
        if filters.peek().is_none() || !self.shared.hears(&profile.client, event) {
            return commands;
        }
        let at = self.clock().epoch_ms;
        while filters.peek().is_some() {
            let (mut topics, mut bytes) = (Vec::new(), 0);
            while let Some(filter) =
                filters.next_if(|filter| bytes == 0 || bytes + filter.len() <= TOPICS_BYTES)
            {
                bytes += filter.len();
                topics.push(filter.to_owned());
            }
            let told = profile.announcement(&self.shared, event, at);
            commands.push(Announce { topics, ..told }.into());
        }
        commands
    }

    /// Says that a connection has ended of which its group knows nothing.
    pub fn announce_end(&self, profile: &Profile, reason: DisconnectReason) {
        if !self.shared.hears_presence(&profile.client) {
            return;
        }
        let at = self.read_clock().epoch_ms;
        let told = profile.announcement(&self.shared, Event::Disconnected, at);
        let told = Announce { reason: reason.into(), ..told };
        self.announce(&profile.client, told);
    }

    /// Says that a policy has refused a connection. Not while there is much to tell: who is refused may
    /// ask again as often as it likes.
    pub fn announce_refused(&self, client: &str, presence: impl FnOnce() -> Presence) {
        let mut uses = Uses::default();
        uses.add_outbox(self.shared.group_of(client));
        let is_busy = self.is_behind(uses) || self.shared.is_long(uses.outboxes());
        if client.is_empty() || is_busy || !self.shared.hears(client, Event::ConnectFailed) {
            return;
        }
        let told = Announce {
            client: Bytes::copy_from_slice(client.as_bytes()),
            at: self.read_clock().epoch_ms,
            presence: Some(presence()),
            event: Event::ConnectFailed.into(),
            ..Announce::default()
        };
        self.announce(client, told);
    }

    fn announce(&self, client: &str, told: Announce) {
        let group = self.shared.group_of(client).into();
        self.propose(Proposal::owed(group, shard::Command::from(told).encoded()));
    }

    /// Resolves when a group's outbox is not long.
    pub async fn outbox_has_room(&self, group: u16) {
        std::future::poll_fn(|context| {
            let mut uses = Uses::default();
            uses.add_outbox(group);
            match self.must_wait(None, uses.only_outboxes(), context.waker()) {
                true => Poll::Pending,
                false => Poll::Ready(()),
            }
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_without_a_session_are_told_apart() {
        let live = Live { core: 1, slot: 2, generation: 3 };
        let one = session_of(1, live, 1_800_000_000_000);
        let text = uuid::Uuid::from_slice(&one).unwrap().to_string();
        assert_eq!(text, "01a3185c-5000-8001-8001-000200000003");
        for (node, live, at) in [
            (2, live, 1_800_000_000_000),
            (1, Live { core: 2, ..live }, 1_800_000_000_000),
            (1, Live { generation: 4, ..live }, 1_800_000_000_000),
            (1, live, 1_800_000_000_001),
        ] {
            assert_ne!(session_of(node, live, at), one);
        }
    }
}
