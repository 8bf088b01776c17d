//! What the node does with what its groups decided. Runs on the raft thread.
//!
//! Answers and queue entries are collected per core and handed over once per turn. Nothing here
//! waits: what the host itself proposes is kept until the inbox takes it. That is bounded by what
//! the groups hold already: sessions that a restart has to end, queue entries that have expired.

mod balance;
mod holders;
mod machine;
mod members;
mod message;
mod recorder;
mod registry;
mod shares;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use cluster::{GroupId, GroupsView, Host, Refusal};
use fleet::registry::{Command, Timestamp};
use fleet::shard::delivery::{Content, Dispatcher};
use fleet::shard::{self, Effects, Instance, Interest, OutboxEntry, Shard};
use rustc_hash::FxHashMap;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{info, warn};

use holders::Holders;
use message::{doom, failure};
use recorder::Recorder;
use shares::Shares;

pub use machine::{Machine, Outcome};
pub use message::{Failure, Groups, Handout, HandoutKind, Look, Proposal, Reply, Signal, refuse};

use crate::clock::now_ms;
use crate::core::{Core, Ticket, ToCore, Uses};
use crate::courier::WINDOW;
use crate::identity;
use crate::interest::{Destination, Live, Wants};
use crate::publication::qos_of;
use crate::shared::Shared;

/// Entries and bytes of one group's outbox from which on publishers have to wait.
const LONG_OUTBOX: usize = 32 * 1024;
const LONG_OUTBOX_BYTES: usize = 32 << 20;

/// What one turn has for one core.
#[derive(Default)]
struct ForCore {
    results: Vec<(Ticket, Result<(), Failure>)>,
    queued: Vec<Handout>,
    outboxes: Vec<(u16, Vec<OutboxEntry>)>,
}

/// What the node keeps beside a shard.
#[derive(Default)]
struct Beside {
    dispatcher: Dispatcher<Live>,
    /// The first outbox entry that no core has been given.
    next_outbox: u64,
    /// Whether publishers have to wait for the outbox.
    outbox_is_long: bool,
    /// Whether this node leads the group: then its outbox and its timers are this node's business.
    leads: bool,
    holders: Holders,
    /// Client ids of sessions in shared subscriptions.
    members: FxHashMap<u64, Box<str>>,
    shares: Shares,
}

/// See the module.
pub struct NodeHost {
    shared: Arc<Shared>,
    /// When a lead was last looked for that is another node's.
    balanced: Instant,
    /// Since when this node leads the members' group.
    leads_meta_since: Option<Instant>,
    /// When it last gave that lead up for somebody who does not believe it.
    gave_way: Option<Instant>,
    /// The other nodes, and which of them are lost.
    lost: Vec<(Instance, bool)>,
    /// When the members of the cluster were last looked after.
    tended: Instant,
    /// Whether this node knew of all subscriptions at the last tick.
    was_current: bool,
    /// Whether the log may have lost its end.
    accepts_log_loss: bool,
    /// Whether the log is replayed. What its commands meant then was for a node that is no more.
    is_started: bool,
    beside: FxHashMap<GroupId, Beside>,
    for_cores: Vec<ForCore>,
    effects: Effects,
    /// What the node itself has to propose, in order.
    owed: VecDeque<Proposal>,
    /// What outboxes have had since a backup was begun.
    recorder: Option<Recorder>,
    /// Where the outboxes ended in the backup that the state was restored from.
    restored: BTreeMap<GroupId, u64>,
    gauges_at: u64,
    /// What this node wants of the members of the cluster, as it was last recorded.
    recorded_duties: Vec<Command>,
    /// The first of the certificates whose deletion was recorded last.
    recorded_sweep: Option<Timestamp>,
    stopped: Option<oneshot::Sender<Option<String>>>,
}

impl NodeHost {
    /// The host of this node, whose outboxes ended so in the backup that it was restored from, if it
    /// was; `stopped` is told when the raft thread ends, with the error if there
    /// was one.
    pub fn new(
        shared: Arc<Shared>,
        raft: &cluster::Config,
        restored: BTreeMap<GroupId, u64>,
        stopped: oneshot::Sender<Option<String>>,
    ) -> Self {
        let for_cores = shared.cores.iter().map(|_| ForCore::default()).collect();
        Self {
            shared,
            balanced: Instant::now(),
            leads_meta_since: None,
            gave_way: None,
            lost: Vec::new(),
            tended: Instant::now(),
            was_current: false,
            accepts_log_loss: raft.accept_log_loss,
            is_started: false,
            beside: FxHashMap::default(),
            for_cores,
            effects: Effects::default(),
            owed: VecDeque::new(),
            recorder: None,
            restored,
            gauges_at: 0,
            recorded_duties: Vec::new(),
            recorded_sweep: None,
            stopped: Some(stopped),
        }
    }

