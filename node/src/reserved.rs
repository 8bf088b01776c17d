//! Topics that start with `$`: what clients may do with them, and who serves them.

use std::rc::Rc;

use bytes::Bytes;
use cluster::GroupId;
use fleet::shard::{self, Origin};
use mqtt::QoS;
use shadow::topic::{Operation, Reply as ShadowReply, Target};

use crate::core::Core;
use crate::host::{Machine, Proposal, Reply};
use crate::publication::{Kept, Publication};
use crate::publish::{Errand, Published};

/// Whether clients may publish to a topic that starts with `$`; what is not listed is refused.
pub fn may_publish(topic: &str) -> bool {
    shadow::topic::parse(topic).is_some() || topic.starts_with("$aws/rules/")
}

/// Whether clients may subscribe to a filter: `$SYS` and `$aws`, and anything without `$`.
pub fn may_subscribe(filter: &str) -> bool {
    !filter.starts_with('$') || filter.starts_with("$aws/") || filter.starts_with("$SYS/")
}

impl Core {
    /// Serves a request to a device shadow that came as a publication.
    pub fn serve_shadow(
        self: &Rc<Self>,
        target: &Target<'_>,
        publication: &Publication<'_>,
        errand: Errand,
        published: &mut Published,
    ) {
        published.reached = true;
        let (thing, name) = (target.thing.to_owned(), target.name.map(ToOwned::to_owned));
        let group = GroupId::from(self.shared.group_of(target.thing));
        let payload = Bytes::copy_from_slice(publication.payload());
        let at = self.clock().epoch_ms;
        let origin = errand.origin.map(Origin::shadow_request);
        let command: shard::Command = match target.operation {
            Operation::Get => return self.get_shadow(group, thing, name, payload, at),
            Operation::Update => {
                let (reply, limits) = (true, shard::UpdateShadow::default());
                shard::UpdateShadow { thing, name, payload, at, reply, origin, ..limits }.into()
            }
            Operation::Delete => {
                shard::DeleteShadow { thing, name, payload, at, reply: true, origin }.into()
            }
        };
        published.waiting += u16::from(errand.ticket.is_some());
        published.uses.add_outbox(self.shared.group_of(target.thing));
        let reply = errand.ticket.map(Reply::Ticket);
        let on_full = errand.on_full(published.proposed);
        published.proposed = true;
        self.propose(Proposal { group, command: command.encoded(), reply, on_full });
    }

    /// Reads a shadow and publishes the answer.
    fn get_shadow(
        self: &Rc<Self>,
        group: GroupId,
        thing: String,
        name: Option<String>,
        payload: Bytes,
        at: u64,
    ) {
        let core = Rc::clone(self);
        actix_rt::spawn(async move {
            let (of, called) = (thing.clone(), name.clone());
            let answer = crate::identity::read(&core.shared, group, move |groups| {
                let shard = groups.get(group).and_then(Machine::shard)?;
                Some(shard.get_shadow(&of, called.as_deref(), &payload, at))
            });
            let Some(answer) = answer.await.flatten() else { return };
            crate::metrics::shadow_operation("get", answer.is_ok());
            let (reply, body) = match answer {
                Ok(document) => (ShadowReply::Accepted(Operation::Get), document),
                Err(rejected) => {
                    (ShadowReply::Rejected(Operation::Get), rejected.to_json(at / 1000))
                }
            };
            let topic = shadow::topic::reply(&thing, name.as_deref(), reply);
            let kept = Kept {
                topic: Bytes::from(topic),
                payload: Bytes::from(body),
                qos: QoS::AtLeastOnce as u32,
                published_at: at,
                ..Kept::default()
            };
            let publication = Publication::kept(&kept);
            let route = core.route(publication.topic);
            core.publish(&publication, &route, Errand::default());
            core.flush();
        });
    }
}
