//! Frames from the client, taken apart in the buffer they were read into.
//!
//! A [`Decoder`] lies in every WebSocket connection, so it keeps no bytes: payload is handed out as it
//! arrives, and a header or a control frame that is not whole yet stays with the caller.

#[cfg(test)]
mod tests;

use std::ops::Range;

use thiserror::Error;

use super::close;
use super::mask::unmask;

/// What the front of the buffer holds. Ranges are in the buffer, and unmasked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The next bytes of the MQTT stream; never empty.
    Payload(Range<usize>),
    /// The peer wants a pong with these bytes.
    Ping(Range<usize>),
    /// The peer answered a ping.
    Pong(Range<usize>),
    /// The peer closes, and wants a close frame with the same code. What it sends after is discarded.
    Close(Option<u16>),
    /// Nothing more can be told without more bytes.
    NeedMore,
}

/// How a client broke the protocol, or asked for more than it gets.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum FrameError {
    /// A client masks every frame (RFC 6455 section 5.1).
    #[error("frame is not masked")]
    Unmasked,
    /// A reserved bit is set though no extension was negotiated.
    #[error("frame has reserved bits set")]
    ReservedBits,
    /// The opcode is reserved.
    #[error("frame has reserved opcode {0:#x}")]
    ReservedOpcode(u8),
    /// MQTT travels in binary messages [v5 MQTT-6.0.0-1].
    #[error("frame is text")]
    Text,
    /// A continuation without a message to continue.
    #[error("continuation frame without a message to continue")]
    NothingToContinue,
    /// A new message inside an unfinished one.
    #[error("message begins inside another")]
    Interleaved,
    /// A control frame that is not final.
    #[error("control frame is fragmented")]
    FragmentedControl,
    /// A control frame with more than 125 bytes of payload.
    #[error("control frame is too long")]
    LongControl,
    /// A length that is negative, or written with more bytes than it needs.
    #[error("frame has a malformed length")]
    Length,
    /// A message larger than the limit.
    #[error("message of {bytes} bytes or more exceeds the limit of {limit}")]
    TooLarge {
        /// As far as frames told.
        bytes: u64,
        /// What the server takes.
        limit: u32,
    },
    /// A close frame with half a code, or with one that may not be sent.
    #[error("close frame has no valid code")]
    CloseCode,
    /// A close frame whose reason is not UTF-8.
    #[error("close frame has a reason that is not UTF-8")]
    CloseReason,
}

impl FrameError {
    /// What the close frame tells the client.
    pub fn close_code(&self) -> u16 {
        match self {
            Self::Text => close::UNSUPPORTED,
            Self::TooLarge { .. } => close::TOO_LARGE,
            Self::CloseReason => close::INVALID,
            _ => close::PROTOCOL,
        }
    }
}

/// Where in the stream of frames a connection is.
#[derive(Clone, Debug)]
pub struct Decoder {
    /// What of the current data frame has not arrived.
    remaining: u32,
    /// The mask, turned to where the next byte of the frame continues.
    mask: [u8; 4],
    /// The frames of the current message so far.
    message: u32,
    max_message: u32,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Between messages, or in the last frame of one.
    Message,
    /// A message has more frames to come.
    Fragments,
    /// The peer has closed.
    Closed,
}

impl Decoder {
    /// A decoder for a connection that has just been upgraded.
    pub fn new(max_message: u32) -> Self {
        Self { remaining: 0, mask: [0; 4], message: 0, max_message, state: State::Message }
    }

    /// Tells what the front of the buffer holds, and how many bytes are done with once the caller has
    /// used the step. The rest comes first in the next call, followed by more when the step is
    /// [`Step::NeedMore`]; then it is the beginning of a header or of a control frame, 130 bytes at most.
    pub fn decode(&mut self, buffer: &mut [u8]) -> Result<(Step, usize), FrameError> {
        let mut at = 0;
        loop {
            if self.state == State::Closed {
                return Ok((Step::NeedMore, buffer.len()));
            }
            if self.remaining > 0 {
                return Ok(self.payload(buffer, at));
            }
            let Some(header) = Header::parse(&buffer[at..])? else {
                return Ok((Step::NeedMore, at));
            };
            if header.is_control() {
                return self.control(&header, buffer, at);
            }
            self.begin_frame(&header)?;
            at += header.size;
        }
    }

    /// Hands out what has arrived of the current data frame.
    fn payload(&mut self, buffer: &mut [u8], start: usize) -> (Step, usize) {
        let arrived = buffer.len() - start;
        if arrived == 0 {
            return (Step::NeedMore, start);
        }
        // The smaller of the two fits in either type.
        let len = arrived.min(self.remaining as usize);
        let end = start + len;
        self.mask = unmask(&mut buffer[start..end], self.mask);
        self.remaining -= len as u32;
        (Step::Payload(start..end), end)
    }