    fn result(&mut self, ticket: Ticket, taken: Result<(), Failure>) {
        self.for_cores[usize::from(ticket.core())].results.push((ticket, taken));
    }

    fn answer(&mut self, reply: Reply, outcome: Outcome) {
        match reply {
            Reply::Ticket(ticket) => {
                let taken = failure(&outcome).map_or(Ok(()), |why| Err(Failure::Outcome(why)));
                self.result(ticket, taken);
            }
            Reply::Released(live, seqs) => {
                let queued = &mut self.for_cores[usize::from(live.core)].queued;
                let release = |seq| Handout { live, seq, kind: HandoutKind::Release };
                queued.extend(seqs.into_iter().map(release));
            }
            // Whoever asked may have gone away.
            Reply::Once(answer) => drop(answer.send(Ok(outcome))),
        }
    }

    /// Ends a connection that this node has opened a session for, and that nobody waits for any more.
    fn end_unwanted(&mut self, group: GroupId, machine: &Machine, connected: &shard::Connected) {
        let session = machine.shard().and_then(|shard| shard.session_by_id(connected.session));
        let own = self.shared.mesh.own;
        let Some(session) = session.filter(|it| self.is_started && it.holder() == own) else {
            return;
        };
        let command = shard::Disconnect {
            client: session.client().clone(),
            epoch: connected.epoch,
            at: now_ms(),
            will: shard::WillAction::Discard.into(),
            by: own.0,
            reason: shard::DisconnectReason::ConnectionLost.into(),
            heard: self.is_heard(session.client()),
            ..shard::Disconnect::default()
        };
        self.owe(group, command.into());
    }

    /// Whether anybody listens for the connections of a client.
    fn is_heard(&self, client: &[u8]) -> bool {
        std::str::from_utf8(client).is_ok_and(|client| self.shared.hears_presence(client))
    }

    /// Does what the applied commands mean for this node.
    fn carry_out(&mut self, group: GroupId, shard: &mut Shard) {
        let mut effects = std::mem::take(&mut self.effects);
        shard.drain_effects(&mut effects);
        if !self.is_started {
            self.effects = effects;
            return;
        }
        for interest in effects.interest.drain(..) {
            self.note_interest(group, interest);
        }
        for session in effects.grown.drain(..) {
            self.pump(group, shard, session);
        }
        if effects.outbox_grew {
            self.record_outbox(group, shard);
        }
        if effects.outbox_grew || effects.outbox_trimmed {
            self.send_outbox(group, shard);
        }
        for removed in effects.removed.drain(..) {
            let beside = self.beside.entry(group).or_default();
            beside.dispatcher.forget(removed.session);
            beside.members.remove(&removed.session);
        }
        self.delete_connections(&mut effects.deletions);
        self.note_holders(group, &mut effects.contested, &mut effects.vacated);
        if effects.dropped > 0 {
            metrics::counter!("session_queue_dropped_total", "reason" => "full")
                .increment(effects.dropped);
        }
        if effects.expired > 0 {
            metrics::counter!("session_queue_dropped_total", "reason" => "expired")
                .increment(effects.expired);
        }
        self.effects = effects;
    }

