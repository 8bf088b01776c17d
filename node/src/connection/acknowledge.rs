//! Acknowledgements in both directions.

use std::rc::Rc;

use bytes::Bytes;
use cluster::{GroupId, OnFull};
use fleet::shard;
use mqtt::session::{Owed, Settled};
use mqtt::{Ack, AckKind, Reason, Version};

use super::{Connection, End};
use crate::core::Ticket;
use crate::endpoint::DropReason;
use crate::host::{Proposal, Reply};
use crate::metrics::Asked;
use crate::publication::Publication;

impl Connection {
    /// Sends the acknowledgements whose publications are safe.
    pub(super) fn acknowledge(&mut self) {
        let endpoint = Rc::clone(&self.endpoint);
        let inbound = &mut self.inbound;
        endpoint.acknowledge(&mut self.core.pool.borrow_mut(), |owed| match owed.kind {
            AckKind::PubAck | AckKind::PubComp => inbound.acknowledged(),
            AckKind::PubRec if owed.reason.is_error() => {
                inbound.release(owed.id);
                inbound.acknowledged();
            }
            _ => {}
        });
    }

    /// PUBACK, PUBREC or PUBCOMP for something that was delivered.
    pub(super) fn settle(&mut self, kind: AckKind, ack: Ack<'_>) -> Result<(), End> {
        let pool = &mut self.core.pool.borrow_mut();
        let settled = self.endpoint.settle(kind, ack.packet_id, ack.reason, pool);
        let Some(record) = self.persistent_record() else { return Ok(()) };
        self.uses.groups = true;
        let client = Bytes::copy_from_slice(self.endpoint.profile.client.as_bytes());
        let (group, epoch) = (GroupId::from(record.group), record.epoch);
        let (command, reply) = match settled {
            Settled::Ended(seq) => {
                self.core.acknowledge_queued(&self.endpoint, seq);
                return Ok(());
            }
            // Said again, PUBREL still waits until the release is safe.
            Settled::Received(seq) | Settled::ReceivedAgain(seq) => {
                let reply = Reply::Released(self.endpoint.profile.live, vec![seq]);
                (shard::PubrecReceived { client, epoch, seqs: vec![seq] }.into(), Some(reply))
            }
            Settled::Unknown => return Ok(()),
        };
        let command: shard::Command = command;
        // What is said again may be said without end.
        let is_first = matches!(settled, Settled::Received(_));
        let on_full = if is_first { OnFull::Wait } else { OnFull::Refuse };
        self.core.propose(Proposal { group, command: command.encoded(), reply, on_full });
        Ok(())
    }

    /// Moves what waits into the outbox. What the client may no longer receive, and what has expired,
    /// leaves its queue.
    pub(super) fn refill(&self) {
        let denied = self.endpoint.refill(self.core.clock(), &mut self.core.pool.borrow_mut());
        for _ in 0..denied.count {
            self.core.metrics.decided(Asked::Receive, false);
        }
        if denied.queued.is_empty() && denied.expired.is_empty() && denied.shared.is_empty() {
            return;
        }
        for (kept, share) in &denied.shared {
            share.pass_over(&self.endpoint.profile.client, Publication::kept(kept).topic);
        }
        self.core.pass_on(denied.shared, &self.endpoint.profile.client);
        for seq in denied.expired {
            self.core.metrics.dropped(DropReason::Expired);
            self.core.acknowledge_queued(&self.endpoint, seq);
        }
        for (seq, qos, dup) in denied.queued {
            self.core.refuse_queued(&self.endpoint, seq, qos, dup);
        }
        self.core.flush();
    }

    /// PUBREL: the identifier of a QoS 2 publication is free again.
    pub(super) fn release(&mut self, ack: Ack<'_>) -> Result<(), End> {
        let known = self.inbound.release(ack.packet_id);
        let id = ack.packet_id;
        let reason = match (known, self.version()) {
            (false, Version::V5) => Reason::PacketIdentifierNotFound,
            _ => Reason::Success,
        };
        let owed = Owed { kind: AckKind::PubComp, id, reason, waiting: 0 };
        let Some(record) = self.persistent_record().filter(|_| known) else {
            self.endpoint.owe(owed);
            return Ok(());
        };
        // The client may use the identifier again as soon as it has PUBCOMP, so that must not leave
        // before the release is safe.
        let command = shard::ReleaseQos2 {
            client: Bytes::copy_from_slice(self.endpoint.profile.client.as_bytes()),
            epoch: record.epoch,
            packet_id: id.get().into(),
        };
        let group = record.group;
        self.uses.groups = true;
        let number = self.endpoint.owe(Owed { waiting: 1, ..owed });
        self.propose(group, command.into(), number, OnFull::Wait);
        Ok(())
    }

    /// Proposes a command whose outcome one owed acknowledgement waits for.
    pub(super) fn propose(
        &self,
        group: u16,
        command: shard::Command,
        number: u32,
        on_full: OnFull,
    ) {
        let ticket = Ticket::Connection { live: self.endpoint.profile.live, number };
        self.core.propose(Proposal {
            group: group.into(),
            command: command.encoded(),
            reply: Some(Reply::Ticket(ticket)),
            on_full,
        });
    }
}
