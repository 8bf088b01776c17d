//! What operators watch on the gateway. Labels are bounded: never a client id, never a topic.
//!
//! A core counts in plain cells and adds to the exported counters once per tick, so that counting a
//! publication costs no atomic operation.

use std::cell::Cell;
use std::time::Duration;

use fleet::registry::Timestamp;
use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
};
use mqtt::QoS;

use crate::endpoint::DropReason;

/// A counter that is exported once per tick.
struct Local {
    count: Cell<u64>,
    exported: Counter,
}

impl Local {
    fn new(exported: Counter) -> Self {
        Self { count: Cell::new(0), exported }
    }

    fn add(&self, count: u64) {
        self.count.set(self.count.get() + count);
    }

    fn flush(&self) {
        let count = self.count.take();
        if count > 0 {
            self.exported.increment(count);
        }
    }
}

/// One core's counters.
pub struct CoreMetrics {
    publishes: [Local; 3],
    published: Cell<u64>,
    deliveries: [Local; 3],
    bytes_received: Local,
    payload_bytes_sent: Local,
    dropped: [Local; 4],
    decisions: [[Local; 2]; 4],
    subscriptions: Local,
    throttled: Local,
    too_large: Local,
    queues_full: Local,
    not_enriched: Local,
    connections: Gauge,
    held: Gauge,
    session_seconds: Histogram,
    /// How late the core's timer wakes: what every connection on it waits at least.
    pub loop_delay: Histogram,
}

const QOS: [&str; 3] = ["0", "1", "2"];
const DROPPED: [&str; 4] = ["expired", "too_large", "slow", "gone"];
const ACTIONS: [&str; 4] = ["connect", "publish", "subscribe", "receive"];

/// What a policy was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// May it connect?
    Connect,
    /// May it publish? Asked once per topic and change, not per publication.
    Publish,
    /// May it subscribe?
    Subscribe,
    /// May it receive? Asked once per topic and change, and again where time decides.
    Receive,
}