    fn note_interest(&mut self, group: GroupId, interest: Interest) {
        let number = group.0 as u16;
        let shared = Arc::clone(&self.shared);
        let index = &shared.interest;
        match interest {
            Interest::Wanted { filter } => {
                index.set(filter, Destination::Group(number), Some(Wants::Everything));
            }
            Interest::Unwanted { filter } => index.set(filter, Destination::Group(number), None),
            Interest::Joined(joined) => {
                let share = topic::Share { name: &joined.share, filter: &joined.filter };
                let Ok(client) = std::str::from_utf8(&joined.client) else { return };
                let options = joined.options;
                let members = &mut self.beside.entry(group).or_default().members;
                members.entry(joined.session).or_insert_with(|| client.into());
                index.share(share, client, |member| {
                    member.group = (options.qos > 0).then_some(number);
                    member.connected = joined.connected;
                    member.qos = qos_of(options.qos);
                    member.retain_as_published = options.retain_as_published;
                    member.subscription_ids =
                        Some(options.subscription_id).filter(|id| *id != 0).into_iter().collect();
                });
            }
            Interest::PassedOver { share, session, topic } => {
                let members = &self.beside.entry(group).or_default().members;
                let (Some(client), Ok(topic::Subscription::Shared(share))) =
                    (members.get(&session), topic::parse_subscription(&share))
                else {
                    return;
                };
                if let Some(share) = index.share_group(share) {
                    share.pass_over(client, std::str::from_utf8(&topic).unwrap_or_default());
                }
            }
            Interest::Left { share, filter, session } => {
                let members = &self.beside.entry(group).or_default().members;
                let Some(client) = members.get(&session) else { return };
                let share = topic::Share { name: &share, filter: &filter };
                index.share(share, client, |member| member.group = None);
            }
        }
    }

