//! The numbers of the last connections of clients that have no session, so that the next one counts on.
//!
//! Kept only of clients whose events somebody has heard, for [`KEPT_MS`] after the connection, and of
//! [`MOST`] clients: beyond that the one that has been away for longest is forgotten, and counts from
//! zero again.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

/// How long after its end a connection's number is remembered.
pub(super) const KEPT_MS: u64 = 3_600_000;

/// How many clients are remembered.
const MOST: usize = 1 << 16;

/// How many forgotten ones a command clears away, so that none pays for all.
const CLEARED: usize = 4;

/// The last connection of a client that is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Absence {
    /// Its number.
    pub(super) number: u64,
    /// When it ended.
    pub(super) since: u64,
}

impl Absence {
    fn is_forgotten(self, now: u64) -> bool {
        now >= self.since.saturating_add(KEPT_MS)
    }
}

#[derive(Default)]
pub(super) struct Absences {
    clients: BTreeMap<Bytes, Absence>,
    oldest: BTreeSet<(u64, Bytes)>,
    /// Clients of whom the last checkpoint says something else.
    changed: BTreeSet<Bytes>,
}

impl Absences {
    /// Remembers an absence; `client` must not keep a log entry in memory.
    pub(super) fn note(&mut self, client: Bytes, absence: Absence, now: u64) {
        if absence.is_forgotten(now) {
            return;
        }
        self.changed.insert(client.clone());
        self.restore(client, absence);
        if self.clients.len() > MOST
            && let Some((_, client)) = self.oldest.pop_first()
        {
            self.clients.remove(&client);
            self.changed.insert(client);
        }
    }

    /// The number after that of a client's last connection, which is forgotten; none when nothing is
    /// remembered.
    pub(super) fn take_next(&mut self, client: &[u8], now: u64) -> Option<u64> {
        self.clear(now);
        let (client, absence) = self.clients.remove_entry(client)?;
        self.oldest.remove(&(absence.since, client.clone()));
        self.changed.insert(client);
        (!absence.is_forgotten(now)).then_some(absence.number + 1)
    }

    /// Puts an absence in its place without noting a change.
    pub(super) fn restore(&mut self, client: Bytes, absence: Absence) {
        if let Some(before) = self.clients.insert(client.clone(), absence) {
            self.oldest.remove(&(before.since, client.clone()));
        }
        self.oldest.insert((absence.since, client));
    }

    /// All of them, ordered by client.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Bytes, &Absence)> {
        self.clients.iter()
    }

    /// What changed since the last checkpoint: present or gone, ordered by client.
    pub(super) fn settle(&mut self, mut change: impl FnMut(&Bytes, Option<&Absence>)) {
        for client in std::mem::take(&mut self.changed) {
            change(&client, self.clients.get(&client));
        }
    }

    fn clear(&mut self, now: u64) {
        for _ in 0..CLEARED {
            let Some((since, client)) = self.oldest.first() else { break };
            if now < since.saturating_add(KEPT_MS) {
                break;
            }
            self.clients.remove(client);
            if let Some((_, client)) = self.oldest.pop_first() {
                self.changed.insert(client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_absence_is_forgotten_first() {
        let mut absences = Absences::default();
        let client = |number: usize| Bytes::from(format!("c{number}"));
        for number in 0..=MOST {
            let since = 1 + number as u64;
            absences.note(client(number), Absence { number: 7, since }, since);
        }
        let now = MOST as u64 + 1;
        assert_eq!(absences.take_next(b"c0", now), None);
        assert_eq!(absences.take_next(b"c1", now), Some(8));
        assert_eq!(absences.take_next(b"c1", now), None);
        assert_eq!((absences.clients.len(), absences.oldest.len()), (MOST - 1, MOST - 1));
        absences.clear(u64::MAX);
        assert_eq!(absences.clients.len(), MOST - 1 - CLEARED);
    }
}
