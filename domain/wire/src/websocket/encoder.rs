//! Frames from the server to the client. They are never masked and never fragmented.

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// A piece of the MQTT stream.
    Binary = 2,
    /// The last frame, with an optional code and reason.
    Close = 8,
    /// A question whether the peer is there.
    Ping = 9,
    /// The answer, with the payload of the question.
    Pong = 10,
}

/// The header of a whole message of `len` bytes, and how many of the ten bytes it takes.
pub fn frame_header(opcode: Opcode, len: usize) -> ([u8; 10], usize) {
    let mut header = [0; 10];
    header[0] = 0x80 | opcode as u8;
    let used = match len {
        0..=125 => {
            header[1] = len as u8;
            2
        }
        126..=0xffff => {
            header[1] = 126;
            header[2..4].copy_from_slice(&(len as u16).to_be_bytes());
            4
        }
        _ => {
            header[1] = 127;
            header[2..].copy_from_slice(&(len as u64).to_be_bytes());
            10
        }
    };
    (header, used)
}

/// Appends a whole frame. A control frame has at most 125 bytes of payload.
pub fn write_frame(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    debug_assert!(opcode == Opcode::Binary || payload.len() <= 125, "control frame too long");
    let (header, used) = frame_header(opcode, payload.len());
    out.reserve(used + payload.len());
    out.extend_from_slice(&header[..used]);
    out.extend_from_slice(payload);
}

/// Appends a close frame with one of the codes in [`close`](super::close).
pub fn write_close(out: &mut Vec<u8>, code: u16) {
    write_frame(out, Opcode::Close, &code.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lengths at which the header grows, and the examples of RFC 6455 section 5.7.
    #[test]
    fn headers_use_the_fewest_bytes() {
        for (opcode, len, expected) in [
            (Opcode::Binary, 0, &[0x82, 0][..]),
            (Opcode::Binary, 125, &[0x82, 125]),
            (Opcode::Binary, 126, &[0x82, 126, 0, 126]),
            (Opcode::Binary, 256, &[0x82, 0x7e, 0x01, 0x00]),
            (Opcode::Binary, 0xffff, &[0x82, 126, 0xff, 0xff]),
            (Opcode::Binary, 0x1_0000, &[0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0]),
            (Opcode::Ping, 5, &[0x89, 5]),
            (Opcode::Pong, 5, &[0x8a, 5]),
            (Opcode::Close, 2, &[0x88, 2]),
        ] {
            let (header, used) = frame_header(opcode, len);
            assert_eq!(&header[..used], expected, "{opcode:?} {len}");
        }
    }

    #[test]
    fn frames_are_appended() {
        let mut out = vec![7];
        write_frame(&mut out, Opcode::Pong, b"Hello");
        write_close(&mut out, super::super::close::GOING_AWAY);
        assert_eq!(out, b"\x07\x8a\x05Hello\x88\x02\x03\xe9");
    }
}
