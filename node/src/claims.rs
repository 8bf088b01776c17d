//! One live connection per client id.
//!
//! Every client id has a home core (by hash) that knows which connection holds it. A newcomer asks
//! the home; the home tells the holder to go and grants the claim when the holder has gone, so there
//! are never two [v5 MQTT-3.1.4-3, v3.1.1 MQTT-3.1.4-2].
//!
//! Bounded by the connections of the node: each has one claim, held or waited for.

use std::collections::VecDeque;
use std::rc::Rc;

use rustc_hash::FxHashMap;
use tokio::sync::oneshot;

use crate::core::Core;
use crate::interest::Live;

/// Names one claim, so that a late release does not end a newer one.
pub type ClaimId = u64;

#[derive(Debug)]
struct Held {
    id: ClaimId,
    /// Set once the connection runs and can be told to go.
    live: Option<Live>,
    told: bool,
    waiting: VecDeque<oneshot::Sender<ClaimId>>,
}

/// The claims whose home is this core.
#[derive(Debug, Default)]
pub struct Claims {
    held: FxHashMap<Box<str>, Held>,
    next: ClaimId,
}

impl Claims {
    /// The connection that holds a client id.
    pub fn holder(&self, client: &str) -> Option<Live> {
        self.held.get(client)?.live
    }

    fn claim(&mut self, client: &str, granted: oneshot::Sender<ClaimId>) -> Option<Live> {
        match self.held.get_mut(client) {
            Some(held) => {
                held.waiting.push_back(granted);
                held.tell_holder()
            }
            None => {
                self.grant(client, VecDeque::from([granted]));
                None
            }
        }
    }

    fn established(&mut self, client: &str, id: ClaimId, live: Live) -> Option<Live> {
        let held = self.held.get_mut(client).filter(|held| held.id == id)?;
        held.live = Some(live);
        if held.waiting.is_empty() { None } else { held.tell_holder() }
    }

    fn release(&mut self, client: &str, id: ClaimId) {
        if self.held.get(client).is_some_and(|held| held.id == id)
            && let Some(held) = self.held.remove(client)
        {
            self.grant(client, held.waiting);
        }
    }

    /// Gives the client id to the first that still waits for it.
    fn grant(&mut self, client: &str, mut waiting: VecDeque<oneshot::Sender<ClaimId>>) {
        while let Some(granted) = waiting.pop_front() {
            self.next += 1;
            if granted.send(self.next).is_ok() {
                let told = false;
                let held = Held { id: self.next, live: None, told, waiting };
                self.held.insert(client.into(), held);
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

/// A claim on a client id; given back when dropped.
pub struct Claim {
    core: Rc<Core>,
    client: Rc<str>,
    id: ClaimId,
}

impl Claim {
    /// Claims a client id. Ends an older connection first, so it may take as long as that does.
    pub async fn take(core: &Rc<Core>, client: Rc<str>) -> Option<Self> {
        let (granted, claim) = oneshot::channel();
        let name: Box<str> = (&*client).into();
        core.run_on(core.shared.home_of(&client), move |home| {
            let told = home.claims.borrow_mut().claim(&name, granted);
            tell(home, told);
        });
        let id = claim.await.ok()?;
        Some(Self { core: Rc::clone(core), client, id })
    }

    /// The connection runs and can be told to go.
    pub fn established(&self, live: Live) {
        let (name, id): (Box<str>, _) = ((&*self.client).into(), self.id);
        self.core.run_on(self.core.shared.home_of(&self.client), move |home| {
            let told = home.claims.borrow_mut().established(&name, id, live);
            tell(home, told);
        });
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let (name, id): (Box<str>, _) = ((&*self.client).into(), self.id);
        self.core.run_on(self.core.shared.home_of(&self.client), move |home| {
            home.claims.borrow_mut().release(&name, id);
        });
    }
}

fn tell(home: &Rc<Core>, holder: Option<Live>) {
    if let Some(live) = holder {
        home.run_on(live.core, move |core| {
            if let Some(endpoint) = core.endpoint(live) {
                endpoint.doom(mqtt::Reason::SessionTakenOver);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIVE: Live = Live { core: 0, slot: 1, generation: 1 };

    #[test]
    fn a_newcomer_waits_until_the_holder_has_gone() {
        let mut claims = Claims::default();
        let (granted, mut first) = oneshot::channel();
        assert_eq!(claims.claim("c", granted), None);
        let first = first.try_recv().unwrap();

        let (granted, mut second) = oneshot::channel();
        assert_eq!(claims.claim("c", granted), None, "it cannot be told before it runs");
        assert_eq!(claims.established("c", first, LIVE), Some(LIVE));
        let (granted, mut third) = oneshot::channel();
        assert_eq!(claims.claim("c", granted), None, "it is told once");
        assert!(second.try_recv().is_err());

        claims.release("c", first + 10);
        assert!(second.try_recv().is_err(), "another claim's release changes nothing");
        claims.release("c", first);
        let second = second.try_recv().unwrap();
        assert!(third.try_recv().is_err());
        claims.release("c", second);
        assert!(third.try_recv().is_ok());
    }

    #[test]
    fn who_stopped_waiting_is_passed_over() {
        let mut claims = Claims::default();
        let (granted, mut first) = oneshot::channel();
        claims.claim("c", granted);
        let first = first.try_recv().unwrap();
        let (granted, second) = oneshot::channel();
        claims.claim("c", granted);
        drop(second);
        claims.release("c", first);
        assert!(claims.held.is_empty());
    }
}
