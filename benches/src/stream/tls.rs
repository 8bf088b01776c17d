//! A client's TLS, blocking or not as its socket is.

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

/// A client that trusts one authority and shows one certificate, from PEM files. Sessions are never
/// resumed, as after an outage.
pub fn mutual_tls(ca: &Path, certificate: &Path, key: &Path) -> Result<ClientConfig> {
    let [ca, certificate, key] = [ca, certificate, key]
        .map(|path| fs::read(path).with_context(|| format!("reading {}", path.display())));
    mutual_tls_of(&ca?, &certificate?, &key?)
}

/// The same from PEM.
pub fn mutual_tls_of(ca: &[u8], certificate: &[u8], key: &[u8]) -> Result<ClientConfig> {
    let certificates = |pem| CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let mut roots = RootCertStore::empty();
    for authority in certificates(ca).context("the certificate authority")? {
        roots.add(authority)?;
    }
    let certificate = certificates(certificate).context("the certificate")?;
    let key = PrivateKeyDer::from_pem_slice(key).context("the private key")?;
    let mut config = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(certificate, key)?;
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// What a session may hold of an unfinished record, and more.
const ROOM: usize = 20 * 1024;

/// From here on a buffer takes records to decrypt where they are.
const IN_PLACE: usize = 2 * ROOM;

#[derive(Debug)]
pub(super) struct Tls {
    session: Box<ClientConnection>,
    pub(super) socket: TcpStream,
}

impl Tls {
    /// Begins a session with the broker at an address; its handshake is part of the first write.
    pub(super) fn new(
        socket: TcpStream,
        address: SocketAddr,
        config: &Arc<ClientConfig>,
    ) -> Result<Self> {
        let name = ServerName::from(address.ip());
        let session = Box::new(ClientConnection::new(Arc::clone(config), name)?);
        Ok(Self { session, socket })
    }

    pub(super) fn is_behind(&self) -> bool {
        self.session.wants_write()
    }

    pub(super) fn shutdown(&mut self) -> io::Result<()> {
        self.session.send_close_notify();
        // If that fails, the socket says so, too.
        let _ = self.flush();
        self.socket.shutdown(Shutdown::Write)
    }

    /// Reads all that the socket has behind some room in the buffer, and leaves what it means in the
    /// front: rustls by itself takes 4 KiB per system call.
    fn read_records(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.socket.read(&mut buffer[ROOM..])?;
        let (mut at, end, mut filled) = (ROOM, ROOM + length, 0);
        loop {
            let taken = self.session.read_tls(&mut &buffer[at..end])?;
            at += taken;
            let processed = self.session.process_new_packets();
            processed.map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
            while let Ok(read @ 1..) = self.session.reader().read(&mut buffer[filled..at]) {
                filled += read;
            }
            if taken == 0 || at == end {
                return Ok(filled);
            }
        }
    }

    /// Reads some of what the socket has; false at its end.
    fn fill(&mut self) -> io::Result<bool> {
        let length = self.session.read_tls(&mut self.socket)?;
        let taken = self.session.process_new_packets();
        // Also an alert goes out.
        let flushed = self.flush();
        taken.map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
        flushed.map(|()| length > 0)
    }
}

impl Read for Tls {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.session.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                done => return done,
            }
            if buffer.len() < IN_PLACE {
                if !self.fill()? {
                    return Ok(0);
                }
                continue;
            }
            let read = self.read_records(buffer)?;
            if read > 0 {
                return Ok(read);
            }
        }
    }
}

impl Write for Tls {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        while self.session.is_handshaking() {
            self.flush()?;
            if self.session.is_handshaking() && !self.fill()? {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        let taken = self.session.writer().write(buffer)?;
        self.flush()?;
        match taken {
            0 if !buffer.is_empty() => Err(ErrorKind::WouldBlock.into()),
            taken => Ok(taken),
        }
    }

    /// Hands the socket what it takes.
    fn flush(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut self.socket) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                written => written?,
            };
        }
        Ok(())
    }
}
