//! One live connection per client id.
//!
//! Every client id has a home core (by hash) that knows which connection holds it. A newcomer asks
//! the home; the home tells the holder to go and grants the claim when the holder has gone, so there
//! are never two [v5 MQTT-3.1.4-3, v3.1.1 MQTT-3.1.4-2].
//!
//! Bounded by the connections of the node: each has one claim, held or waited for.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use actix::Addr;
use api::backend::Ending;
use fleet::shard::{self, DisconnectReason, WillAction};
use hashbrown::HashMap;
use rustc_hash::FxHashMap;
use tokio::sync::{mpsc, oneshot};

use crate::connection::{Connection, Delete};
use crate::core::{Core, ToCore};
use crate::denial;
use crate::endpoint::Endpoint;
use crate::host::Proposal;
use crate::interest::Live;

/// Names one claim, so that a late release does not end a newer one.
pub type ClaimId = u64;

#[derive(Debug)]
struct Held {
    id: ClaimId,
    /// Set once the connection runs and can be told to go.
    live: Option<Live>,
    told: bool,
    contest: Option<Box<Contest>>,
}

/// What few claims have, so that the others are small: there is one for every connection.
#[derive(Debug, Default)]
struct Contest {
    /// The connection ends once it runs.
    evicted: Option<Eviction>,
    waiting: VecDeque<Newcomer>,
}

/// That the connection with this epoch has to end.
#[derive(Clone, Copy, Debug)]
pub struct Eviction {
    /// Fencing token.
    pub epoch: u64,
    /// How an operator wants it to end; else its client has left it for another node.
    pub ending: Option<Ending>,
}

/// Somebody who waits for a client id.
#[derive(Debug)]
struct Newcomer {
    client: Arc<str>,
    granted: oneshot::Sender<Grant>,
    /// The inbox of the home core.
    home: mpsc::UnboundedSender<ToCore>,
}

/// That a client id was granted. Gives it back when dropped, wherever that happens: also on its way
/// to a newcomer who has just stopped waiting.
#[derive(Debug)]
struct Grant {
    client: Arc<str>,
    id: ClaimId,
    home: mpsc::UnboundedSender<ToCore>,
}

impl Drop for Grant {
    fn drop(&mut self) {
        let (client, id) = (Arc::clone(&self.client), self.id);
        let release = move |home: &Rc<Core>| home.claims.borrow_mut().release(&client, id);
        // When the home has ended, so do all connections.
        let _ = self.home.send(ToCore::Run(Box::new(release)));
    }
}

/// The claims whose home is this core.
#[derive(Debug, Default)]
pub struct Claims {
    /// Seeded, because clients choose the keys.
    held: HashMap<Arc<str>, Held>,
    next: ClaimId,
}

impl Claims {
    /// The connection that holds a client id.
    pub fn holder(&self, client: &str) -> Option<Live> {
        self.held.get(client)?.live
    }

    /// A connection has to end; tells which, unless it does not run yet, and whether there is none.
    fn evict(&mut self, client: &str, eviction: Eviction) -> Evicted {
        let Some(held) = self.held.get_mut(client) else { return Evicted::Nobody };
        match held.live {
            Some(live) => Evicted::Now(live),
            None => {
                held.contest.get_or_insert_default().evicted = Some(eviction);
                Evicted::Later
            }
        }
    }

    fn claim(&mut self, newcomer: Newcomer) -> Option<Live> {
        match self.held.get_mut(&newcomer.client) {
            Some(held) => {
                held.contest.get_or_insert_default().waiting.push_back(newcomer);
                held.tell_holder()
            }
            None => {
                self.grant(VecDeque::from([newcomer]));
                None
            }
        }
    }

    fn established(&mut self, client: &str, id: ClaimId, live: Live) -> Option<Live> {
        let held = self.held.get_mut(client).filter(|held| held.id == id)?;
        held.live = Some(live);
        let is_wanted = held.contest.as_ref().is_some_and(|contest| !contest.waiting.is_empty());
        if is_wanted { held.tell_holder() } else { None }
    }

    fn evicted(&mut self, client: &str, id: ClaimId) -> Option<Eviction> {
        let held = self.held.get_mut(client).filter(|held| held.id == id)?;
        held.contest.as_mut()?.evicted.take()
    }

    fn release(&mut self, client: &str, id: ClaimId) {
        if self.held.get(client).is_some_and(|held| held.id == id)
            && let Some(held) = self.held.remove(client)
        {
            self.grant(held.contest.map(|contest| contest.waiting).unwrap_or_default());
        }
    }

