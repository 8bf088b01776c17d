//! What carries a connection's bytes: TCP, TLS, a WebSocket over either, or QUIC.

mod tls;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use smallvec::SmallVec;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::TcpStream;

use super::End;
use crate::gateway::QuicStream;
use crate::outbox::{Outbox, Pool};
use crate::websocket::WebSocket;

pub use tls::TlsStream;

/// A byte stream to a client.
pub enum Stream {
    /// Plain.
    Tcp(TcpStream),
    /// With TLS.
    Tls(Box<TlsStream>),
    /// Of a QUIC connection.
    Quic(Box<QuicStream>),
    /// In memory: the client is in this process.
    Memory(DuplexStream),
}

/// MQTT bytes to and from a client.
pub enum Transport {
    /// MQTT directly on the stream.
    Stream(Stream),
    /// MQTT in binary WebSocket frames.
    WebSocket(Box<WebSocket>),
}

impl Stream {
    /// Reads what is there.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(into);
        let read = match self {
            Self::Tls(stream) => return stream.poll_read(cx, into),
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, &mut buffer),
            Self::Quic(stream) => stream.poll_read(cx, &mut buffer),
            Self::Memory(stream) => Pin::new(stream).poll_read(cx, &mut buffer),
        };
        read.map_ok(|()| buffer.filled().len())
    }

    /// Writes some of the slices.
    pub fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = match self {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Tls(stream) => stream.poll_write(cx, slices),
            Self::Quic(stream) => stream.poll_write(cx, slices),
            Self::Memory(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        };
        match ready!(written)? {
            0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            count => Poll::Ready(Ok(count)),
        }
    }

    /// Writes what the TLS layer still holds.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(_) | Self::Quic(_) | Self::Memory(_) => Poll::Ready(Ok(())),
            Self::Tls(stream) => stream.poll_flush(cx),
        }
    }

    /// The address of this node that the client is connected to.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.local_addr().ok(),
            Self::Tls(stream) => stream.socket().local_addr().ok(),
            Self::Quic(stream) => stream.local_addr(),
            Self::Memory(_) => None,
        }
    }

    /// Ends the stream in order.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => stream.poll_shutdown(cx),
            Self::Quic(stream) => stream.poll_shutdown(cx),
            Self::Memory(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

impl Transport {
    /// Reads MQTT bytes; 0 at the end.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Stream(stream) => stream.poll_read(cx, into),
            Self::WebSocket(socket) => socket.poll_read(cx, into),
        }
    }

    /// Writes the outbox until it is empty or the socket is full.
    pub fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        outbox: &mut Outbox,
        pool: &mut Pool,
    ) -> Poll<io::Result<()>> {
        let stream = match self {
            Self::Stream(stream) => stream,
            Self::WebSocket(socket) => return socket.poll_write(cx, outbox, pool),
        };
        while !outbox.is_empty() {
            let mut slices = SmallVec::new();
            outbox.slices(&mut slices);
            let written = ready!(stream.poll_write(cx, &slices))?;
            drop(slices);
            outbox.advance(written, pool);
        }
        stream.poll_flush(cx)
    }

    /// Ends the stream in order.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Stream(stream) => stream.poll_shutdown(cx),
            Self::WebSocket(socket) => socket.poll_shutdown(cx),
        }
    }

    /// As [`Stream::local_addr`].
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Stream(stream) => stream.local_addr(),
            Self::WebSocket(socket) => socket.stream().local_addr(),
        }
    }

    /// Why the stream is at its end. A proper WebSocket close frame is no accident.
    pub fn end(&self) -> End {
        match self {
            Self::WebSocket(socket) if socket.closed_by_client() => End::by_client(false),
            _ => End::closed(),
        }
    }
}
