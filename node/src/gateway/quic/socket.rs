//! The UDP sockets of a listener: one for each core, of which the kernel chooses one by where a datagram
//! comes from.
//!
//! A client may come from another address at any time, and then the kernel chooses another core than the
//! one that has its connection. Connection ids tell which one that is: what a core receives for another
//! one it hands over. Bounds: [`WAITING_BYTES`] for each core; what comes beyond that is lost, as
//! datagrams may be.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use metrics::counter;
use parking_lot::Mutex;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, ConnectionId, ConnectionIdGenerator, Runtime, UdpPoller};

/// The length of the connection ids that this node gives.
const ID_BYTES: usize = 8;

/// Of what waits for a core in the hands of others.
const WAITING_BYTES: usize = 1 << 20;

/// Gives connection ids of a core: the first two bytes, divided by how many cores there are, leave its
/// number.
#[derive(Clone, Copy, Debug)]
pub(super) struct CoreIds {
    pub(super) core: u16,
    pub(super) cores: u16,
}

impl ConnectionIdGenerator for CoreIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id: [u8; ID_BYTES] = rand::random();
        let chance = u16::from_be_bytes([id[0], id[1]]);
        let near = chance - chance % self.cores;
        // The last numbers are too few for all cores.
        let near = if near.checked_add(self.cores).is_some() { near } else { near - self.cores };
        id[..2].copy_from_slice(&(near + self.core).to_be_bytes());
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// The core that a datagram belongs to, if it says so. Those with a long header are of handshakes, which
/// stay where they begin [RFC 9000 section 9].
fn owner(datagram: &[u8], cores: u16) -> Option<u16> {
    const LONG_HEADER: u8 = 0x80;
    let (first, rest) = datagram.split_first()?;
    let id = rest.get(..ID_BYTES).filter(|_| first & LONG_HEADER == 0)?;
    Some(u16::from_be_bytes([id[0], id[1]]) % cores)
}

/// What cores have received for each other.
#[derive(Debug)]
pub(super) struct Exchange(Box<[Inbox]>);

#[derive(Debug, Default)]
struct Inbox {
    waiting: Mutex<Waiting>,
    waker: AtomicWaker,
}

#[derive(Debug, Default)]
struct Waiting {
    datagrams: VecDeque<(RecvMeta, Box<[u8]>)>,
    bytes: usize,
}

impl Exchange {
    /// For so many cores, at least one.
    pub(super) fn new(cores: usize) -> Self {
        Self((0..cores).map(|_| Inbox::default()).collect())
    }

    pub(super) fn cores(&self) -> u16 {
        self.0.len().try_into().unwrap_or(u16::MAX)
    }
}

impl Inbox {
    fn put(&self, meta: RecvMeta, datagrams: &[u8]) {
        let mut waiting = self.waiting.lock();
        if waiting.bytes + datagrams.len() > WAITING_BYTES {
            counter!("quic_datagrams_dropped_total").increment(1);
            return;
        }
        waiting.bytes += datagrams.len();
        waiting.datagrams.push_back((meta, datagrams.into()));
        drop(waiting);
        self.waker.wake();
    }

    /// Fills buffers with what waits; how many.
    fn take(&self, buffers: &mut [IoSliceMut<'_>], metas: &mut [RecvMeta]) -> usize {
        let mut waiting = self.waiting.lock();
        let mut count = 0;
        for (buffer, meta) in buffers.iter_mut().zip(metas) {
            let Some((about, datagrams)) = waiting.datagrams.pop_front() else { break };
            waiting.bytes -= datagrams.len();
            buffer[..datagrams.len()].copy_from_slice(&datagrams);
            *meta = about;
            count += 1;
        }
        count
    }
}

/// The socket of a core.
#[derive(Debug)]
pub(super) struct CoreSocket {
    own: Arc<dyn AsyncUdpSocket>,
    core: u16,
    exchange: Arc<Exchange>,
}

impl CoreSocket {
    pub(super) fn new(
        socket: UdpSocket,
        runtime: &dyn Runtime,
        core: u16,
        exchange: Arc<Exchange>,
    ) -> io::Result<Self> {
        Ok(Self { own: runtime.wrap_udp_socket(socket)?, core, exchange })
    }

    /// Hands over what belongs to other cores; how many stay, in front.
    fn sort(
        &self,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
        received: usize,
    ) -> usize {
        let mut own = 0;
        for place in 0..received {
            // The datagrams of one buffer come from one place.
            let datagrams = &buffers[place][..metas[place].len];
            let owner = owner(datagrams, self.exchange.cores()).filter(|owner| *owner != self.core);
            match owner.and_then(|owner| self.exchange.0.get(usize::from(owner))) {
                Some(other) => other.put(metas[place], datagrams),
                None => {
                    buffers.swap(own, place);
                    metas.swap(own, place);
                    own += 1;
                }
            }
        }
        own
    }
}

impl AsyncUdpSocket for CoreSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.own).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.own.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let inbox = &self.exchange.0[usize::from(self.core)];
        // Before it is looked at, so that nothing comes between.
        inbox.waker.register(cx.waker());
        let taken = inbox.take(buffers, metas);
        if taken > 0 {
            return Poll::Ready(Ok(taken));
        }
        loop {
            let received = ready!(self.own.poll_recv(cx, buffers, metas))?;
            let own = self.sort(buffers, metas, received);
            if own > 0 {
                return Poll::Ready(Ok(own));
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.own.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.own.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.own.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.own.may_fragment()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_id_names_its_core() {
        for cores in [1, 2, 3, 7, 64, 300] {
            for core in [0, 1, 6, 299].into_iter().filter(|core| *core < cores) {
                let mut ids = CoreIds { core, cores };
                for _ in 0..1000 {
                    let id = ids.generate_cid();
                    let datagram = [&[0x40], &*id, b"payload"].concat();
                    assert_eq!(owner(&datagram, cores), Some(core), "{id:?} of {cores}");
                }
            }
        }
    }

    #[test]
    fn what_names_no_core_stays() {
        for datagram in [&[][..], &[0x40], &[0x40, 1, 2, 3, 4, 5, 6, 7], &[0xC0; 40]] {
            assert_eq!(owner(datagram, 2), None, "{datagram:?}");
        }
    }

    #[test]
    fn what_waits_for_a_core_is_bounded_and_in_order() {
        let inbox = Inbox::default();
        let meta = |len| RecvMeta { len, ..RecvMeta::default() };
        let half = vec![1; WAITING_BYTES / 2];
        inbox.put(meta(3), b"abc");
        inbox.put(meta(half.len()), &half);
        inbox.put(meta(half.len()), &half);
        inbox.put(meta(2), b"de");
        let mut memory = vec![vec![0; WAITING_BYTES]; 4];
        let mut buffers: Vec<_> = memory.iter_mut().map(|it| IoSliceMut::new(it)).collect();
        let mut metas = [RecvMeta::default(); 4];
        assert_eq!(inbox.take(&mut buffers, &mut metas), 3, "the third has found no room");
        assert_eq!(metas.map(|meta| meta.len), [3, half.len(), 2, 0]);
        assert!(buffers[0].starts_with(b"abc") && buffers[2].starts_with(b"de"));
        assert_eq!(inbox.take(&mut buffers, &mut metas), 0);
        inbox.put(meta(half.len()), &half);
        assert_eq!(inbox.take(&mut buffers, &mut metas), 1, "there is room again");
    }
}
