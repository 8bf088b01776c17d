//! What the node does with what its groups decided. Runs on the raft thread.
//!
//! Answers and queue entries are collected per core and handed over once per turn. Nothing here
//! waits: what the host itself proposes is kept until the inbox takes it. That is bounded by what
//! the groups hold already: by sessions that a restart has to end, and by receive windows.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use cluster::{
    GroupId, GroupsView, Host, LoadError, OnFull, Pairs, Refusal, StateMachine, Unreadable,
};
use fleet::registry::{self, Registry};
use fleet::shard::delivery::{Content, Dispatcher};
use fleet::shard::{self, Effects, Interest, Shard};
use mqtt::{QoS, Reason};
use rustc_hash::FxHashMap;
use tokio::sync::oneshot;
use tracing::{info, warn};

use crate::clock::now_ms;
use crate::core::{Core, Ticket, ToCore};
use crate::courier::WINDOW;
use crate::endpoint::SubscriptionIds;
use crate::interest::{Destination, Live};
use crate::publication::Kept;
use crate::shared::Shared;

/// Entries and bytes of one group's outbox from which on publishers have to wait.
const LONG_OUTBOX: usize = 32 * 1024;
const LONG_OUTBOX_BYTES: usize = 32 << 20;

/// The state of a group.
pub enum Machine {
    /// Group 0.
    Meta(Box<Registry>),
    /// Every other group.
    Shard(Box<Shard>),
}

/// What came of a command.
#[derive(Debug)]
pub enum Outcome {
    /// Of the registry.
    Registry(Result<registry::Outcome, registry::Rejection>),
    /// Of a shard.
    Shard(shard::Outcome),
}

/// Who hears what came of a command.
#[derive(Debug)]
pub enum Reply {
    /// A publication is safe.
    Ticket(Ticket),
    /// PUBREC of a persistent session is recorded: PUBREL may leave for these.
    Released(Live, Vec<u64>),
    /// Somebody waits for the outcome itself.
    Once(oneshot::Sender<Result<Outcome, Refusal>>),
}

