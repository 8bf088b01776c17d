//! The stream of a QUIC connection, which ends with it.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use quinn::{Connection, ConnectionError, RecvStream, SendStream, TransportErrorCode, VarInt};
use rustls::{AlertDescription, CertificateError, OtherError};
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

/// Why there is no connection, or none any more. What has failed of TLS is told as on a connection of TCP.
pub(super) fn lost(error: ConnectionError) -> io::Error {
    let tls = match &error {
        ConnectionError::ConnectionClosed(close) => {
            alert(close.error_code).map(rustls::Error::AlertReceived)
        }
        ConnectionError::TransportError(error) => {
            alert(error.code).map(|alert| refused(alert, &error.reason))
        }
        _ => None,
    };
    match (tls, error) {
        (Some(tls), _) => io::Error::new(io::ErrorKind::InvalidData, tls),
        (None, ConnectionError::TransportError(error)) => {
            io::Error::new(io::ErrorKind::InvalidData, error)
        }
        (None, error) => error.into(),
    }
}

/// The alert of TLS that a code stands for, if it does [RFC 9001 section 4.8].
fn alert(code: TransportErrorCode) -> Option<AlertDescription> {
    let alert = u64::from(code).checked_sub(u64::from(TransportErrorCode::crypto(0)))?;
    u8::try_from(alert).ok().map(AlertDescription::from)
}

/// Why this side has ended a handshake with an alert: that and the text are what QUIC has left of it.
fn refused(alert: AlertDescription, why: &str) -> rustls::Error {
    match alert {
        AlertDescription::NoApplicationProtocol => rustls::Error::NoApplicationProtocol,
        AlertDescription::CertificateRequired => rustls::Error::NoCertificatesPresented,
        AlertDescription::BadCertificate => CertificateError::BadEncoding.into(),
        // The alert is that of both.
        AlertDescription::CertificateExpired if why.ends_with("NotValidYet") => {
            CertificateError::NotValidYet.into()
        }
        AlertDescription::CertificateExpired => CertificateError::Expired.into(),
        AlertDescription::DecryptError
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateUnknown => {
            let why = io::Error::other(why.to_owned());
            CertificateError::Other(OtherError(Arc::new(why))).into()
        }
        _ => rustls::Error::General(why.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use quinn::ConnectionClose;

    use super::*;

    #[test]
    fn failures_of_tls_are_told_from_others() {
        let ours = |code: TransportErrorCode| ConnectionError::TransportError(code.into());
        let theirs = |error_code| {
            let (frame_type, reason) = Default::default();
            ConnectionError::ConnectionClosed(ConnectionClose { error_code, frame_type, reason })
        };
        let crypto = TransportErrorCode::crypto;
        let alert = rustls::Error::AlertReceived(AlertDescription::UnknownCA);
        for (error, expected) in [
            (theirs(crypto(48)), Some(alert)),
            (ours(crypto(120)), Some(rustls::Error::NoApplicationProtocol)),
            (ours(crypto(116)), Some(rustls::Error::NoCertificatesPresented)),
            (ours(crypto(40)), Some(rustls::Error::General(String::new()))),
            (theirs(TransportErrorCode::NO_ERROR), None),
            (theirs(TransportErrorCode::CRYPTO_BUFFER_EXCEEDED), None),
            (ours(TransportErrorCode::PROTOCOL_VIOLATION), None),
            (ConnectionError::TimedOut, None),
        ] {
            let lost = lost(error);
            let found = lost.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
            assert_eq!(found, expected.as_ref(), "{lost}");
        }
        for certificate in [CertificateError::Expired, CertificateError::NotValidYet] {
            let error = rustls::Error::from(certificate);
            assert_eq!(refused(AlertDescription::CertificateExpired, &error.to_string()), error);
        }
    }
}
