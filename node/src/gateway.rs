//! Listeners, and what turns an accepted socket into a connection.
//!
//! Every core has its own `SO_REUSEPORT` listener on each address; a connection stays on the core
//! that accepted it. What is not authenticated yet is bounded, see [`admission`]; the rest waits in the
//! kernel's queue.

pub mod admission;
mod http;
mod quic;

use std::cell::Cell;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use authorizer::{Presented, Tls};
use ipnet::IpNet;
use rustls::AlertDescription;
use rustls_pki_types::CertificateDer;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use crate::config::Listener as ListenerConfig;
use crate::connection::handshake::{self, Failure, Peer};
use crate::connection::transport::{Stream, TlsStream, Transport};
use crate::core::Core;
use crate::denial;
use crate::http::Bounds;
use crate::identity::Principal;
use crate::metrics;
use crate::tls::{CERTIFICATE_ALPN, MQTT_ALPN};

use admission::{Gate, Permit};

pub use http::DataPlane;
pub use quic::{ALPN as QUIC_ALPN, Quic, QuicStream};

/// Pending connections that the kernel keeps per listener.
const BACKLOG: i32 = 4096;

/// What is listened for at an address.
#[derive(Clone)]
pub enum Carrier {
    /// Connections of TCP.
    Tcp(Speaks),
    /// MQTT over QUIC, by UDP.
    Quic(Arc<Quic>),
}

/// What is spoken on a connection of TCP.
#[derive(Clone)]
pub enum Speaks {
    /// MQTT.
    Mqtt,
    /// MQTT in TLS.
    Mqtts(TlsAcceptor),
    /// WebSocket.
    WebSocket(Arc<DataPlane>),
    /// WebSocket, MQTT by ALPN, and HTTPS, in TLS.
    Https(TlsAcceptor, Arc<DataPlane>),
}

/// One listener as every core sees it.
#[derive(Clone)]
pub struct Door {
    /// Its key in the configuration, like `listeners.mqtts`.
    pub key: &'static str,
    /// Where.
    pub address: SocketAddr,
    /// For what.
    pub carrier: Carrier,
    /// What clients that prove nothing may do; without it they are refused.
    pub anonymous: Option<Arc<policy::Document>>,
    /// From accept to CONNACK.
    pub connect_timeout: Duration,
    /// Peers whose PROXY header is required and believed.
    pub proxy_from: Arc<[IpNet]>,
    /// Connections that may be open at once.
    pub max_connections: u32,
    open: Arc<Open>,
}

/// What the connections of a listener share, on all cores.
struct Open {
    count: AtomicU32,
    answer_within: Duration,
    http: Bounds,
}

impl Door {
    /// A listener that is to be opened; `None` when it has no address.
    pub fn new(
        key: &'static str,
        config: &ListenerConfig,
        carrier: Carrier,
    ) -> anyhow::Result<Option<Self>> {
        let Some(address) = config.address else { return Ok(None) };
        let anonymous = config.anonymous_policy.as_deref().map(policy::Document::parse);
        Ok(Some(Self {
            key,
            address,
            anonymous: anonymous.transpose()?.map(Arc::new),
            carrier,
            connect_timeout: config.connect_timeout,
            proxy_from: config.proxy_from.clone().into(),
            max_connections: config.max_connections,
            open: Arc::new(Open {
                count: AtomicU32::new(0),
                answer_within: config.connect_timeout * 4 / 5,
                http: Bounds::default(),
            }),
        }))
    }

    /// Who somebody is that has proved nothing.
    fn nobody(&self) -> Principal {
        let anonymous = self.anonymous.as_ref();
        anonymous.map_or(Principal::Unidentified, |policy| Principal::Anonymous(Arc::clone(policy)))
    }

    /// Whether a peer's PROXY header is required and believed.
    fn believes(&self, peer: SocketAddr) -> bool {
        let ip = peer.ip().to_canonical();
        self.proxy_from.iter().any(|net| net.contains(&ip))
    }

    /// Fails when anybody listens on the address. [`Door::bind`] would not: the kernel lets every
    /// process of the same user join those who share it. Two processes that start at the same moment
    /// may both pass.
    pub fn probe(&self) -> io::Result<()> {
        let socket = self.socket()?;
        socket.bind(&self.address.into())?;
        match self.carrier {
            Carrier::Tcp(_) => socket.listen(1),
            Carrier::Quic(_) => Ok(()),
        }
    }

    /// Takes the address for one core. Nobody can connect before [`Bound::open`].
    pub fn bind(&self) -> io::Result<Bound> {
        let socket = self.socket()?;
        socket.set_reuse_port(true)?;
        socket.bind(&self.address.into())?;
        Ok(Bound { door: self.clone(), socket })
    }

