use proptest::prelude::*;

use super::super::encoder::{Opcode, frame_header};
use super::*;

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const LIMIT: u32 = 100_000;

/// What arrived, with payload copied out and neighbouring pieces joined.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Event {
    Payload(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>),
    Error(FrameError),
}

/// Decodes as a connection does: reads of the given sizes, leftovers kept, until the first error.
fn decode(bytes: &[u8], limit: u32, reads: impl Iterator<Item = usize>) -> Vec<Event> {
    let (mut decoder, mut buffer, mut events) = (Decoder::new(limit), Vec::new(), Vec::new());
    let mut rest = bytes;
    for size in reads {
        let (read, behind) = rest.split_at(size.min(rest.len()));
        buffer.extend_from_slice(read);
        rest = behind;
        let mut at = 0;
        loop {
            let (step, used) = match decoder.decode(&mut buffer[at..]) {
                Ok(found) => found,
                Err(error) => {
                    events.push(Event::Error(error));
                    return events;
                }
            };
            let copy = |range: Range<usize>| buffer[at..][range].to_vec();
            match step {
                Step::NeedMore => {
                    at += used;
                    break;
                }
                Step::Payload(range) => match events.last_mut() {
                    Some(Event::Payload(bytes)) => bytes.extend(copy(range)),
                    _ => events.push(Event::Payload(copy(range))),
                },
                Step::Ping(range) => events.push(Event::Ping(copy(range))),
                Step::Pong(range) => events.push(Event::Pong(copy(range))),
                Step::Close(code) => events.push(Event::Close(code)),
            }
            at += used;
        }
        buffer.drain(..at);
        assert!(buffer.len() <= 130, "leftovers are small");
        if rest.is_empty() {
            break;
        }
    }
    events
}

/// A frame as a client sends it.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let (header, used) = frame_header(Opcode::Binary, payload.len());
    let mut bytes = header[..used].to_vec();
    (bytes[0], bytes[1]) = (first, bytes[1] | 0x80);
    bytes.extend(MASK);
    let start = bytes.len();
    bytes.extend(payload);
    unmask(&mut bytes[start..], MASK);
    bytes
}

#[test]
fn a_decoder_is_small() {
    assert!(size_of::<Decoder>() <= 32);
}

#[test]
fn frames_are_taken_apart() {
    let payload = |bytes: &[u8]| Event::Payload(bytes.to_vec());
    let long = vec![9; 70_000];
    for (frames, expected) in [
        (vec![frame(0x82, b"Hello")], vec![payload(b"Hello")]),
        (vec![frame(0x82, b"")], vec![]),
        (vec![frame(0x82, &long[..126])], vec![payload(&long[..126])]),
        (vec![frame(0x82, &long)], vec![payload(&long)]),
        // Fragments, the first and last of which may be empty.
        (vec![frame(0x02, b"Hel"), frame(0x80, b"lo")], vec![payload(b"Hello")]),
        (vec![frame(0x02, b""), frame(0, b"a"), frame(0x80, b"")], vec![payload(b"a")]),
        (vec![frame(0x82, b"a"), frame(0x82, b"b")], vec![payload(b"ab")]),
        // Control frames between fragments.
        (
            vec![frame(0x02, b"Hel"), frame(0x89, b"?"), frame(0x8a, b""), frame(0x80, b"lo")],
            vec![payload(b"Hel"), Event::Ping(b"?".into()), Event::Pong(vec![]), payload(b"lo")],
        ),
        (vec![frame(0x89, &long[..125])], vec![Event::Ping(long[..125].into())]),
        // Closing, and what is sent afterwards.
        (vec![frame(0x88, b""), frame(0x82, b"late")], vec![Event::Close(None)]),
        (vec![frame(0x88, b"\x03\xe8"), b"\xff".into()], vec![Event::Close(Some(1000))]),
        (vec![frame(0x88, b"\x0f\xa0bye")], vec![Event::Close(Some(4000))]),
        (vec![frame(0x02, b"a"), frame(0x88, b"")], vec![payload(b"a"), Event::Close(None)]),
    ] {
        let bytes = frames.concat();
        for read in [1, 2, 7, 4096, bytes.len()] {
            let events = decode(&bytes, LIMIT, std::iter::repeat(read));
            assert!(events == expected, "{:02x?} by {read}", &bytes[..bytes.len().min(20)]);
        }
    }
}

