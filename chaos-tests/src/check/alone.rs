//! At most one connection of a client id is alive.
//!
//! A connection was alive at some moment between a PINGREQ and its answer. So one that answers what
//! was sent after the CONNACK of a later one was alive beside it.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::{Promise, Verdict};
use crate::record::{At, Event, What};

/// What a process that stood still for longer than this holds may have been given to others
/// (ADR 10: eight seconds).
const LEASE: Duration = Duration::from_secs(7);
/// How long it may take to notice when it goes on.
const NOTICES: Duration = Duration::from_secs(5);

struct Connection {
    number: u64,
    node: u64,
    asked: At,
    since: At,
    /// When the last answered PINGREQ was sent, and when the answer came.
    pinged: (At, At),
}

pub(super) fn check(history: &[Event], verdict: &mut Verdict) {
    let mut clients: BTreeMap<&str, Vec<Connection>> = BTreeMap::new();
    let mut pings: HashMap<u64, (At, At)> = HashMap::new();
    let mut stops: Vec<(u64, At, At)> = Vec::new();
    for Event { at, what } in history {
        match what {
            What::Connected { client, connection, node, asked, .. } => {
                let (number, node, asked, since) = (*connection, *node, *asked, *at);
                let pinged = (asked, since);
                let connection = Connection { number, node, asked, since, pinged };
                clients.entry(client).or_default().push(connection);
            }
            What::Pinged { connection, asked } => {
                let last = pings.entry(*connection).or_insert((*asked, *at));
                if last.0 <= *asked {
                    *last = (*asked, *at);
                }
            }
            What::Stopped { node, since } => stops.push((*node, *since, *at)),
            _ => {}
        }
    }
    for (client, mut connections) in clients {
        for connection in &mut connections {
            if let Some(pinged) = pings.get(&connection.number) {
                connection.pinged = *pinged;
            }
        }
        let mut found = Vec::new();
        for (at, one) in connections.iter().enumerate() {
            for other in &connections[at + 1..] {
                let Some((late, early)) = both_alive(one, other) else { continue };
                if excused(early, late, &stops) {
                    verdict.revenants += 1;
                } else {
                    found.push(format!(
                        "connection {} to node {} since {:?} answers what was sent at {:?}, {} to \
                         node {} lives since {:?}",
                        early.number,
                        early.node,
                        early.since,
                        early.pinged.0,
                        late.number,
                        late.node,
                        late.since
                    ));
                }
            }
        }
        verdict.tell(Promise::Alone, client, &found);
    }
}

/// The later and the earlier one of two that were alive at once; `one` had its CONNACK first.
fn both_alive<'a>(
    one: &'a Connection,
    other: &'a Connection,
) -> Option<(&'a Connection, &'a Connection)> {
    let both = one.since.max(other.since);
    let (first, second) = (one.pinged.0 > both, other.pinged.0 > both);
    // When CONNECT was sent after the other's CONNACK it is later; otherwise either may be.
    let is_later = other.asked > one.since;
    (first && (second || is_later)).then_some((other, one))
}

/// Whether the node of the earlier one has only just gone on, after it had stood still for long enough
/// that others let the later one in; what the node was asked for afterwards has no excuse.
fn excused(early: &Connection, late: &Connection, stops: &[(u64, At, At)]) -> bool {
    let answered = early.pinged.1;
    stops.iter().any(|(node, since, until)| {
        *node == early.node
            && early.asked < *until
            && late.since > *since + LEASE
            && (*until..*until + NOTICES).contains(&answered)
    })
}
