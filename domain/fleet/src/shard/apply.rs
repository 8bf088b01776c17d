//! From a committed command to a changed shard: one file per family of commands.

mod acknowledge;
mod announce;
mod connect;
mod publish;
mod shadow;
mod share;
mod subscribe;

use bytes::Bytes;
use prost::Message;

use super::command::{Command, CommandError, Kind, Publication};
use super::{Outcome, Shard};

impl Shard {
    /// Applies the next committed command. One that cannot be read changes nothing, and nothing must
    /// be applied after it: whoever wrote it knew what it means, and their shard has changed.
    pub fn apply(&mut self, command: Bytes) -> Result<Outcome, CommandError> {
        let kind = Command::decode(command)?.kind.ok_or(CommandError::Kind)?;
        Ok(match kind {
            Kind::Connect(command) => self.connect(command),
            Kind::Disconnect(command) => self.disconnect(command),
            Kind::Subscribe(command) => self.subscribe(command),
            Kind::Unsubscribe(command) => self.unsubscribe(command),
            Kind::Publish(command) => self.publish(command),
            Kind::ReceiveQos2(command) => self.receive_qos2(command),
            Kind::ReleaseQos2(command) => self.release_qos2(command),
            Kind::Acknowledge(command) => self.acknowledge(command),
            Kind::PubrecReceived(command) => self.pubrec_received(command),
            Kind::Expire(command) => self.expire(command),
            Kind::FireWill(command) => self.fire_will(command),
            Kind::UpdateShadow(command) => self.update_shadow(command),
            Kind::DeleteShadow(command) => self.delete_shadow(command),
            Kind::TrimOutbox(command) => self.trim_outbox(command),
            Kind::ForgetOrigin(command) => self.forget_origin(command),
            Kind::Announce(command) => self.announce_event(command),
            Kind::EnqueueShared(command) => self.enqueue_shared(command),
            Kind::AssignShared(command) => self.assign_shared(command),
            Kind::ReleaseShared(command) => self.release_shared(command),
            Kind::BeginShared(command) => self.begin_shared(command),
            Kind::ForgetShared(command) => self.forget_shared(command),
            Kind::EndConnection(command) => self.end_connection(&command),
        })
    }

    /// The session of a client, if this token is its latest.
    fn fenced(&self, client: &[u8], epoch: u64) -> Option<u64> {
        let id = *self.clients.get(client)?;
        (self.sessions.get(&id)?.epoch == epoch).then_some(id)
    }

    /// Leaves a publication of the shard's own for the router.
    fn emit(&mut self, publication: Publication, store_retained: bool) {
        self.outbox.push(publication, store_retained);
        self.effects.outbox_grew = true;
    }
}

/// The topic name of a publication that may be stored.
fn valid_topic(publication: &Publication) -> Option<&str> {
    let name = publication.topic_name()?;
    (!name.is_empty() && publication.qos <= 2).then_some(name)
}
