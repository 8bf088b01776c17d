//! What nodes say of the connections that they hold, to REST and to each other.

use std::net::{IpAddr, SocketAddr};

use actix::Addr;
use api::backend::{Connection, Subscription, Unavailable};
use fleet::shard;
use links::proto::{Answer, HeldConnection, HeldSubscription, Question};
use tracing::debug;

use super::Backend;
use crate::connection;
use crate::identity;
use crate::interest::Live;

impl Backend {
    /// What a connection to this node says of itself.
    pub(super) async fn held(&self, client: &str) -> Result<Option<Connection>, Unavailable> {
        let Some(live) = self.live(client).await? else { return Ok(None) };
        let told = self.at_endpoint(live, |endpoint| {
            let profile = &endpoint.profile;
            let connection = Connection {
                connected: true,
                clean_session: !profile.persistent,
                source: profile.source_ip.map(|ip| (ip, profile.source_port)),
                keep_alive_secs: Some(profile.keep_alive.into()),
                connected_since_ms: Some(profile.connected_at_ms),
                ..Connection::default()
            };
            (connection, profile.principal.clone())
        });
        let Some((connection, principal)) = told.await? else { return Ok(None) };
        let thing = identity::thing_of(&self.shared, &principal, client).await;
        let target = self.target(live).await?;
        Ok(Some(Connection { thing: thing.map(String::from), target, ..connection }))
    }

    /// The address of this node that a connection came to, while it is there.
    async fn target(&self, live: Live) -> Result<Option<(IpAddr, u16)>, Unavailable> {
        let Some(actor) = self.actor(live).await? else { return Ok(None) };
        // It may have ended meanwhile.
        let target = actor.send(connection::Target).await.ok().flatten();
        Ok(target.map(|at: SocketAddr| (at.ip().to_canonical(), at.port())))
    }

    async fn actor(&self, live: Live) -> Result<Option<Addr<connection::Connection>>, Unavailable> {
        self.on_core(live.core, move |core| core.actor(live)).await
    }

    /// What a connection to this node is subscribed to, with the QoS of each.
    pub(super) async fn held_subscriptions(
        &self,
        client: &str,
    ) -> Result<Option<Vec<(String, u8)>>, Unavailable> {
        let Some(live) = self.live(client).await? else { return Ok(None) };
        let Some(actor) = self.actor(live).await? else { return Ok(None) };
        // One that has ended meanwhile has none.
        Ok(actor.send(connection::Subscriptions).await.ok())
    }

    /// Asks the node that holds a client's connection; `None` when that is this one, or it does not
    /// answer.
    pub(super) async fn ask(&self, node: u64, question: Question) -> Option<Answer> {
        if node == self.shared.mesh.own.node() {
            return None;
        }
        let answer = self.shared.inquiries.ask(&self.shared, node, question).await;
        if answer.is_none() {
            debug!(peer = node, "a peer does not answer: its client's session tells instead");
        }
        answer
    }

    /// What another node asks.
    pub(crate) async fn answer(&self, question: Question) -> Result<Answer, Unavailable> {
        let Question { token, client, subscriptions, after } = question;
        let none = Answer { token, ..Answer::default() };
        let Some(connection) = self.held(&client).await? else { return Ok(none) };
        let connection = Some(HeldConnection {
            clean_session: connection.clean_session,
            source_ip: connection.source.map(|(ip, _)| ip.to_string()).unwrap_or_default(),
            source_port: connection.source.map_or(0, |(_, port)| port.into()),
            keep_alive_secs: connection.keep_alive_secs.unwrap_or_default(),
            connected_since: connection.connected_since_ms.unwrap_or_default(),
            target_ip: connection.target.map(|(ip, _)| ip.to_string()).unwrap_or_default(),
            target_port: connection.target.map_or(0, |(_, port)| port.into()),
            thing: connection.thing.unwrap_or_default(),
        });
        if subscriptions == 0 {
            return Ok(Answer { connection, ..none });
        }
        let Some(all) = self.held_subscriptions(&client).await? else { return Ok(none) };
        let some = behind(all, Some(after), subscriptions as usize).into_iter();
        let subscriptions =
            some.map(|it| HeldSubscription { filter: it.filter, qos: it.qos.into() }).collect();
        Ok(Answer { connection, subscriptions, ..none })
    }
}

/// The node that holds the connection of a session, if there is one.
pub(super) fn holder(session: &shard::Session) -> Option<u64> {
    session.connected().then(|| session.holder().node())
}

/// What another node says of a connection.
pub(super) fn from_peer(held: HeldConnection) -> Connection {
    let at = |ip: &str, port| ip.parse().ok().zip(u16::try_from(port).ok());
    Connection {
        connected: true,
        thing: Some(held.thing).filter(|thing| !thing.is_empty()),
        clean_session: held.clean_session,
        source: at(&held.source_ip, held.source_port),
        target: at(&held.target_ip, held.target_port),
        keep_alive_secs: Some(held.keep_alive_secs),
        connected_since_ms: Some(held.connected_since),
        ..Connection::default()
    }
}

/// The first of these subscriptions behind a filter, in the order of the filters.
pub(super) fn behind(
    mut all: Vec<(String, u8)>,
    after: Option<String>,
    count: usize,
) -> Vec<Subscription> {
    all.sort();
    let rest = all.into_iter().filter(|(filter, _)| Some(filter) > after.as_ref());
    rest.map(|(filter, qos)| Subscription { filter, qos }).take(count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_peer_does_not_know_is_absent() {
        let held = HeldConnection {
            source_ip: "10.0.0.7".into(),
            source_port: 40_000,
            target_ip: "::1".into(),
            target_port: 8883,
            thing: "lamp".into(),
            ..HeldConnection::default()
        };
        let told = from_peer(held.clone());
        assert_eq!(told.source, Some(([10, 0, 0, 7].into(), 40_000)));
        assert_eq!(told.target, Some((std::net::Ipv6Addr::LOCALHOST.into(), 8883)));
        assert_eq!(told.thing.as_deref(), Some("lamp"));
        // As a node of the version before says it, and what no node says.
        let old = HeldConnection {
            target_ip: String::new(),
            target_port: 0,
            thing: String::new(),
            ..held.clone()
        };
        let told = from_peer(old);
        assert_eq!((told.target, told.thing), (None, None));
        assert_eq!(from_peer(HeldConnection { target_port: 1 << 16, ..held }).target, None);
    }
}
