//! The steps of a random history: few names, so that they meet often.

use proptest::prelude::*;

use crate::shard::tests::*;

pub(super) const CLIENTS: [&str; 4] = ["one", "two", "three", "four"];
pub(super) const THINGS: [&str; 2] = ["lamp", "lam"];
const TOPICS: [&str; 5] = ["a", "a/b", "a/b/c", "$sys/a", "b"];
const FILTERS: [&str; 10] =
    ["a", "a/b", "a/+", "a/#", "#", "+/b", "$sys/#", "$share/g/a/#", "$share/h/a/b", "a/#/b"];
const SHARES: [&str; 2] = ["$share/g/a/#", "$share/h/a/b"];
const SHADOWS: [Option<&str>; 3] = [None, Some("blue"), Some("bl")];
const DOCUMENTS: [&str; 5] = [
    r#"{"state":{"desired":{"on":true}}}"#,
    r#"{"state":{"reported":{"on":true,"hot":1}}}"#,
    r#"{"state":{"desired":{"on":null}},"version":2,"clientToken":"x"}"#,
    r#"{"state":{"desired":null,"reported":null}}"#,
    "nonsense",
];
const EXPIRIES: [u32; 4] = [0, 2, 10, NEVER];

#[derive(Clone, Debug)]
pub(super) enum Step {
    Wait(u64),
    Checkpoint,
    Reload,
    Due,
    Restart(u64),
    Connect {
        who: Who,
        clean: bool,
        expiry: usize,
        version: u32,
        will: Option<(usize, bool)>,
        limit: u32,
    },
    Disconnect {
        who: Who,
        expiry: Option<usize>,
        publish: bool,
    },
    Subscribe {
        who: Who,
        filters: Vec<(usize, Options)>,
    },
    Unsubscribe {
        who: Who,
        filters: Vec<usize>,
        sent_below: u64,
    },
    EnqueueShared {
        message: Message,
        shares: usize,
        returned: bool,
        limit: u32,
        origin: Option<Origin>,
    },
    AssignShared {
        share: usize,
        to: Option<usize>,
        most: u32,
    },
    ReleaseShared {
        who: Who,
        share: usize,
        most: u32,
    },
    BeginShared {
        who: Who,
        below: u64,
    },
    ForgetShared(usize),
    Publish {
        message: Message,
        store: bool,
        enqueue: bool,
        /// Who, its QoS, and whether it comes by a shared subscription.
        directed: Vec<(usize, u32, Option<usize>)>,
        origin: Option<Origin>,
    },
    Receive {
        who: Who,
        packet_id: u32,
        message: Message,
        store: bool,
    },
    Release {
        who: Who,
        packet_id: u32,
    },
    Acknowledge {
        who: Who,
        places: Vec<u64>,
    },
    Pubrec {
        who: Who,
        places: Vec<u64>,
    },
    UpdateShadow {
        thing: usize,
        name: usize,
        document: usize,
        reply: bool,
        origin: Option<Origin>,
    },
    DeleteShadow {
        thing: usize,
        name: usize,
        reply: bool,
        origin: Option<Origin>,
    },
    Trim(u64, Vec<u64>),
    Forget(u64, u64),
}

/// A client, and whether the command is of its present connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Who {
    client: usize,
    stale: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Message {
    topic: usize,
    qos: u32,
    retain: bool,
    publisher: usize,
    bytes: usize,
    expiry: Option<u64>,
}

fn who() -> impl Strategy<Value = Who> {
    (0..CLIENTS.len(), prop::bool::weighted(0.05)).prop_map(|(client, stale)| Who { client, stale })
}

fn message() -> impl Strategy<Value = Message> {
    let expiry = prop::option::weighted(0.3, 0..4_000_u64);
    (0..TOPICS.len(), 0..3_u32, any::<bool>(), 0..CLIENTS.len(), 0..12_usize, expiry).prop_map(
        |(topic, qos, retain, publisher, bytes, expiry)| Message {
            topic,
            qos,
            retain,
            publisher,
            bytes,
            expiry,
        },
    )
}

