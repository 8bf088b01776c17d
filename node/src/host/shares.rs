//! Shared subscriptions, as far as the leaders of groups look after them: who gets what waits for one,
//! and what of a member that is away others may have.
//!
//! What there is to do is found anew at each tick from the state and the interest index, a bounded part
//! of it at a time, so it goes on wherever a lead goes. What was asked for and is not answered yet is not
//! asked for again.

use std::time::Duration;

use cluster::{GroupId, GroupsView, OnFull};
use fleet::shard::{self, Directed, Shard};
use rustc_hash::FxHashMap;
use tokio::sync::oneshot::{self, error::TryRecvError};
use tokio::time::Instant;
use tracing::info;

use super::{Machine, NodeHost, Proposal, Reply};
use crate::courier::WINDOW;
use crate::interest::{Member, ShareGroup};

/// Subscriptions, and sessions, of one group that are looked at in one tick.
const LOOKS: usize = 256;

/// Messages that a member's queue is filled up to, and that are moved by one command.
const AT_ONCE: usize = 1000;

/// Bytes that are moved by one command.
const AT_ONCE_BYTES: u64 = 4 << 20;

/// For so long messages wait for a subscription of which this node knows no member. It may be behind.
const KEPT_WITHOUT_MEMBERS: Duration = Duration::from_secs(60);

/// What was proposed and is not decided yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Ask {
    /// That messages which wait for a subscription go to members.
    Assign(Box<str>),
    /// That what a session has of a subscription goes to others.
    Release(u64, Box<str>),
    /// That a session begins with QoS 2 messages.
    Begin(u64),
}

/// What a node keeps of a group's shared subscriptions.
#[derive(Default)]
pub(super) struct Shares {
    asked: FxHashMap<Ask, Vec<Answer>>,
    /// The session, and the subscription, that was looked at last.
    looked_at: (u64, String),
    /// Since when subscriptions for which something waits have no members.
    memberless: FxHashMap<Box<str>, Instant>,
    /// Counts what was assigned, so that it is another member's turn.
    turn: usize,
}

type Answer = oneshot::Receiver<Result<super::Outcome, cluster::Refusal>>;

impl Shares {
    /// Another node leads the group.
    pub(super) fn lost(&mut self) {
        self.memberless.clear();
    }

    /// Forgets what is decided; gives the sessions that might ask again whether they may begin.
    fn settle(&mut self) -> Vec<u64> {
        let mut again = Vec::new();
        self.asked.retain(|ask, answers| {
            answers.retain_mut(|answer| matches!(answer.try_recv(), Err(TryRecvError::Empty)));
            if let (Ask::Begin(session), true) = (ask, answers.is_empty()) {
                again.push(*session);
            }
            !answers.is_empty()
        });
        again
    }
}

impl NodeHost {
    /// Proposes that what waits for shared subscriptions goes to members, and what members that are away
    /// have goes to others, in the groups that this node leads.
    pub(super) fn tend_shares(&mut self, groups: &GroupsView<'_, Machine>) {
        for group in groups.ids() {
            let Some(shard) = groups.get(group).and_then(Machine::shard) else { continue };
            for session in self.beside.entry(group).or_default().shares.settle() {
                self.pump(group, shard, session);
            }
            let stats = shard.stats();
            let is_crowded = stats.outbox as u64 > WINDOW / 2;
            if !groups.leads(group) || is_crowded || !self.shared.has_share_queues() {
                continue;
            }
            self.release_held(group, shard);
            self.assign_waiting(groups, group, shard);
        }
    }

