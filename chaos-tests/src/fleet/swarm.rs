//! Many lasting sessions on few threads, each with a topic of its own, and those who publish to them.

use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use mqtt::QoS::{AtLeastOnce, ExactlyOnce};
use mqtt::Version::V5;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::publisher::Publisher;
use super::{Place, Running};
use crate::client::lasting;
use crate::record::What;
use crate::{Client, Dice, End, Inbox};

const THREADS: usize = 16;
/// CONNACK may take as long as a takeover from a node that is lost.
const PATIENCE: Duration = Duration::from_secs(10);

/// See the module.
pub(crate) struct Swarm {
    sessions: Vec<Session>,
    publishers: Vec<Publisher>,
}

/// A session that does not wander unless it must.
struct Session {
    inbox: Inbox,
    topic: String,
    /// Which node it is connected to, or was last.
    node: usize,
    client: Option<Client>,
    /// It has just connected: what came with CONNACK was read already.
    is_new: bool,
}

impl Swarm {
    /// So many sessions, and publishers that send so many publications a second together.
    pub(crate) fn new(sessions: usize, rate: u32, dice: &mut Dice) -> Self {
        let topic = |number: usize| format!("swarm/{number}/");
        let publishers = 4;
        let pace = Duration::from_secs(1) * publishers as u32 / rate;
        let publisher = |at: usize| {
            let qos = if at.is_multiple_of(2) { AtLeastOnce } else { ExactlyOnce };
            let topics = (0..sessions).filter(|number| number % publishers == at);
            let mut publisher = Publisher::new(topics.map(topic), V5, qos, dice);
            publisher.roamer.stay = 1_000_000..2_000_000;
            publisher.pace = pace;
            publisher
        };
        let publishers = (0..publishers.min(sessions)).map(publisher).collect();
        let session = |number: usize| Session {
            inbox: Inbox::new(&format!("session {number}")),
            topic: topic(number),
            node: number,
            client: None,
            is_new: false,
        };
        Self { sessions: (0..sessions).map(session).collect(), publishers }
    }

    /// Makes the sessions, and lets everybody live until the place says that it is over.
    pub(crate) fn live<'scope, 'env>(
        &'env mut self,
        place: &'env Place<'env>,
        scope: &'scope Scope<'scope, 'env>,
    ) -> Running<'scope> {
        let share = self.sessions.len().div_ceil(THREADS).max(1);
        thread::scope(|scope| {
            for share in self.sessions.chunks_mut(share) {
                scope.spawn(|| share.iter_mut().for_each(|session| session.subscribe(place)));
            }
        });
        for share in self.sessions.chunks_mut(share) {
            scope.spawn(|| live(share, place));
        }
        let finite = self.publishers.iter_mut().map(|it| scope.spawn(|| it.live(place)));
        Running { finite: finite.collect() }
    }
}

/// Serves some sessions until it is over.
fn live(sessions: &mut [Session], place: &Place<'_>) {
    while !place.is_over() {
        let asked = Instant::now();
        for session in &mut *sessions {
            // The others must not wait for long.
            if session.client.is_none() && asked.elapsed() < Duration::from_secs(1) {
                session.connect(place);
            }
        }
        let ready: Vec<bool> = {
            let connected = sessions.iter().filter_map(|session| session.client.as_ref());
            let mut sockets: Vec<_> =
                connected.map(|client| PollFd::new(client.stream(), PollFlags::IN)).collect();
            let timeout = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
            // When it is interrupted nothing is ready.
            let _ = poll(&mut sockets, Some(&timeout));
            sockets.iter().map(|socket| !socket.revents().is_empty()).collect()
        };
        let connected = sessions.iter_mut().filter(|session| session.client.is_some());
        for (session, ready) in connected.zip(ready) {
            if ready || std::mem::take(&mut session.is_new) {
                let outcome = session.serve(place);
                session.judge(place, outcome);
            }
        }
    }
}

impl Session {
    /// Tries one node, the next one after it has failed.
    fn connect(&mut self, place: &Place<'_>) {
        let asked = place.recorder.now();
        let node = self.node % place.addresses.len();
        let connect = lasting(V5, &self.inbox.client_id);
        let Ok(client) = Client::open_within(place.addresses[node], &connect, PATIENCE) else {
            self.node += 1;
            return;
        };
        place.recorder.note(What::Connected {
            client: self.inbox.client_id.clone(),
            connection: place.recorder.connection(),
            node: node as u64 + 1,
            asked,
            clean: false,
            present: client.session_present,
        });
        self.inbox.reconnected();
        self.client = Some(client);
        self.is_new = true;
    }

    fn subscribe(&mut self, place: &Place<'_>) {
        while !place.is_over() {
            self.connect(place);
            let Some(client) = &mut self.client else { continue };
            let outcome = client.subscribe(&[&self.topic], ExactlyOnce);
            if self.judge(place, outcome).is_some() {
                self.is_new = true;
                let (client, prefix) = (self.inbox.client_id.clone(), self.topic.clone());
                place.recorder.note(What::Subscribed { client, prefix, qos: ExactlyOnce });
                return;
            }
        }
    }

    fn serve(&mut self, place: &Place<'_>) -> Result<(), End> {
        let Some(client) = &mut self.client else { return Ok(()) };
        for got in client.all_ready()? {
            if let Some(delivered) = self.inbox.take(&got)? {
                place.recorder.note(delivered);
            }
        }
        self.inbox.pay(client)
    }

    fn judge<T>(&mut self, place: &Place<'_>, outcome: Result<T, End>) -> Option<T> {
        match outcome {
            Ok(value) => return Some(value),
            Err(End::Closed(_)) => {}
            Err(End::Fault(text)) => {
                let client = self.inbox.client_id.clone();
                place.recorder.note(What::Broken { client, text });
            }
        }
        self.client = None;
        self.node += 1;
        None
    }
}