fn options() -> impl Strategy<Value = Options> {
    (0..4_u32, any::<bool>(), any::<bool>(), 0..3_u32, 0..3_u32).prop_map(
        |(qos, no_local, retain_as_published, retain_handling, subscription_id)| Options {
            qos,
            no_local,
            retain_as_published,
            retain_handling,
            subscription_id,
        },
    )
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let expiry = || 0..EXPIRIES.len();
    let will = prop::option::of((expiry(), any::<bool>()));
    let filters = prop::collection::vec((0..FILTERS.len(), options()), 1..4);
    let share = || 0..SHARES.len();
    let directed = (0..CLIENTS.len(), 0..3_u32, prop::option::of(share()));
    let directed = prop::collection::vec(directed, 0..3);
    let origin = || {
        let origin = (1..3_u64, 1..6_u64, prop::option::of(0..3_u32));
        let origin = origin.prop_map(|(group, seq, part)| Origin { group, seq, part });
        prop::option::weighted(0.2, origin)
    };
    let places = || prop::collection::vec(0..6_u64, 1..4);
    let (things, names) = (0..THINGS.len(), 0..SHADOWS.len());
    prop_oneof![
        3 => (0..3_000_u64).prop_map(Step::Wait),
        1 => (0..200_000_000_u64).prop_map(Step::Wait),
        2 => Just(Step::Checkpoint),
        1 => Just(Step::Reload),
        2 => Just(Step::Due),
        1 => (1..3_u64).prop_map(Step::Restart),
        6 => (who(), prop::bool::weighted(0.2), expiry(), 4..6_u32, will, 0..6_u32).prop_map(
            |(who, clean, expiry, version, will, limit)| {
                Step::Connect { who, clean, expiry, version, will, limit }
            }
        ),
        3 => (who(), prop::option::weighted(0.2, expiry()), any::<bool>())
            .prop_map(|(who, expiry, publish)| Step::Disconnect { who, expiry, publish }),
        6 => (who(), filters).prop_map(|(who, filters)| Step::Subscribe { who, filters }),
        2 => (who(), prop::collection::vec(0..FILTERS.len(), 1..4), 0..4_u64).prop_map(
            |(who, filters, sent_below)| Step::Unsubscribe { who, filters, sent_below }
        ),
        4 => (message(), 1..=SHARES.len(), any::<bool>(), 0..4_u32, origin()).prop_map(
            |(message, shares, returned, limit, origin)| {
                Step::EnqueueShared { message, shares, returned, limit, origin }
            }
        ),
        3 => (share(), prop::option::of(0..CLIENTS.len()), 0..4_u32)
            .prop_map(|(share, to, most)| Step::AssignShared { share, to, most }),
        3 => (who(), share(), 0..4_u32)
            .prop_map(|(who, share, most)| Step::ReleaseShared { who, share, most }),
        2 => (who(), 0..9_u64).prop_map(|(who, below)| Step::BeginShared { who, below }),
        1 => share().prop_map(Step::ForgetShared),
        12 => (message(), any::<bool>(), prop::bool::weighted(0.8), directed, origin()).prop_map(
            |(message, store, enqueue, directed, origin)| {
                Step::Publish { message, store, enqueue, directed, origin }
            }
        ),
        2 => (who(), 0..4_u32, message(), any::<bool>()).prop_map(
            |(who, packet_id, message, store)| {
                Step::Receive { who, packet_id, message, store }
            }
        ),
        2 => (who(), 0..4_u32).prop_map(|(who, packet_id)| Step::Release { who, packet_id }),
        6 => (who(), places()).prop_map(|(who, places)| Step::Acknowledge { who, places }),
        4 => (who(), places()).prop_map(|(who, places)| Step::Pubrec { who, places }),
        3 => (things.clone(), names.clone(), 0..DOCUMENTS.len(), any::<bool>(), origin())
            .prop_map(|(thing, name, document, reply, origin)| {
                Step::UpdateShadow { thing, name, document, reply, origin }
            }),
        1 => (things, names, any::<bool>(), origin()).prop_map(|(thing, name, reply, origin)| {
            Step::DeleteShadow { thing, name, reply, origin }
        }),
        2 => (0..40_u64, prop::collection::btree_set(0..40_u64, 0..20))
            .prop_map(|(upto, returned)| Step::Trim(upto, returned.into_iter().collect())),
        1 => (1..3_u64, 1..6_u64).prop_map(|(group, from)| Step::Forget(group, from)),
    ]
}

impl Who {
    fn fence(self, probe: &Probe) -> (Bytes, u64) {
        let (client, epoch) = probe.fence(CLIENTS[self.client]);
        (client, epoch.saturating_sub(u64::from(self.stale)))
    }

    /// Seqs of its queue by their place; behind the end, ones that are not there.
    fn seqs(self, probe: &Probe, places: &[u64]) -> Vec<u64> {
        let client = CLIENTS[self.client];
        let seqs: Vec<_> = probe.queue_of(client).into_iter().map(|(seq, ..)| seq).collect();
        places.iter().map(|&place| seqs.get(place as usize).copied().unwrap_or(place)).collect()
    }
}

impl Message {
    fn publication(&self, now: u64) -> Publication {
        Publication {
            topic: Bytes::from_static(TOPICS[self.topic].as_bytes()),
            payload: Bytes::from(vec![b'x'; self.bytes]),
            properties: Bytes::from(vec![1; self.bytes % 3]),
            qos: self.qos,
            retain: self.retain,
            expires_at: self.expiry.map(|after| now + after),
            publisher: Bytes::from_static(CLIENTS[self.publisher].as_bytes()),
            published_at: now,
        }
    }
}

