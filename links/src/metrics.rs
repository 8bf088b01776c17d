//! What operators watch on the links. Labels are bounded: never a peer.

use metrics::{Counter, Gauge, Unit, counter, describe_counter, describe_gauge, gauge};

use crate::message::{Direction, Purpose, Stream};

pub(crate) fn describe() {
    describe_gauge!("links_connected", Unit::Count, "Streams with peers that are open now");
    describe_gauge!("links_queue_bytes", Unit::Bytes, "Bytes that wait for peers");
    for (name, unit, text) in [
        ("links_bytes_total", Unit::Bytes, "Bytes of messages on streams"),
        ("links_dropped_total", Unit::Count, "Messages refused or lost while waiting, by reason"),
        ("links_reconnects_total", Unit::Count, "Streams dialled again after they had ended"),
        ("links_refusals_total", Unit::Count, "Handshakes refused, by reason"),
    ] {
        describe_counter!(name, unit, text);
    }
}

pub(crate) fn connected(stream: Stream) -> Gauge {
    let (purpose, direction) = (stream.purpose.label(), stream.direction.label());
    gauge!("links_connected", "purpose" => purpose, "direction" => direction)
}

pub(crate) fn queue_bytes(purpose: Purpose) -> Gauge {
    gauge!("links_queue_bytes", "purpose" => purpose.label())
}

pub(crate) fn bytes(purpose: Purpose, direction: Direction) -> Counter {
    let (purpose, direction) = (purpose.label(), direction.label());
    counter!("links_bytes_total", "purpose" => purpose, "direction" => direction)
}

pub(crate) fn dropped(purpose: Purpose, reason: &'static str) -> Counter {
    counter!("links_dropped_total", "purpose" => purpose.label(), "reason" => reason)
}

pub(crate) fn reconnects(purpose: Purpose) -> Counter {
    counter!("links_reconnects_total", "purpose" => purpose.label())
}

pub(crate) fn refusals(direction: Direction, reason: &'static str) -> Counter {
    counter!("links_refusals_total", "direction" => direction.label(), "reason" => reason)
}
