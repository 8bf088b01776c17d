//! Shared subscriptions: which member gets a publication, and what becomes of it when none can have it
//! now or the one that had it goes.
//!
//! A member that keeps a queue, and is connected anywhere, gets its copy through that queue. While only
//! such members are left that are away, it waits in the queue of the subscription, in the group of its
//! filter, for whoever comes first.

use std::rc::Rc;
use std::sync::Arc;

use fleet::shard::{Directed, Origin, SharedCopy};
use mqtt::QoS;
use smallvec::SmallVec;

use super::{Among, Errand, GroupShare, Published, group_share};
use crate::core::{Core, Publisher, Ticket, ToMember};
use crate::endpoint::{DropReason, Endpoint, Terms};
use crate::fanout::{Copy, Reach};
use crate::host::Failure;
use crate::interest::{Member, ShareGroup, Without};
use crate::metrics::Asked;
use crate::publication::{Kept, Publication};

impl Core {
    /// Delivers to one member of a shared subscription: the first in turn that may receive it. What was
    /// taken before and nobody can have waits for all of them, if any keeps a queue.
    pub(super) fn deliver_to_one(
        &self,
        share: &Arc<ShareGroup>,
        mut without: Without,
        publication: &Publication<'_>,
        errand: Errand,
        groups: &mut SmallVec<[GroupShare; 2]>,
        published: &mut Published,
    ) {
        // Of each node that cannot be reached now the first member: better than nobody. Whoever looks again
        // for this publication may still choose it.
        let mut put_off: SmallVec<[(Reach, u16, Member); 1]> = SmallVec::new();
        // What was stored, or a member had, would end with the socket of one that does not acknowledge it.
        let is_kept = errand.returned && publication.qos != QoS::AtMostOnce;
        let mut must_acknowledge = is_kept && share.has_acknowledging();
        loop {
            let is_out = |member: &Member| {
                without.contains(&member.client)
                    || must_acknowledge && !member.acknowledges()
                    || errand.is_for_brief() && member.queues(publication.qos)
                    || errand.among == Among::Here && member.live.is_none()
                    || member.is_out_of_reach(publication.qos)
                    || put_off
                        .iter()
                        .any(|(_, node, _)| member.is_elsewhere(*node, publication.qos))
            };
            let best = share.choose(publication.topic, is_out);
            let is_best = best.is_some();
            let last_resort = || match self.may_wait(share, publication, errand) {
                true => None,
                false => take_nearest(&mut put_off),
            };
            let Some(member) = best.or_else(last_resort) else {
                let is_lost =
                    !self.may_wait(share, publication, errand) && errand.among == Among::All;
                if is_lost && std::mem::take(&mut must_acknowledge) {
                    continue;
                }
                break;
            };
            let qos = member.qos.min(publication.qos);
            let here = member.live.filter(|live| live.core == self.id);
            let endpoint = here.and_then(|live| self.endpoint(live)).filter(|it| it.takes(qos));
            let clock = self.clock();
            let allowed = match &endpoint {
                Some(endpoint) => endpoint.may_receive(publication.topic, clock),
                None => member.may_receive(publication.topic, clock),
            };
            if !allowed {
                self.metrics.decided(Asked::Receive, false);
                share.pass_over(&member.client, publication.topic);
                without.push(member.client);
                continue;
            }
            if errand.is_for_brief() && endpoint.as_ref().is_some_and(|it| it.queues(qos)) {
                // Until its queue is known everywhere, when it is not passed over any more.
                share.pass_over(&member.client, publication.topic);
                without.push(member.client);
                continue;
            }
            match (member.group, member.live) {
                (Some(_), _) if qos != QoS::AtMostOnce && self.is_for_queue(&member) => {
                    self.keep_for(&share.subscribed, groups);
                }
                (Some(group), _) if qos != QoS::AtMostOnce => {
                    let copy = self.directed(&member, share, publication, errand);
                    group_share(groups, group).directed.push(copy);
                }
                (_, None) if let Some(node) = member.node => {
                    let reach = self.shared.fanout.reach(node);
                    if is_best && reach != Reach::Linked {
                        put_off.push((reach, node, member));
                        continue;
                    }
                    without.push(Arc::clone(&member.client));
                    let copy = Copy {
                        member,
                        share: Arc::clone(share),
                        without,
                        publication: publication.keep(),
                        owed: errand.owed,
                        among: errand.among,
                    };
                    let copy = Some(Box::new(copy));
                    self.hand_over_to_node(node, publication, copy, errand, published);
                }
                (_, Some(live)) if live.core != self.id => {
                    let kept = Arc::new(publication.keep());
                    let to = Box::new(ToMember {
                        member,
                        share: Arc::clone(share),
                        without,
                        owed: errand.owed,
                        among: errand.among,
                    });
                    self.hand_over_to(live.core, kept, Some(to), errand, published);
                }
                _ => match endpoint {
                    Some(endpoint) => {
                        let to = (share, &member);
                        self.deliver_as(to, &endpoint, publication, errand, groups, published);
                    }
                    // It has just gone, or is about to.
                    None => {
                        if qos != QoS::AtMostOnce || errand.is_for_brief() {
                            share.pass_over(&member.client, publication.topic);
                        }
                        without.push(member.client);
                        continue;
                    }
                },
            }
            return;
        }
        if self.may_wait(share, publication, errand) {
            for (_, node, _) in put_off {
                share.pass_over_elsewhere(node, publication.qos, publication.topic);
            }
            if errand.among == Among::All {
                self.keep_for(&share.subscribed, groups);
            }
        } else if without.is_empty() && errand.among == Among::All {
            self.metrics.dropped(DropReason::Gone);
        }
    }

