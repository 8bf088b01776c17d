//! Subscriptions, and what they make the shard want from publishers.

use topic::{Share, parse_subscription};

use crate::shard::command::{Options, Subscribe, Unsubscribe};
use crate::shard::session::Session;
use crate::shard::subscribers::Demand;
use crate::shard::{Interest, Member, Outcome, Shard, Subscribed};

/// How a valid filter of a shared subscription begins.
const SHARED: &str = "$share/";

impl Shard {
    pub(super) fn subscribe(&mut self, command: Subscribe) -> Outcome {
        let Some(id) = self.fenced(&command.client, command.epoch) else { return Outcome::Stale };
        let filters = command.filters.iter();
        let subscribed = filters.map(|each| self.add(id, &each.filter, each.options));
        Outcome::Subscribed(subscribed.collect())
    }

    pub(super) fn unsubscribe(&mut self, command: Unsubscribe) -> Outcome {
        let Some(id) = self.fenced(&command.client, command.epoch) else { return Outcome::Stale };
        let mut known = Vec::with_capacity(command.filters.len());
        for filter in &command.filters {
            known.push(self.cut(id, filter));
            if filter.starts_with(SHARED) {
                self.take_back(id, Some(filter), command.sent_below, u32::MAX, u64::MAX);
            }
        }
        Outcome::Unsubscribed(known)
    }

    fn add(&mut self, id: u64, filter: &str, options: Options) -> Subscribed {
        let Ok(parsed) = parse_subscription(filter) else { return Subscribed::Invalid };
        let Some(session) = self.sessions.get_mut(&id) else { return Subscribed::Invalid };
        let options = Options { qos: options.qos.min(2), ..options };
        let old = session.subscriptions.insert(filter.into(), options);
        self.changes.subscriptions.insert((id, filter.into()));
        self.subscriptions += usize::from(old.is_none());
        match parsed {
            topic::Subscription::Plain(filter) => {
                let demand = self.index.insert(filter, id, options);
                self.tell(filter, demand);
            }
            topic::Subscription::Shared(share) => {
                session.shared += u32::from(old.is_none());
                let member = session.member(&share, options);
                self.effects.interest.push(Interest::Joined(member));
            }
        }
        if old.is_some() { Subscribed::Replaced } else { Subscribed::New }
    }

    fn cut(&mut self, id: u64, filter: &str) -> bool {
        let Some(session) = self.sessions.get_mut(&id) else { return false };
        if session.subscriptions.remove(filter).is_none() {
            return false;
        }
        session.shared -= u32::from(filter.starts_with(SHARED));
        self.subscriptions -= 1;
        self.lose_interest(id, filter);
        true
    }

    /// A session's subscription is gone.
    pub(super) fn lose_interest(&mut self, id: u64, filter: &str) {
        self.changes.subscriptions.insert((id, filter.into()));
        match parse_subscription(filter) {
            Ok(topic::Subscription::Plain(filter)) => {
                let demand = self.index.remove(filter, id);
                self.tell(filter, demand);
            }
            Ok(topic::Subscription::Shared(Share { name, filter })) => {
                let (share, filter) = (name.to_owned(), filter.to_owned());
                self.effects.interest.push(Interest::Left { share, filter, session: id });
            }
            Err(_) => {}
        }
    }

    fn tell(&mut self, filter: &str, demand: Demand) {
        let filter = filter.to_owned();
        match demand {
            Demand::Arose => self.effects.interest.push(Interest::Wanted { filter }),
            Demand::Ended => self.effects.interest.push(Interest::Unwanted { filter }),
            Demand::Same => {}
        }
    }
}

impl Session {
    /// The shared subscriptions that it is a member of, ordered by filter.
    pub(in crate::shard) fn memberships(&self) -> impl Iterator<Item = Member> {
        self.subscriptions().filter_map(|(filter, &options)| match parse_subscription(filter) {
            Ok(topic::Subscription::Shared(share)) => Some(self.member(&share, options)),
            _ => None,
        })
    }

    fn member(&self, share: &Share<'_>, options: Options) -> Member {
        Member {
            share: share.name.to_owned(),
            filter: share.filter.to_owned(),
            session: self.id,
            client: self.client.clone(),
            connected: self.connected(),
            options,
        }
    }
}