    fn socket(&self) -> io::Result<Socket> {
        let domain = Domain::for_address(self.address);
        let socket = match self.carrier {
            Carrier::Tcp(_) => {
                let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
                // For a restart: connections of the last run may linger.
                socket.set_reuse_address(true)?;
                socket
            }
            Carrier::Quic(_) => Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?,
        };
        socket.set_nonblocking(true)?;
        Ok(socket)
    }
}

/// A listener of one core that is not open yet.
pub struct Bound {
    door: Door,
    socket: Socket,
}

impl Bound {
    /// The listener it is of.
    pub fn door(&self) -> &Door {
        &self.door
    }

    /// Lets clients in.
    pub fn open(self) -> io::Result<Opened> {
        let Self { door, socket } = self;
        Ok(match &door.carrier {
            Carrier::Tcp(speaks) => {
                socket.listen(BACKLOG)?;
                Opened::Tcp(speaks.clone(), door, socket.into())
            }
            Carrier::Quic(quic) => Opened::Quic(Arc::clone(quic), door, socket.into()),
        })
    }
}

/// A listener of one core that is open.
pub enum Opened {
    /// Of TCP.
    Tcp(Speaks, Door, StdListener),
    /// Of UDP.
    Quic(Arc<Quic>, Door, UdpSocket),
}

impl Opened {
    /// Serves who comes until the node drains.
    pub async fn serve(self, core: Rc<Core>, gate: Rc<Gate>) {
        match self {
            Self::Tcp(speaks, door, listener) => accept(core, door, speaks, listener, gate).await,
            Self::Quic(quic, door, socket) => quic::accept(core, door, quic, socket, gate).await,
        }
    }
}

/// Accepts on one listener of a core until the node drains.
async fn accept(core: Rc<Core>, door: Door, speaks: Speaks, listener: StdListener, gate: Rc<Gate>) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, listener = door.key, address = %door.address, "cannot accept connections");
            return;
        }
    };
    let (door, speaks) = (Rc::new(door), Rc::new(speaks));
    while !core.shared.draining() {
        let (stream, peer) = accept_next(&listener).await;
        while core.is_overloaded() && !core.shared.draining() {
            tokio::time::sleep(crate::wheel::TICK).await;
        }
        // The address of a proxy says nothing about the client.
        let source = Some(peer.ip()).filter(|_| !door.believes(peer));
        let Some(entrance) = gate.admit(source).await else {
            metrics::connect("too_many_of_source");
            continue;
        };
        let (core, door, speaks) = (Rc::clone(&core), Rc::clone(&door), Rc::clone(&speaks));
        actix_rt::spawn(async move {
            let from = Cell::new(peer);
            let serving = async {
                let mut permit = entrance.permit().await;
                // In a storm many wait for their permit: what a handshake needs is made when it begins.
                Box::pin(serve(&core, &door, &speaks, stream, &from, &mut permit)).await
            };
            let result = tokio::time::timeout(door.connect_timeout, serving).await;
            match result {
                Ok(Ok(Served::Connection)) => metrics::connect("accepted"),
                Ok(Ok(Served::Http(http))) => http.await,
                Ok(Ok(Served::Refused(failure, answer))) => {
                    failed(&core, &door, from.get(), Some(&failure));
                    answer.await;
                }
                Ok(Err(failure)) => failed(&core, &door, from.get(), Some(&failure)),
                Err(_) => failed(&core, &door, from.get(), None),
            }
        });
    }
}

/// Tells and counts that a client became no connection, and why; without a failure its time was up.
fn failed(core: &Core, door: &Door, peer: SocketAddr, failure: Option<&Failure>) {
    match failure {
        Some(failure) => {
            tell(core, door, peer, failure);
            metrics::connect(failure.label());
        }
        None => {
            debug!(listener = door.key, %peer, "no connection: its time is up");
            metrics::connect("timeout");
        }
    }
}

/// Tells why a socket became no connection: at once where somebody has to mend something, otherwise to
/// those who look for it.
fn tell(core: &Core, door: &Door, peer: SocketAddr, failure: &Failure) {
    let remedy = match failure {
        // The handshake has told of it.
        Failure::Refused(_) => return,
        Failure::Io(error) => tls_remedy(error),
        Failure::NotConnect | Failure::Mistaken(_) | Failure::Malformed(_) => Some(None),
        Failure::Proxy(_) => Some(Some(
            "proxy_from of the listener has this address: have the load balancer send PROXY headers, or \
             take it out",
        )),
        Failure::Http(_) | Failure::Source | Failure::Full => None,
    };
    match remedy {
        Some(remedy) => {
            let (ip, now) = (peer.ip().to_canonical(), core.read_clock().now);
            denial::tell_mistaken(door.key, ip, failure, remedy, now);
        }
        None => debug!(listener = door.key, %peer, %failure, "no connection"),
    }
}