    /// A control frame may come between the frames of a message, and is taken only when it is whole.
    fn control(
        &mut self,
        header: &Header,
        buffer: &mut [u8],
        at: usize,
    ) -> Result<(Step, usize), FrameError> {
        let start = at + header.size;
        let end = start + header.len as usize;
        if buffer.len() < end {
            return Ok((Step::NeedMore, at));
        }
        unmask(&mut buffer[start..end], header.mask);
        let step = match header.opcode {
            PING => Step::Ping(start..end),
            PONG => Step::Pong(start..end),
            _ => {
                let code = close_code(&buffer[start..end])?;
                self.state = State::Closed;
                Step::Close(code)
            }
        };
        Ok((step, end))
    }

    fn begin_frame(&mut self, header: &Header) -> Result<(), FrameError> {
        let before = match (header.opcode, self.state) {
            (CONTINUATION, State::Fragments) => self.message,
            (CONTINUATION, _) => return Err(FrameError::NothingToContinue),
            (_, State::Fragments) => return Err(FrameError::Interleaved),
            _ => 0,
        };
        let (bytes, limit) = (header.len.saturating_add(before.into()), self.max_message);
        if bytes > limit.into() {
            return Err(FrameError::TooLarge { bytes, limit });
        }
        // Both fit: they are at most the limit.
        (self.message, self.remaining) = (bytes as u32, header.len as u32);
        self.mask = header.mask;
        self.state = if header.is_final { State::Message } else { State::Fragments };
        Ok(())
    }
}

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

struct Header {
    is_final: bool,
    opcode: u8,
    len: u64,
    mask: [u8; 4],
    /// Its own bytes.
    size: usize,
}

impl Header {
    /// Finds what is wrong as soon as the bytes that say so are there.
    fn parse(bytes: &[u8]) -> Result<Option<Self>, FrameError> {
        let &[first, second, ..] = bytes else { return Ok(None) };
        let (is_final, opcode, short) = (first & 0x80 != 0, first & 0x0f, second & 0x7f);
        if first & 0x70 != 0 {
            return Err(FrameError::ReservedBits);
        }
        match opcode {
            CONTINUATION | BINARY => {}
            TEXT => return Err(FrameError::Text),
            CLOSE | PING | PONG if !is_final => return Err(FrameError::FragmentedControl),
            CLOSE | PING | PONG if short > 125 => return Err(FrameError::LongControl),
            CLOSE | PING | PONG => {}
            _ => return Err(FrameError::ReservedOpcode(opcode)),
        }
        if second & 0x80 == 0 {
            return Err(FrameError::Unmasked);
        }
        let Some((len, mask_at)) = length(short, &bytes[2..])? else { return Ok(None) };
        let mask_at = 2 + mask_at;
        let Some(&mask) = bytes[mask_at..].first_chunk() else { return Ok(None) };
        Ok(Some(Self { is_final, opcode, len, mask, size: mask_at + 4 }))
    }

    fn is_control(&self) -> bool {
        self.opcode >= CLOSE
    }
}

/// The length of a payload and how many bytes it takes behind the first seven bits.
fn length(short: u8, bytes: &[u8]) -> Result<Option<(u64, usize)>, FrameError> {
    let (len, size, least) = match short {
        126 => {
            let Some(&len) = bytes.first_chunk() else { return Ok(None) };
            (u16::from_be_bytes(len).into(), 2, 126)
        }
        127 => {
            let Some(&len) = bytes.first_chunk() else { return Ok(None) };
            (u64::from_be_bytes(len), 8, 0x1_0000)
        }
        _ => (short.into(), 0, 0),
    };
    if len < least || len > i64::MAX as u64 {
        return Err(FrameError::Length);
    }
    Ok(Some((len, size)))
}

/// The code in the payload of a close frame, if it has one that may travel in a frame.
fn close_code(payload: &[u8]) -> Result<Option<u16>, FrameError> {
    let Some((&code, reason)) = payload.split_first_chunk() else {
        return if payload.is_empty() { Ok(None) } else { Err(FrameError::CloseCode) };
    };
    let code = u16::from_be_bytes(code);
    match code {
        1000..=1003 | 1007..=1014 | 3000..=4999 => {}
        _ => return Err(FrameError::CloseCode),
    }
    std::str::from_utf8(reason).map_err(|_| FrameError::CloseReason)?;
    Ok(Some(code))
}
