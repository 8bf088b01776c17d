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
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use metrics::counter;
use parking_lot::Mutex;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, ConnectionId, ConnectionIdGenerator, Runtime, UdpPoller};

/// The length of the connection ids that this node gives.
const ID_BYTES: usize = 8;

/// Of what waits for a core in the hands of others, with what each piece costs beside its bytes.
const WAITING_BYTES: usize = 1 << 20;
const PIECE_BYTES: usize = 128;

/// How often a socket is read in a turn while all that comes is for other cores.
const READS_PER_TURN: usize = 8;

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
        let bytes = datagrams.len() + PIECE_BYTES;
        if waiting.bytes + bytes > WAITING_BYTES {
            counter!("quic_datagrams_dropped_total").increment(1);
            return;
        }
        waiting.bytes += bytes;
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
            waiting.bytes -= datagrams.len() + PIECE_BYTES;
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
    /// Whether others have handed something over in the last turn: then it is the turn of the socket.
    was_handed: AtomicBool,
}

impl CoreSocket {
    pub(super) fn new(
        socket: UdpSocket,
        runtime: &dyn Runtime,
        core: u16,
        exchange: Arc<Exchange>,
    ) -> io::Result<Self> {
        let (own, was_handed) = (runtime.wrap_udp_socket(socket)?, AtomicBool::new(false));
        Ok(Self { own, core, exchange, was_handed })
    }

    fn inbox(&self) -> &Inbox {
        &self.exchange.0[usize::from(self.core)]
    }

    /// The inbox of the core that a datagram belongs to, if it is another one.
    fn other(&self, datagram: &[u8]) -> Option<&Inbox> {
        let owner = owner(datagram, self.exchange.cores()).filter(|owner| *owner != self.core)?;
        self.exchange.0.get(usize::from(owner))
    }

    fn poll_own(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        for _ in 0..READS_PER_TURN {
            let received = ready!(self.own.poll_recv(cx, buffers, metas))?;
            let own = self.sort(buffers, metas, received);
            if own > 0 {
                return Poll::Ready(Ok(own));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
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
            self.hand_over(&mut buffers[place], &mut metas[place]);
            if metas[place].len > 0 {
                buffers.swap(own, place);
                metas.swap(own, place);
                own += 1;
            }
        }
        own
    }

    /// Hands over what a buffer has for other cores, and leaves the rest. The datagrams in it come from one
    /// place, which may have several connections.
    fn hand_over(&self, buffer: &mut [u8], meta: &mut RecvMeta) {
        let (received, stride) = (meta.len, meta.stride.max(1));
        meta.len = 0;
        for start in (0..received).step_by(stride) {
            let end = received.min(start + stride);
            match self.other(&buffer[start..end]) {
                Some(other) => {
                    let len = end - start;
                    other.put(RecvMeta { len, stride: len, ..*meta }, &buffer[start..end]);
                }
                None => {
                    buffer.copy_within(start..end, meta.len);
                    meta.len += end - start;
                }
            }
        }
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
        // Before the inbox is looked at, so that nothing comes between.
        self.inbox().waker.register(cx.waker());
        if self.was_handed.swap(false, Ordering::Relaxed)
            && let Poll::Ready(received) = self.poll_own(cx, buffers, metas)
        {
            return Poll::Ready(received);
        }
        let handed = self.inbox().take(buffers, metas);
        if handed > 0 {
            self.was_handed.store(true, Ordering::Relaxed);
            return Poll::Ready(Ok(handed));
        }
        self.poll_own(cx, buffers, metas)
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
        let half = vec![1; WAITING_BYTES / 2 - PIECE_BYTES];
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

    #[tokio::test]
    async fn each_datagram_of_a_buffer_goes_to_its_core() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let exchange = Arc::new(Exchange::new(2));
        let own = CoreSocket::new(socket, &quinn::TokioRuntime, 1, Arc::clone(&exchange)).unwrap();
        let datagram = |core, content| {
            let id = CoreIds { core, cores: 2 }.generate_cid();
            [&[0x40], &*id, &[content]].concat()
        };
        for cores in [&[1, 0, 1, 0, 0][..], &[0, 0, 1], &[1, 1], &[0]] {
            let all: Vec<_> = cores.iter().zip(0..).map(|(core, it)| datagram(*core, it)).collect();
            let mut buffer = all.concat();
            let mut meta =
                RecvMeta { len: buffer.len(), stride: all[0].len(), ..RecvMeta::default() };
            own.hand_over(&mut buffer, &mut meta);
            let of = |core| {
                let of = cores.iter().zip(&all).filter(|(it, _)| **it == core);
                of.map(|(_, datagram)| datagram.clone()).collect::<Vec<_>>()
            };
            assert_eq!(buffer[..meta.len], of(1).concat(), "{cores:?}");
            let mut waiting = exchange.0[0].waiting.lock();
            let handed: Vec<_> = waiting.datagrams.drain(..).collect();
            for (meta, datagram) in &handed {
                assert!(meta.len == datagram.len() && meta.stride == meta.len);
            }
            let handed: Vec<_> = handed.into_iter().map(|(_, it)| it.into_vec()).collect();
            assert_eq!(handed, of(0), "{cores:?}");
            waiting.bytes = 0;
        }
    }
}