/// A look at the state, on the thread that owns it.
pub type Look = Box<dyn FnOnce(&mut GroupsView<'_, Machine>) + Send>;

/// A message to the groups of this node that needs no log.
pub enum Signal {
    /// A connection of a session is ready for its queue.
    Attach {
        /// The session's group.
        group: GroupId,
        /// The session.
        session: u64,
        /// Its fencing token.
        epoch: u64,
        /// Receive Maximum of the client.
        window: u16,
        /// The connection.
        live: Live,
    },
    /// The connection is gone.
    Detach {
        /// The session's group.
        group: GroupId,
        /// The session.
        session: u64,
        /// Its fencing token.
        epoch: u64,
    },
    /// Entries are acknowledged: there is room for more.
    Acknowledged {
        /// The session's group.
        group: GroupId,
        /// The session.
        session: u64,
        /// Places in its queue.
        seqs: Vec<u64>,
    },
    /// A look at the state.
    Read(Look),
}

/// The handle to the groups.
pub type Groups = cluster::Groups<Reply, Signal>;

/// A command and who hears what came of it.
pub type Proposal = cluster::Proposal<Reply>;

/// A queue entry on its way to a connection.
#[derive(Debug)]
pub struct Handout {
    /// The connection.
    pub live: Live,
    /// Its place in the session's queue.
    pub seq: u64,
    /// What is sent.
    pub kind: HandoutKind,
}

/// What is sent for a queue entry.
#[derive(Debug)]
pub enum HandoutKind {
    /// PUBLISH.
    Publish {
        /// 1 or 2.
        qos: QoS,
        /// May have been sent before.
        dup: bool,
        /// RETAIN.
        retain: bool,
        /// Subscription identifiers.
        subscription_ids: SubscriptionIds,
        /// The message.
        publication: Arc<Kept>,
    },
    /// PUBREL.
    Release,
}

impl Machine {
    /// The machine of a group.
    pub fn new(group: GroupId) -> Self {
        if group == GroupId::META {
            Self::Meta(Box::default())
        } else {
            Self::Shard(Box::default())
        }
    }

    /// The shard, if this is one.
    pub fn shard(&self) -> Option<&Shard> {
        match self {
            Self::Shard(shard) => Some(shard),
            Self::Meta(_) => None,
        }
    }

    /// The registry, if this is it.
    pub fn registry(&self) -> Option<&Registry> {
        match self {
            Self::Meta(registry) => Some(registry),
            Self::Shard(_) => None,
        }
    }
}

impl StateMachine for Machine {
    type Outcome = Outcome;

    fn apply(&mut self, command: Bytes) -> Result<Outcome, Unreadable> {
        match self {
            Self::Shard(shard) => {
                let outcome = shard.apply(command);
                outcome.map(Outcome::Shard).map_err(|error| Unreadable(error.to_string()))
            }
            Self::Meta(registry) => match registry::Command::decode(&command) {
                Ok(command) => Ok(Outcome::Registry(registry.apply(command))),
                Err(error) => Err(Unreadable(error.to_string())),
            },
        }
    }

    fn checkpoint(&mut self) -> Pairs {
        match self {
            Self::Shard(shard) => shard.checkpoint(),
            Self::Meta(registry) => registry.checkpoint(),
        }
    }

    fn load(&mut self, key: &[u8], value: &[u8]) -> Result<(), LoadError> {
        match self {
            Self::Shard(shard) => shard.load(key, value).map_err(|error| LoadError(error.0)),
            Self::Meta(registry) => {
                registry.load(key, value).map_err(|error| LoadError(error.to_string()))
            }
        }
    }

    fn loaded(&mut self) -> Result<(), LoadError> {
        match self {
            Self::Shard(shard) => shard.loaded().map_err(|error| LoadError(error.0)),
            Self::Meta(registry) => registry.loaded().map_err(|error| LoadError(error.to_string())),
        }
    }
}

/// What one turn has for one core.
#[derive(Default)]
struct ForCore {
    results: Vec<(Ticket, Result<(), Failure>)>,
    queued: Vec<Handout>,
}

/// What the node keeps beside a shard.
#[derive(Default)]
struct Beside {
    dispatcher: Dispatcher<Live>,
    /// The first outbox entry that no core has been given.
    next_outbox: u64,
    /// Whether publishers have to wait for the outbox.
    outbox_is_long: bool,
    /// Client ids of sessions in shared subscriptions.
    members: FxHashMap<u64, Box<str>>,
}

/// See the module.
pub struct NodeHost {
    shared: Arc<Shared>,
    node: u64,
    /// Whether the log may have lost its end.
    accepts_log_loss: bool,
    beside: FxHashMap<GroupId, Beside>,
    for_cores: Vec<ForCore>,
    effects: Effects,
    /// What the node itself has to propose, in order.
    owed: VecDeque<Proposal>,
    gauges_at: u64,
    stopped: Option<oneshot::Sender<Option<String>>>,
}

impl NodeHost {
    /// The host of this node; `stopped` is told when the raft thread ends, with the error if there
    /// was one.
    pub fn new(
        shared: Arc<Shared>,
        raft: &cluster::Config,
        stopped: oneshot::Sender<Option<String>>,
    ) -> Self {
        let for_cores = shared.cores.iter().map(|_| ForCore::default()).collect();
        Self {
            shared,
            node: raft.node,
            accepts_log_loss: raft.accept_log_loss,
            beside: FxHashMap::default(),
            for_cores,
            effects: Effects::default(),
            owed: VecDeque::new(),
            gauges_at: 0,
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

    /// Does what the applied commands mean for this node.
    fn carry_out(&mut self, group: GroupId, shard: &mut Shard) {
        let mut effects = std::mem::take(&mut self.effects);
        shard.drain_effects(&mut effects);
        for interest in effects.interest.drain(..) {
            self.note_interest(group, interest);
        }
        for session in effects.grown.drain(..) {
            self.pump(group, shard, session);
        }
        if effects.outbox_grew || effects.outbox_trimmed {
            self.send_outbox(group, shard);
        }
        for removed in effects.removed.drain(..) {
            let beside = self.beside.entry(group).or_default();
            beside.dispatcher.forget(removed.session);
            beside.members.remove(&removed.session);
        }
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
            Interest::Wanted { filter } => index.add(&filter, Destination::Group(number)),
            Interest::Unwanted { filter } => index.remove(&filter, Destination::Group(number)),
            Interest::Joined(joined) => {
                let share = topic::Share { name: &joined.share, filter: &joined.filter };
                let Ok(client) = std::str::from_utf8(&joined.client) else { return };
                let options = joined.options;
                let members = &mut self.beside.entry(group).or_default().members;
                members.entry(joined.session).or_insert_with(|| client.into());
                index.share(share, client, |member| {
                    member.group = (options.qos > 0).then_some(number);
                    member.qos = qos_of(options.qos);
                    member.retain_as_published = options.retain_as_published;
                    member.subscription_ids =
                        Some(options.subscription_id).filter(|id| *id != 0).into_iter().collect();
                });
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
        let expired = beside.dispatcher.pump(shard, session, now_ms(), &mut emit);
        if expired.is_empty() {
            return;
        }
        if let Some(session) = shard.session_by_id(session) {
            let command = shard::Acknowledge {
                client: session.client().clone(),
                epoch: session.epoch(),
                seqs: expired,
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
            self.shared.outbox_is_long(beside.outbox_is_long);
            let (entries, bytes) = (stats.outbox, stats.outbox_bytes);
            match was_long {
                true => info!(%group, entries, bytes, "publishers wait for the outbox no longer"),
                false => warn!(%group, entries, bytes, "publishers wait for a long outbox: a \
                    subscriber of wills, shadows or QoS 2 publications does not keep up"),
            }
        }
        let begins = shard.outbox_begins();
        beside.next_outbox = beside.next_outbox.max(begins);
        let room = WINDOW - (beside.next_outbox - begins).min(WINDOW);
        let entries = shard.outbox(beside.next_outbox).take(room as usize);
        let entries: Vec<_> = entries.cloned().collect();
        let Some(last) = entries.last() else { return };
        beside.next_outbox = last.seq + 1;
        let core = (group.0 as usize % self.shared.cores.len()) as u16;
        self.shared.send(core, ToCore::Outbox(group.0 as u16, entries));
    }

    /// Proposes a command that nobody would name again.
    fn owe(&mut self, group: GroupId, command: shard::Command) {
        let (command, on_full) = (command.encoded(), OnFull::Wait);
        self.owed.push_back(Proposal { group, command, reply: None, on_full });
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
                if !changed.is_empty() {
                    let changed = Arc::new(changed);
                    self.shared.on_every_core(move |core| core.principals_changed(&changed));
                }
            }
        }
        if let Some(reply) = reply {
            self.answer(reply, outcome);
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
        }
        let mut commands = Vec::new();
        for group in groups.ids() {
            let Some(shard) = groups.get(group).and_then(Machine::shard) else { continue };
            if shard.next_deadline().is_some_and(|at| at <= now_ms) {
                let due = shard.due(now_ms, AT_ONCE);
                commands.extend(due.into_iter().map(|command| (group, command.encoded())));
            }
        }
        commands
    }

    fn turn_ended(&mut self) {
        self.propose_owed();
        for (core, for_core) in self.for_cores.iter_mut().enumerate() {
            if for_core.results.is_empty() && for_core.queued.is_empty() {
                continue;
            }
            let ForCore { results, queued } = std::mem::take(for_core);
            self.shared.send(core as u16, ToCore::FromGroups { results, queued });
        }
    }

    fn started(&mut self, groups: &mut GroupsView<'_, Machine>) {
        if self.accepts_log_loss {
            self.forget_what_was_lost(groups);
        }
        let mut sessions = 0;
        for group in groups.ids() {
            let Some(Machine::Shard(shard)) = groups.get_mut(group) else { continue };
            // Replayed commands had effects for a node that is no more; what counts is the state.
            shard.drain_effects(&mut self.effects);
            for interest in shard.interests() {
                self.note_interest(group, interest);
            }
            sessions += shard.stats().sessions;
            for command in shard.after_restart(self.node, now_ms()) {
                self.owe(group, command);
            }
            self.send_outbox(group, shard);
        }
        info!(sessions, "state restored");
    }

    fn stopped(&mut self, error: Option<&cluster::Error>) {
        if let Some(stopped) = self.stopped.take() {
            let _ = stopped.send(error.map(ToString::to_string));
        }
    }
}

/// Answers proposals that were not taken.
pub fn refuse(core: &std::rc::Rc<Core>, proposals: Vec<Proposal>, why: Refusal) {
    for proposal in proposals {
        match proposal.reply {
            Some(Reply::Ticket(ticket)) => {
                core.settle(vec![(ticket, Err(Failure::Refused(why)))]);
            }
            Some(Reply::Once(answer)) => drop(answer.send(Err(why))),
            Some(Reply::Released(live, _)) => doom(core, live, why),
            None => {}
        }
    }
}

/// Ends a connection whose exchange cannot go on; the client resumes it later.
fn doom(core: &Core, live: Live, why: Refusal) {
    if let Some(endpoint) = core.endpoint(live) {
        endpoint.doom(refusal_reason(why));
    }
}

fn refusal_reason(why: Refusal) -> Reason {
    match why {
        Refusal::Busy | Refusal::DiskFull | Refusal::TooLarge => Reason::QuotaExceeded,
        Refusal::NotLeader | Refusal::Unknown | Refusal::UnknownGroup | Refusal::Stopping => {
            Reason::UnspecifiedError
        }
    }
}

/// Why a publication that somebody waits for is not safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The group did not take the command.
    Refused(Refusal),
    /// It took it, and this came of it.
    Outcome(Reason),
}

impl Failure {
    /// What an MQTT client is told.
    pub fn reason(self) -> Reason {
        match self {
            Self::Refused(why) => refusal_reason(why),
            Self::Outcome(reason) => reason,
        }
    }
}

/// What a publisher is told of an outcome that is not what it hoped for. A subscriber whose queue is
/// full is not the publisher's fault: that is counted, and the publication acknowledged.
fn failure(outcome: &Outcome) -> Option<Reason> {
    match outcome {
        Outcome::Shard(shard::Outcome::Invalid) => Some(Reason::UnspecifiedError),
        Outcome::Shard(shard::Outcome::Stale) => Some(Reason::SessionTakenOver),
        Outcome::Shard(shard::Outcome::Released { known: false }) => {
            Some(Reason::PacketIdentifierNotFound)
        }
        _ => None,
    }
}

fn qos_of(qos: u32) -> QoS {
    u8::try_from(qos).ok().and_then(|qos| QoS::try_from(qos).ok()).unwrap_or_default()
}
