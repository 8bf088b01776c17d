//! Bytes on their way to one socket.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::Bytes;

/// A payload of at least this many bytes is shared between sockets instead of copied.
pub const SHARE_FROM: usize = 8 * 1024;

/// How many slices one write takes at most.
const SLICES: usize = 16;

/// What waits to be written, in order. Holds no memory while it is empty.
///
/// It has no bound of its own: the endpoint checks [`Outbox::len`] against its budget before it adds.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Full pieces before `tail`: packets up to one with a shared payload, that payload, and so on.
    head: VecDeque<Bytes>,
    tail: Vec<u8>,
    /// Bytes of the first piece that are written already.
    written: usize,
    len: usize,
}

impl Outbox {
    /// Bytes that wait.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where small packets are encoded. `pool` gives a buffer with room when there is none yet.
    pub fn append(&mut self, pool: &mut Pool, encode: impl FnOnce(&mut Vec<u8>)) {
        if self.tail.capacity() == 0 {
            self.tail = pool.take();
        }
        let before = self.tail.len();
        encode(&mut self.tail);
        let added = self.tail.len() - before;
        self.len += added;
        pool.hold(added);
    }

    /// Adds a packet that ends with a payload which other sockets share.
    pub fn append_shared(
        &mut self,
        pool: &mut Pool,
        encode: impl FnOnce(&mut Vec<u8>),
        payload: Bytes,
    ) {
        self.append(pool, encode);
        self.len += payload.len();
        pool.hold(payload.len());
        self.head.push_back(std::mem::take(&mut self.tail).into());
        self.head.push_back(payload);
    }

    /// Drops what follows the packet that is half written.
    pub fn cut(&mut self, pool: &mut Pool) {
        let end = match self.head.front() {
            // Packets and payloads take turns.
            Some(payload) if self.head.len() % 2 == 1 => payload.len(),
            Some(packets) => end_of_packet(packets, self.written),
            None => end_of_packet(&self.tail, self.written),
        };
        let mut left = end;
        self.head.retain_mut(|piece| {
            piece.truncate(left);
            left -= piece.len();
            !piece.is_empty()
        });
        self.tail.truncate(left);
        let dropped = self.len - (end - self.written);
        self.len -= dropped;
        pool.release(dropped);
        self.advance(0, pool);
    }

    /// The pieces to write now, and whether there is anything.
    pub fn slices<'a>(&'a self, slices: &mut smallvec::SmallVec<[IoSlice<'a>; SLICES]>) {
        let mut skip = self.written;
        for piece in self.head.iter().take(SLICES) {
            slices.push(IoSlice::new(&piece[skip..]));
            skip = 0;
        }
        if slices.len() < SLICES && self.tail.len() > skip {
            slices.push(IoSlice::new(&self.tail[skip..]));
        }
    }

    /// `count` bytes of the front are written.
    pub fn advance(&mut self, count: usize, pool: &mut Pool) {
        pool.release(count);
        self.len -= count;
        self.written += count;
        while let Some(front) = self.head.front() {
            if self.written < front.len() {
                return;
            }
            self.written -= front.len();
            self.head.pop_front();
        }
        if self.len == 0 {
            self.written = 0;
            self.head = VecDeque::new();
            pool.put(std::mem::take(&mut self.tail));
        }
    }
}

/// Where the packet ends that `written` is within, counted from the first of `packets`.
fn end_of_packet(packets: &[u8], written: usize) -> usize {
    let mut end = 0;
    while end < written {
        let length = mqtt::frame(&packets[end..], u32::MAX).ok().flatten();
        end += length.expect("an outbox holds packets");
    }
    end
}

/// The buffers of a core: those that no connection uses now, and how much all of them hold.
#[derive(Debug)]
pub struct Pool {
    free: Vec<Vec<u8>>,
    held: usize,
    inbound: usize,
    budget: usize,
}

impl Pool {
    /// A pool for connections that may together hold `budget` bytes.
    pub fn new(budget: usize) -> Self {
        Self { free: Vec::new(), held: 0, inbound: 0, budget }
    }

    /// Bytes that wait in the connections of this core, in either direction.
    pub fn held(&self) -> usize {
        self.held + self.inbound
    }

    /// Whether the core's connections hold as much as they may.
    pub fn is_full(&self) -> bool {
        self.held >= self.budget
    }

    /// Counts bytes of unfinished packets from clients; false when all of them together are too many.
    #[must_use]
    pub fn hold_inbound(&mut self, bytes: usize) -> bool {
        self.inbound += bytes;
        self.inbound <= self.budget / 2
    }

