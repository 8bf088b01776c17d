//! What is told of connections to those who listen for lifecycle events.

use bytes::Bytes;

use crate::shard::absences::Absence;
use crate::shard::command::{Announce, Connect, DisconnectReason, Event};
use crate::shard::lifecycle::{Told, Who, publication};
use crate::shard::session::{Present, Session};
use crate::shard::{Outcome, Shard};

impl Shard {
    pub(super) fn announce_event(&mut self, command: Announce) -> Outcome {
        let Ok(event) = Event::try_from(command.event) else { return Outcome::Invalid };
        let Ok(reason) = DisconnectReason::try_from(command.reason) else {
            return Outcome::Invalid;
        };
        let who = match &command.presence {
            Some(presence) => Who::new(presence),
            None => self.present(&command.client, command.epoch).map(|present| present.who.clone()),
        };
        let Some(who) = who else { return Outcome::Stale };
        let told = match event {
            // A connection that has a session is told of with what happens to that.
            Event::Connected => return Outcome::Invalid,
            Event::Disconnected => {
                Told::Disconnected(self.number_of_stranger(&command.client, command.at), reason)
            }
            Event::Subscribed => Told::Subscribed(&command.topics),
            Event::Unsubscribed => Told::Unsubscribed(&command.topics),
            Event::ConnectFailed => {
                Told::ConnectFailed(command.presence.as_ref().and_then(|it| it.ip.as_deref()))
            }
        };
        self.inform(&command.client, &who, told, command.at);
        Outcome::Announced
    }

    fn present(&self, client: &[u8], epoch: u64) -> Option<&Present> {
        self.sessions.get(&self.fenced(client, epoch)?)?.presence.as_deref()
    }

    /// The number of a connection that the shard hears of when it has ended.
    fn number_of_stranger(&mut self, client: &Bytes, at: u64) -> u64 {
        let number = self.absences.take_next(client, at).unwrap_or(0);
        let absence = Absence { number, since: at };
        self.absences.note(Bytes::copy_from_slice(client), absence, at);
        number
    }

    /// Leaves an event for those who listen.
    fn inform(&mut self, client: &[u8], who: &Who, told: Told<'_>, at: u64) {
        if let Some(publication) = publication(client, who, told, at) {
            self.emit(publication, false);
        }
    }

    /// The connection that begins, as the next of its client, and says so if somebody listens.
    pub(super) fn appear(
        &mut self,
        command: &Connect,
        before: Option<Box<Present>>,
    ) -> Option<Box<Present>> {
        let presence = command.presence.as_ref()?;
        let who = Who::new(presence)?;
        let mut present = match before {
            Some(before) => {
                let who = Who { session: before.who.session, ..who };
                Present { who, number: before.number + 1, told: before.told }
            }
            None => {
                let number = self.absences.take_next(&command.client, command.at);
                Present { who, number: number.unwrap_or(0), told: number.is_some() }
            }
        };
        if command.heard {
            present.told = true;
            let told = Told::Connected(present.number, presence.ip.as_deref());
            self.inform(&command.client, &present.who, told, command.at);
        }
        Some(Box::new(present))
    }

    /// Says that the connection of a session has ended.
    pub(super) fn disappear(&mut self, id: u64, reason: DisconnectReason, at: u64) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Some(present) = session.presence.as_deref_mut() else { return };
        present.told = true;
        let told = Told::Disconnected(present.number, reason);
        if let Some(publication) = publication(&session.client, &present.who, told, at) {
            self.emit(publication, false);
        }
    }

    /// A session is gone: the next connection of its client counts on, if anybody was told of this one.
    pub(super) fn remember(&mut self, session: &Session, at: u64) {
        let Some(present) = session.presence.as_deref().filter(|present| present.told) else {
            return;
        };
        let since = session.disconnected_at.unwrap_or(at);
        let absence = Absence { number: present.number, since };
        self.absences.note(session.client.clone(), absence, at);
    }
}