    /// Whether a publication that was taken before waits in a shared subscription's queue for whoever can
    /// have it.
    fn may_wait(&self, share: &ShareGroup, publication: &Publication<'_>, errand: Errand) -> bool {
        match errand.among {
            Among::All => {
                errand.owed && publication.qos != QoS::AtMostOnce && self.has_queue(share)
            }
            Among::Brief => true,
            Among::Here => false,
        }
    }

    /// No member of a shared subscription on a node can take a publication: looks for another one
    /// elsewhere.
    pub(crate) fn choose_again(&self, node: u16, copy: Copy, ticket: Option<Ticket>) {
        let Copy { share, mut without, publication, owed, among, .. } = copy;
        let publication = Publication::kept(&publication);
        share.pass_over_elsewhere(node, publication.qos, publication.topic);
        without.extend(share.elsewhere(node, publication.qos));
        // Its commands can no longer become durable together with the entry's others.
        let errand = Errand { ticket, owed, returned: owed, among, ..Errand::default() };
        let (mut groups, mut published) = (SmallVec::new(), Published::default());
        self.deliver_to_one(&share, without, &publication, errand, &mut groups, &mut published);
        self.propose_to_groups(groups, &publication, errand, &mut published);
        if published.waiting == 0 {
            let taken = if published.reached { Ok(()) } else { Err(Failure::NoMember) };
            self.settle_anywhere(ticket, taken);
        }
    }

    fn deliver_as(
        &self,
        (share, member): (&Arc<ShareGroup>, &Member),
        endpoint: &Rc<Endpoint>,
        publication: &Publication<'_>,
        errand: Errand,
        groups: &mut SmallVec<[GroupShare; 2]>,
        published: &mut Published,
    ) {
        let qos = member.qos.min(publication.qos);
        if let Some(record) = endpoint.profile.record.filter(|_| endpoint.queues(qos)) {
            // Its subscription is not stored yet, but its queue is the only one that numbers.
            let copy = self.directed(member, share, publication, errand);
            group_share(groups, record.group).directed.push(copy);
            return;
        }
        let terms = Terms {
            qos,
            retain: publication.retain && member.retain_as_published,
            subscription_ids: &member.subscription_ids,
            share: Some(share),
        };
        self.deliver(endpoint, publication, terms, published);
    }

    /// Delivers to the member of a shared subscription that another core chose, or to another one
    /// if that is gone or may not receive it.
    pub(crate) fn deliver_to_member(
        &self,
        to: &ToMember,
        publication: &Publication<'_>,
        (ticket, by): (Option<Ticket>, Option<Publisher>),
        published: &mut Published,
    ) {
        let endpoint = to.member.live.and_then(|live| self.endpoint(live));
        let qos = to.member.qos.min(publication.qos);
        let allowed =
            |it: &Rc<Endpoint>| it.takes(qos) && it.may_receive(publication.topic, self.clock());
        let (owed, among, mut groups) = (to.owed, to.among, SmallVec::new());
        let errand = Errand { ticket, owed, returned: owed, origin: None, among, by };
        let queues = endpoint.as_ref().is_some_and(|it| errand.is_for_brief() && it.queues(qos));
        if let Some(endpoint) = endpoint.filter(|it| allowed(it) && !queues) {
            let member = (&to.share, &to.member);
            self.deliver_as(member, &endpoint, publication, errand, &mut groups, published);
        } else {
            to.share.pass_over(&to.member.client, publication.topic);
            let mut without = to.without.clone();
            without.push(Arc::clone(&to.member.client));
            self.deliver_to_one(&to.share, without, publication, errand, &mut groups, published);
        }
        self.propose_to_groups(groups, publication, errand, published);
    }

