//! How many sockets of a core may be between accept and CONNACK: at once, and of one source.
//!
//! A socket takes its place in the count of the core only when it is there, so listeners that
//! nobody uses hold none. One source (an IPv4 address, or an IPv6 /64) has a share of the places;
//! its other sockets wait aside, so that those of everybody else need not wait behind them.
//!
//! Bounds: at most [`Limits::handshakes_per_core`] places, [`Limits::handshakes_per_source`] of them
//! for one source, and `ASIDE` sockets aside; what comes beyond that is refused. The timeout of its
//! listener ends a socket's wait aside. It does not count while the core is full: then the listener
//! accepts nothing, its next socket waits with those in the kernel's queue, and every place is given
//! back within the timeout of whoever has it.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv6Addr};
use std::rc::Rc;
use std::sync::{Arc, Weak};

use hashbrown::HashMap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::Limits;

/// Sockets that may wait aside on one core: as many as the kernel keeps for a listener.
pub(super) const ASIDE: usize = super::BACKLOG as usize;

/// See the module.
#[derive(Debug)]
pub struct Gate {
    places: Arc<Semaphore>,
    per_source: usize,
    /// Sources with a socket that has a place or waits for one.
    sources: RefCell<HashMap<IpAddr, Weak<Semaphore>>>,
    aside: Arc<Semaphore>,
}

/// A place in the count of a core.
#[derive(Debug)]
pub struct Permit {
    gate: Rc<Gate>,
    place: Option<OwnedSemaphorePermit>,
    share: Option<Share>,
}

/// What a socket gets.
#[derive(Debug)]
pub enum Entrance {
    /// A place.
    Open(Permit),
    /// A place later: its source has its share.
    Aside(Aside),
}

/// A socket whose source has its share.
#[derive(Debug)]
pub struct Aside {
    source: Source,
    room: OwnedSemaphorePermit,
}

/// One of the places of a source. The order of the fields is that in which they are given back.
#[derive(Debug)]
struct Share {
    _place: OwnedSemaphorePermit,
    _source: Source,
}

/// Keeps a source known while it has or wants places.
#[derive(Debug)]
struct Source {
    gate: Rc<Gate>,
    name: IpAddr,
    places: Arc<Semaphore>,
}

impl Drop for Source {
    fn drop(&mut self) {
        if Arc::strong_count(&self.places) == 1 {
            self.gate.sources.borrow_mut().remove(&self.name);
        }
    }
}

impl Gate {
    /// A gate of one core.
    pub fn new(limits: &Limits) -> Rc<Self> {
        Rc::new(Self {
            places: Arc::new(Semaphore::new(
                limits.handshakes_per_core.min(Semaphore::MAX_PERMITS),
            )),
            per_source: limits.handshakes_per_source.min(Semaphore::MAX_PERMITS),
            sources: RefCell::default(),
            aside: Arc::new(Semaphore::new(ASIDE)),
        })
    }

    /// Waits while the core is full, unless the socket has to wait for its own source only. `None`
    /// refuses it. A source that is not known yet is named later: [`Permit::attribute`].
    pub async fn admit(self: &Rc<Self>, source: Option<IpAddr>) -> Option<Entrance> {
        let share = match source.map(|ip| self.source(ip)) {
            None => None,
            Some(source) => match source.share() {
                Ok(share) => Some(share),
                Err(source) => return source.wait_aside().map(Entrance::Aside),
            },
        };
        Some(Entrance::Open(self.permit(share).await))
    }

    async fn permit(self: &Rc<Self>, share: Option<Share>) -> Permit {
        let place = Some(acquire(&self.places).await);
        Permit { gate: Rc::clone(self), place, share }
    }

    fn source(self: &Rc<Self>, ip: IpAddr) -> Source {
        let name = name(ip);
        let mut sources = self.sources.borrow_mut();
        let places = sources.get(&name).and_then(Weak::upgrade).unwrap_or_else(|| {
            let places = Arc::new(Semaphore::new(self.per_source));
            sources.insert(name, Arc::downgrade(&places));
            places
        });
        Source { gate: Rc::clone(self), name, places }
    }
}

impl Entrance {
    /// Waits until the socket has its place.
    pub async fn permit(self) -> Permit {
        match self {
            Self::Open(permit) => permit,
            Self::Aside(aside) => aside.permit().await,
        }
    }
}

impl Permit {
    /// Counts the socket for a source that only became known behind the gate, and waits while that
    /// has its share: aside, so the place is free meanwhile. False refuses the socket.
    pub async fn attribute(&mut self, source: IpAddr) -> bool {
        match self.gate.source(source).share() {
            Ok(share) => self.share = Some(share),
            Err(source) => {
                let Some(aside) = source.wait_aside() else { return false };
                self.place = None;
                *self = aside.permit().await;
            }
        }
        true
    }
}

