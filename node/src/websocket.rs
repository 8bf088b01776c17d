//! MQTT in binary WebSocket frames: the byte stream between [`wire::websocket`] and the connection.

use std::io;
use std::task::{Context, Poll, ready};

use smallvec::SmallVec;
use wire::websocket::{Decoder, FrameError, Opcode, Step, frame_header, write_close, write_frame};

use crate::connection::transport::Stream;
use crate::outbox::{Outbox, Pool};

/// Frames to the client are at most this long, so that one never holds the outbox for long.
const FRAME: usize = 64 * 1024;

/// Answers to pings that may wait; a client that floods pings is not read until they are sent.
const CONTROL: usize = 4 * 1024;

/// A WebSocket after its handshake.
pub struct WebSocket {
    stream: Stream,
    decoder: Decoder,
    /// The start of a frame header or control frame that is not complete.
    partial: Vec<u8>,
    /// Bytes of MQTT that were read together with the handshake.
    early: Vec<u8>,
    /// Frames that are under way.
    framed: Vec<u8>,
    written: usize,
    closed_by_client: bool,
    ended: bool,
}

impl WebSocket {
    /// Takes over a stream whose handshake is done; `early` is what came after it.
    pub fn new(stream: Stream, early: Vec<u8>, maximum_packet_size: u32) -> Self {
        Self {
            stream,
            decoder: Decoder::new(maximum_packet_size),
            partial: Vec::new(),
            early,
            framed: Vec::new(),
            written: 0,
            closed_by_client: false,
            ended: false,
        }
    }

    /// Whether the client sent a close frame.
    pub fn closed_by_client(&self) -> bool {
        self.closed_by_client
    }

    /// What carries it.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Reads MQTT bytes; 0 at the end.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            if self.ended {
                return Poll::Ready(Ok(0));
            }
            if self.framed.len() >= CONTROL {
                ready!(self.poll_frames(cx))?;
            }
            let kept = self.partial.len();
            into[..kept].copy_from_slice(&self.partial);
            let read = if self.early.is_empty() {
                match ready!(self.stream.poll_read(cx, &mut into[kept..]))? {
                    0 => return Poll::Ready(Ok(0)),
                    read => read,
                }
            } else {
                let early = self.early.len().min(into.len() - kept);
                into[kept..kept + early].copy_from_slice(&self.early[..early]);
                self.early.drain(..early);
                early
            };
            self.partial.clear();
            let payload = self.unframe(&mut into[..kept + read]);
            // Pongs and the close frame go out even when nothing else does.
            if let Poll::Ready(Err(error)) = self.poll_frames(cx) {
                return Poll::Ready(Err(error));
            }
            if payload > 0 {
                return Poll::Ready(Ok(payload));
            }
        }
    }

    /// Takes frames apart and moves their payload to the front; how much there is.
    fn unframe(&mut self, bytes: &mut [u8]) -> usize {
        let (mut at, mut payload) = (0, 0);
        loop {
            let (step, used) = match self.decoder.decode(&mut bytes[at..]) {
                Ok(found) => found,
                Err(error) => {
                    self.refuse(error);
                    return payload;
                }
            };
            match step {
                Step::Payload(range) => {
                    let range = at + range.start..at + range.end;
                    let length = range.len();
                    bytes.copy_within(range, payload);
                    payload += length;
                }
                Step::Ping(range) => {
                    let data = &bytes[at + range.start..at + range.end];
                    write_frame(&mut self.framed, Opcode::Pong, data);
                }
                Step::Pong(_) => {}
                Step::Close(code) => {
                    write_close(&mut self.framed, code.unwrap_or(wire::websocket::close::NORMAL));
                    self.closed_by_client = true;
                    self.ended = true;
                    return payload;
                }
                Step::NeedMore => {
                    self.partial.extend_from_slice(&bytes[at + used..]);
                    return payload;
                }
            }
            at += used;
        }
    }

    fn refuse(&mut self, error: FrameError) {
        write_close(&mut self.framed, error.close_code());
        self.ended = true;
    }

    /// Writes the outbox, framed, until it is empty or the socket is full.
    pub fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        outbox: &mut Outbox,
        pool: &mut Pool,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_frames(cx))?;
            if outbox.is_empty() {
                return self.stream.poll_flush(cx);
            }
            let mut slices = SmallVec::new();
            outbox.slices(&mut slices);
            let length = slices.iter().map(|slice| slice.len()).sum::<usize>().min(FRAME);
            let (header, header_length) = frame_header(Opcode::Binary, length);
            self.framed.extend_from_slice(&header[..header_length]);
            let mut left = length;
            for slice in &slices {
                let take = slice.len().min(left);
                self.framed.extend_from_slice(&slice[..take]);
                left -= take;
            }
            drop(slices);
            outbox.advance(length, pool);
        }
    }

    fn poll_frames(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.framed.len() {
            let slice = io::IoSlice::new(&self.framed[self.written..]);
            self.written += ready!(self.stream.poll_write(cx, &[slice]))?;
        }
        self.written = 0;
        self.framed = Vec::new();
        self.stream.poll_flush(cx)
    }

    /// Sends a close frame if the client has none yet, and ends the stream.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.ended {
            self.ended = true;
            write_close(&mut self.framed, wire::websocket::close::NORMAL);
        }
        ready!(self.poll_frames(cx))?;
        self.stream.poll_shutdown(cx)
    }
}
