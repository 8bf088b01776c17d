//! What carries a client's packets: TCP, TLS, a WebSocket over either, or QUIC.
//!
//! One type for all, so that each kind of load can run over each. It blocks while connections are opened,
//! and does not while traffic flows.

mod quic;
mod tls;
mod websocket;

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::io::Errno;
use rustls::ClientConfig;
use socket2::{Domain, Socket, Type};

use self::tls::Tls;
use self::websocket::WebSocket;

pub use self::tls::{mutual_tls, mutual_tls_of};

/// How long a broker may take for one handshake.
const PATIENCE: Duration = Duration::from_secs(20);

/// Connections per loopback source address, well below the range of ephemeral ports.
const PER_SOURCE: u32 = 8_192;

static OPENED: AtomicU32 = AtomicU32::new(0);

/// What carries packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Carrier {
    /// TCP.
    Tcp,
    /// TLS.
    Tls,
    /// A WebSocket.
    #[value(name = "ws")]
    WebSocket,
    /// A WebSocket over TLS.
    #[value(name = "wss")]
    SecureWebSocket,
    /// QUIC.
    Quic,
}

impl Carrier {
    /// The port on which `skein dev` listens for it.
    pub fn port(self) -> u16 {
        match self {
            Self::Tcp => 1883,
            Self::Tls | Self::Quic => 8883,
            Self::WebSocket => 8083,
            Self::SecureWebSocket => 8443,
        }
    }

    /// With what a client says of TLS, which is asked for where it is needed.
    pub fn transport(self, tls: impl FnOnce() -> Result<ClientConfig>) -> Result<Transport> {
        let tls = || tls().map(Arc::new);
        Ok(match self {
            Self::Tcp => Transport::Tcp,
            Self::Tls => Transport::Tls(tls()?),
            Self::WebSocket => Transport::WebSocket,
            Self::SecureWebSocket => Transport::SecureWebSocket(tls()?),
            Self::Quic => Transport::Quic(tls()?),
        })
    }
}

/// How clients reach a broker.
#[derive(Clone, Debug)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// TLS, as its configuration says.
    Tls(Arc<ClientConfig>),
    /// A WebSocket.
    WebSocket,
    /// A WebSocket over TLS.
    SecureWebSocket(Arc<ClientConfig>),
    /// The first bidirectional stream of a QUIC connection.
    Quic(Arc<ClientConfig>),
}

impl Transport {
    /// What it is called.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Tls(_) => "mutual TLS",
            Self::WebSocket => "WebSocket",
            Self::SecureWebSocket(_) => "WebSocket over mutual TLS",
            Self::Quic(_) => "QUIC",
        }
    }

    /// Opens a connection, up to where MQTT begins.
    pub fn dial(&self, address: SocketAddr) -> Result<Stream> {
        if let Self::Quic(config) = self {
            let bridge = quic::dial(address, config)?;
            bridge.set_read_timeout(Some(PATIENCE))?;
            return Ok(Stream { bytes: Bytes::Bridge(bridge), messages: None });
        }
        let socket = dial(address, false)?;
        let mut bytes = match self {
            Self::Tls(config) | Self::SecureWebSocket(config) => {
                Bytes::Tls(Tls::new(socket, address, config)?)
            }
            _ => Bytes::Tcp(socket),
        };
        let messages = match self {
            Self::WebSocket | Self::SecureWebSocket(_) => {
                Some(WebSocket::open(&mut bytes, address)?)
            }
            _ => None,
        };
        Ok(Stream { bytes, messages })
    }

    /// Begins a connection that waits for nothing: not for the broker's machine, and not for a handshake
    /// of TLS, which goes on with each [`Write::write`].
    pub fn begin(&self, address: SocketAddr) -> Result<Stream> {
        let bytes = match self {
            Self::Tcp => Bytes::Tcp(dial(address, true)?),
            Self::Tls(config) => Bytes::Tls(Tls::new(dial(address, true)?, address, config)?),
            _ => bail!("{} cannot be opened without waiting", self.name()),
        };
        Ok(Stream { bytes, messages: None })
    }
}