    /// Gives a client id to the first that still waits for it.
    fn grant(&mut self, mut waiting: VecDeque<Newcomer>) {
        while let Some(Newcomer { client, granted, home }) = waiting.pop_front() {
            self.next += 1;
            let id = self.next;
            // One that comes back here releases a claim that nobody holds: nothing happens.
            if granted.send(Grant { client: Arc::clone(&client), id, home }).is_ok() {
                let contest = Contest { evicted: None, waiting };
                let contest = (!contest.waiting.is_empty()).then(|| Box::new(contest));
                let held = Held { id, live: None, told: false, contest };
                self.held.insert(client, held);
                return;
            }
        }
    }
}

impl Held {
    fn tell_holder(&mut self) -> Option<Live> {
        let live = self.live.filter(|_| !self.told)?;
        self.told = true;
        Some(live)
    }
}

/// Which connection has to end.
#[derive(Debug, PartialEq, Eq)]
enum Evicted {
    Now(Live),
    Later,
    Nobody,
}

impl Core {
    /// The connection of a client of this node, whose claims this core keeps, has to end. If there is
    /// none, its session is told so.
    pub fn evict(self: &Rc<Self>, client: &str, eviction: Eviction) {
        let evicted = self.claims.borrow_mut().evict(client, eviction);
        match evicted {
            Evicted::Now(live) => self.end(live, eviction),
            Evicted::Later => {}
            Evicted::Nobody => self.disown(client, eviction.of_nobody()),
        }
    }

    /// Ends a connection of this core because an operator wants that; false if it has ended.
    pub fn delete_connection(&self, live: Live, ending: Ending) -> bool {
        self.actor(live).is_some_and(|actor| actor.try_send(Delete { ending }).is_ok())
    }

    /// Ends a session that is taken for connected here, unless a connection has the client id or is
    /// about to: then what becomes of it is known there.
    pub fn end_unclaimed(self: &Rc<Self>, client: &str, epoch: u64) {
        if !self.claims.borrow().held.contains_key(client) {
            self.disown(client, shard::Disconnect { epoch, ..lost() });
        }
    }

    /// Tells its group that a session has no connection here, though it is taken for one that has. Its
    /// epoch, its will and why are the caller's to say.
    pub fn disown(self: &Rc<Self>, client: &str, how: shard::Disconnect) {
        let command = shard::Disconnect {
            client: bytes::Bytes::copy_from_slice(client.as_bytes()),
            at: self.read_clock().epoch_ms,
            by: self.shared.mesh.own.0,
            heard: self.shared.hears_presence(client),
            ..how
        };
        let group = self.shared.group_of(client).into();
        self.propose(Proposal::owed(group, shard::Command::from(command).encoded()));
        self.flush();
    }

    fn end(self: &Rc<Self>, live: Live, eviction: Eviction) {
        self.run_on(live.core, move |core| {
            let endpoint = core.endpoint(live);
            let is_it =
                |it: &Rc<Endpoint>| it.profile.record.is_some_and(|it| it.epoch == eviction.epoch);
            let Some(endpoint) = endpoint.filter(is_it) else { return };
            match eviction.ending {
                // One that cannot be told is ending already.
                Some(ending) => drop(core.delete_connection(live, ending)),
                None => endpoint.doom(mqtt::Reason::SessionTakenOver),
            }
        });
    }

    /// Ends the connections of a group that other nodes may decide about without this one.
    pub fn let_go(&self, group: u16) {
        for (_, endpoint) in self.endpoints.borrow().iter() {
            if endpoint.profile.record.is_some_and(|record| record.group == group) {
                // DISCONNECT knows no "server unavailable" [v5 3.14.2.1].
                endpoint.doom(mqtt::Reason::ServerBusy);
            }
        }
    }

    /// Ends the connections of a group whose session, or its present epoch, is not known to it.
    pub fn end_unknown(&self, group: u16, known: &FxHashMap<u64, u64>) {
        for (_, endpoint) in self.endpoints.borrow().iter() {
            let record = endpoint.profile.record.filter(|record| record.group == group);
            if record.is_some_and(|it| known.get(&it.session) != Some(&it.epoch)) {
                endpoint.doom(mqtt::Reason::SessionTakenOver);
            }
        }
    }
}

impl Eviction {
    /// What becomes of the session when there is no connection to end.
    fn of_nobody(self) -> shard::Disconnect {
        let (will, reason, expiry_secs) = match self.ending {
            None => (WillAction::Publish, DisconnectReason::DuplicateClientid, None),
            Some(Ending { clean_session, prevent_will }) => {
                let expiry_secs = clean_session.then_some(0);
                (will_action(prevent_will), DisconnectReason::ApiInitiatedDisconnect, expiry_secs)
            }
        };
        let (epoch, will, reason) = (self.epoch, will.into(), reason.into());
        shard::Disconnect { epoch, will, reason, expiry_secs, ..shard::Disconnect::default() }
    }
}

