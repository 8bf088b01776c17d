//! MQTT over QUIC: a connection's one bidirectional stream carries MQTT as a TCP stream would, with the
//! ALPN name `mqtt`, as other brokers and their clients have it.
//!
//! Every core has its own `SO_REUSEPORT` socket and endpoint, so that what a connection costs stays on its
//! core; a client that comes from another address is known by its connection id, see [`socket`]. Its
//! address as policies and people see it is the one that it connected from.
//!
//! Bounds before a client is authenticated: whoever connects has to show first that it is where it says, by
//! a Retry that nothing is kept for. Then those of [`admission`](super::admission) hold; who would have to
//! wait aside there is forgotten, for a client asks again by itself. At most [`WAITING`] connections have not
//! been looked at, with [`WAITING_BYTES`] of what they have sent.

mod socket;
mod stream;

pub use stream::QuicStream;

use std::io;
use std::net::UdpSocket;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use quinn::crypto::rustls::{HandshakeData, QuicServerConfig};
use quinn::{
    Connection, Endpoint, EndpointConfig, Incoming, ServerConfig, TokioRuntime, TransportConfig,
    VarInt,
};
use rustls_pki_types::CertificateDer;
use tracing::error;

use authorizer::{Presented, Tls};

use super::admission::{Entrance, Gate, Permit};
use super::{Door, Place, failed};
use crate::connection::handshake::{self, Failure, Peer};
use crate::connection::transport::{Stream, Transport};
use crate::core::Core;
use crate::metrics;

use socket::{CoreIds, CoreSocket, Exchange};

/// The ALPN name of MQTT.
pub const ALPN: &[u8] = b"mqtt";

/// Connections of an endpoint that wait to be accepted.
const WAITING: usize = 1024;
/// What they have sent meanwhile, in all and each.
const WAITING_BYTES: u64 = 4 << 20;
const WAITING_BYTES_EACH: u64 = 16 << 10;

/// What a client may send before it is read.
const RECEIVE_WINDOW: u32 = 256 << 10;
/// What is kept of what was sent until the client has it.
const SEND_WINDOW: u64 = 1 << 20;

/// Between two resets: a client of an earlier life waits for its own among all others.
const RESET_INTERVAL: Duration = Duration::from_millis(1);

/// A connection on which nothing has arrived for so long has ended: nobody says so when a client dies. Keep
/// alive is sooner, for those who have it, and so may the client be.
const IDLE: Duration = Duration::from_secs(60 * 60);

/// What the endpoints of a listener share.
pub struct Quic {
    server: ServerConfig,
    reset_key: Arc<hmac::Key>,
    exchange: Arc<Exchange>,
}

impl Quic {
    /// The QUIC side of a listener on so many cores. What tells clients of an earlier life that it has ended
    /// rests on `secret`, which is of this node alone and the same in its next life.
    pub fn new(tls: rustls::ServerConfig, secret: &[u8; 32], cores: usize) -> anyhow::Result<Self> {
        let crypto = QuicServerConfig::try_from(Arc::new(tls))?;
        let mut server = ServerConfig::with_crypto(Arc::new(crypto));
        server
            .max_incoming(WAITING)
            .incoming_buffer_size(WAITING_BYTES_EACH)
            .incoming_buffer_size_total(WAITING_BYTES)
            .transport_config(Arc::new(transport()));
        let reset_key = Arc::new(hmac::Key::new(hmac::HMAC_SHA256, secret));
        Ok(Self { server, reset_key, exchange: Arc::new(Exchange::new(cores)) })
    }

    /// The endpoint of a core, on its runtime.
    fn endpoint(&self, socket: UdpSocket, core: u16) -> io::Result<Endpoint> {
        let runtime = Arc::new(TokioRuntime);
        let socket = CoreSocket::new(socket, &*runtime, core, Arc::clone(&self.exchange))?;
        let mut config = EndpointConfig::new(Arc::clone(&self.reset_key) as _);
        let ids = CoreIds { core, cores: self.exchange.cores() };
        config.cid_generator(move || Box::new(ids)).min_reset_interval(RESET_INTERVAL);
        let server = Some(self.server.clone());
        Endpoint::new_with_abstract_socket(config, server, Arc::new(socket), runtime)
    }
}

fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    let idle = IDLE.try_into().expect("an hour is short enough");
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(RECEIVE_WINDOW))
        .receive_window(VarInt::from_u32(RECEIVE_WINDOW))
        .send_window(SEND_WINDOW)
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(Some(idle));
    transport
}

/// Accepts connections of a core; while the node drains it refuses them.
pub(super) async fn accept(
    core: Rc<Core>,
    door: Door,
    quic: Arc<Quic>,
    socket: UdpSocket,
    gate: Rc<Gate>,
) {
    let endpoint = match quic.endpoint(socket, core.id) {
        Ok(endpoint) => endpoint,
        Err(error) => {
            error!(%error, listener = door.key, address = %door.address, "cannot accept connections");
            return;
        }
    };
    let door = Rc::new(door);
    loop {
        let Some(incoming) = endpoint.accept().await else {
            error!(listener = door.key, address = %door.address, "connections are accepted no more");
            return;
        };
        while core.is_overloaded() && !core.shared.draining() {
            tokio::time::sleep(crate::wheel::TICK).await;
        }
        if core.shared.draining() {
            // The socket is there as long as connections are: nobody else would answer.
            incoming.refuse();
            continue;
        }
        if incoming.may_retry() {
            // It was asked whether it may.
            let _ = incoming.retry();
            continue;
        }
        let peer = incoming.remote_address();
        let Some(Entrance::Open(permit)) = gate.admit(Some(peer.ip())).await else {
            metrics::connect("too_many_of_source");
            incoming.ignore();
            continue;
        };
        let (core, door) = (Rc::clone(&core), Rc::clone(&door));
        actix_rt::spawn(async move {
            let serving = Box::pin(serve(&core, &door, incoming, permit));
            match tokio::time::timeout(door.connect_timeout, serving).await {
                Ok(Ok(())) => metrics::connect("accepted"),
                Ok(Err(failure)) => failed(&core, &door, peer, Some(&failure)),
                Err(_) => failed(&core, &door, peer, None),
            }
        });
    }
}

async fn serve(
    core: &Rc<Core>,
    door: &Door,
    incoming: Incoming,
    _permit: Permit,
) -> Result<(), Failure> {
    let peer = incoming.remote_address();
    let Some(place) = Place::take(door) else {
        incoming.refuse();
        return Err(Failure::Full);
    };
    let connection = incoming.accept().map_err(stream::lost)?.await.map_err(stream::lost)?;
    let name = server_name(&connection);
    let (ip, port) = (Some(peer.ip().to_canonical()), peer.port());
    let peer = Peer::of(certificate(&connection), || door.nobody(), ip, port)
        .asking(name.as_deref().and_then(policy::domain_name))
        .presenting(Presented { tls: Some(Tls { server_name: name }), ..Presented::default() });
    let (send, receive) = connection.accept_bi().await.map_err(stream::lost)?;
    let stream = QuicStream::new(connection, send, receive, door.address.port());
    let transport = Transport::Stream(Stream::Quic(Box::new(stream)));
    handshake::connect(core, transport, peer, place).await
}

/// The certificate that a client has shown, if it has one.
fn certificate(connection: &Connection) -> Option<CertificateDer<'static>> {
    let chain = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    chain.into_iter().next()
}

/// The name that a client has asked for.
fn server_name(connection: &Connection) -> Option<String> {
    connection.handshake_data()?.downcast::<HandshakeData>().ok()?.server_name
}
