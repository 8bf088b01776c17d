//! Tells the peers what this node wants, and asks them whether they know.
//!
//! The interest index calls in under the lock of the filter's shard, so what is said of one filter is
//! said in order. A peer whose stream is new, or that a change could not be sent to, is told everything
//! anew, a shard of the index at a time; changes among it are sent as they come.
//!
//! Bounds: what waits is bounded by the link's outbox, and each open question by a SUBSCRIBE whose
//! client waits for the answer.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use links::Message;
use links::proto::fanout_message::Kind;
use links::proto::{Routes, ShareMember, SnapshotBegin, SnapshotEnd, Sync};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use tokio::sync::{Notify, oneshot};

use super::metrics::Metrics;
use crate::interest::{InterestIndex, Member, Wants};

/// About as many bytes go into one message of a snapshot.
const SNAPSHOT_BYTES: usize = 64 << 10;

/// A peer that can be told.
#[derive(Debug)]
struct Listener {
    /// The shard of the index that a snapshot has to tell next; `None` when none is under way.
    snapshot: Option<Snapshot>,
    epoch: u64,
    /// Questions that follow the snapshot.
    held: Vec<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Snapshot {
    Begin,
    Shard(usize),
}

/// A question that not everybody has answered.
#[derive(Debug)]
struct Question {
    group: Option<u16>,
    nodes: SmallVec<[u16; 4]>,
    answer: Option<oneshot::Sender<()>>,
}

#[derive(Debug, Default)]
struct State {
    listeners: BTreeMap<u16, Listener>,
    questions: FxHashMap<u64, Question>,
    next_token: u64,
}

/// What may fill a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// Changes, questions, publications and answers.
    Now,
    /// Snapshots: without room for changes beside them, they would begin anew for ever.
    Later,
}

/// Sends to a peer; false when that is not possible now.
type Outlet = Box<dyn Fn(u64, Message, Urgency) -> bool + Send + std::marker::Sync>;

/// See the module.
pub struct Announcer {
    links: OnceLock<Outlet>,
    state: Mutex<State>,
    epochs: AtomicU64,
    /// Rung when there is a snapshot to tell.
    pub due: Notify,
}

impl Default for Announcer {
    fn default() -> Self {
        Self {
            links: OnceLock::new(),
            state: Mutex::default(),
            epochs: AtomicU64::new(0),
            due: Notify::new(),
        }
    }
}

impl Announcer {
    /// From now on there are links.
    pub(super) fn start(&self, links: Outlet) {
        let _ = self.links.set(links);
        self.due.notify_one();
    }

    /// Sends to a peer; false when that is not possible now.
    pub fn send(&self, node: u16, kind: Kind) -> bool {
        self.links.get().is_some_and(|send| send(node.into(), kind.into(), Urgency::Now))
    }

    /// Sends a part of a snapshot to a peer; false when there is no room for it now.
    fn send_part(&self, node: u16, routes: Routes) -> bool {
        let part = Kind::Routes(routes).into();
        self.links.get().is_some_and(|send| send(node.into(), part, Urgency::Later))
    }

    /// A stream to a peer is there.
    pub fn connected(&self, node: u16) {
        let epoch = self.next_epoch();
        let listener = Listener { snapshot: Some(Snapshot::Begin), epoch, held: Vec::new() };
        self.state.lock().listeners.insert(node, listener);
        self.due.notify_one();
    }

    /// It has ended: nobody waits for this peer any more.
    pub fn lost(&self, node: u16) {
        let mut state = self.state.lock();
        state.listeners.remove(&node);
        state.forget(node);
    }

    /// A peer will not answer.
    pub fn forget(&self, node: u16) {
        self.state.lock().forget(node);
    }

