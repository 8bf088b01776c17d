//! Topics that start with `$`: what clients may do with them, and who serves them.

use std::rc::Rc;

use bytes::Bytes;
use cluster::GroupId;
use fleet::registry::ThingName;
use fleet::shard::{self, Origin};
use mqtt::QoS;
use shadow::Rejected;
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
        let (operation, payload) = (target.operation, publication.payload());
        let (thing, name) = (target.thing.to_owned(), target.name.map(ToOwned::to_owned));
        let group = GroupId::from(self.shared.group_of(target.thing));
        let at = self.clock().epoch_ms;
        // Of any QoS, and before anything is copied: a request may be as large as a packet.
        let readable = check_names(target).and_then(|()| match operation {
            Operation::Get => shadow::parse_request(payload, &shadow::Limits::default()),
            Operation::Update | Operation::Delete => shadow::check_size(payload).map(|()| None),
        });
        let token = match readable {
            Ok(token) => token,
            Err(rejected) => {
                let asked = Asked { operation, thing, name, at };
                let core = Rc::clone(self);
                // Not while the request itself is being routed.
                actix_rt::spawn(async move { core.answer(&asked, Err(rejected)) });
                return;
            }
        };
        let origin = errand.origin.map(Origin::shadow_request);
        let command: shard::Command = match operation {
            Operation::Get => {
                return self.get_shadow(group, Asked { operation, thing, name, at }, token);
            }
            Operation::Update => {
                let payload = Bytes::copy_from_slice(payload);
                shard::UpdateShadow {
                    thing,
                    name,
                    payload,
                    at,
                    reply: true,
                    origin,
                    takes_empty: self.shared.takes_empty_shadows(),
                    ..shard::UpdateShadow::default()
                }
                .into()
            }
            Operation::Delete => {
                let payload = Bytes::copy_from_slice(payload);
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
    fn get_shadow(self: &Rc<Self>, group: GroupId, asked: Asked, token: Option<String>) {
        let core = Rc::clone(self);
        actix_rt::spawn(async move {
            let (thing, name, at) = (asked.thing.clone(), asked.name.clone(), asked.at);
            let answer = crate::identity::read(&core.shared, group, move |groups| {
                let shard = groups.get(group).and_then(Machine::shard)?;
                Some(shard.get_shadow(&thing, name.as_deref(), token.as_deref(), at))
            });
            let Some(answer) = answer.await.flatten() else { return };
            core.answer(&asked, answer);
        });
    }

    /// Publishes the answer to a request that changes nothing.
    fn answer(self: &Rc<Self>, asked: &Asked, answer: Result<Vec<u8>, Rejected>) {
        let Asked { operation, ref thing, ref name, at } = *asked;
        let counted = if operation == Operation::Get { "get" } else { "change" };
        crate::metrics::shadow_operation(counted, answer.is_ok());
        let (reply, body) = match answer {
            Ok(document) => (ShadowReply::Accepted(operation), document),
            Err(rejected) => (ShadowReply::Rejected(operation), rejected.to_json(at / 1000)),
        };
        let kept = Kept {
            topic: Bytes::from(shadow::topic::reply(thing, name.as_deref(), reply)),
            payload: Bytes::from(body),
            qos: QoS::AtLeastOnce as u32,
            published_at: at,
            ..Kept::default()
        };
        let publication = Publication::kept(&kept);
        let route = self.route(publication.topic);
        self.publish(&publication, &route, Errand::default());
        self.flush();
    }
}

/// Whether a request is for names that a shadow can be made with. What was made before names were looked
/// at can be read and deleted.
fn check_names(target: &Target<'_>) -> Result<(), Rejected> {
    match target.operation {
        Operation::Get | Operation::Delete => Ok(()),
        Operation::Update if ThingName::new(target.thing).is_err() => {
            Err(Rejected::new(400, "The thing name is not valid: see CreateThing"))
        }
        Operation::Update if !target.name.is_none_or(shadow::is_valid_name) => Err(Rejected::new(
            400,
            "The shadow name is not valid: 1 to 64 characters of [$a-zA-Z0-9:_-]",
        )),
        Operation::Update => Ok(()),
    }
}

/// A request to a shadow that needs no command.
struct Asked {
    operation: Operation,
    thing: String,
    name: Option<String>,
    at: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_names_make_no_shadow_but_are_read_and_deleted() {
        let long = "s".repeat(65);
        for (thing, name, is_valid) in [
            ("lamp", None, true),
            ("lamp", Some("blue:1"), true),
            ("lämp", None, false),
            ("a lamp", Some("blue"), false),
            ("lamp", Some("light blue"), false),
            ("lamp", Some(&*long), false),
        ] {
            for (operation, is_taken) in
                [(Operation::Get, true), (Operation::Delete, true), (Operation::Update, is_valid)]
            {
                let target = Target { thing, name, operation };
                assert_eq!(check_names(&target).is_ok(), is_taken, "{target:?}");
            }
        }
    }
}