    /// Carries a copy for a shared subscription out of a group's outbox: to the member that it was
    /// assigned to, or to the subscription's queue.
    pub(crate) fn route_copy(
        &self,
        kept: &Kept,
        copy: SharedCopy,
        (ticket, origin, by): (Option<Ticket>, Origin, Publisher),
    ) -> Published {
        let SharedCopy { filter, assigned, member, returned } = copy;
        let (publication, mut published) = (Publication::kept(kept), Published::default());
        let (owed, by, among) = (true, Some(by), Among::Brief);
        let errand = Errand { ticket, origin: Some(origin), owed, returned, among, by };
        let mut groups = SmallVec::new();
        if publication.remaining(self.clock().epoch_ms) == Some(None) {
            self.metrics.dropped(DropReason::Expired);
            published.reached = true;
            return published;
        }
        match member {
            Some(mut member) if assigned => {
                member.retain &= publication.retain;
                let client = String::from_utf8_lossy(&member.client);
                let group = self.shared.group_of(&client);
                group_share(&mut groups, group).directed.push(member);
            }
            _ if assigned => {
                let (publication, groups) = (&publication, &mut groups);
                self.deliver_to_any(&filter, publication, errand, groups, &mut published);
            }
            _ => self.keep_for(&filter, &mut groups),
        }
        self.propose_to_groups(groups, &publication, errand, &mut published);
        published
    }

    /// Delivers to whoever is connected and keeps no queue. If nobody is any more, it is not reached, and
    /// goes back to the subscription's when it is trimmed.
    fn deliver_to_any(
        &self,
        filter: &str,
        publication: &Publication<'_>,
        errand: Errand,
        groups: &mut SmallVec<[GroupShare; 2]>,
        published: &mut Published,
    ) {
        let share = match topic::parse_subscription(filter) {
            Ok(topic::Subscription::Shared(share)) => self.shared.interest.share_group(share),
            _ => None,
        };
        if let Some(share) = share.filter(|share| share.has_brief_taker()) {
            let without = Without::new();
            self.deliver_to_one(&share, without, publication, errand, groups, published);
        }
    }

    /// Gives others what a connection that kept no queue has had of shared subscriptions and has not
    /// acknowledged.
    pub(crate) fn pass_on(&self, left: Vec<(Kept, Arc<ShareGroup>)>, client: &str) {
        for (kept, share) in left {
            let publication = Publication::kept(&kept);
            let errand = Errand { owed: true, returned: true, ..Errand::default() };
            let (mut groups, mut published) = (SmallVec::new(), Published::default());
            let without = Without::from_iter([Arc::from(client)]);
            self.deliver_to_one(&share, without, &publication, errand, &mut groups, &mut published);
            self.propose_to_groups(groups, &publication, errand, &mut published);
        }
    }

    /// Whether what a member that was chosen cannot have now waits for all of them.
    fn is_for_queue(&self, member: &Member) -> bool {
        !member.is_connected() && self.shared.has_share_queues()
    }

    /// Whether a shared subscription has a queue.
    pub(super) fn has_queue(&self, share: &ShareGroup) -> bool {
        share.keeps_queues() && self.shared.has_share_queues()
    }

    pub(super) fn keep_for(&self, filter: &str, groups: &mut SmallVec<[GroupShare; 2]>) {
        let group = self.shared.group_of(filter);
        group_share(groups, group).queues.push(filter.to_owned());
    }

    /// The copy of a publication that a member gets through its queue.
    fn directed(
        &self,
        member: &Member,
        share: &ShareGroup,
        publication: &Publication<'_>,
        errand: Errand,
    ) -> Directed {
        let is_known = self.shared.has_share_queues();
        Directed {
            client: bytes::Bytes::copy_from_slice(member.client.as_bytes()),
            qos: member.qos.min(publication.qos) as u32,
            retain: publication.retain && member.retain_as_published,
            subscription_ids: member.subscription_ids.to_vec(),
            share: if is_known { share.subscribed.to_string() } else { String::new() },
            assigned: is_known && errand.returned,
        }
    }
}

/// Takes the first member of those that a publication gets to soonest.
fn take_nearest(put_off: &mut SmallVec<[(Reach, u16, Member); 1]>) -> Option<Member> {
    let nearest = (0..put_off.len()).min_by_key(|at| put_off[*at].0)?;
    Some(put_off.remove(nearest).2)
}
