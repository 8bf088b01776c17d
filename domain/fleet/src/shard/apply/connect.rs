//! Connections come and go: claims, ends, wills, expiry.

use bytes::Bytes;

use super::valid_topic;
use crate::shard::command::{
    Connect, Disconnect, DisconnectReason, EndConnection, Expire, FireWill, Options, Publication,
    Subscription, Will, WillAction,
};
use crate::shard::few::Few;
use crate::shard::queue::Queue;
use crate::shard::session::{Session, later};
use crate::shard::{Connected, Deletion, Instance, Interest, Outcome, Removed, Shard, Vacated};

impl Shard {
    pub(super) fn connect(&mut self, mut command: Connect) -> Outcome {
        if !is_valid(&command) {
            return Outcome::Invalid;
        }
        let found = self.clients.get(&command.client).copied();
        if let Some(session) = found.and_then(|id| self.sessions.get(&id))
            && session.connected()
            && session.holder().keeps_out(Instance(command.node))
        {
            self.effects.contested.push(session.held());
            return Outcome::Occupied;
        }
        // What stays must not keep the log entry in memory that it came in.
        command.client = Bytes::copy_from_slice(&command.client);
        if let Some(will) = &mut command.will {
            will.publication = will.publication.detached();
        }
        let epoch = self.next_epoch;
        self.next_epoch += 1;
        if let Some(id) = found.filter(|id| command.heard && self.sessions[id].connected()) {
            self.disappear(id, DisconnectReason::DuplicateClientid, command.at);
        }
        match found.filter(|id| resumes(&self.sessions[id], &command)) {
            Some(id) => self.resume(id, epoch, command),
            None => {
                if let Some(id) = found {
                    self.remove_session(id, command.at);
                }
                self.begin(epoch, command)
            }
        }
    }

    pub(super) fn disconnect(&mut self, command: Disconnect) -> Outcome {
        let Some(id) = self.fenced(&command.client, command.epoch) else { return Outcome::Stale };
        let Ok(action) = WillAction::try_from(command.will) else { return Outcome::Invalid };
        let Ok(reason) = DisconnectReason::try_from(command.reason) else {
            return Outcome::Invalid;
        };
        if command.heard && self.sessions[&id].connected() {
            self.disappear(id, reason, command.at);
        }
        let Some(session) = self.sessions.get_mut(&id) else { return Outcome::Stale };
        self.timers.disarm(session);
        if session.connected() {
            self.connected -= 1;
            let by_holder = command.by == session.node;
            self.effects.vacated.push(Vacated { held: session.held(), by_holder });
            session.end_connection(command.at);
            self.changes.position(session);
        }
        session.expiry_secs = command.expiry_secs.unwrap_or(session.expiry_secs);
        if action == WillAction::Discard {
            session.will = None;
        }
        let will = session.take_will_due(command.at);
        self.timers.arm(session);
        self.changes.record(session);
        let removed = session.expiry_secs == 0;
        self.publish_will(will, command.at);
        if removed {
            self.remove_session(id, command.at);
        } else {
            self.announce(id);
        }
        Outcome::Disconnected { removed }
    }

    pub(super) fn end_connection(&mut self, command: &EndConnection) -> Outcome {
        let Some(id) = self.fenced(&command.client, command.epoch) else { return Outcome::Stale };
        let session = &self.sessions[&id];
        let connected = session.connected();
        if connected {
            let EndConnection { clean_session, prevent_will, .. } = *command;
            let held = session.held();
            self.effects.deletions.push(Deletion { held, clean_session, prevent_will });
        }
        Outcome::Due(connected)
    }

    pub(super) fn expire(&mut self, command: Expire) -> Outcome {
        let Some(id) = self.fenced(&command.client, command.epoch) else { return Outcome::Stale };
        let due = self.sessions[&id].expires_at().is_some_and(|at| at <= command.at);
        if due {
            if command.discard_will {
                self.discard_will(id);
            }
            self.remove_session(id, command.at);
        }
        Outcome::Due(due)
    }

    pub(super) fn fire_will(&mut self, command: FireWill) -> Outcome {
        let Some(id) = self.fenced(&command.client, command.epoch) else { return Outcome::Stale };
        let Some(session) = self.sessions.get_mut(&id) else { return Outcome::Stale };
        if session.will_due().is_none_or(|at| at > command.at) {
            return Outcome::Due(false);
        }
        self.timers.disarm(session);
        let will = session.take_will_due(command.at);
        self.timers.arm(session);
        self.changes.record(session);
        self.publish_will(will.filter(|_| !command.discard), command.at);
        Outcome::Due(true)
    }

