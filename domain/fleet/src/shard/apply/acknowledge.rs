//! Clients answer: entries leave their queue, or owe only PUBREL any more.

use crate::shard::command::{Acknowledge, PubrecReceived, SharedCopy};
use crate::shard::queue::{Ids, RELEASED};
use crate::shard::{Interest, Outcome, Shard};

impl Shard {
    pub(super) fn acknowledge(&mut self, command: Acknowledge) -> Outcome {
        let Some(id) = self.fenced(&command.client, command.epoch) else { return Outcome::Stale };
        let Some(session) = self.sessions.get_mut(&id) else { return Outcome::Stale };
        let (mut removed, mut passed) = (0, Vec::new());
        let done = command.seqs.into_iter().map(|seq| (seq, false));
        for (seq, is_refused) in done.chain(command.refused.into_iter().map(|seq| (seq, true))) {
            let share = is_refused.then(|| session.queue.get(seq)?.share.clone()).flatten();
            let Some(message) = session.queue.remove(seq) else { continue };
            if message != RELEASED {
                if let Some(share) = share {
                    let publication = self.messages.get(message).cloned();
                    passed.extend(publication.map(|publication| (publication, share)));
                }
                session.queue.bytes -= self.messages.release(message) as u64;
            }
            self.changes.entry(session, seq);
            removed += 1;
        }
        if !session.queue.holds_shared() {
            self.holding.remove(&id);
        }
        self.queued -= removed as usize;
        for (publication, share) in passed {
            let interest = Interest::PassedOver {
                share: share.to_string(),
                session: id,
                topic: publication.topic.clone(),
            };
            if self.effects.interest.last() != Some(&interest) {
                self.effects.interest.push(interest);
            }
            // Behind what others may be able to have, and within the limits: nobody may ever have it.
            let filter = share.to_string();
            self.pass_on(publication, SharedCopy { filter, ..SharedCopy::default() });
        }
        Outcome::Acknowledged { removed }
    }

    pub(super) fn pubrec_received(&mut self, command: PubrecReceived) -> Outcome {
        let Some(id) = self.fenced(&command.client, command.epoch) else { return Outcome::Stale };
        let Some(session) = self.sessions.get_mut(&id) else { return Outcome::Stale };
        let mut owed = Vec::with_capacity(command.seqs.len());
        for seq in command.seqs {
            let Some(entry) = session.queue.get_mut(seq).filter(|entry| entry.qos == 2) else {
                owed.push(false);
                continue;
            };
            owed.push(true);
            let message = std::mem::replace(&mut entry.message, RELEASED);
            if message != RELEASED {
                (entry.retain, entry.ids) = (false, Ids::new());
                session.queue.bytes -= self.messages.release(message) as u64;
                self.changes.entry(session, seq);
            }
        }
        if owed.contains(&true) {
            self.effects.released.push(id);
        }
        Outcome::PubrecRecorded(owed)
    }
}
