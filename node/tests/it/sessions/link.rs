//! A client's connection that is watched: it proves all the time that it lives.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use chaos_tests::record::{At, What};
use chaos_tests::{Dice, End, Received};
use mqtt::{
    AckKind, Connect, Disconnect, Outgoing, PacketId, QoS, Reason, SubscribeOptions, Version,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::{Instant, timeout};

use super::stage::Stage;

/// How long a client waits for an answer before it goes elsewhere, unless it is a patient one.
pub(super) const PATIENCE: Duration = Duration::from_secs(4);
const PING_EVERY: Duration = Duration::from_millis(200);

/// See the module.
pub(super) struct Link {
    stage: Rc<Stage>,
    stream: DuplexStream,
    patience: Duration,
    version: Version,
    bytes: Vec<u8>,
    /// What came while an answer was awaited.
    early: VecDeque<Received>,
    /// The number of the connection in the history.
    number: u64,
    last_id: u16,
    /// When the PINGREQs were sent whose answers are awaited.
    pings: VecDeque<At>,
    pinged: Instant,
    heard: Instant,
    pub(super) session_present: bool,
}

impl Link {
    /// Connects to any node; `is_old` says whether the session should be one that was there before, if
    /// there was one, when CONNACK says whether it is.
    pub(super) async fn open(
        stage: &Rc<Stage>,
        connect: &Connect<'_>,
        is_old: impl Fn(bool) -> bool,
        (patience, dice): (Duration, &mut Dice),
    ) -> Option<Self> {
        let asked = stage.now();
        let (node, stream) = stage.dial(dice)?;
        let now = Instant::now();
        let mut link = Self {
            stage: Rc::clone(stage),
            stream,
            patience,
            version: connect.version,
            bytes: Vec::new(),
            early: VecDeque::new(),
            number: stage.connection(),
            last_id: 0,
            pings: VecDeque::new(),
            pinged: now,
            heard: now,
            session_present: false,
        };
        let mut out = Vec::new();
        mqtt::encode_connect(connect, &mut out);
        link.send(&out).await.ok()?;
        // A node asks for it again and again until the older connection is gone.
        let Ok(Some(Received::ConnAck { session_present, reason: Reason::Success })) =
            link.read(patience.max(PATIENCE * 3)).await
        else {
            return None;
        };
        link.session_present = session_present;
        stage.note(What::Connected {
            client: connect.client_id.to_owned(),
            connection: link.number,
            node,
            asked,
            clean: !is_old(session_present),
            present: session_present,
        });
        link.heard = Instant::now();
        Some(link)
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), End> {
        match timeout(self.patience, self.stream.write_all(bytes)).await {
            Ok(sent) => Ok(sent?),
            Err(_) if self.stage.is_patient => Err(End::Closed(None)),
            Err(_) => End::fault("the broker does not read what it is sent"),
        }
    }

    /// A packet identifier that was not used for long.
    fn new_id(&mut self) -> PacketId {
        self.last_id = self.last_id.checked_add(1).unwrap_or(1);
        PacketId::new(self.last_id).unwrap()
    }

    pub(super) async fn publish(&mut self, publish: &Outgoing<'_>) -> Result<(), End> {
        let mut out = Vec::new();
        mqtt::encode_publish(self.version, publish, &mut out);
        self.send(&out).await
    }

    /// Publishes with QoS 1, to be kept, and waits for the PUBACK.
    pub(super) async fn keep(&mut self, topic: &str, payload: &[u8]) -> Result<(), End> {
        let id = self.new_id();
        let (packet_id, qos) = (Some(id), QoS::AtLeastOnce);
        let publish = Outgoing { packet_id, qos, retain: true, ..Outgoing::new(topic, payload) };
        self.publish(&publish).await?;
        match self.answer(|got| matches!(got, Received::Ack { id: of, .. } if *of == id)).await? {
            Received::Ack { kind: AckKind::PubAck, reason, .. } if !reason.is_error() => Ok(()),
            _ => Err(End::Closed(None)),
        }
    }

    pub(super) async fn acknowledge(&mut self, kind: AckKind, id: PacketId) -> Result<(), End> {
        let mut out = Vec::new();
        mqtt::encode_ack(self.version, kind, id, Reason::Success, None, &mut out);
        self.send(&out).await
    }

    /// Subscribes and waits for the SUBACK, which must grant what was asked.
    pub(super) async fn subscribe(&mut self, filters: &[&str], qos: QoS) -> Result<(), End> {
        let id = self.new_id();
        let options: Vec<_> =
            filters.iter().map(|filter| (*filter, SubscribeOptions::at(qos))).collect();
        let mut out = Vec::new();
        mqtt::encode_subscribe(self.version, id, None, &options, &mut out);
        self.send(&out).await?;
        let is_it = |got: &Received| matches!(got, Received::SubAck { id: of, .. } if *of == id);
        match self.answer(is_it).await? {
            Received::SubAck { reasons, .. }
                if reasons.iter().all(|reason| *reason == Reason::granted(qos)) =>
            {
                Ok(())
            }
            other => End::fault(format!("SUBSCRIBE is answered with {other:?}")),
        }
    }

    /// Waits for one packet and keeps the others for later.
    async fn answer(&mut self, is_it: impl Fn(&Received) -> bool) -> Result<Received, End> {
        let until = Instant::now() + self.patience;
        loop {
            match self.read(until.saturating_duration_since(Instant::now())).await? {
                Some(received) if is_it(&received) => return Ok(received),
                Some(Received::PingResp) => self.note_ping()?,
                Some(other) => self.early.push_back(other),
                // The groups may be busy, or without a leader.
                None => return Err(End::Closed(None)),
            }
        }
    }

    fn note_ping(&mut self) -> Result<(), End> {
        let Some(asked) = self.pings.pop_front() else {
            return End::fault("PINGRESP that nobody asked for");
        };
        self.stage.note(What::Pinged { connection: self.number, asked });
        Ok(())
    }

    /// Sends PINGREQ and waits for its answer.
    pub(super) async fn ping(&mut self) -> Result<(), End> {
        self.send_ping().await?;
        while !self.pings.is_empty() {
            match self.read(self.patience).await? {
                Some(Received::PingResp) => self.note_ping()?,
                Some(other) => self.early.push_back(other),
                None => return Err(End::Closed(None)),
            }
        }
        Ok(())
    }

    async fn send_ping(&mut self) -> Result<(), End> {
        self.pinged = Instant::now();
        self.pings.push_back(self.stage.now());
        let mut out = Vec::new();
        mqtt::encode_pingreq(&mut out);
        self.send(&out).await
    }

    /// Sends DISCONNECT.
    pub(super) async fn leave(&mut self) -> Result<(), End> {
        let mut out = Vec::new();
        let last = Disconnect::new(Reason::NORMAL_DISCONNECTION);
        mqtt::encode_disconnect(self.version, &last, &mut out);
        self.send(&out).await
    }

    /// The next packet but answers to pings. An end when nothing came for too long.
    pub(super) async fn next(&mut self, within: Duration) -> Result<Option<Received>, End> {
        if let Some(early) = self.early.pop_front() {
            return Ok(Some(early));
        }
        if self.pinged.elapsed() >= PING_EVERY {
            self.send_ping().await?;
        }
        let received = self.read(within).await?;
        match received {
            Some(Received::PingResp) => {
                self.heard = Instant::now();
                self.note_ping().map(|()| None)
            }
            Some(received) => {
                self.heard = Instant::now();
                Ok(Some(received))
            }
            None if self.heard.elapsed() > self.patience => Err(End::Closed(None)),
            None => Ok(None),
        }
    }

    async fn read(&mut self, within: Duration) -> Result<Option<Received>, End> {
        let until = Instant::now() + within;
        loop {
            match self.take()? {
                Some(Received::Disconnect(reason)) => return Err(End::Closed(Some(reason))),
                Some(received) => return Ok(Some(received)),
                None => {}
            }
            let mut bytes = [0; 4096];
            let left = until.saturating_duration_since(Instant::now());
            match timeout(left, self.stream.read(&mut bytes)).await {
                Ok(Ok(0)) => return Err(End::Closed(None)),
                Ok(read) => self.bytes.extend_from_slice(&bytes[..read?]),
                Err(_) => return Ok(None),
            }
        }
    }

    /// A whole packet from what was read.
    fn take(&mut self) -> Result<Option<Received>, End> {
        Received::take(&mut self.bytes, self.version)
    }

    /// Stays as if nothing had happened, until the node ends it.
    pub(super) fn forget(mut self) {
        tokio::task::spawn_local(async move {
            let lasts = Duration::from_secs(if self.stage.is_patient { 90 } else { 20 });
            let until = Instant::now() + lasts;
            while Instant::now() < until && self.next(PING_EVERY).await.is_ok() {}
        });
    }
}
