//! A connection that is watched: what it saw is written down, and it proves all the time that it
//! lives.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mqtt::Connect;

use crate::record::{At, Recorder, What};
use crate::{Client, End, Received};

/// How long a client waits for an answer before it goes elsewhere.
pub(super) const PATIENCE: Duration = Duration::from_secs(4);
const PING_EVERY: Duration = Duration::from_millis(100);

/// See the module.
pub(super) struct Link {
    pub(super) client: Client,
    /// The number of the connection in the history.
    number: u64,
    /// When the PINGREQs were sent whose answers are awaited.
    pings: VecDeque<At>,
    pinged: Instant,
    /// When something last came.
    heard: Instant,
}

impl Link {
    pub(super) fn open(
        recorder: &Recorder,
        node: u64,
        address: SocketAddr,
        connect: &Connect<'_>,
    ) -> Result<Self, End> {
        Self::begin(recorder, node, connect, || Client::open_within(address, connect, PATIENCE))
    }

    /// As [`Link::open`], however the connection is made.
    pub(super) fn begin(
        recorder: &Recorder,
        node: u64,
        connect: &Connect<'_>,
        open: impl FnOnce() -> Result<Client, End>,
    ) -> Result<Self, End> {
        let asked = recorder.now();
        let client = open()?;
        let number = recorder.connection();
        recorder.note(What::Connected {
            client: connect.client_id.to_owned(),
            connection: number,
            node,
            asked,
            clean: connect.clean_start,
            present: client.session_present,
        });
        let now = Instant::now();
        Ok(Self { client, number, pings: VecDeque::new(), pinged: now, heard: now })
    }

    /// The next packet but answers to pings. An end when nothing came for too long.
    pub(super) fn next(
        &mut self,
        recorder: &Recorder,
        timeout: Duration,
    ) -> Result<Option<Received>, End> {
        if self.pinged.elapsed() >= PING_EVERY {
            self.pinged = Instant::now();
            self.pings.push_back(recorder.now());
            self.client.send_ping()?;
        }
        match self.client.next(timeout)? {
            Some(Received::PingResp) => {
                self.heard = Instant::now();
                let Some(asked) = self.pings.pop_front() else {
                    return End::fault("PINGRESP that nobody asked for");
                };
                recorder.note(What::Pinged { connection: self.number, asked });
                Ok(None)
            }
            Some(received) => {
                self.heard = Instant::now();
                Ok(Some(received))
            }
            None if self.heard.elapsed() > PATIENCE => Err(End::Closed(None)),
            None => Ok(None),
        }
    }
}