    /// Whether so many bytes more, which need not be kept, leave enough for unfinished packets.
    pub fn has_room_inbound(&self, bytes: usize) -> bool {
        self.inbound + bytes <= self.budget / 4
    }

    /// Counts bytes that became a packet.
    pub fn release_inbound(&mut self, bytes: usize) {
        self.inbound = self.inbound.saturating_sub(bytes);
    }

    /// Counts bytes that a connection holds from now on.
    pub fn hold(&mut self, bytes: usize) {
        self.held += bytes;
    }

    /// Counts bytes that it no longer holds.
    pub fn release(&mut self, bytes: usize) {
        self.held = self.held.saturating_sub(bytes);
    }

    const KEEP: usize = 64;
    /// Bytes of a buffer that nobody has used yet.
    pub const CAPACITY: usize = 16 * 1024;

    /// An empty buffer with room.
    pub fn take(&mut self) -> Vec<u8> {
        self.free.pop().unwrap_or_else(|| Vec::with_capacity(Self::CAPACITY))
    }

    /// Gives a buffer to whoever wants one next.
    pub fn put(&mut self, mut buffer: Vec<u8>) {
        let worth = (Self::CAPACITY..=16 * Self::CAPACITY).contains(&buffer.capacity());
        if worth && self.free.len() < Self::KEEP {
            buffer.clear();
            self.free.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes `step` bytes at a time and gives back what arrived.
    fn drain(outbox: &mut Outbox, pool: &mut Pool, step: usize) -> Vec<u8> {
        let mut arrived = Vec::new();
        while !outbox.is_empty() {
            let mut slices = smallvec::SmallVec::new();
            outbox.slices(&mut slices);
            let all: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
            let count = step.min(all.len());
            arrived.extend_from_slice(&all[..count]);
            drop(slices);
            outbox.advance(count, pool);
        }
        arrived
    }

    #[test]
    fn bytes_leave_in_order_however_little_is_written() {
        for step in [1, 2, 3, 7, 100] {
            let mut pool = Pool::new(1 << 20);
            let mut outbox = Outbox::default();
            outbox.append(&mut pool, |out| out.extend_from_slice(b"one"));
            let text = |text: &'static [u8]| move |out: &mut Vec<u8>| out.extend_from_slice(text);
            outbox.append_shared(&mut pool, text(b"t"), Bytes::from_static(b"wo"));
            outbox.append_shared(&mut pool, text(b"thr"), Bytes::from_static(b"ee"));
            outbox.append(&mut pool, |out| out.extend_from_slice(b"four"));
            assert_eq!((outbox.len(), pool.held()), (15, 15));
            assert_eq!(drain(&mut outbox, &mut pool, step), b"onetwothreefour");
            assert_eq!(outbox.tail.capacity(), 0, "an empty outbox holds no memory");
            assert_eq!(pool.held(), 0);
        }
    }

    /// A packet of so many bytes.
    fn packet(length: u8) -> Vec<u8> {
        let mut packet = vec![0x30, length - 2];
        packet.resize(length.into(), length);
        packet
    }

    #[test]
    fn what_is_cut_ends_with_the_packet_that_is_half_written() {
        // Packets of 4, 6, 2 + 8, 5, 3 + 7 and 9 bytes, of which the third and the fifth share payloads.
        let ends = [4, 10, 20, 25, 35, 44];
        for written in 0..=44 {
            let mut pool = Pool::new(1 << 20);
            let mut outbox = Outbox::default();
            let mut all = Vec::new();
            for (length, shared) in [(4, 0), (6, 0), (10, 8), (5, 0), (10, 7), (9, 0)] {
                let packet = packet(length);
                all.extend_from_slice(&packet);
                let (head, payload) = packet.split_at(packet.len() - shared);
                let encode = |out: &mut Vec<u8>| out.extend_from_slice(head);
                match shared {
                    0 => outbox.append(&mut pool, encode),
                    _ => outbox.append_shared(&mut pool, encode, payload.to_vec().into()),
                }
            }
            outbox.advance(written, &mut pool);
            outbox.cut(&mut pool);
            let end = *ends.iter().find(|end| **end >= written).unwrap();
            let end = if written == 0 { 0 } else { end };
            assert_eq!((outbox.len(), pool.held()), (end - written, end - written), "{written}");
            outbox.append(&mut pool, |out| out.extend_from_slice(b"last"));
            let expected = [&all[written..end], b"last"].concat();
            assert_eq!(drain(&mut outbox, &mut pool, 3), expected, "{written}");
            assert_eq!(pool.held(), 0);
        }
    }
}