    fn discard_will(&mut self, id: u64) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.will = None;
        }
    }

    fn begin(&mut self, epoch: u64, command: Connect) -> Outcome {
        let id = self.next_session;
        self.next_session += 1;
        let presence = self.appear(&command, None);
        let mut session = Box::new(Session {
            id,
            client: command.client.clone(),
            epoch,
            ended_epoch: 0,
            node: command.node,
            connected_at: command.at,
            disconnected_at: None,
            expiry_secs: command.expiry_secs,
            version: command.version,
            queue_limit_messages: command.queue_limit_messages,
            queue_limit_bytes: command.queue_limit_bytes,
            will: command.will.map(Box::new),
            presence,
            subscriptions: Few::new(),
            shared: 0,
            inbound: Vec::new(),
            queue: Queue::default(),
            record_changed: false,
            position_changed: false,
        });
        self.changes.record(&mut session);
        self.changes.position(&mut session);
        self.sessions.insert(id, session);
        self.clients.insert(command.client, id);
        self.connected += 1;
        Outcome::Connected(Connected { session: id, epoch, ..Connected::default() })
    }

    fn resume(&mut self, id: u64, epoch: u64, command: Connect) -> Outcome {
        let before = self.sessions.get_mut(&id).and_then(|session| session.presence.take());
        let presence = self.appear(&command, before);
        let Some(session) = self.sessions.get_mut(&id) else { return Outcome::Stale };
        self.timers.disarm(session);
        if session.connected() {
            // A takeover ends the older connection; its own end will be stale.
            self.effects.vacated.push(Vacated { held: session.held(), by_holder: false });
            session.end_connection(command.at);
            self.changes.position(session);
        } else {
            self.connected += 1;
        }
        // A will whose delay was over is owed; one that waits is not published any more
        // [v5 MQTT-3.1.3-9].
        let owed = session.take_will_due(command.at);
        session.epoch = epoch;
        session.version = command.version;
        session.node = command.node;
        session.connected_at = command.at;
        session.disconnected_at = None;
        session.expiry_secs = command.expiry_secs;
        session.queue_limit_messages = command.queue_limit_messages;
        session.queue_limit_bytes = command.queue_limit_bytes;
        session.will = command.will.map(Box::new);
        session.presence = presence;
        self.changes.record(session);
        let subscription = |(filter, options): (&str, &Options)| Subscription {
            filter: filter.to_owned(),
            options: *options,
        };
        let connected = Connected {
            session_present: true,
            session: id,
            epoch,
            subscriptions: session.subscriptions().map(subscription).collect(),
            inbound: session.inbound.clone(),
        };
        self.publish_will(owed, command.at);
        self.announce(id);
        Outcome::Connected(connected)
    }

    /// Ends a session and all that it held; its will cannot wait any longer.
    fn remove_session(&mut self, id: u64, at: u64) {
        // Before the queue goes: a session that has ended leaves it to others [v5 4.8.2].
        self.take_back(id, None, 0, u32::MAX, u64::MAX);
        let Some(mut session) = self.sessions.remove(&id) else { return };
        self.holding.remove(&id);
        self.timers.disarm(&session);
        self.clients.remove(&session.client);
        if session.connected() {
            self.connected -= 1;
            self.effects.vacated.push(Vacated { held: session.held(), by_holder: false });
        }
        self.queued -= session.queue.len();
        self.subscriptions -= session.subscriptions.len();
        self.changes.removed(&session);
        for entry in session.queue.from(0) {
            self.messages.release(entry.message);
        }
        for (filter, _) in session.subscriptions.iter() {
            self.lose_interest(id, filter);
        }
        self.publish_will(session.will.take(), at);
        self.remember(&session, at);
        self.effects.removed.push(Removed { session: id, client: session.client.clone() });
    }

    fn publish_will(&mut self, will: Option<Box<Will>>, at: u64) {
        let Some(will) = will else { return };
        let publication = Publication {
            published_at: at,
            expires_at: will.message_expiry_secs.map(|secs| later(at, secs)),
            ..will.publication
        };
        let retain = publication.retain;
        self.emit(publication, retain);
    }

    /// Says of a session's shared subscriptions whether it has a connection.
    fn announce(&mut self, id: u64) {
        let session = &self.sessions[&id];
        if session.shared > 0 {
            self.effects.interest.extend(session.memberships().map(Interest::Joined));
        }
    }
}

impl Session {
    fn end_connection(&mut self, at: u64) {
        self.disconnected_at = Some(at);
        self.ended_epoch = self.epoch;
        self.queue.sent_below = self.queue.next_seq;
    }

    fn take_will_due(&mut self, at: u64) -> Option<Box<Will>> {
        let due = self.will_due().is_some_and(|due| due <= at);
        if due { self.will.take() } else { None }
    }
}

fn is_valid(command: &Connect) -> bool {
    let will = command.will.as_ref();
    !command.client.is_empty() && will.is_none_or(|will| valid_topic(&will.publication).is_some())
}

/// Whether the session goes on with this connection. One that lasts as long as its connection ends
/// when another takes over.
fn resumes(session: &Session, command: &Connect) -> bool {
    let lives = match session.expires_at() {
        Some(end) => command.at < end,
        None => session.expiry_secs != 0,
    };
    lives && !command.clean_start
}