    /// Hands out what a session's window allows.
    fn pump(&mut self, group: GroupId, shard: &Shard, session: u64) {
        let for_cores = &mut self.for_cores;
        let beside = self.beside.entry(group).or_default();
        let mut emit = |live: &Live, delivery: shard::delivery::Delivery<'_>| {
            let kind = match delivery.content {
                Content::Release => HandoutKind::Release,
                Content::Publish { qos, dup, retain, subscription_ids, publication } => {
                    HandoutKind::Publish {
                        qos: qos_of(qos.into()),
                        dup,
                        retain,
                        subscription_ids: subscription_ids.into(),
                        publication: Arc::clone(publication),
                    }
                }
            };
            let handout = Handout { live: *live, seq: delivery.seq, kind };
            for_cores[usize::from(live.core)].queued.push(handout);
        };
        let pumped = beside.dispatcher.pump(shard, session, now_ms(), &mut emit);
        let Some(session) = shard.session_by_id(session) else { return };
        if let Some(below) = pumped.begin_below {
            self.ask_to_begin(group, session, below);
        }
        if !pumped.expired.is_empty() {
            let command = shard::Acknowledge {
                client: session.client().clone(),
                epoch: session.epoch(),
                seqs: pumped.expired,
                refused: Vec::new(),
            };
            self.owe(group, command.into());
        }
    }

    /// Hands out what the outbox's window allows.
    fn send_outbox(&mut self, group: GroupId, shard: &Shard) {
        let stats = shard.stats();
        let beside = self.beside.entry(group).or_default();
        let was_long = beside.outbox_is_long;
        // Only after it has become much shorter may publishers go on.
        let share = if was_long { 2 } else { 1 };
        beside.outbox_is_long =
            stats.outbox * share > LONG_OUTBOX || stats.outbox_bytes * share > LONG_OUTBOX_BYTES;
        if beside.outbox_is_long != was_long {
            let long = self.long_outboxes();
            self.shared.set_long_outboxes(long);
            let (entries, bytes) = (stats.outbox, stats.outbox_bytes);
            match was_long {
                true => info!(%group, entries, bytes, "publishers wait for the outbox no longer"),
                false => warn!(%group, entries, bytes, "publishers wait for a long outbox: a \
                    subscriber of wills, shadows or QoS 2 publications does not keep up"),
            }
        }
        let begins = shard.outbox_begins();
        let beside = self.beside.entry(group).or_default();
        beside.next_outbox = beside.next_outbox.max(begins);
        if !beside.leads || !self.shared.currency.is_current() {
            return;
        }
        let room = WINDOW - (beside.next_outbox - begins).min(WINDOW);
        let entries = shard.outbox(beside.next_outbox).take(room as usize);
        let entries: Vec<_> = entries.cloned().collect();
        let Some(last) = entries.last() else { return };
        beside.next_outbox = last.seq + 1;
        let group = group.0 as u16;
        let core = self.shared.courier_of(group);
        self.for_cores[usize::from(core)].outboxes.push((group, entries));
    }

    fn long_outboxes(&self) -> u64 {
        let long = self.beside.iter().filter(|(_, beside)| beside.outbox_is_long);
        long.fold(0, |mask, (group, _)| mask | Uses::outbox_bit(group.0 as u16))
    }

    /// A command that would publish a will discards it if the policies of its client no longer allow
    /// it.
    fn without_denied_will(
        &self,
        groups: &GroupsView<'_, Machine>,
        shard: &Shard,
        mut command: shard::Command,
    ) -> shard::Command {
        let registry = groups.get(GroupId::META).and_then(Machine::registry);
        let denied = |client: &[u8]| {
            let session = shard.session(client)?;
            let allowed = identity::may_publish_will(registry?, &self.shared.arns, session)?;
            (!allowed).then_some(())
        };
        match &mut command.kind {
            Some(shard::Kind::FireWill(due)) => due.discard = denied(&due.client).is_some(),
            Some(shard::Kind::Expire(due)) => due.discard_will = denied(&due.client).is_some(),
            Some(shard::Kind::Disconnect(end)) if denied(&end.client).is_some() => {
                end.will = shard::WillAction::Discard.into();
            }
            _ => {}
        }
        command
    }

    /// Proposes a command that nobody would name again.
    fn owe(&mut self, group: GroupId, command: shard::Command) {
        self.owed.push_back(Proposal::owed(group, command.encoded()));
    }

    /// A group whose log has lost its end gives the numbers of lost outbox entries to others, which
    /// the groups that have seen them must not take for repetitions.
    fn forget_what_was_lost(&mut self, groups: &GroupsView<'_, Machine>) {
        let ids = groups.ids();
        let shards = || ids.iter().filter_map(|&id| Some((id, groups.get(id)?.shard()?)));
        let ends: Vec<_> = shards().map(|(id, shard)| (id, shard.outbox_ends())).collect();
        let mut forgotten = Vec::new();
        for (id, shard) in shards() {
            for &(group, from) in &ends {
                let group = u64::from(group.0);
                if shard.seen_of(group) >= from {
                    forgotten.push((id, shard::ForgetOrigin { group, from }));
                }
            }
        }
        for (id, command) in forgotten {
            warn!(group = %id, of = command.group, from = command.from, "outbox entries were lost");
            self.owe(id, command.into());
        }
    }

    /// All commands of an outbox entry become durable together and in the order of the entries
    /// ([`cluster::OnFull::Follow`]), so an entry that any group has seen is with all groups, and so is every
    /// one before it. Routed again, its shared subscriptions might choose other members. Entries that
    /// a backup has brought are another matter: groups are read at different times for one.
    fn trim_what_was_placed(&mut self, groups: &GroupsView<'_, Machine>) {
        let ids = groups.ids();
        let shards = || ids.iter().filter_map(|&id| Some((id, groups.get(id)?.shard()?)));
        for (id, shard) in shards() {
            let seen = shards().map(|(_, other)| other.seen_of(id.0.into())).max().unwrap_or(0);
            // What was seen and is lost is no entry any more.
            let upto = seen.min(shard.outbox_ends() - 1);
            if self.restored.get(&id).is_some_and(|&end| upto < end) {
                continue;
            }
            if upto >= shard.outbox_begins() {
                self.beside.entry(id).or_default().next_outbox = upto + 1;
                // It was on its way to connections, and these have ended with the node.
                let given = shard.outbox(0).filter(|entry| entry.is_for_anybody());
                let returned = given.map(|entry| entry.seq).filter(|seq| *seq <= upto).collect();
                self.owe(id, shard::TrimOutbox { upto, returned }.into());
            }
        }
    }

    /// Has publications for queues refused while those hold too much together.
    fn look_at_queues(&self, groups: &GroupsView<'_, Machine>) {
        let ids = groups.ids().into_iter();
        let shards = ids.filter_map(|id| groups.get(id)?.shard());
        let bytes: usize = shards.map(|shard| shard.stats().message_bytes).sum();
        let is_full = bytes as u64 > self.shared.limits.queues_bytes;
        if self.shared.queues_full.swap(is_full, Ordering::Relaxed) != is_full {
            match is_full {
                true => warn!(
                    bytes,
                    "publications for queues are refused: sessions that are away \
                    hold as much as limits.queues_bytes allows"
                ),
                false => info!(bytes, "publications for queues are taken again"),
            }
        }
    }

    /// Notes what this node has lost, and goes on with the outboxes once it knows of everything.
    fn look_at_currency(&mut self, groups: &GroupsView<'_, Machine>) {
        let currency = &self.shared.currency;
        let is_damaged = |&id: &GroupId| groups.status(id).is_some_and(|status| status.damaged);
        if self.shared.mesh.has_peers() && groups.ids().iter().any(is_damaged) {
            currency.lose();
        }
        let is_current = currency.is_current();
        if std::mem::replace(&mut self.was_current, is_current) || !is_current {
            return;
        }
        for id in groups.ids() {
            if let Some(shard) = groups.get(id).and_then(Machine::shard) {
                self.send_outbox(id, shard);
            }
        }
    }

    /// Proposes what is owed, as much as the inbox takes.
    fn propose_owed(&mut self) {
        const AT_ONCE: usize = 1024;
        while !self.owed.is_empty() {
            let some = self.owed.drain(..self.owed.len().min(AT_ONCE)).collect();
            let Err(refused) = self.shared.groups.try_propose_all(some) else { continue };
            if refused.why == Refusal::Busy {
                for proposal in refused.what.into_iter().rev() {
                    self.owed.push_front(proposal);
                }
            }
            return;
        }
    }
}