    /// Proposes a command once.
    fn ask(&mut self, group: GroupId, ask: Ask, commands: Vec<shard::Command>) {
        let shares = &mut self.beside.entry(group).or_default().shares;
        if shares.asked.contains_key(&ask) || commands.is_empty() {
            return;
        }
        let mut answers = Vec::with_capacity(commands.len());
        // A session gets nothing until it has begun, and shrinks with what it gets; all else makes the log grow
        // for what has time.
        let on_full = match ask {
            Ask::Begin(_) => OnFull::Wait,
            Ask::Assign(_) | Ask::Release(..) => OnFull::Refuse,
        };
        for command in commands {
            let (answer, decided) = oneshot::channel();
            answers.push(decided);
            let asked = Proposal::asked(group, command.encoded(), Reply::Once(answer));
            self.owed.push_back(Proposal { on_full, ..asked });
        }
        shares.asked.insert(ask, answers);
    }

    /// QoS 2 messages of shared subscriptions are about to be sent to a session.
    pub(super) fn ask_to_begin(&mut self, group: GroupId, session: &shard::Session, below: u64) {
        let (client, epoch) = (session.client().clone(), session.epoch());
        let command = shard::BeginShared { client, epoch, below };
        self.ask(group, Ask::Begin(session.id()), vec![command.into()]);
    }

    /// What members that are away have goes to the subscription's queue while another one is connected.
    fn release_held(&mut self, group: GroupId, shard: &Shard) {
        let (after, _) = self.beside.entry(group).or_default().shares.looked_at;
        let sessions: Vec<_> = shard.holding_after(after).take(LOOKS).collect();
        let last = sessions.last().filter(|_| sessions.len() == LOOKS).map_or(0, |it| it.id());
        self.beside.entry(group).or_default().shares.looked_at.0 = last;
        for session in sessions {
            for filter in session.holds_of() {
                let share = self.share_group(filter);
                if share.is_none_or(|share| !share.has_taker_beside(session.client()))
                    || !session.may_return(filter)
                {
                    continue;
                }
                let command = shard::ReleaseShared {
                    client: session.client().clone(),
                    epoch: session.epoch(),
                    filter: filter.to_owned(),
                    most: AT_ONCE as u32,
                    most_bytes: AT_ONCE_BYTES,
                };
                let ask = Ask::Release(session.id(), filter.into());
                self.ask(group, ask, vec![command.into()]);
            }
        }
    }

    /// What waits for subscriptions goes to members that are connected and have room.
    fn assign_waiting(&mut self, groups: &GroupsView<'_, Machine>, group: GroupId, shard: &Shard) {
        let after = self.beside.entry(group).or_default().shares.looked_at.1.clone();
        let waiting: Vec<_> = shard.waiting_after(&after).take(LOOKS).collect();
        let last = waiting.last().filter(|_| waiting.len() == LOOKS);
        let last = last.map_or("", |(filter, ..)| filter).to_owned();
        self.beside.entry(group).or_default().shares.looked_at.1 = last;
        for (filter, count, next_bytes) in waiting {
            let share = self.share_group(filter);
            if self.has_no_members(group, filter, share.is_none()) {
                info!(
                    filter,
                    count, "messages of a shared subscription without members are dropped"
                );
                let command = shard::ForgetShared { filter: filter.to_owned() };
                self.ask(group, Ask::Assign(filter.into()), vec![command.into()]);
                continue;
            }
            // What is under way would find its way into a queue that seemed to have room.
            let Some(share) = share.filter(|_| shard.assigned(filter) == 0) else { continue };
            let mut takers = self.takers(groups, &share, next_bytes as u64);
            let turn = &mut self.beside.entry(group).or_default().shares.turn;
            *turn = turn.wrapping_add(1);
            let first = *turn % takers.len().max(1);
            takers.rotate_left(first);
            let commands = portions(filter, count, takers, crate::clock::now_ms());
            self.ask(group, Ask::Assign(filter.into()), commands);
        }
    }