/// The masked examples of RFC 6455 section 5.7; the text message is one that MQTT refuses.
#[test]
fn examples_of_the_rfc() {
    let ping = [0x89, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    let text = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    let once = |bytes: &[u8]| decode(bytes, LIMIT, std::iter::once(bytes.len()));
    assert_eq!(once(&ping), [Event::Ping(b"Hello".into())]);
    assert_eq!(once(&text), [Event::Error(FrameError::Text)]);
}

#[test]
fn broken_frames_are_refused() {
    use FrameError::*;
    let large = |bytes| TooLarge { bytes, limit: 10 };
    for (bytes, error, code) in [
        (&b"\x82\x05Hello"[..], Unmasked, 1002),
        (b"\x89\x00", Unmasked, 1002),
        (b"\xc2\x80", ReservedBits, 1002),
        (b"\xa2\x80", ReservedBits, 1002),
        (b"\x92\x80", ReservedBits, 1002),
        (b"\x83\x80", ReservedOpcode(3), 1002),
        (b"\x87\x80", ReservedOpcode(7), 1002),
        (b"\x8b\x80", ReservedOpcode(11), 1002),
        (b"\x8f\x80", ReservedOpcode(15), 1002),
        (b"\x81\x80", Text, 1003),
        (b"\x01\x80", Text, 1003),
        (&frame(0x80, b"x"), NothingToContinue, 1002),
        (&frame(0x00, b"x"), NothingToContinue, 1002),
        (&[frame(0x02, b""), frame(0x82, b"")].concat(), Interleaved, 1002),
        (&[frame(0x82, b""), frame(0x80, b"")].concat(), NothingToContinue, 1002),
        (&[frame(0x02, b""), frame(0x80, b""), frame(0, b"")].concat(), NothingToContinue, 1002),
        (b"\x09\x80", FragmentedControl, 1002),
        (b"\x08\x80", FragmentedControl, 1002),
        (b"\x8a\xfe", LongControl, 1002),
        (b"\x88\xff", LongControl, 1002),
        (b"\x82\xfe\x00\x7d", Length, 1002),
        (b"\x82\xff\x00\x00\x00\x00\x00\x00\xff\xff", Length, 1002),
        (b"\x82\xff\x80\x00\x00\x00\x00\x00\x00\x00", Length, 1002),
        (&frame(0x82, b"eleven byte"), large(11), 1009),
        (&[frame(0x02, b"ten bytes!"), frame(0x80, b"x")].concat(), large(11), 1009),
        (b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0", large(i64::MAX as u64), 1009),
        (&frame(0x88, b"\x03"), CloseCode, 1002),
        (&frame(0x88, b"\x00\x00"), CloseCode, 1002),
        (&frame(0x88, b"\x03\xec"), CloseCode, 1002),
        (&frame(0x88, b"\x03\xee"), CloseCode, 1002),
        (&frame(0x88, b"\x03\xf7"), CloseCode, 1002),
        (&frame(0x88, b"\x13\x88"), CloseCode, 1002),
        (&frame(0x88, b"\x03\xe8\xff"), CloseReason, 1007),
    ] {
        for read in [1, 3, bytes.len()] {
            let events = decode(bytes, 10, std::iter::repeat(read));
            assert_eq!(events.last(), Some(&Event::Error(error)), "{bytes:02x?} by {read}");
        }
        assert_eq!(error.close_code(), code, "{error}");
    }
}

#[test]
fn messages_as_large_as_the_limit_are_taken() {
    let frames = [frame(0x82, b"ten bytes!"), frame(0x02, b"ten byte"), frame(0x80, b"s!")];
    let events = decode(&frames.concat(), 10, std::iter::once(usize::MAX));
    assert_eq!(events, [Event::Payload(b"ten bytes!ten bytes!".into())]);
}

fn messages() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let small = prop::collection::vec(any::<u8>(), 0..300);
    let large = (65_500usize..65_600).prop_map(|len| (0..len).map(|n| n as u8).collect());
    prop::collection::vec(prop_oneof![20 => small, 1 => large], 0..12)
}

proptest! {
    /// Payload comes out as it went in, whatever the frames, the pings between them and the reads.
    #[test]
    fn payload_survives_any_cut(
        messages in messages(),
        fragments in prop::collection::vec((1usize..400, any::<bool>()), 1..20),
        reads in prop::collection::vec(1usize..300, 1..20),
    ) {
        let (mut bytes, mut pings) = (Vec::new(), 0);
        let mut cuts = fragments.iter().cycle();
        for message in &messages {
            let (mut rest, mut opcode) = (&message[..], 0x02);
            loop {
                let &(cut, ping) = cuts.next().unwrap();
                let (piece, behind) = rest.split_at(cut.min(rest.len()));
                let is_final = if behind.is_empty() { 0x80 } else { 0 };
                bytes.extend(frame(is_final | opcode, piece));
                if ping {
                    bytes.extend(frame(0x89, b"ping"));
                    pings += 1;
                }
                (rest, opcode) = (behind, 0);
                if rest.is_empty() {
                    break;
                }
            }
        }
        let (mut payload, mut pongs) = (Vec::new(), 0);
        for event in decode(&bytes, LIMIT, reads.into_iter().cycle()) {
            match event {
                Event::Payload(bytes) => payload.extend(bytes),
                Event::Ping(bytes) => {
                    prop_assert_eq!(bytes, b"ping");
                    pongs += 1;
                }
                other => prop_assert!(false, "{:?}", other),
            }
        }
        prop_assert!(payload == messages.concat());
        prop_assert_eq!(pongs, pings);
    }

    /// Whatever comes, the events do not depend on how it was cut.
    #[test]
    fn any_bytes_decode_alike_in_any_cut(
        starts in prop::collection::vec(prop::sample::select(vec![
            &b"\x82\x85"[..], b"\x02\x81", b"\x80\x82", b"\x89\x80", b"\x88\x82", b"\x82\xfe\x00\x80",
        ]), 0..6),
        noise in prop::collection::vec(any::<u8>(), 0..60),
        reads in prop::collection::vec(1usize..20, 1..20),
    ) {
        let tail = noise.chunks(9).map(Some).chain(std::iter::repeat(None));
        let parts = starts.iter().zip(tail).map(|(start, noise)| [start, noise.unwrap_or(&[])].concat());
        let bytes = parts.collect::<Vec<_>>().concat();
        let whole = decode(&bytes, 1000, std::iter::once(bytes.len()));
        prop_assert_eq!(decode(&bytes, 1000, reads.into_iter().cycle()), whole);
    }
}
