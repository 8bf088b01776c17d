//! The stream of a QUIC connection, which ends with it.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use quinn::{Connection, ConnectionError, RecvStream, SendStream, VarInt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Tells a client that its connection ends in order.
const DONE: VarInt = VarInt::from_u32(0);

/// See the module.
pub struct QuicStream {
    connection: Connection,
    send: SendStream,
    receive: RecvStream,
    /// The port that the client has connected to.
    port: u16,
    /// Resolves when the client has everything, or is gone.
    ending: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

impl QuicStream {
    pub(super) fn new(
        connection: Connection,
        send: SendStream,
        receive: RecvStream,
        port: u16,
    ) -> Self {
        Self { connection, send, receive, port, ending: None }
    }

    /// Reads what is there.
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        AsyncRead::poll_read(Pin::new(&mut self.receive), cx, buffer)
    }

    /// Writes some of the slices.
    pub fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut count = 0;
        for slice in slices.iter().filter(|slice| !slice.is_empty()) {
            match AsyncWrite::poll_write(Pin::new(&mut self.send), cx, slice) {
                Poll::Ready(Ok(written)) => {
                    count += written;
                    if written < slice.len() {
                        break;
                    }
                }
                // What was written is told first.
                Poll::Pending | Poll::Ready(Err(_)) if count > 0 => break,
                other => return other,
            }
        }
        Poll::Ready(Ok(count))
    }

    /// Ends the stream, and when the client has everything the connection.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { connection, send, ending, .. } = self;
        let ending = ending.get_or_insert_with(|| {
            // It fails when the stream has ended already, and then the client is told so.
            let _ = send.finish();
            let stopped = send.stopped();
            Box::pin(async move {
                let _ = stopped.await;
            })
        });
        ready!(ending.as_mut().poll(cx));
        connection.close(DONE, b"");
        Poll::Ready(Ok(()))
    }

    /// The address of this node that the client is connected to.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        Some((self.connection.local_ip()?, self.port).into())
    }
}

impl fmt::Debug for QuicStream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("QuicStream").finish_non_exhaustive()
    }
}

/// Why there is no connection, or none any more.
pub(super) fn lost(error: ConnectionError) -> io::Error {
    match error {
        ConnectionError::TransportError(error) => io::Error::new(io::ErrorKind::InvalidData, error),
        error => error.into(),
    }
}
