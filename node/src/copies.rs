//! Copies of publications that are kept for a while, one behind the other in few buffers.
//!
//! Nothing is allocated for each: buffers come from the core's pool and go back when all copies in them were
//! removed. What is kept longer than its neighbours keeps their buffer, too, so buffers are what counts.

use std::collections::VecDeque;

use crate::outbox::Pool;
use crate::publication::Publication;

/// Bytes that a copy has beside its content, at most.
const OVERHEAD: usize = 64;

/// See the module.
#[derive(Debug, Default)]
pub struct Copies {
    /// Removed ones before the last have no memory.
    buffers: VecDeque<Buffer>,
    /// The number of the first buffer.
    first: u32,
    held: usize,
}

#[derive(Debug)]
struct Buffer {
    bytes: Vec<u8>,
    copies: usize,
}

/// Where a copy is.
#[derive(Debug)]
pub struct Place {
    buffer: u32,
    start: u32,
    end: u32,
}

impl Copies {
    /// Bytes of the buffers.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Adds a copy.
    pub fn add(&mut self, publication: &Publication<'_>, pool: &mut Pool) -> Place {
        let needs = publication.bytes() + publication.publisher.len() + OVERHEAD;
        let has_room = |it: &Buffer| it.bytes.capacity() - it.bytes.len() >= needs;
        if !self.buffers.back().is_some_and(has_room) {
            let mut bytes = pool.take();
            bytes.reserve(needs);
            self.held += bytes.capacity();
            pool.hold(bytes.capacity());
            self.buffers.push_back(Buffer { bytes, copies: 0 });
        }
        let buffer = self.first.wrapping_add(self.buffers.len() as u32 - 1);
        let last = self.buffers.back_mut().expect("one was added");
        let start = last.bytes.len() as u32;
        publication.to_peer().encode(&mut last.bytes);
        last.copies += 1;
        Place { buffer, start, end: last.bytes.len() as u32 }
    }

    /// A copy.
    pub fn get(&self, place: &Place) -> Option<Publication<'_>> {
        let buffer = self.buffers.get(place.buffer.wrapping_sub(self.first) as usize)?;
        let encoded = buffer.bytes.get(place.start as usize..place.end as usize)?;
        Some(Publication::from_peer(&links::Publication::decode(encoded).ok()?))
    }

    /// Removes a copy.
    pub fn remove(&mut self, place: &Place, pool: &mut Pool) {
        let at = place.buffer.wrapping_sub(self.first) as usize;
        let Some(buffer) = self.buffers.get_mut(at) else { return };
        buffer.copies -= 1;
        if buffer.copies > 0 {
            return;
        }
        let bytes = std::mem::take(&mut buffer.bytes);
        self.held -= bytes.capacity();
        pool.release(bytes.capacity());
        pool.put(bytes);
        while self.buffers.front().is_some_and(|buffer| buffer.copies == 0) {
            self.buffers.pop_front();
            self.first = self.first.wrapping_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use mqtt::QoS;
    use storage::dice::Dice;

    use super::*;

    #[test]
    fn copies_are_what_was_added_in_whatever_order_they_are_removed() {
        let (mut copies, mut pool, mut dice) = (Copies::default(), Pool::new(0), Dice::new(7));
        let mut kept = Vec::new();
        let text = |size: usize| "0123456789abcdef".repeat(size / 16 + 1)[..size].to_owned();
        for _ in 0..20_000 {
            let sizes = [40, 40, 400, 4_000, 60_000];
            let [topic, payload, publisher] = [100, sizes[dice.below(5) as usize], 60]
                .map(|most| text(dice.below(most) as usize));
            let mut publication =
                Publication::borrowed(&topic, payload.as_bytes(), QoS::AtLeastOnce, true);
            publication.properties = topic.as_bytes();
            publication.expires_at = (topic.len() % 2 == 0).then_some(u64::MAX);
            publication.publisher = &publisher;
            publication.published_at = payload.len() as u64;
            kept.push((copies.add(&publication, &mut pool), publication.keep()));
            assert!(copies.held() >= kept.iter().map(|(_, kept)| kept.bytes()).sum());
            while kept.len() > 40 || dice.below(2) == 0 && !kept.is_empty() {
                // Mostly the oldest.
                let at = dice.below(kept.len() as u64) * dice.below(4) / 3;
                let (place, kept) = kept.remove(at as usize % kept.len());
                assert_eq!(copies.get(&place).unwrap().keep(), kept);
                copies.remove(&place, &mut pool);
            }
        }
        kept.drain(..).for_each(|(place, _)| copies.remove(&place, &mut pool));
        assert_eq!((copies.held(), copies.buffers.len(), pool.held()), (0, 0, 0));
    }
}
