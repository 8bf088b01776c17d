//! A blocking MQTT client that does nothing on its own: no reconnect, no acknowledgement, no ping.

mod received;
mod stream;

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use mqtt::{
    AckKind, Connect, Disconnect, Outgoing, PacketId, QoS, Reason, SubscribeOptions, Version,
};
use rustls::pki_types::ServerName;

pub use received::{Arrival, Received};
pub use stream::Credentials;

use crate::PATIENCE;
use stream::Stream;

/// Why a connection cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The other side is gone, with the reason it gave, if any.
    Closed(Option<Reason>),
    /// What came is against the protocol or a promise.
    Fault(String),
}

impl End {
    /// A broken rule.
    pub fn fault<T>(what: impl Into<String>) -> Result<T, Self> {
        Err(Self::Fault(what.into()))
    }
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                Self::Fault("the broker does not read what it is sent".into())
            }
            _ => Self::Closed(None),
        }
    }
}

/// One connection. See the module.
pub struct Client {
    stream: Stream,
    version: Version,
    bytes: Vec<u8>,
    /// What came while an answer was awaited.
    early: VecDeque<Received>,
    last_id: u16,
    patience: Duration,
    /// Whether CONNACK said that the session existed before.
    pub session_present: bool,
}

impl Client {
    /// Connects and waits for CONNACK.
    pub fn open(address: SocketAddr, connect: &Connect<'_>) -> Result<Self, End> {
        Self::open_within(address, connect, PATIENCE)
    }

    /// Connects and waits so long for each answer, from CONNACK on.
    pub fn open_within(
        address: SocketAddr,
        connect: &Connect<'_>,
        patience: Duration,
    ) -> Result<Self, End> {
        Self::through(Stream::plain(address, patience)?, connect, patience)
    }

    /// As [`Client::open_within`], over TLS to the node with this number, as the holder of a certificate.
    pub(crate) fn open_as(
        credentials: &Credentials,
        (node, address): (u64, SocketAddr),
        connect: &Connect<'_>,
        patience: Duration,
    ) -> Result<Self, End> {
        // As nodes name each other.
        let name = ServerName::try_from(format!("node-{node}.skein")).expect("a name");
        Self::through(Stream::tls(address, name, credentials, patience)?, connect, patience)
    }

    fn through(stream: Stream, connect: &Connect<'_>, patience: Duration) -> Result<Self, End> {
        let mut client = Self {
            stream,
            version: connect.version,
            bytes: Vec::new(),
            early: VecDeque::new(),
            last_id: 0,
            patience,
            session_present: false,
        };
        let mut out = Vec::new();
        mqtt::encode_connect(connect, &mut out);
        client.send(&out)?;
        match client.read(patience)? {
            Some(Received::ConnAck { session_present, reason: Reason::Success }) => {
                client.session_present = session_present;
                Ok(client)
            }
            other => End::fault(format!("CONNECT is answered with {other:?}")),
        }
    }

    /// A connection of MQTT 5 whose session ends with it.
    pub fn brief(address: SocketAddr, client_id: &str) -> Result<Self, End> {
        Self::open(address, &Connect::new(Version::V5, client_id))
    }

    /// A connection whose session stays for an hour; it may have been there before.
    pub fn resume(address: SocketAddr, version: Version, client_id: &str) -> Result<Self, End> {
        Self::open(address, &lasting(version, client_id))
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), End> {
        let Err(error) = self.stream.write_all(bytes) else { return Ok(()) };
        let end = End::from(error);
        if end == End::Closed(None) {
            // The last word of the broker may still wait to be read.
            while self.read(Duration::ZERO)?.is_some() {}
        }
        Err(end)
    }

    /// A packet identifier that was not used for long.
    pub fn new_id(&mut self) -> PacketId {
        self.last_id = self.last_id.checked_add(1).unwrap_or(1);
        PacketId::new(self.last_id).expect("it is never zero")
    }

    /// Sends a PUBLISH.
    pub fn publish(&mut self, publish: &Outgoing<'_>) -> Result<(), End> {
        let mut out = Vec::new();
        mqtt::encode_publish(self.version, publish, &mut out);
        self.send(&out)
    }

    /// Publishes with QoS 1 and waits for the PUBACK.
    pub fn publish_acknowledged(
        &mut self,
        topic: &str,
        payload: &[u8],
        retain: bool,
    ) -> Result<(), End> {
        let id = self.new_id();
        let (packet_id, qos) = (Some(id), QoS::AtLeastOnce);
        self.publish(&Outgoing { packet_id, qos, retain, ..Outgoing::new(topic, payload) })?;
        let is_it = |got: &Received| matches!(got, Received::Ack { id: of, .. } if *of == id);
        match self.await_answer("PUBACK", is_it)? {
            Received::Ack { kind: AckKind::PubAck, reason, .. } if !reason.is_error() => Ok(()),
            other => End::fault(format!("PUBLISH is answered with {other:?}")),
        }
    }

    /// Sends an acknowledgement.
    pub fn acknowledge(&mut self, kind: AckKind, id: PacketId) -> Result<(), End> {
        let mut out = Vec::new();
        mqtt::encode_ack(self.version, kind, id, Reason::Success, None, &mut out);
        self.send(&out)
    }