/// Describes every metric of the gateway; once per process.
pub fn describe() {
    let count = Unit::Count;
    describe_gauge!("gateway_connections", count, "Connections open now");
    describe_gauge!("gateway_held_bytes", Unit::Bytes, "Bytes that wait in connections");
    describe_counter!("gateway_connects_total", count, "CONNECT packets by result");
    describe_counter!(
        "http_connections_refused_total",
        count,
        "Connections to the REST and admin listeners beyond their max_connections"
    );
    // There from the start: an alert on what has not happened yet has something to look at.
    counter!("http_connections_refused_total").increment(0);
    describe_counter!(
        "http_heads_unread_total",
        count,
        "Connections to the http and admin listeners that were ended within the head of a request"
    );
    counter!("http_heads_unread_total").increment(0);
    describe_counter!("gateway_disconnects_total", count, "Connections that ended, by cause");
    describe_counter!("gateway_publishes_received_total", count, "PUBLISH packets from clients");
    describe_counter!("gateway_publishes_sent_total", count, "PUBLISH packets to clients");
    describe_counter!("gateway_received_bytes_total", Unit::Bytes, "Bytes read from clients");
    describe_counter!("gateway_sent_payload_bytes_total", Unit::Bytes, "Payload bytes to clients");
    describe_counter!("gateway_dropped_total", count, "Deliveries that were dropped, by reason");
    describe_counter!(
        "gateway_decisions_total",
        count,
        "What policies decided; about publishing and receiving once per topic and change of a policy \
         or subscription, not per publication"
    );
    describe_counter!("gateway_subscribes_total", count, "Subscriptions granted");
    describe_counter!(
        "registration_lines_total",
        count,
        "Lines of registrations in bulk that this node has carried out, by result"
    );
    describe_gauge!(
        "registration_progress_ratio",
        count,
        "How much of the present registration in bulk is done, or of the last one of this node"
    );
    describe_gauge!("sessions", count, "Sessions that have a record in a group");
    describe_gauge!(
        "sessions_connected",
        count,
        "Of those, sessions that have a connection on any node"
    );
    describe_gauge!(
        "session_queue_messages",
        count,
        "Messages that session queues hold, once each"
    );
    describe_gauge!(
        "session_queue_bytes",
        Unit::Bytes,
        "Bytes of the messages that session queues hold, once each however many queues hold them"
    );
    describe_gauge!("retained_messages", count, "Retained messages");
    describe_gauge!("retained_bytes", Unit::Bytes, "Bytes of retained messages");
    describe_gauge!("shadows", count, "Device shadows");
    describe_gauge!(
        "outbox_messages",
        count,
        "Publications of the state itself that are not safe yet"
    );
    describe_gauge!(
        "share_queue_messages",
        count,
        "Messages that wait for shared subscriptions without a connected member"
    );
    describe_gauge!(
        "cluster_data_version",
        count,
        "The version of the data that every node of the cluster can read"
    );
    describe_counter!(
        "tls_certificate_changes_total",
        count,
        "Times the files of the node's certificate had another one, by whether it could be used"
    );
    describe_counter!("shadow_operations_total", count, "Shadow requests by operation and result");
    describe_gauge!(
        "registry_revocation_list_expiry_seconds",
        Unit::Seconds,
        "Unix time at which the first of the revocation lists is outdated; infinite while there is none"
    );
    describe_counter!(
        "registry_events_lost_total",
        count,
        "Events of the registry that were lost because too many waited to be published"
    );
    describe_counter!(
        "provisioning_requests_total",
        count,
        "Requests of devices that provision themselves, by operation and result"
    );
    describe_counter!(
        "authorizer_decisions_total",
        count,
        "Clients that custom authorizers decided about, by what came of it"
    );
    for result in authorizer::Refusal::ALL.map(authorizer::Refusal::label) {
        counter!("authorizer_decisions_total", "result" => result).increment(0);
    }
    describe_counter!(
        "provisioning_hook_failures_total",
        count,
        "Pre-provisioning hooks that gave no answer that could be used, by what was wrong"
    );
    for result in ["timeout", "failed", "invalid_answer"] {
        counter!("provisioning_hook_failures_total", "result" => result).increment(0);
    }
    describe_counter!("session_queue_dropped_total", count, "Queue entries lost, by reason");
    describe_counter!("gateway_throttled_total", count, "Times a client had to pause publishing");
    describe_counter!(
        "gateway_publishes_too_large_total",
        count,
        "Publications that were not stored because they are larger than a group can keep"
    );
    describe_counter!(
        "gateway_publishes_queues_full_total",
        count,
        "Publications that were refused because the queues of all sessions hold too much"
    );
    describe_counter!(
        "gateway_publishes_not_enriched_total",
        count,
        "Publications without what their thing's type adds, because they would be too large with it"
    );
    describe_counter!(
        "outbox_lost_total",
        count,
        "Wills, shadow events and QoS 2 publications that no group could take"
    );
    describe_counter!("backup_total", count, "Backups that were taken, or not completed");
    describe_gauge!(
        "backup_last_success_timestamp_seconds",
        Unit::Seconds,
        "When the last complete backup of this process was begun, since 1970"
    );
    // There from the beginning, so that an alert has something to compare with.
    let _ = counter!("outbox_lost_total");
    for reason in ["full", "expired"] {
        let _ = counter!("session_queue_dropped_total", "reason" => reason);
    }
    describe_histogram!("gateway_connection_seconds", Unit::Seconds, "Life of a connection");
    describe_histogram!("core_loop_delay_seconds", Unit::Seconds, "How late a core's timer wakes");
    describe_counter!(
        "quic_datagrams_dropped_total",
        count,
        "Datagrams that one core has received for another that there was no room for"
    );
    counter!("quic_datagrams_dropped_total").increment(0);
    crate::fanout::describe();
    crate::admin::ready::describe();
    describe_gauge!("skein_build_info", count, "Always 1; labels say what runs");
    gauge!("skein_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
}

/// Counts a CONNECT.
pub fn connect(result: &'static str) {
    counter!("gateway_connects_total", "result" => result).increment(1);
}

/// Counts a connection that a REST or admin listener has no place for, or whose head is large when too
/// many are.
pub fn http_refused() {
    counter!("http_connections_refused_total").increment(1);
}

/// Counts a connection of a REST or admin listener that was ended within the head of a request.
pub fn http_unread() {
    counter!("http_heads_unread_total").increment(1);
}

impl CoreMetrics {
    /// The counters of a core.
    pub fn register(core: u16) -> Self {
        let core = core.to_string();
        let by_qos = |name: &'static str| QOS.map(|qos| Local::new(counter!(name, "qos" => qos)));
        Self {
            publishes: by_qos("gateway_publishes_received_total"),
            published: Cell::new(0),
            deliveries: by_qos("gateway_publishes_sent_total"),
            bytes_received: Local::new(counter!("gateway_received_bytes_total")),
            payload_bytes_sent: Local::new(counter!("gateway_sent_payload_bytes_total")),
            dropped: DROPPED
                .map(|reason| Local::new(counter!("gateway_dropped_total", "reason" => reason))),
            decisions: ACTIONS.map(|action| {
                ["denied", "allowed"].map(|decision| {
                    let labels = [("action", action), ("decision", decision)];
                    Local::new(counter!("gateway_decisions_total", &labels))
                })
            }),
            subscriptions: Local::new(counter!("gateway_subscribes_total")),
            throttled: Local::new(counter!("gateway_throttled_total")),
            too_large: Local::new(counter!("gateway_publishes_too_large_total")),
            queues_full: Local::new(counter!("gateway_publishes_queues_full_total")),
            not_enriched: Local::new(counter!("gateway_publishes_not_enriched_total")),
            connections: gauge!("gateway_connections"),
            held: gauge!("gateway_held_bytes", "core" => core.clone()),
            session_seconds: histogram!("gateway_connection_seconds"),
            loop_delay: histogram!("core_loop_delay_seconds", "core" => core),
        }
    }

    /// A PUBLISH came.
    pub fn publish(&self, qos: QoS) {
        self.publishes[qos as usize].add(1);
        self.published.set(self.published.get() + 1);
    }

    /// PUBLISH packets since the start.
    pub fn published(&self) -> u64 {
        self.published.get()
    }

    /// A PUBLISH goes out.
    pub fn sent(&self, qos: QoS, payload: usize) {
        self.deliveries[qos as usize].add(1);
        self.payload_bytes_sent.add(payload as u64);
    }

    /// Bytes came.
    pub fn received(&self, bytes: usize) {
        self.bytes_received.add(bytes as u64);
    }

    /// A delivery was dropped.
    pub fn dropped(&self, reason: DropReason) {
        self.dropped[reason as usize].add(1);
    }

    /// A policy decided.
    pub fn decided(&self, asked: Asked, allowed: bool) {
        self.decisions[asked as usize][usize::from(allowed)].add(1);
    }

    /// Filters were granted.
    pub fn subscribed(&self, count: usize) {
        self.subscriptions.add(count as u64);
    }

    /// A client publishes faster than it may.
    pub fn throttled(&self) {
        self.throttled.add(1);
    }

    /// A publication is larger than what a group can keep.
    pub fn too_large(&self) {
        self.too_large.add(1);
    }

    /// A publication is refused because the queues of all sessions hold too much.
    pub fn queues_full(&self) {
        self.queues_full.add(1);
    }

    /// A publication would be too large with what its thing's type adds.
    pub fn not_enriched(&self) {
        self.not_enriched.add(1);
    }

    /// A connection is open.
    pub fn connected(&self) {
        self.connections.increment(1.0);
    }

    /// It is over.
    pub fn disconnected(&self, cause: &'static str, after: Duration) {
        self.connections.decrement(1.0);
        self.session_seconds.record(after);
        counter!("gateway_disconnects_total", "cause" => cause).increment(1);
    }

    /// Adds what was counted to what is exported.
    pub fn flush(&self, held: usize) {
        self.held.set(held as f64);
        let all = self.publishes.iter().chain(&self.deliveries).chain(&self.dropped);
        all.chain(self.decisions.iter().flatten()).for_each(Local::flush);
        self.bytes_received.flush();
        self.payload_bytes_sent.flush();
        self.subscriptions.flush();
        self.throttled.flush();
        self.too_large.flush();
        self.queues_full.flush();
        self.not_enriched.flush();
    }
}

/// Counts a shadow request.
pub fn shadow_operation(operation: &'static str, accepted: bool) {
    let result = if accepted { "accepted" } else { "rejected" };
    counter!("shadow_operations_total", "operation" => operation, "result" => result).increment(1);
}

/// Tells how many events of the registry were lost.
pub fn set_lost_events(count: u64) {
    counter!("registry_events_lost_total").absolute(count);
}

/// Tells when the first of the revocation lists is outdated; never, while there is none.
pub fn set_revocation_list_expiry(at: Option<Timestamp>) {
    let seconds = at.map_or(f64::INFINITY, Timestamp::seconds);
    gauge!("registry_revocation_list_expiry_seconds").set(seconds);
}

/// Counts a request of a device that provisions itself.
pub fn provisioning(operation: &'static str, accepted: bool) {
    let result = if accepted { "accepted" } else { "rejected" };
    let labels = [("operation", operation), ("result", result)];
    counter!("provisioning_requests_total", &labels).increment(1);
}

/// Counts what came of a client that a custom authorizer decides about.
pub fn authorizer_asked(result: &'static str) {
    counter!("authorizer_decisions_total", "result" => result).increment(1);
}

/// Counts a pre-provisioning hook that gave no answer that could be used.
pub fn hook_failed(result: &'static str) {
    counter!("provisioning_hook_failures_total", "result" => result).increment(1);
}

/// Sets the gauges of what all shards hold together.
pub fn set_stored(stats: impl Iterator<Item = fleet::shard::Stats>) {
    let mut all = fleet::shard::Stats::default();
    for stats in stats {
        all.sessions += stats.sessions;
        all.connected += stats.connected;
        all.messages += stats.messages;
        all.message_bytes += stats.message_bytes;
        all.retained += stats.retained;
        all.retained_bytes += stats.retained_bytes;
        all.shadows += stats.shadows;
        all.shared += stats.shared;
        all.outbox += stats.outbox;
    }
    gauge!("sessions").set(all.sessions as f64);
    gauge!("sessions_connected").set(all.connected as f64);
    gauge!("session_queue_messages").set(all.messages as f64);
    gauge!("session_queue_bytes").set(all.message_bytes as f64);
    gauge!("retained_messages").set(all.retained as f64);
    gauge!("retained_bytes").set(all.retained_bytes as f64);
    gauge!("shadows").set(all.shadows as f64);
    gauge!("share_queue_messages").set(all.shared as f64);
    gauge!("outbox_messages").set(all.outbox as f64);
}