impl Host<Machine> for NodeHost {
    type Reply = Reply;
    type Signal = Signal;

    fn applied(
        &mut self,
        group: GroupId,
        machine: &mut Machine,
        reply: Option<Reply>,
        outcome: Outcome,
    ) {
        if let (Outcome::Shard(shard::Outcome::Shadow(answer)), Some(_)) = (&outcome, &reply) {
            crate::metrics::shadow_operation("change", answer.accepted());
        }
        match machine {
            Machine::Shard(shard) => self.carry_out(group, shard),
            Machine::Meta(registry) => {
                let changed = registry.take_changes();
                if !changed.is_empty() && self.is_started {
                    let changed = Arc::new(changed);
                    self.shared.on_every_core(move |core| core.principals_changed(&changed));
                }
            }
        }
        match (reply, outcome) {
            (Some(reply), outcome) => self.answer(reply, outcome),
            (None, Outcome::Shard(shard::Outcome::Connected(connected))) => {
                self.end_unwanted(group, machine, &connected);
            }
            (None, _) => {}
        }
    }

    fn led(&mut self, group: GroupId, machine: &mut Machine) {
        let beside = self.beside.entry(group).or_default();
        beside.leads = true;
        beside.holders.look_anew();
        if let Machine::Shard(shard) = machine {
            self.send_outbox(group, shard);
        }
    }

    fn lost(&mut self, group: GroupId) {
        let beside = self.beside.entry(group).or_default();
        (beside.leads, beside.next_outbox) = (false, 0);
        beside.shares.lost();
        let group = group.0 as u16;
        let forget = Box::new(move |core: &std::rc::Rc<Core>| {
            core.couriers.borrow_mut().forget(group);
        });
        self.shared.send(self.shared.courier_of(group), ToCore::Run(forget));
    }

    fn replaced(&mut self, group: GroupId, machine: &mut Machine) {
        match machine {
            Machine::Meta(_) => {
                let everybody =
                    Arc::new(fleet::registry::Changes { all: true, ..Default::default() });
                self.shared.on_every_core(move |core| core.principals_changed(&everybody));
            }
            Machine::Shard(shard) => {
                // What was recorded of it has a gap.
                self.recorder = None;
                self.shared.interest.forget_group(group.0 as u16);
                self.beside.entry(group).or_default().members.clear();
                for interest in shard.interests() {
                    self.note_interest(group, interest);
                }
                self.reconcile(group, shard);
                let attached = self.beside.entry(group).or_default().dispatcher.attached();
                for session in attached.collect::<Vec<_>>() {
                    self.pump(group, shard, session);
                }
                self.send_outbox(group, shard);
            }
        }
    }

    fn refused(&mut self, reply: Reply, why: Refusal) {
        match reply {
            Reply::Ticket(ticket) => self.result(ticket, Err(Failure::Refused(why))),
            Reply::Released(live, _) => {
                let run = Box::new(move |core: &std::rc::Rc<Core>| doom(core, live, why));
                self.shared.send(live.core, ToCore::Run(run));
            }
            Reply::Once(answer) => drop(answer.send(Err(why))),
        }
    }

