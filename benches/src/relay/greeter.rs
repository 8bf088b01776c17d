//! The ceiling of handshakes: what a broker must at least do for a connection by mutual TLS.
//!
//! One thread, one epoll: rustls ends the handshake, CONNECT is answered with a canned CONNACK. Nobody is
//! known, and nothing is kept.

use std::convert::Infallible;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection};

const LISTENER: Token = Token(usize::MAX);
const CONNECT: u8 = 0x10;
/// Where CONNECT has the version of the protocol, when it is short.
const VERSION_AT: usize = 8;

struct Peer {
    stream: TcpStream,
    session: ServerConnection,
}

/// Runs until the process is ended, with the certificates of a broker's folder.
pub(super) fn run(address: SocketAddr, pki: &Path) -> Result<Infallible> {
    let config = Arc::new(config(pki)?);
    let mut poll = Poll::new()?;
    let mut listener = TcpListener::bind(address).with_context(|| format!("at {address}"))?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut events = Events::with_capacity(1_024);
    // Places are never used again: it lives for one run.
    let mut peers: Vec<Option<Peer>> = Vec::new();
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        for event in events.iter() {
            if event.token() == LISTENER {
                while let Ok((mut stream, _)) = listener.accept() {
                    stream.set_nodelay(true)?;
                    let interest = Interest::READABLE | Interest::WRITABLE;
                    poll.registry().register(&mut stream, Token(peers.len()), interest)?;
                    let session = ServerConnection::new(Arc::clone(&config))?;
                    peers.push(Some(Peer { stream, session }));
                }
            } else if let Some(place) = peers.get_mut(event.token().0)
                && place.as_mut().is_some_and(|peer| peer.serve().is_err())
            {
                *place = None;
            }
        }
    }
}

fn config(pki: &Path) -> Result<ServerConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(pki.join("ca.pem"))?)?;
    let verifier =
        WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(&provider)).build()?;
    let certificate = CertificateDer::from_pem_file(pki.join("server.pem"))?;
    let key = PrivateKeyDer::from_pem_file(pki.join("server.key"))?;
    Ok(ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![certificate], key)?)
}

impl Peer {
    /// Does what can be done now; an error ends it.
    fn serve(&mut self) -> Result<()> {
        let mut said = [0; 1_024];
        let mut is_open = true;
        while is_open {
            match self.session.read_tls(&mut self.stream) {
                Ok(0) => is_open = false,
                Ok(_) => {
                    self.session.process_new_packets()?;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
            if let Ok(length) = self.session.reader().read(&mut said)
                && said[..length].first() == Some(&CONNECT)
            {
                let connack: &[u8] = match said[VERSION_AT] {
                    5 => &[0x20, 3, 0, 0, 0],
                    _ => &[0x20, 2, 0, 0],
                };
                self.session.writer().write_all(connack)?;
            }
        }
        while self.session.wants_write() {
            match self.session.write_tls(&mut self.stream) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                written => written?,
            };
        }
        anyhow::ensure!(is_open, "it has ended");
        Ok(())
    }
}