/// What an operator wants to happen to a will.
pub fn will_action(prevent_will: bool) -> WillAction {
    if prevent_will { WillAction::Discard } else { WillAction::Publish }
}

/// What becomes of a session whose connection nobody has seen.
pub fn lost() -> shard::Disconnect {
    shard::Disconnect {
        will: WillAction::Discard.into(),
        reason: DisconnectReason::ConnectionLost.into(),
        ..shard::Disconnect::default()
    }
}

/// A claim on a client id; given back when dropped.
pub struct Claim(Grant);

impl Claim {
    /// Claims a client id. Ends an older connection first, so it may take as long as that does.
    pub async fn take(core: &Rc<Core>, client: Arc<str>) -> Option<Self> {
        let (granted, grant) = oneshot::channel();
        let home = core.shared.home_of(&client);
        let inbox = core.shared.cores[usize::from(home)].clone();
        let newcomer = Newcomer { client, granted, home: inbox };
        core.run_on(home, move |home| {
            let told = home.claims.borrow_mut().claim(newcomer);
            tell(home, told);
        });
        grant.await.ok().map(Self)
    }

    /// The connection runs and can be told to go: somebody may have waited for that.
    pub fn established(&self, core: &Rc<Core>, live: Live, actor: &Addr<Connection>) {
        core.started(live, actor);
        let (name, id) = (Arc::clone(&self.0.client), self.0.id);
        core.run_on(core.shared.home_of(&name), move |home| {
            let told = home.claims.borrow_mut().established(&name, id, live);
            tell(home, told);
            let evicted = home.claims.borrow_mut().evicted(&name, id);
            if let Some(eviction) = evicted {
                home.end(live, eviction);
            }
        });
    }
}

fn tell(home: &Rc<Core>, holder: Option<Live>) {
    if let Some(live) = holder {
        home.run_on(live.core, move |core| {
            if let Some(endpoint) = core.endpoint(live) {
                denial::tell_taken_over(&endpoint.profile, core.read_clock().now);
                endpoint.doom(mqtt::Reason::SessionTakenOver);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIVE: Live = Live { core: 0, slot: 1, generation: 1 };

    /// A newcomer and what it waits with.
    fn newcomer(home: &mpsc::UnboundedSender<ToCore>) -> (Newcomer, oneshot::Receiver<Grant>) {
        let (granted, grant) = oneshot::channel();
        (Newcomer { client: "c".into(), granted, home: home.clone() }, grant)
    }

    #[test]
    fn a_newcomer_waits_until_the_holder_has_gone() {
        let (home, _inbox) = mpsc::unbounded_channel();
        let mut claims = Claims::default();
        let (waiting, mut first) = newcomer(&home);
        assert_eq!(claims.claim(waiting), None);
        let first = first.try_recv().unwrap();

        let (waiting, mut second) = newcomer(&home);
        assert_eq!(claims.claim(waiting), None, "it cannot be told before it runs");
        assert_eq!(claims.established("c", first.id, LIVE), Some(LIVE));
        let (waiting, mut third) = newcomer(&home);
        assert_eq!(claims.claim(waiting), None, "it is told once");
        assert!(second.try_recv().is_err());

        claims.release("c", first.id + 10);
        assert!(second.try_recv().is_err(), "another claim's release changes nothing");
        claims.release("c", first.id);
        let second = second.try_recv().unwrap();
        assert!(third.try_recv().is_err());
        claims.release("c", second.id);
        assert!(third.try_recv().is_ok());
    }

    #[test]
    fn who_stopped_waiting_is_passed_over() {
        let (home, _inbox) = mpsc::unbounded_channel();
        let mut claims = Claims::default();
        let (waiting, mut first) = newcomer(&home);
        claims.claim(waiting);
        let first = first.try_recv().unwrap();
        let (waiting, second) = newcomer(&home);
        claims.claim(waiting);
        drop(second);
        claims.release("c", first.id);
        assert!(claims.held.is_empty());
    }

    #[test]
    fn who_stops_waiting_while_the_grant_is_on_its_way_gives_it_back() {
        let (home, mut inbox) = mpsc::unbounded_channel();
        let mut claims = Claims::default();
        let (waiting, grant) = newcomer(&home);
        claims.claim(waiting);
        assert!(inbox.try_recv().is_err());
        drop(grant);
        assert!(matches!(inbox.try_recv(), Ok(ToCore::Run(_))));
    }
}
