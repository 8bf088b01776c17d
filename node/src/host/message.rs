//! What cores and the raft thread say to each other.

use std::sync::Arc;

use cluster::{GroupId, GroupsView, Refusal};
use fleet::shard::{self, OutboxEntry};
use mqtt::{QoS, Reason};
use tokio::sync::oneshot;

use super::machine::{Machine, Outcome};
use crate::core::{Core, Ticket};
use crate::endpoint::SubscriptionIds;
use crate::interest::Live;
use crate::publication::Kept;

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
    /// Somebody waits until no other node holds a client id.
    AwaitVacancy {
        /// The client's group.
        group: GroupId,
        /// The client id.
        client: bytes::Bytes,
        /// Is told.
        vacant: oneshot::Sender<()>,
    },
    /// A backup begins: outboxes are recorded from now on; or it has ended.
    Record(bool),
    /// What was recorded of a group's outbox, which is then over; nothing if it was too much.
    Recorded {
        /// The group.
        group: GroupId,
        /// Is told.
        answer: oneshot::Sender<Option<Vec<OutboxEntry>>>,
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
pub(super) fn doom(core: &Core, live: Live, why: Refusal) {
    if let Some(endpoint) = core.endpoint(live) {
        endpoint.doom(refusal_reason(why));
    }
}

fn refusal_reason(why: Refusal) -> Reason {
    match why {
        Refusal::Busy | Refusal::DiskFull | Refusal::TooLarge => Reason::QuotaExceeded,
        Refusal::NoLeader | Refusal::Unknown | Refusal::Unseen | Refusal::UnknownGroup => {
            Reason::ServerBusy
        }
        Refusal::Stopping => Reason::ServerShuttingDown,
    }
}

/// Why a publication that somebody waits for is not safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The group did not take the command.
    Refused(Refusal),
    /// It took it, and this came of it.
    Outcome(Reason),
    /// No member of a shared subscription here could have it: a peer that asked looks elsewhere, what the
    /// subscription's queue gave returns to it, and to everybody else it is none.
    NoMember,
}

impl Failure {
    /// What another node is told, which may be of an earlier version and pass it on: PUBACK and PUBREC
    /// have no other reason for trouble [v5 3.4.2.1].
    pub fn reason_for_peer(self) -> Reason {
        match self.reason() {
            Reason::ServerBusy | Reason::ServerShuttingDown => Reason::UnspecifiedError,
            reason => reason,
        }
    }

    /// What an MQTT client is told.
    pub fn reason(self) -> Reason {
        match self {
            Self::Refused(why) => refusal_reason(why),
            Self::Outcome(reason) => reason,
            Self::NoMember => Reason::NoMatchingSubscribers,
        }
    }
}

/// What a publisher is told of an outcome that is not what it hoped for. A subscriber whose queue is
/// full is not the publisher's fault: that is counted, and the publication acknowledged.
pub(super) fn failure(outcome: &Outcome) -> Option<Reason> {
    match outcome {
        Outcome::Shard(shard::Outcome::Invalid) => Some(Reason::UnspecifiedError),
        Outcome::Shard(shard::Outcome::Stale) => Some(Reason::SessionTakenOver),
        Outcome::Shard(shard::Outcome::Released { known: false }) => {
            Some(Reason::PacketIdentifierNotFound)
        }
        _ => None,
    }
}
