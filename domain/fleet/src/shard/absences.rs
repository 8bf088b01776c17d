//! The numbers of the last connections of clients that have no session, so that the next one counts on.
//!
//! Kept only of clients whose events somebody has heard, for [`KEPT_MS`] after the connection, and of
//! [`MOST`] clients with [`MOST_BYTES`] of client ids: beyond that who has been away for longest is
//! forgotten, and counts from zero again.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

/// How long after its end a connection's number is remembered.
pub(super) const KEPT_MS: u64 = 3_600_000;

/// How many clients are remembered.
const MOST: usize = 1 << 16;

/// How long their client ids are together: one may have 64 KiB.
const MOST_BYTES: usize = 4 << 20;

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
    /// Of the client ids.
    bytes: usize,
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
    }

    /// The number after that of a client's last connection, which is forgotten; none when nothing is
    /// remembered.
    pub(super) fn take_next(&mut self, client: &[u8], now: u64) -> Option<u64> {
        self.clear(now);
        let (client, absence) = self.clients.remove_entry(client)?;
        self.bytes -= client.len();
        self.oldest.remove(&(absence.since, client.clone()));
        self.changed.insert(client);
        (!absence.is_forgotten(now)).then_some(absence.number + 1)
    }

    /// Puts an absence in its place without noting a change, unless somebody has to be forgotten for it.
    pub(super) fn restore(&mut self, client: Bytes, absence: Absence) {
        if let Some(before) = self.clients.insert(client.clone(), absence) {
            self.oldest.remove(&(before.since, client.clone()));
        } else {
            self.bytes += client.len();
        }
        self.oldest.insert((absence.since, client));
        while self.clients.len() > MOST || self.bytes > MOST_BYTES {
            self.forget_oldest();
        }
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
            let Some((since, _)) = self.oldest.first() else { break };
            if now < since.saturating_add(KEPT_MS) {
                break;
            }
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, client)) = self.oldest.pop_first() {
            self.clients.remove(&client);
            self.bytes -= client.len();
            self.changed.insert(client);
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

    #[test]
    fn long_client_ids_are_bounded_by_their_bytes() {
        const LONG: usize = 60_000;
        const KEPT: usize = MOST_BYTES / LONG;
        let client = |number: usize| Bytes::from(format!("{number:0LONG$}"));
        let absence = |number: usize| Absence { number: 7, since: number as u64 };
        let mut absences = Absences::default();
        for number in 0..2 * KEPT {
            absences.note(client(number), absence(number), 0);
            // Again, at another time: counted once.
            absences.note(client(number), absence(number), 0);
        }
        let mut loaded = Absences::default();
        (0..2 * KEPT).for_each(|number| loaded.restore(client(number), absence(number)));
        for absences in [absences, loaded] {
            let (mut present, mut gone) = (absences, 0);
            let kept: Vec<_> = present.iter().map(|(client, _)| client.clone()).collect();
            assert_eq!(kept, (KEPT..2 * KEPT).map(client).collect::<Vec<_>>());
            assert_eq!(present.bytes, KEPT * LONG);
            present.settle(|_, absence| gone += usize::from(absence.is_none()));
            assert_eq!(gone, KEPT, "the next checkpoint forgets them, too");
            kept.iter().for_each(|client| assert!(present.take_next(client, 0).is_some()));
            assert_eq!((present.bytes, present.oldest.len()), (0, 0));
        }
    }
}