    /// Whether a subscription has had no members for so long that none is to be expected.
    fn has_no_members(&mut self, group: GroupId, filter: &str, has_none: bool) -> bool {
        let memberless = &mut self.beside.entry(group).or_default().shares.memberless;
        if !has_none {
            memberless.remove(filter);
            return false;
        }
        match memberless.get(filter) {
            Some(since) if since.elapsed() >= KEPT_WITHOUT_MEMBERS => {
                memberless.remove(filter);
                true
            }
            Some(_) => false,
            None => {
                memberless.insert(filter.into(), Instant::now());
                false
            }
        }
    }

    fn share_group(&self, filter: &str) -> Option<std::sync::Arc<ShareGroup>> {
        let Ok(topic::Subscription::Shared(share)) = topic::parse_subscription(filter) else {
            return None;
        };
        self.shared.interest.share_group(share)
    }

    /// The members that are connected and have room for the next message. Only where there is none that keeps
    /// a queue, others come in, all as one: what was stored stays so.
    fn takers(
        &self,
        groups: &GroupsView<'_, Machine>,
        share: &ShareGroup,
        next_bytes: u64,
    ) -> Vec<Taker> {
        let mut takers = Vec::new();
        let mut others = 0;
        for member in share.takers() {
            let Some(group) = member.group else {
                others += 1;
                continue;
            };
            let shard = groups.get(group.into()).and_then(Machine::shard);
            let session = shard.and_then(|shard| shard.session(member.client.as_bytes()));
            let Some(session) = session.filter(|session| session.connected()) else { continue };
            let (messages, bytes) = session.room();
            let messages = messages.min(AT_ONCE.saturating_sub(session.queued()));
            if messages > 0 && bytes >= next_bytes {
                takers.push(Taker { member: Some(assigned(&member, share)), messages, bytes });
            }
        }
        if others > 0 && takers.is_empty() {
            let bytes = AT_ONCE_BYTES;
            takers.push(Taker { member: None, messages: AT_ONCE, bytes });
        }
        takers
    }
}

/// Who can have messages, and how many.
struct Taker {
    member: Option<Directed>,
    messages: usize,
    bytes: u64,
}

/// The commands by which members share what waits.
fn portions(filter: &str, waiting: usize, takers: Vec<Taker>, at: u64) -> Vec<shard::Command> {
    let fair = waiting.div_ceil(takers.len().max(1));
    let mut left = waiting;
    let mut commands = Vec::new();
    for Taker { member, messages, bytes } in takers {
        let most = messages.min(fair).min(left);
        if most == 0 {
            break;
        }
        left -= most;
        let (filter, most) = (filter.to_owned(), most as u32);
        let most_bytes = bytes.min(AT_ONCE_BYTES);
        commands.push(shard::AssignShared { filter, member, at, most, most_bytes }.into());
    }
    commands
}

/// The copies that a member gets; RETAIN only of those that had it.
fn assigned(member: &Member, share: &ShareGroup) -> Directed {
    Directed {
        client: bytes::Bytes::copy_from_slice(member.client.as_bytes()),
        qos: member.qos as u32,
        retain: member.retain_as_published,
        subscription_ids: member.subscription_ids.to_vec(),
        share: share.subscribed.to_string(),
        assigned: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_share_what_waits_as_far_as_they_have_room() {
        for (waiting, rooms, expected) in [
            (10, vec![], vec![]),
            (10, vec![100], vec![10]),
            (10, vec![3], vec![3]),
            (10, vec![100, 100, 100], vec![4, 4, 2]),
            (10, vec![1, 100], vec![1, 5]),
            (1, vec![5, 5], vec![1]),
        ] {
            let taker = |messages| Taker { member: None, messages, bytes: 1 };
            let takers = rooms.iter().copied().map(taker).collect();
            let given: Vec<_> = portions("$share/g/t", waiting, takers, 0)
                .into_iter()
                .map(|command| match command.kind {
                    Some(shard::Kind::AssignShared(assign)) => assign.most,
                    other => panic!("{other:?}"),
                })
                .collect();
            assert_eq!(given, expected, "{waiting} for {rooms:?}");
        }
    }
}
