//! Mutational fuzzing of everything here that reads bytes from the network.

#[path = "../../fuzz.rs"]
mod fuzz;

use wire::proxy;
use wire::websocket::{Decoder, FrameError, Step, Upgrade};

/// The corpus of a target.
macro_rules! corpus {
    ($target:literal) => {
        concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/", $target)
    };
}

/// What a sequence of reads made of the bytes: payload, control frames, and how it ended.
#[derive(Debug, Default, PartialEq)]
struct Outcome {
    payload: Vec<u8>,
    control: Vec<(Step, Vec<u8>)>,
    error: Option<FrameError>,
}

fn decode(input: &[u8], read: usize) -> Outcome {
    let (mut decoder, mut outcome) = (Decoder::new(1000), Outcome::default());
    let mut buffer = Vec::new();
    for bytes in input.chunks(read) {
        buffer.extend_from_slice(bytes);
        let mut at = 0;
        loop {
            let (step, used) = match decoder.decode(&mut buffer[at..]) {
                Ok(found) => found,
                Err(error) => return Outcome { error: Some(error), ..outcome },
            };
            assert!(used <= buffer.len() - at, "no more is used than there is");
            let taken = &buffer[at..][..used];
            match step {
                Step::NeedMore => {}
                Step::Payload(range) => {
                    assert!(!range.is_empty() && range.end == used);
                    outcome.payload.extend_from_slice(&taken[range]);
                }
                Step::Ping(range) => {
                    outcome.control.push((Step::Ping(0..0), taken[range].to_vec()))
                }
                Step::Pong(range) => {
                    outcome.control.push((Step::Pong(0..0), taken[range].to_vec()))
                }
                Step::Close(code) => outcome.control.push((Step::Close(code), Vec::new())),
            }
            at += used;
            // A step that asks for nothing more has moved on, so this loop ends.
            if used == 0 || at == buffer.len() {
                break;
            }
        }
        buffer.drain(..at);
        assert!(buffer.len() <= 130, "what waits for more is small");
    }
    outcome
}

#[test]
fn frames() {
    let seeds: [&[u8]; 7] = [
        b"\x82\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58",
        b"\x02\x83\x01\x02\x03\x04abc\x89\x80\x01\x02\x03\x04\x80\x82\x01\x02\x03\x04xy",
        b"\x82\xfe\x00\x7e\x01\x02\x03\x04",
        b"\x82\xff\x00\x00\x00\x00\x00\x01\x00\x00\x01\x02\x03\x04",
        b"\x8a\x80\x00\x00\x00\x00\x88\x82\x00\x00\x00\x00\x03\xe8",
        b"\x88\x85\x00\x00\x00\x00\x0f\xa0bye",
        b"\x82\x80\x00\x00\x00\x00\x00\x80\x00\x00\x00\x00",
    ];
    fuzz::run("frames", corpus!("frames"), &seeds, |input| {
        let whole = decode(input, input.len().max(1));
        for read in [1, 5] {
            assert_eq!(decode(input, read), whole, "reads of {read}");
        }
    });
}

#[test]
fn upgrade() {
    let seeds: [&[u8]; 3] = [
        b"GET /mqtt?a=b HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
          Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\
          Sec-WebSocket-Version: 13\r\n\r\n",
        b"POST http://h/topics/a?qos=1 HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n",
        b"GET ?x HTTP/1.0\n\n",
    ];
    fuzz::run("upgrade", corpus!("upgrade"), &seeds, |input| {
        let parsed = Upgrade::parse(input);
        let Ok(Some((upgrade, size))) = &parsed else { return };
        assert!(*size <= input.len().min(Upgrade::MAX_BYTES));
        assert_eq!(
            Upgrade::parse(&input[..*size]),
            parsed,
            "what follows the head does not matter"
        );
        assert_eq!(Upgrade::parse(&input[..size - 1]), Ok(None), "a head has one end");
        match upgrade.accept(&["/mqtt"], &["mqtt", "mqttv3.1"]) {
            Ok(response) => {
                assert!(upgrade.is_websocket() && upgrade.method() == "GET");
                assert!(response.starts_with(b"HTTP/1.1 101 ") && response.ends_with(b"\r\n\r\n"));
                assert_eq!(response.split(|byte| *byte == b'\n').count(), 7, "nothing is injected");
            }
            Err(refusal) => assert!(refusal.response().starts_with(b"HTTP/1.1 4")),
        }
    });
}

#[test]
fn proxy_header() {
    let seeds: [&[u8]; 6] = [
        b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 8883\r\n\x10\x0c",
        b"PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n",
        b"PROXY UNKNOWN\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x01\xc6\x33\x64\x02\xdc\x04\x22\xb3",
        b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x10\xc0\x00\x02\x01\xc6\x33\x64\x02\xdc\x04\x22\xb3\x04\x00\x01x",
    ];
    fuzz::run("proxy", corpus!("proxy"), &seeds, |input| {
        let parsed = proxy::parse(input);
        if let Ok(Some((header, size))) = parsed {
            assert!(size <= input.len().min(proxy::MAX_V2_BYTES));
            assert_eq!(header.source.is_some(), header.destination.is_some());
            for cut in 0..size {
                assert_eq!(proxy::parse(&input[..cut]), Ok(None), "cut at {cut}");
            }
            assert_eq!(proxy::parse(&input[..size]), parsed);
        }
        if let Ok(None) = parsed {
            assert!(input.len() < proxy::MAX_V2_BYTES, "waiting ends");
        }
    });
}
