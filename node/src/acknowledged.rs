//! What clients have acknowledged of their sessions' queues, on its way to the groups.
//!
//! Nobody waits for it, so a core gathers it for ten milliseconds and each session's goes as one
//! command: one entry of the log instead of as many as there are reads. A node that dies in that time
//! has those publications sent again, as if it had died before it heard of them. Bounded: a few
//! thousand of a core wait for nothing.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use cluster::GroupId;
use fleet::shard;
use mqtt::QoS;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::core::Core;
use crate::endpoint::{Endpoint, Record};
use crate::host::{Proposal, Signal};

/// How long an acknowledgement waits for others.
const DELAY: Duration = Duration::from_millis(10);

/// So many do not wait.
const MUCH: usize = 4096;

/// See the module.
#[derive(Default)]
pub struct Acknowledged(RefCell<State>);

#[derive(Default)]
struct State {
    sessions: FxHashMap<Record, OfSession>,
    count: usize,
    /// Somebody will come for it.
    is_awaited: bool,
}

struct OfSession {
    client: Arc<str>,
    /// Places in its queue.
    seqs: Vec<u64>,
    /// Those of them whose entries other members of a shared subscription may have.
    refused: Vec<u64>,
    /// How many of them have made room in the session's window.
    told: usize,
    /// The client's Receive Maximum.
    receive_maximum: usize,
}

impl OfSession {
    /// Makes room in the session's window. When it fails the node is stopping.
    fn tell(&mut self, core: &Core, record: Record) {
        let (group, session) = (record.group.into(), record.session);
        let seqs = self.seqs[self.told..].to_vec();
        self.told = self.seqs.len();
        let _ = core.shared.groups.signal(Signal::Acknowledged { group, session, seqs });
    }
}

impl Core {
    /// A client has acknowledged an entry of its session's queue, or cannot take it.
    pub fn acknowledge_queued(&self, endpoint: &Endpoint, seq: u64) {
        self.end_queued(endpoint, seq, false);
    }

    /// A client may not receive an entry of its session's queue. If it came by a shared subscription
    /// other members get it, unless the client may have begun an exchange of QoS 2 with it.
    pub fn refuse_queued(&self, endpoint: &Endpoint, seq: u64, qos: QoS, dup: bool) {
        let is_begun = qos == QoS::ExactlyOnce && dup;
        self.end_queued(endpoint, seq, !is_begun && self.shared.has_share_queues());
    }

    fn end_queued(&self, endpoint: &Endpoint, seq: u64, others_may: bool) {
        let Some(record) = endpoint.profile.record else { return };
        let state = &mut *self.acknowledged.0.borrow_mut();
        state.count += 1;
        let of_session = state.sessions.entry(record).or_insert_with(|| OfSession {
            client: Arc::clone(&endpoint.profile.client),
            seqs: Vec::new(),
            refused: Vec::new(),
            told: 0,
            receive_maximum: endpoint.receive_maximum().into(),
        });
        of_session.seqs.push(seq);
        of_session.refused.extend(others_may.then_some(seq));
        // A client that cannot be sent much more must not wait.
        if (of_session.seqs.len() - of_session.told) * 4 >= of_session.receive_maximum {
            of_session.tell(self, record);
        }
    }

    /// Has what was acknowledged proposed in time.
    pub(crate) fn flush_acknowledged(self: &Rc<Self>) {
        let mut state = self.acknowledged.0.borrow_mut();
        if state.count >= MUCH {
            drop(state);
            self.propose_acknowledged();
        } else if state.count > 0 && !state.is_awaited {
            state.is_awaited = true;
            let core = Rc::clone(self);
            actix_rt::spawn(async move {
                tokio::time::sleep(DELAY).await;
                core.acknowledged.0.borrow_mut().is_awaited = false;
                core.propose_acknowledged();
                core.flush();
            });
        }
    }

    /// Adds what was acknowledged to what is proposed at the end of the batch.
    pub(crate) fn propose_acknowledged(&self) {
        let state = &mut *self.acknowledged.0.borrow_mut();
        state.count = 0;
        for (record, mut of_session) in state.sessions.drain() {
            if of_session.told < of_session.seqs.len() {
                of_session.tell(self, record);
            }
            let OfSession { client, mut seqs, refused, .. } = of_session;
            if !refused.is_empty() {
                let refused: FxHashSet<u64> = refused.iter().copied().collect();
                seqs.retain(|seq| !refused.contains(seq));
            }
            let command = shard::Acknowledge {
                client: bytes::Bytes::copy_from_slice(client.as_bytes()),
                epoch: record.epoch,
                seqs,
                refused,
            };
            let command = shard::Command::from(command).encoded();
            self.propose(Proposal::owed(GroupId::from(record.group), command));
        }
    }
}
