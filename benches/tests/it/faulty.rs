//! Brokers with one fault each, which the verdict must name.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use benches::client::read_packet;
use benches::engine::Receivers;
use benches::frame::{Qos, Version};
use benches::report::Report;
use benches::scan::extent;
use benches::scenario::Target;
use benches::scenario::traffic::Traffic;
use benches::stream::Transport;

/// What the broker does to the fifth frame and its neighbour.
#[derive(Clone, Copy, Debug)]
enum Fault {
    None,
    Lose,
    Repeat,
    Swap,
    Close,
}

/// A broker for one pair at QoS 0: the subscriber comes first, then the publisher.
fn broker(fault: Fault) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let accept = || {
            let (mut stream, _) = listener.accept().unwrap();
            read_packet(&mut stream).unwrap();
            stream.write_all(&[0x20, 2, 0, 0]).unwrap();
            stream
        };
        let mut subscriber = accept();
        read_packet(&mut subscriber).unwrap();
        subscriber.write_all(&[0x90, 3, 0, 1, 0]).unwrap();
        forward(accept(), subscriber, fault)
    });
    address
}

fn forward(mut publisher: TcpStream, mut subscriber: TcpStream, fault: Fault) {
    let (mut bytes, mut buffer, mut count) = (Vec::new(), vec![0; 65_536], 0);
    let mut held = None;
    while let Ok(length @ 1..) = publisher.read(&mut buffer) {
        bytes.extend_from_slice(&buffer[..length]);
        let mut out = Vec::new();
        while let Some((_, end)) = extent(&bytes).unwrap().filter(|(_, end)| *end <= bytes.len()) {
            let frame: Vec<u8> = bytes.drain(..end).collect();
            count += 1;
            match fault {
                Fault::Lose if count == 5 => {}
                Fault::Repeat if count == 5 => out.extend(frame.repeat(2)),
                Fault::Swap if count == 5 => held = Some(frame),
                Fault::Close if count == 5 => return,
                _ => {
                    out.extend(frame);
                    out.extend(held.take().unwrap_or_default());
                }
            }
        }
        if subscriber.write_all(&out).is_err() {
            return;
        }
    }
}

fn run(fault: Fault) -> Report {
    let traffic = Traffic {
        receivers: Receivers::Pairs { pairs: 1 },
        qos: Qos::Zero,
        payload: 64,
        window: 1,
        backlog: Some(16),
        persistent: false,
        rate: None,
        warmup: Duration::ZERO,
        duration: Duration::from_millis(100),
    };
    traffic
        .run(&Target {
            transport: Transport::Tcp,
            address: broker(fault),
            others: Vec::new(),
            pids: Vec::new(),
            version: Version::V3,
        })
        .unwrap()
}

#[test]
fn each_fault_is_named() {
    for (fault, lost, duplicated, reordered, failure) in [
        (Fault::None, 0, 0, 0, None),
        (Fault::Lose, 1, 0, 0, None),
        (Fault::Repeat, 0, 1, 0, Some("duplicated")),
        (Fault::Swap, 0, 0, 1, Some("reordered")),
    ] {
        let report = run(fault);
        let found = (report.lost, report.duplicated, report.reordered);
        assert_eq!(found, (lost, duplicated, reordered), "{fault:?}: {report}");
        let named = failure.is_none_or(|what| report.failures.iter().any(|f| f.contains(what)));
        assert!(named && report.passed() == failure.is_none(), "{fault:?}: {report}");
    }
}

#[test]
fn closed_connections_are_noticed() {
    let report = run(Fault::Close);
    assert!(report.lost > 0, "{report}");
    assert!(report.failures.iter().any(|failure| failure.contains("closed")), "{report}");
}