impl Source {
    fn share(self) -> Result<Share, Self> {
        match Arc::clone(&self.places).try_acquire_owned() {
            Ok(place) => Ok(Share { _place: place, _source: self }),
            Err(_) => Err(self),
        }
    }

    fn wait_aside(self) -> Option<Aside> {
        let room = Arc::clone(&self.gate.aside).try_acquire_owned().ok()?;
        Some(Aside { source: self, room })
    }
}

impl Aside {
    async fn permit(self) -> Permit {
        let Self { source, room } = self;
        let gate = Rc::clone(&source.gate);
        let share = Share { _place: acquire(&source.places).await, _source: source };
        let permit = gate.permit(Some(share)).await;
        drop(room);
        permit
    }
}

async fn acquire(places: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    Arc::clone(places).acquire_owned().await.expect("nobody closes it")
}

/// What counts as one source. Whoever has an IPv6 address has the 2^64 around it as well.
fn name(ip: IpAddr) -> IpAddr {
    const NETWORK: u128 = !(u64::MAX as u128);
    match ip.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & NETWORK).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn gate(handshakes_per_core: usize, handshakes_per_source: usize) -> Rc<Gate> {
        Gate::new(&Limits { handshakes_per_core, handshakes_per_source, ..Limits::default() })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// What a socket gets without waiting.
    fn admit(gate: &Rc<Gate>, source: &str) -> Option<Entrance> {
        gate.admit(Some(ip(source))).now_or_never().flatten()
    }

    fn open(gate: &Rc<Gate>, source: &str) -> Permit {
        match admit(gate, source) {
            Some(Entrance::Open(permit)) => permit,
            other => panic!("{source}: {other:?}"),
        }
    }

    #[test]
    fn a_source_has_its_share_and_others_have_theirs() {
        for (first, same, other) in [
            ("10.0.0.1", "::ffff:10.0.0.1", "10.0.0.2"),
            ("2001:db8::1", "2001:db8::ffff:1:2", "2001:db8:0:1::1"),
        ] {
            let gate = gate(10, 2);
            let held = [open(&gate, first), open(&gate, same)];
            let Some(Entrance::Aside(aside)) = admit(&gate, first) else { panic!("{first}") };
            let mut aside = Box::pin(aside.permit());
            assert!(aside.as_mut().now_or_never().is_none());
            drop(open(&gate, other));
            drop(held);
            assert!(aside.as_mut().now_or_never().is_some(), "its turn has come");
        }
    }

    #[test]
    fn sources_are_forgotten() {
        let gate = gate(10, 1);
        let held = open(&gate, "10.0.0.1");
        let Some(Entrance::Aside(aside)) = admit(&gate, "10.0.0.1") else { panic!() };
        let mut waiting = Box::pin(aside.permit());
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(held);
        assert_eq!(gate.sources.borrow().len(), 1);
        // It has run out of time just when it was its turn.
        drop(waiting);
        assert_eq!(gate.sources.borrow().len(), 0);
        assert_eq!(gate.aside.available_permits(), ASIDE);
    }

    #[test]
    fn a_full_core_makes_everybody_wait() {
        let gate = gate(1, 1);
        let held = open(&gate, "10.0.0.1");
        let mut next = Box::pin(gate.admit(Some(ip("10.0.0.2"))));
        assert!(next.as_mut().now_or_never().is_none());
        drop(held);
        assert!(matches!(next.as_mut().now_or_never(), Some(Some(Entrance::Open(_)))));
    }

    #[test]
    fn aside_is_room_for_so_many() {
        let gate = gate(10, 1);
        let _held = open(&gate, "10.0.0.1");
        let aside: Vec<_> = (0..ASIDE).map(|_| admit(&gate, "10.0.0.1").unwrap()).collect();
        assert!(admit(&gate, "10.0.0.1").is_none());
        drop(open(&gate, "10.0.0.2"));
        drop(aside);
        assert!(admit(&gate, "10.0.0.1").is_some());
    }

    #[test]
    fn behind_a_proxy_the_source_counts_when_it_is_known() {
        let gate = gate(2, 1);
        let unnamed = || match gate.admit(None).now_or_never() {
            Some(Some(Entrance::Open(permit))) => permit,
            other => panic!("{other:?}"),
        };
        let (mut first, mut second) = (unnamed(), unnamed());
        assert_eq!(first.attribute(ip("10.0.0.1")).now_or_never(), Some(true));
        let mut waiting = Box::pin(second.attribute(ip("10.0.0.1")));
        assert!(waiting.as_mut().now_or_never().is_none());
        // The place is another's meanwhile.
        let third = unnamed();
        drop((first, third));
        assert_eq!(waiting.as_mut().now_or_never(), Some(true));
    }
}
