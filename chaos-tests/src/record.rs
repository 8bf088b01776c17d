//! What the clients of a cluster saw, with the time at which they saw it.
//!
//! Every event is told by the thread that saw it, right after it did; what it had asked for before
//! carries both times. Times count from the beginning of the story and never go back.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mqtt::QoS;

/// Since the beginning of the story.
pub type At = Duration;

/// Something that was seen.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// When.
    pub at: At,
    /// What.
    pub what: What,
}

/// What can be seen. `asked` is when the client began to ask for it.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// Something was done to the cluster.
    Fault(String),
    /// A node's process stood still until now.
    Stopped {
        /// The node.
        node: u64,
        /// Since when.
        since: At,
    },
    /// Things were done to the cluster until now; it is whole, and every node serves.
    Troubled {
        /// Since when.
        since: At,
    },
    /// From now on a client connects, and publishes on a topic, with a certificate.
    Identified {
        /// The client id.
        client: String,
        /// The topic.
        topic: String,
        /// The id of the certificate.
        principal: String,
    },
    /// It was acknowledged that a certificate is not active any more.
    Revoked {
        /// The id of the certificate.
        principal: String,
    },
    /// Somebody is about to ask that a certificate be active again.
    Restoring {
        /// The id of the certificate.
        principal: String,
    },
    /// CONNACK has come.
    Connected {
        /// The client id.
        client: String,
        /// Counts the connections of all clients.
        connection: u64,
        /// To which node.
        node: u64,
        /// When CONNECT was sent.
        asked: At,
        /// Without the session that was there before.
        clean: bool,
        /// What CONNACK says of the session.
        present: bool,
    },
    /// A client with a certificate could not connect.
    Unconnected {
        /// The client id.
        client: String,
        /// When it began to.
        asked: At,
    },
    /// PINGREQ was answered.
    Pinged {
        /// Which connection.
        connection: u64,
        /// When PINGREQ was sent.
        asked: At,
    },
    /// SUBACK has come: from now on the session gets what is published under the prefix.
    Subscribed {
        /// The client id.
        client: String,
        /// How its topics begin.
        prefix: String,
        /// The highest QoS it is sent.
        qos: QoS,
    },
    /// PUBLISH is about to be sent for the first time.
    Published {
        /// The topic; each belongs to one publisher.
        topic: String,
        /// Counts from 0 on each topic.
        number: u64,
        /// With what QoS.
        qos: QoS,
    },
    /// PUBLISH is about to be sent, for the first time or again, with a message expiry interval; comes
    /// before [`What::Published`].
    Expiring {
        /// The topic.
        topic: String,
        /// Which publication.
        number: u64,
        /// Which sending of it.
        attempt: u32,
        /// The interval, in seconds.
        interval: u32,
    },
    /// PUBACK or PUBREC has come.
    Acknowledged {
        /// The topic.
        topic: String,
        /// Which publication.
        number: u64,
    },
    /// The broker has said that it does not take it.
    Refused {
        /// The topic.
        topic: String,
        /// Which publication.
        number: u64,
    },
    /// The client went elsewhere without an answer, and will not send it again: if it happens at all
    /// it may at any time.
    Abandoned {
        /// The topic.
        topic: String,
        /// Which publication.
        number: u64,
    },
    /// PUBLISH has come, and is not what the client holds already by the rules of its QoS.
    Delivered {
        /// The client id.
        client: String,
        /// The topic.
        topic: String,
        /// Which publication.
        number: u64,
        /// Which sending of it; the publisher counts them.
        attempt: u32,
        /// With what QoS.
        qos: QoS,
        /// The broker says that it has sent it before.
        dup: bool,
        /// The message expiry interval that it carries, in seconds.
        interval: Option<u32>,
    },
    /// PUBLISH has come to a member of a shared subscription; [`What::Subscribed`] names the
    /// subscription, too, instead of a client.
    Shared {
        /// The subscription.
        share: String,
        /// The topic.
        topic: String,
        /// Which publication.
        number: u64,
    },
    /// A client has left in good order: this will of it is nobody's business.
    Withdrawn {
        /// The topic of the will.
        topic: String,
        /// Which publication.
        number: u64,
    },
    /// A value was written, or may have been, if nobody said so.
    Wrote {
        /// Where.
        key: String,
        /// No two writes of a key have the same.
        value: u64,
        /// When it was sent.
        asked: At,
        /// Whether it was acknowledged; `at` is meaningless otherwise.
        acknowledged: bool,
        /// Which version came of it, where values have versions and the answer named it.
        version: Option<u64>,
    },
    /// A value was read.
    Read {
        /// Where.
        key: String,
        /// What is there.
        value: u64,
        /// When it was asked for.
        asked: At,
        /// Its version, where values have versions.
        version: Option<u64>,
    },
    /// A lasting session was told of a version.
    Told {
        /// The client id.
        client: String,
        /// Where.
        key: String,
        /// The value.
        value: u64,
        /// Its version.
        version: u64,
    },
    /// CONNACK has come for a session that lasts for a while only.
    Woke {
        /// The client id.
        client: String,
        /// When its last connection began to end.
        left: At,
        /// When CONNECT was sent.
        asked: At,
        /// How long its session lasts without a connection.
        kept: Duration,
        /// What CONNACK says of the session.
        present: bool,
    },
    /// Something that no client may see.
    Broken {
        /// The client id.
        client: String,
        /// What.
        text: String,
    },
}

/// Where every thread writes down what it sees.
pub struct Recorder {
    begun: Instant,
    events: Mutex<Vec<Event>>,
    connections: AtomicU64,
}

impl Default for Recorder {
    fn default() -> Self {
        Self { begun: Instant::now(), events: Mutex::default(), connections: AtomicU64::new(0) }
    }
}

impl Recorder {
    /// The time.
    pub fn now(&self) -> At {
        self.begun.elapsed()
    }

    /// A number for a connection.
    pub fn connection(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed)
    }

    /// Notes what was seen just now.
    pub fn note(&self, what: What) {
        let mut events = self.events.lock().expect("no thread panics with it");
        // Taken under the lock: the history is in the order of its times.
        let at = self.begun.elapsed();
        events.push(Event { at, what });
    }

    /// Looks at what was seen from an event on; gives how many there are.
    pub fn since(&self, from: usize, mut look: impl FnMut(&Event)) -> usize {
        let events = self.events.lock().expect("no thread panics with it");
        events[from..].iter().for_each(&mut look);
        events.len()
    }

    /// Everything that was seen.
    pub fn history(&self) -> Vec<Event> {
        self.events.lock().expect("no thread panics with it").clone()
    }
}

/// Writes a history down for people, one event a line.
pub fn write(history: &[Event], path: &Path) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    for event in history {
        writeln!(file, "{:>12.6} {:?}", event.at.as_secs_f64(), event.what)?;
    }
    file.flush()
}
