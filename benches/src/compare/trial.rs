//! The scenarios of a comparison, with their counts and bars: one row each.

use std::time::Duration;

use anyhow::{Context, Result};

use self::Bar::{AtMost, NoMoreThan, PartOf, Times};
use crate::broker::{Broker, Recipe};
use crate::engine::Receivers;
use crate::frame::Qos;
use crate::report::{BYTES_EACH, P99, RATE, Report};
use crate::scenario::idle::Idle;
use crate::scenario::reconnect::Reconnect;
use crate::scenario::stored::Stored;
use crate::scenario::storm::Storm;
use crate::scenario::subscriptions::Subscriptions;
use crate::scenario::traffic::Traffic;
use crate::stream::Carrier;

/// What the subject must reach. Where it says another broker, only if that takes part.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bar {
    /// At least so many times a broker's figure, in the same round.
    Times(&'static str, f64),
    /// At most so many times a broker's figure, in the same round.
    NoMoreThan(&'static str, f64),
    /// Such a part of the subject's figure in another scenario, in the same round.
    PartOf(&'static str, f64),
    /// At most this figure.
    AtMost(f64),
}

/// One scenario of a comparison.
#[derive(Clone, Copy, Debug)]
pub struct Trial {
    /// What it is called.
    pub name: &'static str,
    /// The figure that is compared.
    pub figure: &'static str,
    /// What the subject must reach; without any, it must be correct.
    pub bars: &'static [Bar],
    /// Whether the raw relay can take part.
    relay: bool,
    carrier: Carrier,
    load: Load,
}

#[derive(Clone, Copy, Debug)]
enum Load {
    P2p {
        qos: Qos,
        persistent: bool,
    },
    Fanout {
        qos: Qos,
    },
    Fanin {
        qos: Qos,
    },
    Latency {
        qos: Qos,
    },
    /// At half of what the broker passes at most.
    HalfLatency {
        qos: Qos,
    },
    Idle,
    Subscriptions,
    Storm,
    Reconnect,
    Retained,
    Offline,
}

const fn trial(
    name: &'static str,
    figure: &'static str,
    bars: &'static [Bar],
    load: Load,
) -> Trial {
    Trial { name, figure, bars, relay: false, carrier: Carrier::Tcp, load }
}

const fn with_relay(trial: Trial) -> Trial {
    Trial { relay: true, ..trial }
}

const fn over(carrier: Carrier, trial: Trial) -> Trial {
    Trial { carrier, ..trial }
}

const P2P_0: Load = Load::P2p { qos: Qos::Zero, persistent: false };
const P2P_1: Load = Load::P2p { qos: Qos::One, persistent: false };
const P2P_2: Load = Load::P2p { qos: Qos::Two, persistent: false };
const PERSISTENT_1: Load = Load::P2p { qos: Qos::One, persistent: true };
const MTLS_STORM: &[Bar] = &[Times(M, 1.5), Times(R, 0.8)];
const FANOUT_0: Load = Load::Fanout { qos: Qos::Zero };
const LATENCY_1: Load = Load::Latency { qos: Qos::One };

const M: &str = "mosquitto";
const F: &str = "flashmq";
const R: &str = "relay";

/// Every scenario, in the order of the table.
const TRIALS: [Trial; 21] = [
    with_relay(trial("p2p-qos0", RATE, &[Times(M, 14.0), Times(R, 0.3)], P2P_0)),
    with_relay(trial("p2p-qos1", RATE, &[Times(M, 11.0), Times(F, 1.3)], P2P_1)),
    with_relay(trial("p2p-qos2", RATE, &[Times(M, 17.0), Times(F, 1.3)], P2P_2)),
    over(Carrier::Tls, trial("p2p-qos1-mtls", RATE, &[PartOf("p2p-qos1", 0.6)], P2P_1)),
    over(Carrier::WebSocket, trial("p2p-qos1-websocket", RATE, &[], P2P_1)),
    over(Carrier::Quic, trial("p2p-qos1-quic", RATE, &[], P2P_1)),
    trial("persistent-qos1", RATE, &[Times(M, 1.5)], PERSISTENT_1),
    with_relay(trial("fanout-qos0", RATE, &[Times(M, 8.0), Times(F, 1.2)], FANOUT_0)),
    trial("fanout-qos1", RATE, &[Times(F, 1.3)], Load::Fanout { qos: Qos::One }),
    trial("fanin-qos1", RATE, &[Times(F, 1.3)], Load::Fanin { qos: Qos::One }),
    with_relay(trial("latency-qos1", P99, &[NoMoreThan(M, 1.0), AtMost(1_000.0)], LATENCY_1)),
    trial("latency-half", P99, &[AtMost(5_000.0)], Load::HalfLatency { qos: Qos::One }),
    trial("idle", BYTES_EACH, &[AtMost(2.0 * 1024.0)], Load::Idle),
    over(Carrier::Tls, trial("idle-mtls", BYTES_EACH, &[AtMost(14.0 * 1024.0)], Load::Idle)),
    trial("subscriptions", BYTES_EACH, &[AtMost(250.0)], Load::Subscriptions),
    with_relay(trial("storm", RATE, &[Times(M, 1.0)], Load::Storm)),
    over(Carrier::Tls, with_relay(trial("storm-mtls", RATE, MTLS_STORM, Load::Storm))),
    trial("reconnect", RATE, &[], Load::Reconnect),
    over(Carrier::Tls, trial("reconnect-mtls", RATE, &[], Load::Reconnect)),
    trial("retained", RATE, &[], Load::Retained),
    trial("offline", RATE, &[], Load::Offline),
];

/// The names of all scenarios.
pub const NAMES: [&str; TRIALS.len()] = {
    let mut names = [""; TRIALS.len()];
    let mut index = 0;
    while index < TRIALS.len() {
        names[index] = TRIALS[index].name;
        index += 1;
    }
    names
};

/// The scenarios with these names; all of them if there are none.
pub fn named(names: &[String]) -> Vec<Trial> {
    let wanted = |trial: &&Trial| names.is_empty() || names.iter().any(|name| name == trial.name);
    TRIALS.iter().filter(wanted).copied().collect()
}

/// Whether the generator never sleeps in this scenario, so that its CPU time says nothing.
pub(super) fn spins(name: &str) -> bool {
    TRIALS.iter().any(|trial| {
        trial.name == name && matches!(trial.load, Load::Latency { .. } | Load::HalfLatency { .. })
    })
}

impl Trial {
    /// Whether this broker can run it.
    pub fn suits(&self, broker: &Recipe) -> bool {
        match self.carrier {
            Carrier::Quic => broker.is_skein(),
            _ => self.relay || !broker.is_relay(),
        }
    }

    /// Runs it against a fresh broker.
    pub fn run(&self, broker: &Broker, quick: bool) -> Result<Report> {
        let target = &broker.target_over(self.carrier)?;
        let pick = |full: usize, small: usize| if quick { small } else { full };
        let pairs = Receivers::Pairs { pairs: pick(100, 10) };
        match self.load {
            Load::P2p { qos, persistent } => {
                let backlog = (qos == Qos::Zero).then_some(256);
                Traffic { persistent, backlog, ..traffic(pairs, qos, quick) }.run(target)
            }
            Load::Fanout { qos } => {
                let (publishers, subscribers) = (pick(5, 2), pick(500, 20));
                let all = Receivers::All { publishers, subscribers };
                Traffic { payload: 64, ..traffic(all, qos, quick) }.run(target)
            }
            Load::Fanin { qos } => {
                let (publishers, members) = (pick(500, 10), 5);
                traffic(Receivers::Shared { publishers, members }, qos, quick).run(target)
            }
            Load::Latency { qos } => {
                let rate = Some(pick(5_000, 1_000) as f64);
                Traffic { rate, ..traffic(pairs, qos, quick) }.run(target)
            }
            Load::HalfLatency { qos } => {
                let flood = traffic(pairs, qos, quick);
                let most = flood.run(target)?;
                let rate = most.figure(RATE).filter(|rate| *rate > 0.0);
                let rate = rate.context("nothing passed in the flood")? / 2.0;
                let mut report = Traffic { rate: Some(rate), ..flood }.run(target)?;
                report.failures.extend(most.failures);
                Ok(report)
            }
            Load::Idle => {
                let hold = Duration::from_secs(pick(10, 1) as u64);
                Idle { connections: pick(10_000, 500), keep_alive: 60, hold }.run(target)
            }
            Load::Subscriptions => {
                let (subscriptions, connections) = (pick(200_000, 2_000), pick(100, 10));
                Subscriptions { subscriptions, connections, batch: 8, qos: Qos::Zero }.run(target)
            }
            Load::Storm => {
                let duration = Duration::from_secs(pick(6, 1) as u64);
                Storm { concurrency: pick(32, 4), duration }.run(target)
            }
            Load::Reconnect => Reconnect { clients: pick(5_000, 200), probe: None }.run(target),
            Load::Retained => stored(pick(100_000, 1_000)).retained(target),
            Load::Offline => stored(pick(100_000, 1_000)).offline(target),
        }
    }
}

fn stored(messages: usize) -> Stored {
    let messages = messages as u64;
    Stored { messages, publishers: 10, qos: Qos::One, payload: 256, window: 32 }
}

fn traffic(receivers: Receivers, qos: Qos, quick: bool) -> Traffic {
    let (warmup, duration) = if quick { (200, 800) } else { (2_000, 6_000) };
    Traffic {
        receivers,
        qos,
        payload: 256,
        window: 32,
        backlog: None,
        persistent: false,
        rate: None,
        warmup: Duration::from_millis(warmup),
        duration: Duration::from_millis(duration),
    }
}