impl Step {
    /// What the step says to a shard.
    pub(super) fn command(self, probe: &Probe, at: u64) -> Command {
        match self {
            Self::Wait(_) | Self::Checkpoint | Self::Reload | Self::Due | Self::Restart(_) => {
                unreachable!("not a command")
            }
            Self::Connect { who, clean, expiry, version, will, limit } => {
                let name = CLIENTS[who.client];
                let will = will.map(|(delay, retain)| Will {
                    publication: Publication { retain, ..publication("a/b", "will", 1) },
                    delay_secs: EXPIRIES[delay],
                    message_expiry_secs: retain.then_some(3),
                    ..Will::default()
                });
                Connect {
                    clean_start: clean,
                    expiry_secs: EXPIRIES[expiry],
                    version,
                    at,
                    will,
                    queue_limit_bytes: 60,
                    queue_limit_messages: limit,
                    node: u64::from(limit % 2) + 1,
                    ..client(name)
                }
                .into()
            }
            Self::Disconnect { who, expiry, publish } => {
                let (client, epoch) = who.fence(probe);
                let expiry_secs = expiry.map(|expiry| EXPIRIES[expiry]);
                Disconnect {
                    client,
                    epoch,
                    at,
                    expiry_secs,
                    will: publish.into(),
                    ..Disconnect::default()
                }
                .into()
            }
            Self::Subscribe { who, filters } => {
                let (client, epoch) = who.fence(probe);
                let filters = filters.into_iter().map(|(filter, options)| Subscription {
                    filter: FILTERS[filter].into(),
                    options,
                });
                Subscribe { client, epoch, filters: filters.collect() }.into()
            }
            Self::Unsubscribe { who, filters, sent_below } => {
                let (client, epoch) = who.fence(probe);
                let filters = filters.into_iter().map(|filter| FILTERS[filter].to_owned());
                Unsubscribe { client, epoch, filters: filters.collect(), sent_below }.into()
            }
            Self::EnqueueShared { message, shares, returned, limit: limit_messages, origin } => {
                EnqueueShared {
                    publication: message.publication(at),
                    filters: SHARES[..shares].iter().map(ToString::to_string).collect(),
                    returned,
                    limit_bytes: 20,
                    limit_messages,
                    origin,
                }
                .into()
            }
            Self::AssignShared { share, to, most } => {
                let member = to.map(|to| Directed {
                    client: Bytes::from_static(CLIENTS[to].as_bytes()),
                    qos: 2,
                    share: SHARES[share].into(),
                    assigned: true,
                    ..Directed::default()
                });
                let (filter, most_bytes) = (SHARES[share].into(), u64::MAX);
                AssignShared { filter, member, at, most, most_bytes }.into()
            }
            Self::ReleaseShared { who, share, most } => {
                let (client, epoch) = who.fence(probe);
                let (filter, most_bytes) = (SHARES[share].into(), u64::MAX);
                ReleaseShared { client, epoch, filter, most, most_bytes }.into()
            }
            Self::BeginShared { who, below } => {
                let (client, epoch) = who.fence(probe);
                BeginShared { client, epoch, below }.into()
            }
            Self::ForgetShared(share) => ForgetShared { filter: SHARES[share].into() }.into(),
            Self::Publish { message, store, enqueue, directed, origin } => {
                let directed = directed.into_iter().map(|(who, qos, share)| Directed {
                    client: Bytes::from_static(CLIENTS[who].as_bytes()),
                    qos,
                    retain: qos == 1,
                    subscription_ids: vec![qos; qos as usize],
                    share: share.map(|it| SHARES[it].to_owned()).unwrap_or_default(),
                    assigned: who == 0,
                });
                Publish {
                    publication: message.publication(at),
                    store_retained: store,
                    enqueue,
                    directed: directed.collect(),
                    origin,
                }
                .into()
            }
            Self::Receive { who, packet_id, message, store: store_retained } => {
                let (client, epoch) = who.fence(probe);
                let publication = message.publication(at);
                ReceiveQos2 { client, epoch, packet_id, publication, store_retained }.into()
            }
            Self::Release { who, packet_id } => {
                let (client, epoch) = who.fence(probe);
                ReleaseQos2 { client, epoch, packet_id }.into()
            }
            Self::Acknowledge { who, places } => {
                let (client, epoch) = who.fence(probe);
                Acknowledge { client, epoch, seqs: who.seqs(probe, &places), refused: vec![] }
                    .into()
            }
            Self::Pubrec { who, places } => {
                let (client, epoch) = who.fence(probe);
                PubrecReceived { client, epoch, seqs: who.seqs(probe, &places) }.into()
            }
            Self::UpdateShadow { thing, name, document, reply, origin } => UpdateShadow {
                thing: THINGS[thing].into(),
                name: SHADOWS[name].map(String::from),
                payload: Bytes::from_static(DOCUMENTS[document].as_bytes()),
                at,
                reply,
                origin,
                ..Default::default()
            }
            .into(),
            Self::DeleteShadow { thing, name, reply, origin } => DeleteShadow {
                thing: THINGS[thing].into(),
                name: SHADOWS[name].map(String::from),
                payload: Bytes::new(),
                at,
                reply,
                origin,
            }
            .into(),
            Self::Trim(upto, returned) => TrimOutbox { upto, returned }.into(),
            Self::Forget(group, from) => ForgetOrigin { group, from }.into(),
        }
    }
}