    fn signal(&mut self, groups: &mut GroupsView<'_, Machine>, signal: Signal) {
        match signal {
            Signal::Attach { group, session, epoch, window, live } => {
                let Some(shard) = groups.get(group).and_then(Machine::shard) else { return };
                let beside = self.beside.entry(group).or_default();
                if beside.dispatcher.attach(shard, session, epoch, window, live) {
                    self.pump(group, shard, session);
                }
            }
            Signal::Detach { group, session, epoch } => {
                self.beside.entry(group).or_default().dispatcher.detach(session, epoch);
            }
            Signal::Acknowledged { group, session, seqs } => {
                let Some(shard) = groups.get(group).and_then(Machine::shard) else { return };
                let beside = self.beside.entry(group).or_default();
                for seq in seqs {
                    beside.dispatcher.acknowledged(session, seq);
                }
                self.pump(group, shard, session);
            }
            Signal::AwaitVacancy { group, client, vacant } => {
                let Some(shard) = groups.get(group).and_then(Machine::shard) else { return };
                self.await_vacancy(group, shard, client, vacant);
            }
            Signal::Record(begins) => self.record_outboxes(begins.then_some(groups)),
            Signal::Recorded { group, answer } => self.tell_recorded(group, answer),
            Signal::Read(read) => read(groups),
        }
    }

    fn ticked(
        &mut self,
        groups: &mut GroupsView<'_, Machine>,
        now_ms: u64,
    ) -> Vec<(GroupId, Bytes)> {
        const AT_ONCE: usize = 1000;
        const GAUGES_EVERY_MS: u64 = 1000;
        if now_ms >= self.gauges_at {
            self.gauges_at = now_ms + GAUGES_EVERY_MS;
            let shards = groups.ids();
            let shards = shards.iter().filter_map(|id| groups.get(*id)?.shard());
            crate::metrics::set_stored(shards.map(shard::Shard::stats));
            Self::tell_revocation_lists(groups);
        }
        self.look_at_queues(groups);
        self.look_at_currency(groups);
        self.let_go(groups);
        self.end_lost(groups);
        self.balance(groups);
        let mut commands = self.tend_members(groups);
        commands.extend(self.sweep(groups, now_ms));
        self.announce(groups);
        self.wake_registration(groups, now_ms);
        self.tend_shares(groups);
        for group in groups.ids() {
            let Some(shard) = groups.get(group).and_then(Machine::shard) else { continue };
            if !groups.leads(group) {
                continue;
            }
            if shard.next_deadline().is_some_and(|at| at <= now_ms) {
                let due = shard.due(now_ms, AT_ONCE).into_iter();
                let due = due.map(|command| self.without_denied_will(groups, shard, command));
                commands.extend(due.map(|command| (group, command.encoded())));
            }
        }
        commands
    }

    fn turn_ended(&mut self) {
        self.propose_owed();
        for (core, for_core) in self.for_cores.iter_mut().enumerate() {
            let ForCore { results, queued, outboxes } = for_core;
            if results.is_empty() && queued.is_empty() && outboxes.is_empty() {
                continue;
            }
            let ForCore { results, queued, outboxes } = std::mem::take(for_core);
            self.shared.send(core as u16, ToCore::FromGroups { results, queued, outboxes });
        }
    }

    fn started(&mut self, groups: &mut GroupsView<'_, Machine>) {
        self.is_started = true;
        self.note_members(groups);
        if self.accepts_log_loss {
            self.forget_what_was_lost(groups);
        }
        if !self.shared.mesh.has_peers() {
            self.trim_what_was_placed(groups);
        }
        let mut sessions = 0;
        for group in groups.ids() {
            let Some(Machine::Shard(shard)) = groups.get_mut(group) else { continue };
            for interest in shard.interests() {
                self.note_interest(group, interest);
            }
            sessions += shard.stats().sessions;
        }
        for group in groups.ids() {
            let Some(shard) = groups.get(group).and_then(Machine::shard) else { continue };
            // Of its own earlier lives; what other nodes hold, leaders see to.
            let own = self.shared.mesh.own;
            let is_gone = |holder: Instance| !holder.keeps_out(own) && holder != own;
            // Others may have begun to listen while this node was away.
            let is_heard = |client: &[u8]| match self.shared.mesh.has_peers() {
                true => self.shared.lifecycle_events,
                false => self.is_heard(client),
            };
            for command in shard.ends_of(is_gone, is_heard, now_ms()) {
                let command = self.without_denied_will(groups, shard, command);
                self.owe(group, command);
            }
        }
        info!(sessions, "state restored");
    }

    fn stopped(&mut self, error: Option<&cluster::Error>) {
        if let Some(stopped) = self.stopped.take() {
            let _ = stopped.send(error.map(ToString::to_string));
        }
    }
}