    fn next_epoch(&self) -> u64 {
        self.epochs.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Tells everybody of a change, but those who will be told everything.
    fn tell(&self, routes: Routes) {
        let mut state = self.state.lock();
        for (node, listener) in &mut state.listeners {
            if listener.snapshot == Some(Snapshot::Begin) {
                continue;
            }
            if !self.send(*node, Kind::Routes(routes.clone())) {
                // It has missed something.
                listener.snapshot = Some(Snapshot::Begin);
                listener.epoch = self.next_epoch();
            }
        }
    }

    /// What this node wants of a filter has changed.
    pub fn wants(&self, filter: &str, wants: Option<Wants>) {
        let mut routes = Routes::default();
        match wants {
            Some(wants) => add_route(&mut routes, filter.to_owned(), wants),
            None => routes.removed.push(filter.to_owned()),
        }
        self.tell(routes);
    }

    /// A member of a shared subscription is connected here, or wants publications otherwise.
    pub fn joined(&self, share: topic::Share<'_>, member: &Member) {
        let joined = vec![share_member(share.name, share.filter, member)];
        self.tell(Routes { joined, ..Routes::default() });
    }

    /// It is not connected here any more.
    pub fn left(&self, share: topic::Share<'_>, client: &str) {
        let (share, filter) = (share.name.to_owned(), share.filter.to_owned());
        let left =
            ShareMember { share, filter, client: client.to_owned(), ..ShareMember::default() };
        self.tell(Routes { left: vec![left], ..Routes::default() });
    }

    /// Goes on with the snapshots that are due; true when there is more to do at once.
    pub fn advance(&self, index: &InterestIndex) -> bool {
        let due: Vec<_> = {
            let mut state = self.state.lock();
            for (node, listener) in &mut state.listeners {
                if listener.snapshot == Some(Snapshot::Begin)
                    && self
                        .send(*node, Kind::SnapshotBegin(SnapshotBegin { epoch: listener.epoch }))
                {
                    listener.snapshot = Some(Snapshot::Shard(0));
                }
            }
            let due =
                state.listeners.iter().filter_map(|(node, listener)| match listener.snapshot {
                    Some(Snapshot::Shard(shard)) => Some((*node, listener.epoch, shard)),
                    _ => None,
                });
            due.collect()
        };
        let mut more = false;
        for (node, epoch, shard) in due {
            // What changes in the shard changes after this was sent.
            more |= index.tell_shard(shard, SNAPSHOT_BYTES, |told| {
                self.tell_shard(node, epoch, shard, told)
            });
        }
        self.ask_held();
        more
    }

    /// Sends a shard to a peer; true when that went well and there may be another one.
    fn tell_shard(&self, node: u16, epoch: u64, shard: usize, told: Option<Vec<Routes>>) -> bool {
        let mut state = self.state.lock();
        let Some(listener) = state.listeners.get_mut(&node) else { return false };
        if listener.epoch != epoch || listener.snapshot != Some(Snapshot::Shard(shard)) {
            return true;
        }
        let Some(told) = told else {
            if self.send(node, Kind::SnapshotEnd(SnapshotEnd { epoch })) {
                listener.snapshot = None;
            }
            return false;
        };
        // A part may be told twice.
        let sent = told.into_iter().all(|routes| self.send_part(node, routes));
        if sent {
            listener.snapshot = Some(Snapshot::Shard(shard + 1));
        }
        sent
    }

    /// Asks what waited for a snapshot, or for room.
    fn ask_held(&self) {
        let mut state = self.state.lock();
        let State { listeners, questions, .. } = &mut *state;
        for (node, listener) in listeners.iter_mut().filter(|(_, it)| it.snapshot.is_none()) {
            listener.held.retain(|token| {
                let Some(question) = questions.get(token) else { return false };
                !self.send(*node, sync(*token, question.group))
            });
        }
    }

    /// Asks every peer that can be asked whether it has heard of everything so far, and, of a group,
    /// whether it knows what was committed there. `None` when there is nobody to ask; else resolves
    /// when everybody has answered, or is lost.
    pub fn sync(
        &self,
        group: Option<u16>,
        metrics: &Metrics,
    ) -> Option<impl Future<Output = ()> + use<>> {
        self.links.get()?;
        let mut state = self.state.lock();
        let State { listeners, questions, next_token } = &mut *state;
        if listeners.is_empty() {
            return None;
        }
        *next_token += 1;
        let token = *next_token;
        for (node, listener) in listeners.iter_mut() {
            if listener.snapshot.is_some() || !self.send(*node, sync(token, group)) {
                listener.held.push(token);
            }
        }
        let (answer, answered) = oneshot::channel();
        let nodes = listeners.keys().copied().collect();
        questions.insert(token, Question { group, nodes, answer: Some(answer) });
        let (since, seconds) = (std::time::Instant::now(), metrics.sync_seconds.clone());
        Some(async move {
            // When nobody is left to answer, the node is stopping.
            let _ = answered.await;
            seconds.record(since.elapsed());
        })
    }

    /// A peer has answered.
    pub fn synced(&self, node: u16, token: u64) {
        let mut state = self.state.lock();
        if let Some(question) = state.questions.get_mut(&token)
            && question.is_answered_by(node)
        {
            state.questions.remove(&token);
        }
    }

    /// Answers of a peer may have been lost: asks again.
    pub fn ask_again(&self, node: u16) {
        let mut state = self.state.lock();
        let State { listeners, questions, .. } = &mut *state;
        let Some(listener) = listeners.get_mut(&node) else { return };
        let open = questions.iter().filter(|(_, question)| question.nodes.contains(&node));
        listener.held = open.map(|(token, _)| *token).collect();
        drop(state);
        self.due.notify_one();
    }
}

impl State {
    fn forget(&mut self, node: u16) {
        self.questions.retain(|_, question| !question.is_answered_by(node));
    }
}

impl Question {
    /// One less to wait for; true when it was the last.
    fn is_answered_by(&mut self, node: u16) -> bool {
        self.nodes.retain(|other| *other != node);
        if !self.nodes.is_empty() {
            return false;
        }
        if let Some(answer) = self.answer.take() {
            // Whoever asked may have gone away.
            let _ = answer.send(());
        }
        true
    }
}

fn sync(token: u64, group: Option<u16>) -> Kind {
    Kind::Sync(Sync { token, group: group.map(Into::into), applied_index: 0 })
}

/// A filter that is wanted, as peers are told of it.
pub fn add_route(routes: &mut Routes, filter: String, wants: Wants) {
    match wants {
        Wants::Everything => routes.added.push(filter),
        Wants::QosZero => routes.added_qos0.push(filter),
    }
}

/// A member as peers are told of it.
pub fn share_member(share: &str, filter: &str, member: &Member) -> ShareMember {
    ShareMember {
        share: share.to_owned(),
        filter: filter.to_owned(),
        client: (*member.client).to_owned(),
        qos: member.qos as u32,
        retain_as_published: member.retain_as_published,
        subscription_ids: member.subscription_ids.to_vec(),
    }
}