/// Opens a TCP connection, or begins to; to a loopback broker from changing loopback addresses, so that storms
/// do not run out of ports.
fn dial(address: SocketAddr, at_once: bool) -> Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    let block = OPENED.fetch_add(1, Ordering::Relaxed) / PER_SOURCE;
    if address.ip().is_loopback() && address.is_ipv4() && block > 0 {
        let source = Ipv4Addr::from(u32::from(Ipv4Addr::LOCALHOST) + block % 250);
        socket.bind(&SocketAddr::from((source, 0)).into())?;
    }
    socket.set_tcp_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_nonblocking(at_once)?;
    match socket.connect(&address.into()) {
        Err(error) if at_once && error.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error()) => {
        }
        connected => connected.with_context(|| format!("connecting to {address}"))?,
    }
    Ok(socket.into())
}

/// A connection to a broker.
#[derive(Debug)]
pub struct Stream {
    bytes: Bytes,
    messages: Option<WebSocket>,
}

/// A byte stream.
#[derive(Debug)]
enum Bytes {
    Tcp(TcpStream),
    Tls(Tls),
    /// To the thread that speaks QUIC.
    Bridge(UnixStream),
}

impl Stream {
    /// How long a read may take while it blocks.
    pub fn set_read_timeout(&self, timeout: Duration) -> io::Result<()> {
        match &self.bytes {
            Bytes::Tcp(socket) | Bytes::Tls(Tls { socket, .. }) => {
                socket.set_read_timeout(Some(timeout))
            }
            Bytes::Bridge(bridge) => bridge.set_read_timeout(Some(timeout)),
        }
    }

    /// From now on nothing waits.
    pub fn set_nonblocking(&self) -> io::Result<()> {
        match &self.bytes {
            Bytes::Tcp(socket) | Bytes::Tls(Tls { socket, .. }) => socket.set_nonblocking(true),
            Bytes::Bridge(bridge) => bridge.set_nonblocking(true),
        }
    }

    /// Ends the sending direction. A broker that has closed already did nothing wrong.
    pub fn shutdown(&mut self) -> io::Result<()> {
        let ended = match &mut self.bytes {
            Bytes::Tcp(socket) => socket.shutdown(Shutdown::Write),
            Bytes::Tls(tls) => tls.shutdown(),
            Bytes::Bridge(bridge) => bridge.shutdown(Shutdown::Write),
        };
        match ended {
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            ended => ended,
        }
    }

    /// Whether bytes that were taken have not all been handed to the socket.
    pub fn is_behind(&self) -> bool {
        let is_behind = matches!(&self.bytes, Bytes::Tls(tls) if tls.is_behind());
        is_behind || self.messages.as_ref().is_some_and(WebSocket::is_behind)
    }

    /// Whether a read that did not fill its buffer has emptied the socket.
    pub fn is_drained_by_short_reads(&self) -> bool {
        self.messages.is_none() && !matches!(self.bytes, Bytes::Tls(_))
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.bytes {
            Bytes::Tcp(socket) | Bytes::Tls(Tls { socket, .. }) => socket.as_fd(),
            Bytes::Bridge(bridge) => bridge.as_fd(),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.messages {
            Some(messages) => messages.read(&mut self.bytes, buffer),
            None => self.bytes.read(buffer),
        }
    }
}

impl Write for Stream {
    /// Takes what it can without waiting, if nothing may wait. What was taken and is behind goes out with
    /// [`Write::flush`].
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match &mut self.messages {
            Some(messages) => messages.write(&mut self.bytes, buffer),
            None => self.bytes.write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        if let Some(messages) = &mut self.messages {
            messages.flush(&mut self.bytes)?;
        }
        self.bytes.flush()
    }
}

impl Read for Bytes {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.read(buffer),
            Self::Tls(tls) => tls.read(buffer),
            Self::Bridge(bridge) => bridge.read(buffer),
        }
    }
}

impl Write for Bytes {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.write(buffer),
            Self::Tls(tls) => tls.write(buffer),
            Self::Bridge(bridge) => bridge.write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Tls(tls) => tls.flush(),
            Self::Tcp(_) | Self::Bridge(_) => Ok(()),
        }
    }
}