    /// Subscribes and waits for the SUBACK, which must grant what was asked.
    pub fn subscribe(&mut self, filters: &[&str], qos: QoS) -> Result<(), End> {
        let id = self.new_id();
        let options: Vec<_> =
            filters.iter().map(|filter| (*filter, SubscribeOptions::at(qos))).collect();
        let mut out = Vec::new();
        mqtt::encode_subscribe(self.version, id, None, &options, &mut out);
        self.send(&out)?;
        let is_it = |got: &Received| matches!(got, Received::SubAck { id: of, .. } if *of == id);
        match self.await_answer("SUBACK", is_it)? {
            Received::SubAck { reasons, .. }
                if reasons.iter().all(|reason| *reason == Reason::granted(qos)) =>
            {
                Ok(())
            }
            other => End::fault(format!("SUBSCRIBE is answered with {other:?}")),
        }
    }

    /// Waits for one packet and keeps the others for later.
    fn await_answer(
        &mut self,
        what: &str,
        is_it: impl Fn(&Received) -> bool,
    ) -> Result<Received, End> {
        loop {
            match self.read(self.patience)? {
                Some(received) if is_it(&received) => return Ok(received),
                Some(other) => self.early.push_back(other),
                None => return End::fault(format!("no {what} within {:?}", self.patience)),
            }
        }
    }

    /// Sends PINGREQ.
    pub fn send_ping(&mut self) -> Result<(), End> {
        let mut out = Vec::new();
        mqtt::encode_pingreq(&mut out);
        self.send(&out)
    }

    /// Whether PINGREQ is answered. An end of the connection is an answer too.
    pub fn ping(&mut self) -> Result<(), End> {
        self.send_ping()?;
        self.await_answer("PINGRESP", |got| *got == Received::PingResp).map(|_| ())
    }

    /// Sends DISCONNECT and does not look back.
    pub fn leave(mut self) -> Result<(), End> {
        self.send_disconnect()
    }

    fn send_disconnect(&mut self) -> Result<(), End> {
        let mut out = Vec::new();
        let last = Disconnect::new(Reason::NORMAL_DISCONNECTION);
        mqtt::encode_disconnect(self.version, &last, &mut out);
        self.send(&out)
    }

    /// Ends the connection in good order.
    pub fn disconnect(mut self) -> Result<(), End> {
        self.send_disconnect()?;
        // Read to the end: a close with unread bytes would reset the link and lose what was sent.
        while self.read(PATIENCE).is_ok_and(|received| received.is_some()) {}
        Ok(())
    }

    /// The next packet; `None` when none came in time. DISCONNECT is an [`End`].
    pub fn next(&mut self, timeout: Duration) -> Result<Option<Received>, End> {
        match self.early.pop_front() {
            Some(received) => Ok(Some(received)),
            None => self.read(timeout),
        }
    }

    /// The next publication; acknowledgements that come before it are dropped.
    pub fn next_arrival(&mut self, timeout: Duration) -> Result<Option<Arrival>, End> {
        let asked = Instant::now();
        loop {
            match self.next(timeout.saturating_sub(asked.elapsed()))? {
                Some(Received::Publish(arrival)) => return Ok(Some(arrival)),
                Some(_) => {}
                None => return Ok(None),
            }
        }
    }

    /// What has come by now; the socket must have something to read.
    pub(crate) fn all_ready(&mut self) -> Result<Vec<Received>, End> {
        let mut all: Vec<_> = self.early.drain(..).collect();
        let mut next = self.read(Duration::ZERO)?;
        while let Some(received) = next {
            if let Received::Disconnect(reason) = received {
                return Err(End::Closed(Some(reason)));
            }
            all.push(received);
            next = self.take()?;
        }
        Ok(all)
    }

    /// The socket.
    pub(crate) fn stream(&self) -> &TcpStream {
        self.stream.socket()
    }

    fn read(&mut self, timeout: Duration) -> Result<Option<Received>, End> {
        let asked = Instant::now();
        loop {
            if let Some(received) = self.take()? {
                return match received {
                    Received::Disconnect(reason) => Err(End::Closed(Some(reason))),
                    received => Ok(Some(received)),
                };
            }
            let left = timeout.saturating_sub(asked.elapsed());
            // Zero would mean to wait for ever.
            self.stream.socket().set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
            let mut bytes = [0; 64 * 1024];
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(End::Closed(None)),
                Ok(read) => self.bytes.extend_from_slice(&bytes[..read]),
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    if left.is_zero() || asked.elapsed() >= timeout {
                        return Ok(None);
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// A whole packet from what was read.
    fn take(&mut self) -> Result<Option<Received>, End> {
        Received::take(&mut self.bytes, self.version)
    }
}

/// CONNECT for a session that outlives its connections by an hour.
pub fn lasting(version: Version, client_id: &str) -> Connect<'_> {
    let session_expiry = (version == Version::V5).then_some(3600);
    Connect { clean_start: false, session_expiry, ..Connect::new(version, client_id) }
}
