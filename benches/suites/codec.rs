//! The codec on its own: what one packet costs before anything is done with it.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use mqtt::{
    AckKind, MAX_PACKET_SIZE, Outgoing, Packet, PacketId, QoS, Reason, Version, decode, encode_ack,
    encode_publish, encode_publish_head, frame,
};

const TOPIC: &str = "fleet/vehicles/truck-0042/telemetry";
const PAYLOAD: [u8; 256] = [b'x'; 256];
/// As many publications of 256 bytes as one read of 64 KiB brings.
const BURST: usize = 220;

fn packet(version: Version, publish: &Outgoing<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    encode_publish(version, publish, &mut out);
    out
}

fn user_properties() -> Vec<u8> {
    let mut builder = mqtt::properties::Builder::new();
    for property in [
        mqtt::properties::Property::ContentType("application/json"),
        mqtt::properties::Property::User(
            "traceparent",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ),
    ] {
        builder.add(property).expect("short properties fit");
    }
    builder.finish()
}

/// The publications that the suites decode and encode.
fn cases(properties: &[u8]) -> [(&'static str, Version, Outgoing<'_>); 5] {
    let qos0 = Outgoing::new(TOPIC, &PAYLOAD);
    let qos1 = Outgoing { qos: QoS::AtLeastOnce, packet_id: PacketId::new(7), ..qos0 };
    let rich = Outgoing { properties, expiry: Some(3600), ..qos1 };
    [
        ("v311_qos0_256", Version::V311, qos0),
        ("v311_qos1_256", Version::V311, qos1),
        ("v5_qos0_256", Version::V5, qos0),
        ("v5_qos1_256", Version::V5, qos1),
        ("v5_qos1_256_properties", Version::V5, rich),
    ]
}

fn decode_publish(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode_publish");
    for (name, version, publish) in cases(&user_properties()) {
        let bytes = packet(version, &publish);
        group.throughput(Throughput::Elements(1));
        group.bench_function(name, |b| {
            b.iter(|| matches!(decode(black_box(&bytes), version), Ok(Packet::Publish(_))));
        });
    }
}

fn encode(c: &mut Criterion) {
    let mut group = c.benchmark_group("encode_publish");
    let mut out = Vec::with_capacity(1024);
    for (name, version, publish) in cases(&user_properties()) {
        group.throughput(Throughput::Elements(1));
        group.bench_function(name, |b| {
            b.iter(|| {
                out.clear();
                encode_publish(version, black_box(&publish), &mut out);
                out.len()
            });
        });
    }
    let publish = Outgoing::new(TOPIC, &PAYLOAD);
    group.bench_function("v5_qos0_head", |b| {
        b.iter(|| {
            out.clear();
            encode_publish_head(Version::V5, black_box(&publish), &mut out);
            out.len()
        });
    });
    group.bench_function("v5_puback", |b| {
        b.iter(|| {
            out.clear();
            let id = black_box(PacketId::MIN);
            encode_ack(Version::V5, AckKind::PubAck, id, Reason::Success, None, &mut out);
            out.len()
        });
    });
}

/// Frames and decodes what one read of a busy socket brought.
fn decode_read(c: &mut Criterion) {
    let one = packet(Version::V5, &Outgoing::new(TOPIC, &PAYLOAD));
    let read = one.repeat(BURST);
    let mut group = c.benchmark_group("decode_read");
    group.throughput(Throughput::Elements(BURST as u64));
    group.bench_function("220_publishes", |b| {
        b.iter_batched_ref(
            || read.as_slice(),
            |rest| {
                let mut payloads = 0;
                while let Ok(Some(length)) = frame(rest, MAX_PACKET_SIZE) {
                    let (packet, behind) = rest.split_at(length);
                    if let Ok(Packet::Publish(publish)) = decode(packet, Version::V5) {
                        payloads += publish.payload.len();
                    }
                    *rest = behind;
                }
                payloads
            },
            BatchSize::SmallInput,
        );
    });
}

criterion_group!(codec, decode_publish, encode, decode_read);
criterion_main!(codec);
