//! What a backup needs to know of a shard's pairs.
//!
//! Groups are read one after the other while they work. An outbox entry may be gone from the group
//! that had it and not be, yet, in the state of a group that it was for. So whoever takes a backup
//! remembers the entries that were there from its beginning on, and puts them back: groups know
//! repetitions. What the queue of a shared subscription has given to whoever is connected is not for
//! another group, and is back in that queue if nobody could have it: it is put back as something that has
//! expired. And a group may have seen entries that came after those of the group they are from:
//! it has to forget that, for others will have their numbers.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::checkpoint::outbox;
use super::stored::{Key, StoredCounters, StoredWatermark, read, value};
use super::{LoadError, OutboxEntry, Publication};

/// Puts outbox entries into the stored pairs of the shard they are of, as if they had never been
/// trimmed: all from the first on that `entries`, which are in order and without a gap, begin with.
/// Those that come after the pairs are left out. Gives the sequence that the next entry will have.
pub fn put_back_outbox<'a>(
    pairs: &mut BTreeMap<Vec<u8>, Vec<u8>>,
    entries: impl IntoIterator<Item = &'a OutboxEntry>,
) -> Result<u64, LoadError> {
    let counters = pairs.get(&Key::Counters.bytes());
    let counters = counters.map(|value| read::<StoredCounters>(value)).transpose()?;
    let next = counters.map_or(1, |counters| counters.next_outbox);
    for entry in entries.into_iter().filter(|entry| entry.seq < next) {
        let has_expired = || {
            let publication = Publication::clone(&entry.publication);
            let publication = Arc::new(Publication { expires_at: Some(0), ..publication });
            outbox(&OutboxEntry { publication, ..entry.clone() })
        };
        let key = Key::Outbox(entry.seq).bytes();
        if entry.is_for_anybody() {
            pairs.entry(key).or_insert_with(has_expired);
        } else {
            pairs.insert(key, outbox(entry));
        }
    }
    Ok(next)
}

/// Has the stored pairs of a shard know no outbox entries but those below the sequence where the outbox
/// of their group ends.
pub fn forget_later_entries(
    pairs: &mut BTreeMap<Vec<u8>, Vec<u8>>,
    outbox_ends: &BTreeMap<u32, u64>,
) -> Result<(), LoadError> {
    for (&group, &end) in outbox_ends {
        let key = Key::Watermark(group.into()).bytes();
        let Some(stored) = pairs.get_mut(&key) else { continue };
        if read::<StoredWatermark>(stored)?.seq >= end {
            *stored = value(&StoredWatermark { seq: end.saturating_sub(1), part: None });
        }
    }
    Ok(())
}
