//! TLS of a client, after its handshake.

#[cfg(test)]
mod tests;

use std::io::{self, ErrorKind, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustls::ServerConnection;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// What the session may hold of an unfinished record, and more: 16 KiB, what the standard lets
/// encryption add, and a head [RFC 8446 5.2].
const ROOM: usize = 20 * 1024;

/// From here on a buffer takes records to decrypt where they are; into a smaller one less is read than a
/// batch of a busy client.
const IN_PLACE: usize = 2 * ROOM;

/// A byte stream in TLS.
///
/// rustls takes 4 KiB per read of a socket, so that a batch of a busy client costs as many system calls as
/// it has such pieces. Here a large buffer takes all that the socket has, behind room for an unfinished
/// record, and then what it means, from its front: plaintext is never longer than the records that it was in.
pub struct TlsStream {
    socket: TcpStream,
    session: ServerConnection,
    /// The client has sent what is no TLS; it was told, if the socket took the alert.
    failed: bool,
}

impl TlsStream {
    /// A stream whose handshake is done.
    pub fn new(socket: TcpStream, session: ServerConnection) -> Self {
        Self { socket, session, failed: false }
    }

    /// What the records go over.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// What was agreed in the handshake.
    pub fn session(&self) -> &ServerConnection {
        &self.session
    }

    /// Reads what is there; 0 once the client has ended the session in order.
    ///
    /// # Errors
    ///
    /// `InvalidData` with a [`rustls::Error`] for what is no TLS, after everything before it was read;
    /// `UnexpectedEof` when the socket ends and the session did not.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            match self.session.reader().read(into) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                read => return Poll::Ready(read),
            }
            if self.failed {
                self.process(cx)?;
            }
            if into.len() < IN_PLACE {
                let mut socket = Socket { socket: &mut self.socket, cx };
                ready!(or_pending(self.session.read_tls(&mut socket)))?;
                self.process(cx)?;
                continue;
            }
            let read = ready!(self.poll_records(cx, into))?;
            if read > 0 {
                return Poll::Ready(Ok(read));
            }
        }
    }

    /// Reads all that the socket has, and leaves what it means in the front of the buffer: nothing, when
    /// no record is complete. What the session had for the reader must have been read.
    fn poll_records(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut socket = Socket { socket: &mut self.socket, cx };
        let length = match socket.read(&mut into[ROOM..]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.release();
                return Poll::Pending;
            }
            length => length?,
        };
        let (mut at, end, mut filled) = (ROOM, ROOM + length, 0);
        loop {
            // Without a byte the session learns that the socket is at its end.
            let taken = self.session.read_tls(&mut &into[at..end])?;
            at += taken;
            let processed = self.process(cx);
            while let Ok(read @ 1..) = self.session.reader().read(&mut into[filled..at]) {
                filled += read;
            }
            match processed {
                Err(error) if filled == 0 => return Poll::Ready(Err(error)),
                // What came before is good; the error comes again.
                Err(_) => return Poll::Ready(Ok(filled)),
                // Nothing is taken after the end of the session.
                Ok(()) if taken == 0 || at == end => return Poll::Ready(Ok(filled)),
                Ok(()) => {}
            }
        }
    }

    /// Makes something of the records that were taken.
    fn process(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let Err(error) = self.session.process_new_packets() else { return Ok(()) };
        if !self.failed {
            self.failed = true;
            // The alert goes as far as the socket takes it; the error says more.
            let _ = self.send(cx);
        }
        Err(io::Error::new(ErrorKind::InvalidData, error))
    }

    /// Gives back the memory that long records needed: the session does so at the next read.
    fn release(&mut self) {
        // Nobody reads from what has nothing.
        let _ = self.session.read_tls(&mut Nothing);
    }

    /// Writes some of the slices, in as few records as may be.
    pub fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            let written = self.session.writer().write_vectored(slices)?;
            let sent = self.send(cx);
            match sent {
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                _ if written > 0 => return Poll::Ready(Ok(written)),
                // It held all that it may; now it does not.
                Poll::Ready(Ok(())) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Hands the socket all records that are due.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.send(cx)
    }

    /// Ends the session in order, and then the socket.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.session.send_close_notify();
        ready!(self.send(cx))?;
        match ready!(Pin::new(&mut self.socket).poll_shutdown(cx)) {
            Err(error) if error.kind() == ErrorKind::NotConnected => Poll::Ready(Ok(())),
            shutdown => Poll::Ready(shutdown),
        }
    }

    fn send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut socket = Socket { socket: &mut self.socket, cx };
        while self.session.wants_write() {
            if ready!(or_pending(self.session.write_tls(&mut socket)))? == 0 {
                return Poll::Ready(Err(ErrorKind::WriteZero.into()));
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// What would block wakes the actor later.
fn or_pending<T>(result: io::Result<T>) -> Poll<io::Result<T>> {
    match result {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Poll::Pending,
        result => Poll::Ready(result),
    }
}

/// A socket as rustls wants it: what would block is an error.
struct Socket<'a, 'b> {
    socket: &'a mut TcpStream,
    cx: &'a mut Context<'b>,
}

impl Read for Socket<'_, '_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut buffer = ReadBuf::new(into);
        match Pin::new(&mut *self.socket).poll_read(self.cx, &mut buffer) {
            Poll::Ready(read) => read.map(|()| buffer.filled().len()),
            Poll::Pending => Err(ErrorKind::WouldBlock.into()),
        }
    }
}

impl Write for Socket<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[io::IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        match Pin::new(&mut *self.socket).poll_write_vectored(self.cx, slices) {
            Poll::Ready(written) => written,
            Poll::Pending => Err(ErrorKind::WouldBlock.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A socket that has nothing.
struct Nothing;

impl Read for Nothing {
    fn read(&mut self, _into: &mut [u8]) -> io::Result<usize> {
        Err(ErrorKind::WouldBlock.into())
    }
}
