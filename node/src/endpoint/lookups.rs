//! Retained messages that a connection's new subscriptions ask for: which lookups wait, which SUBACK
//! goes out with the first of them, and what has become fresher meanwhile.

use std::collections::VecDeque;

use hashbrown::HashSet;
use mqtt::{PacketId, QoS, Reason};
use smallvec::SmallVec;

use super::{Endpoint, State};

#[derive(Debug, Default)]
pub(super) struct Fresh {
    topics: HashSet<Box<str>>,
    waiting: VecDeque<Lookup>,
    running: bool,
    unanswered: usize,
}

/// A SUBACK that is not sent yet.
#[derive(Clone, Debug)]
pub struct Suback {
    /// Of the SUBSCRIBE.
    pub id: PacketId,
    /// An answer per filter.
    pub reasons: SmallVec<[Reason; 8]>,
}

/// A filter whose retained messages are to be sent.
#[derive(Clone, Debug)]
pub struct Lookup {
    /// A plain filter.
    pub filter: String,
    /// Granted QoS.
    pub qos: QoS,
    /// Subscription identifier; 0 for none.
    pub subscription_id: u32,
    /// The SUBACK that goes out with the first of them.
    pub suback: Option<Box<Suback>>,
}

impl Endpoint {
    /// Queues lookups of retained messages; true when somebody has to begin with them. From now on
    /// [`Endpoint::has_fresher`] knows what was delivered.
    pub fn look_up(&self, lookups: impl IntoIterator<Item = Lookup>) -> bool {
        let mut state = self.state.borrow_mut();
        let fresh = state.fresh.get_or_insert_default();
        let before = fresh.waiting.len();
        fresh.waiting.extend(lookups);
        let new = fresh.waiting.iter().skip(before);
        fresh.unanswered += new.filter(|lookup| lookup.suback.is_some()).count();
        !std::mem::replace(&mut fresh.running, true)
    }

    /// The next lookup; none when all are done.
    pub fn next_lookup(&self) -> Option<Lookup> {
        let mut state = self.state.borrow_mut();
        let next = state.fresh.as_mut()?.waiting.pop_front();
        if next.is_none() {
            state.fresh = None;
        }
        self.wake(&mut state);
        next
    }

    /// A SUBACK that waited for retained messages is sent.
    pub fn answered(&self) {
        let mut state = self.state.borrow_mut();
        if let Some(fresh) = &mut state.fresh {
            fresh.unanswered -= 1;
        }
        self.wake(&mut state);
    }

    /// Whether a SUBACK is still to be sent.
    pub fn owes_suback(&self) -> bool {
        self.state.borrow().fresh.as_ref().is_some_and(|fresh| fresh.unanswered > 0)
    }

    /// Lookups that wait.
    pub fn lookups(&self) -> usize {
        self.state.borrow().fresh.as_ref().map_or(0, |fresh| fresh.waiting.len())
    }

    /// A retained publication of this topic is on its way as a subscription wants it.
    pub fn note_fresh(&self, topic: &str) {
        self.state.borrow_mut().note_fresh(topic);
    }

    /// Whether a retained publication of this topic was delivered since the lookup began: what is
    /// found now may be older [v5 MQTT-4.6.0-5].
    pub fn has_fresher(&self, topic: &str) -> bool {
        let state = self.state.borrow();
        state.fresh.as_ref().is_some_and(|fresh| fresh.topics.contains(topic))
    }
}

impl State {
    pub(super) fn note_fresh(&mut self, topic: &str) {
        if let Some(fresh) = &mut self.fresh {
            fresh.topics.insert(topic.into());
        }
    }
}
