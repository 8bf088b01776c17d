//! Shadow requests: the document changes, and what clients are told goes through the outbox.

use bytes::Bytes;
use shadow::topic::{Operation, Reply, reply};
use shadow::{Change, Deletion, Limits, Record, Rejected};

use crate::shard::command::{DeleteShadow, Publication, UpdateShadow};
use crate::shard::shadows::key;
use crate::shard::{Outcome, ShadowAnswer, Shard};

/// One shadow, in the course of one request.
struct Request<'a> {
    thing: &'a str,
    name: Option<&'a str>,
    at: u64,
    /// Whether the client listens for `rejected`.
    reply: bool,
}

impl Shard {
    pub(super) fn update_shadow(&mut self, command: UpdateShadow) -> Outcome {
        let UpdateShadow { at, reply, .. } = command;
        let request = Request { thing: &command.thing, name: command.name.as_deref(), at, reply };
        if !request.is_valid() {
            return Outcome::Invalid;
        }
        if command.origin.is_some_and(|origin| !self.first_sight(origin)) {
            return Outcome::Repeated;
        }
        let (key, limits) = (request.key(), limits(&command));
        let change = shadow::parse_update(&command.payload, &limits)
            .and_then(|update| shadow::update(self.shadows.get(&key), &update, at / 1000, &limits));
        let Change { document, accepted, delta, documents } = match change {
            Ok(change) => change,
            Err(rejected) => return self.reject(&request, Operation::Update, &rejected),
        };
        self.shadows.put(&key, Record::Present(document), at / 1000);
        let accepted = Bytes::from(accepted);
        self.notify(&request, Reply::Accepted(Operation::Update), accepted.clone());
        if let Some(delta) = delta {
            self.notify(&request, Reply::Delta, delta.into());
        }
        self.notify(&request, Reply::Documents, documents.into());
        Outcome::Shadow(ShadowAnswer { code: 200, body: accepted })
    }

    pub(super) fn delete_shadow(&mut self, command: DeleteShadow) -> Outcome {
        let DeleteShadow { at, reply, .. } = command;
        let request = Request { thing: &command.thing, name: command.name.as_deref(), at, reply };
        if !request.is_valid() {
            return Outcome::Invalid;
        }
        if command.origin.is_some_and(|origin| !self.first_sight(origin)) {
            return Outcome::Repeated;
        }
        let (key, label) = (request.key(), request.name.unwrap_or(request.thing));
        let parsed = shadow::parse_request(&command.payload, &Limits::default());
        let deletion = parsed.and_then(|token| {
            shadow::delete(self.shadows.get(&key), label, token.as_deref(), at / 1000)
        });
        let Deletion { tombstone, accepted } = match deletion {
            Ok(deletion) => deletion,
            Err(rejected) => return self.reject(&request, Operation::Delete, &rejected),
        };
        self.shadows.put(&key, Record::Deleted(tombstone), at / 1000);
        let accepted = Bytes::from(accepted);
        self.notify(&request, Reply::Accepted(Operation::Delete), accepted.clone());
        Outcome::Shadow(ShadowAnswer { code: 200, body: accepted })
    }

    fn reject(&mut self, request: &Request<'_>, of: Operation, rejected: &Rejected) -> Outcome {
        if request.reply {
            let payload = rejected.to_json(request.at / 1000).into();
            self.notify(request, Reply::Rejected(of), payload);
        }
        let body = rejected.to_rest_json().into();
        Outcome::Shadow(ShadowAnswer { code: rejected.code, body })
    }

    fn notify(&mut self, request: &Request<'_>, kind: Reply, payload: Bytes) {
        let publication = Publication {
            topic: reply(request.thing, request.name, kind).into(),
            payload,
            qos: 1,
            published_at: request.at,
            ..Publication::default()
        };
        self.emit(publication, false);
    }
}

impl Request<'_> {
    /// Names are one level of a topic each.
    fn is_valid(&self) -> bool {
        let is_level = |level: &str| !level.is_empty() && !level.contains(['/', '+', '#', '\0']);
        is_level(self.thing) && self.name.is_none_or(is_level)
    }

    fn key(&self) -> Vec<u8> {
        key(self.thing, self.name)
    }
}

fn limits(command: &UpdateShadow) -> Limits {
    let default = Limits::default();
    let or = |limit: u32, default| if limit == 0 { default } else { limit as usize };
    Limits {
        document_bytes: or(command.limit_bytes, default.document_bytes),
        depth: or(command.limit_depth, default.depth),
        takes_empty: command.takes_empty,
        ..default
    }
}