/// What helps against a failure of TLS, if it is one and something is known.
fn tls_remedy(error: &io::Error) -> Option<Option<&'static str>> {
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    Some(match error {
        rustls::Error::NoCertificatesPresented => {
            Some("devices show a certificate here; for other clients there is listeners.https")
        }
        rustls::Error::InvalidMessage(_) => Some(
            "does not look like TLS: without it there is MQTT on listeners.mqtt, and HTTP on listeners.http; a \
             PROXY header is read from the addresses in proxy_from of the listener only",
        ),
        rustls::Error::AlertReceived(
            AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA,
        ) => Some(
            "the client does not accept tls.certificate: does it trust the CA, is the name right?",
        ),
        rustls::Error::NoApplicationProtocol => Some(
            "the ALPN name of MQTT is mqtt here; that of HTTP is http/1.1, and not on listeners.quic",
        ),
        rustls::Error::InvalidCertificate(_) => Some("the device needs another certificate"),
        _ => None,
    })
}

/// The next socket of a listener.
pub async fn accept_next(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                warn!(%error, "cannot accept; are file descriptors exhausted? raise LimitNOFILE");
                metrics::connect("accept_failed");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// One of the connections that a listener may have open; what waits for its handshake is not one yet.
/// Every connection has one, so it is a pointer and no more.
pub struct Place(Arc<Open>);

impl Place {
    /// A place among the connections of a listener, if it has one more.
    pub fn take(door: &Door) -> Option<Self> {
        let open = door.open.count.fetch_add(1, Ordering::Relaxed);
        let place = Self(Arc::clone(&door.open));
        (open < door.max_connections).then_some(place)
    }

    /// How long a CONNECT may wait for its answer, so that there still is one.
    pub fn answer_within(&self) -> Duration {
        self.0.answer_within
    }

    /// What the HTTP connections of the listener may do at once.
    fn bounds(&self) -> Bounds {
        self.0.http.clone()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What an accepted socket became.
enum Served {
    Connection,
    /// HTTP requests, to be answered without the limits of a handshake.
    Http(Answer),
    /// Nothing; this answer says why. It may take longer than a handshake to arrive.
    Refused(Failure, Answer),
}

type Answer = std::pin::Pin<Box<dyn Future<Output = ()>>>;

/// Serves a socket. `from` is where it comes from: its other end, until a trusted one says better.
async fn serve(
    core: &Rc<Core>,
    door: &Door,
    speaks: &Speaks,
    stream: TcpStream,
    from: &Cell<SocketAddr>,
    permit: &mut Permit,
) -> Result<Served, Failure> {
    stream.set_nodelay(true)?;
    find_client(door, &stream, from, permit).await?;
    let (ip, port) = (Some(from.get().ip().to_canonical()), from.get().port());
    // Those that wait aside have none: one source could keep everybody else out with them.
    let place = Place::take(door).ok_or(Failure::Full)?;
    match speaks {
        Speaks::Mqtt => {
            let transport = Transport::Stream(Stream::Tcp(stream));
            let peer = Peer::nobody(door.nobody(), ip, port).presenting(Presented::default());
            handshake::connect(core, transport, peer, place).await?;
            Ok(Served::Connection)
        }
        Speaks::Mqtts(acceptor) => {
            let (stream, certificate) = secure(acceptor, stream).await?;
            let peer =
                Peer::of(certificate, || door.nobody(), ip, port).asking(server_name(&stream));
            handshake::connect(core, Transport::Stream(stream), peer, place).await?;
            Ok(Served::Connection)
        }
        Speaks::WebSocket(data_plane) => {
            let peer = Peer::nobody(door.nobody(), ip, port).presenting(Presented::default());
            http::serve(core, data_plane, Stream::Tcp(stream), peer, door.connect_timeout, place)
                .await
        }
        Speaks::Https(acceptor, data_plane) => {
            let (stream, certificate) = secure(acceptor, stream).await?;
            let mut peer =
                Peer::of(certificate, || door.nobody(), ip, port).asking(server_name(&stream));
            if let Some(presented) = presented(&stream) {
                peer = peer.presenting(presented);
            }
            if speaks_mqtt(&stream) {
                handshake::connect(core, Transport::Stream(stream), peer, place).await?;
                return Ok(Served::Connection);
            }
            http::serve(core, data_plane, stream, peer, door.connect_timeout, place).await
        }
    }
}

/// Sets the address of the client, where a trusted peer's PROXY header says it.
async fn find_client(
    door: &Door,
    stream: &TcpStream,
    from: &Cell<SocketAddr>,
    permit: &mut Permit,
) -> Result<(), Failure> {
    if !door.believes(from.get()) {
        return Ok(());
    }
    let limit = wire::proxy::MAX_V2_BYTES + 1;
    let parsed = peek(stream, limit, wire::proxy::parse).await?;
    let (header, length) = parsed.map_err(Failure::Proxy)?;
    discard(stream, length).await?;
    // Without a source it is the proxy itself that asks whether the node is well.
    let Some(source) = header.source else { return Ok(()) };
    from.set(source);
    if !permit.attribute(source.ip()).await {
        return Err(Failure::Source);
    }
    Ok(())
}

/// Ends TLS; gives the certificate that the client has shown, if it has one.
async fn secure(
    acceptor: &TlsAcceptor,
    stream: TcpStream,
) -> io::Result<(Stream, Option<CertificateDer<'static>>)> {
    let (socket, session) = acceptor.accept(stream).await?.into_inner();
    let certificates = session.peer_certificates();
    let certificate = certificates.and_then(|chain| chain.first()).cloned();
    Ok((Stream::Tls(Box::new(TlsStream::new(socket, session))), certificate))
}

/// The name that a client has asked for in TLS.
fn server_name(stream: &Stream) -> Option<String> {
    let Stream::Tls(stream) = stream else { return None };
    policy::domain_name(stream.session().server_name()?)
}

/// What a client has said in TLS; none where its ALPN says that it has a certificate.
fn presented(stream: &Stream) -> Option<Presented> {
    let Stream::Tls(stream) = stream else { return None };
    let tls = stream.session();
    if tls.alpn_protocol().is_some_and(|name| CERTIFICATE_ALPN.contains(&name)) {
        return None;
    }
    let server_name = tls.server_name().map(ToOwned::to_owned);
    Some(Presented { tls: Some(Tls { server_name }), ..Presented::default() })
}

fn speaks_mqtt(stream: &Stream) -> bool {
    let Stream::Tls(stream) = stream else { return false };
    stream.session().alpn_protocol().is_some_and(|name| MQTT_ALPN.contains(&name))
}

/// Waits for bytes of an unfinished head, like a PROXY header, without taking them. Gives up when
/// the first `limit` bytes hold none.
async fn peek<T, E>(
    stream: &TcpStream,
    limit: usize,
    mut parse: impl FnMut(&[u8]) -> Result<Option<(T, usize)>, E>,
) -> io::Result<Result<(T, usize), E>> {
    let mut buffer = vec![0; limit];
    let mut seen = 0;
    loop {
        let count = stream.peek(&mut buffer).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // As many bytes as the limit may be a head and what follows it.
        match parse(&buffer[..count]) {
            Ok(Some(found)) => return Ok(Ok(found)),
            Err(error) => return Ok(Err(error)),
            Ok(None) if count == limit => return Err(io::ErrorKind::InvalidData.into()),
            // Nothing new: peek answers at once while there are bytes, so wait for more.
            Ok(None) if count == seen => tokio::time::sleep(Duration::from_millis(5)).await,
            Ok(None) => seen = count,
        }
    }
}

/// Takes bytes that were peeked at.
async fn discard(stream: &TcpStream, count: usize) -> io::Result<()> {
    let mut left = count;
    let mut buffer = [0; 512];
    while left > 0 {
        stream.readable().await?;
        let want = left.min(buffer.len());
        match stream.try_read(&mut buffer[..want]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => left -= read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::AsyncWriteExt;

    use super::*;

    const LIMIT: usize = 64;

    /// A head is a line.
    async fn look(sent: &[u8]) -> Option<usize> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        client.write_all(sent).await.unwrap();
        client.shutdown().await.unwrap();
        let line = |bytes: &[u8]| {
            let end = bytes.iter().position(|byte| *byte == b'\n');
            Ok::<_, ()>(end.map(|end| ((), end + 1)))
        };
        let looking = tokio::time::timeout(Duration::from_secs(5), peek(&server, LIMIT, line));
        let (_, length) = looking.await.unwrap().ok()?.unwrap();
        Some(length)
    }

    #[test]
    fn a_head_is_found_whatever_follows_it() {
        actix_rt::System::new().block_on(async {
            assert_eq!(look(b"head\n").await, Some(5));
            let much = [&b"head\n"[..], &[0; 3 * LIMIT]].concat();
            assert_eq!(look(&much).await, Some(5));
            assert_eq!(look(&[0; LIMIT]).await, None);
        });
    }
}
