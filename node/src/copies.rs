//! Copies of publications that are kept for a while, one behind the other in few buffers.
//!
//! Nothing is allocated for each: buffers come from the core's pool, of the size that it keeps for others, and
//! go back when all copies in them were removed. What is kept longer than its neighbours keeps their buffer,
//! too, so buffers are what counts.

use crate::outbox::Pool;
use crate::publication::Publication;

/// Bytes that a copy has beside its content, at most.
const OVERHEAD: usize = 64;

/// See the module.
#[derive(Debug, Default)]
pub struct Copies {
    buffers: Vec<Buffer>,
    /// Those without copies, which have no memory.
    free: Vec<u32>,
    /// The one to which copies are added.
    open: Option<u32>,
    held: usize,
}

#[derive(Debug, Default)]
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

    /// Whether a copy goes into a buffer that is there already.
    pub fn has_room(&self, publication: &Publication<'_>) -> bool {
        self.open.is_some_and(|open| {
            let bytes = &self.buffers[open as usize].bytes;
            bytes.capacity() - bytes.len() >= most_bytes(publication)
        })
    }

    /// Adds a copy.
    pub fn add(&mut self, publication: &Publication<'_>, pool: &mut Pool) -> Place {
        let open = self.open.filter(|_| self.has_room(publication));
        let open = open.unwrap_or_else(|| self.take_buffer(most_bytes(publication), pool));
        let buffer = &mut self.buffers[open as usize];
        let start = buffer.bytes.len() as u32;
        publication.to_peer().encode(&mut buffer.bytes);
        buffer.copies += 1;
        Place { buffer: open, start, end: buffer.bytes.len() as u32 }
    }

    fn take_buffer(&mut self, room: usize, pool: &mut Pool) -> u32 {
        let mut bytes = pool.take();
        bytes.shrink_to(room.max(Pool::CAPACITY));
        bytes.reserve(room);
        self.held += bytes.capacity();
        pool.hold(bytes.capacity());
        let free = self.free.pop();
        let open = free.unwrap_or_else(|| {
            self.buffers.push(Buffer::default());
            self.buffers.len() as u32 - 1
        });
        self.buffers[open as usize].bytes = bytes;
        self.open = Some(open);
        open
    }

    /// A copy.
    pub fn get(&self, place: &Place) -> Option<Publication<'_>> {
        let bytes = &self.buffers.get(place.buffer as usize)?.bytes;
        let encoded = bytes.get(place.start as usize..place.end as usize)?;
        Some(Publication::from_peer(&links::Publication::decode(encoded).ok()?))
    }

    /// Removes a copy.
    pub fn remove(&mut self, place: Place, pool: &mut Pool) {
        let buffer = &mut self.buffers[place.buffer as usize];
        buffer.copies -= 1;
        if buffer.copies > 0 {
            return;
        }
        let bytes = std::mem::take(&mut buffer.bytes);
        self.held -= bytes.capacity();
        pool.release(bytes.capacity());
        pool.put(bytes);
        self.free.push(place.buffer);
        self.open = self.open.filter(|open| *open != place.buffer);
    }
}

fn most_bytes(publication: &Publication<'_>) -> usize {
    publication.bytes() + publication.publisher.len() + OVERHEAD
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
                copies.remove(place, &mut pool);
            }
        }
        kept.drain(..).for_each(|(place, _)| copies.remove(place, &mut pool));
        assert_eq!((copies.held(), copies.free.len(), pool.held()), (0, copies.buffers.len(), 0));
    }

    #[test]
    fn one_that_stays_costs_no_more_than_its_buffer() {
        let (mut copies, mut pool) = (Copies::default(), Pool::new(0));
        let publication = Publication::borrowed("topic", &[0; 100], QoS::AtLeastOnce, false);
        let first = copies.add(&publication, &mut pool);
        for _ in 0..100_000 {
            let next = copies.add(&publication, &mut pool);
            copies.remove(next, &mut pool);
        }
        assert!(copies.buffers.len() <= 2 && copies.held() <= 2 * Pool::CAPACITY);
        copies.remove(first, &mut pool);
        assert_eq!(pool.held(), copies.held());
    }
}
