//! What a bare TLS connection between nodes costs: nothing that crosses nodes costs less.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{
    CipherSuite, ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection,
    StreamOwned,
};

use crate::broker::pki;
use crate::process::cpu_time;

/// What one read or write takes: as much as the links of Skein do.
const BATCH: usize = 64 << 10;
/// Bytes of a publication on a link besides its payload, at least: its topic and lengths.
const AROUND: usize = 24;

/// CPU seconds, at both ends together, for each publication of so many bytes that is sent in batches
/// over TLS 1.3 with AES-128-GCM.
pub(super) fn cpu_per_publication(payload: usize, length: Duration, root: &Path) -> Result<f64> {
    let folder = tempfile::tempdir_in(root)?;
    pki::write(folder.path())?;
    let certificate = |name| CertificateDer::from_pem_file(folder.path().join(name));
    let mut roots = RootCertStore::empty();
    roots.add(certificate("ca.pem")?)?;
    let key = PrivateKeyDer::from_pem_file(folder.path().join("server.key"))?;
    let server = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate("server.pem")?], key)?;
    let client = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let receiver = thread::spawn(move || receive(&listener, server));
    let connection = ClientConnection::new(Arc::new(client), "localhost".try_into()?)?;
    let mut stream = StreamOwned::new(connection, TcpStream::connect(address)?);
    let (batch, mut sent) = (vec![7; BATCH], 0);
    stream.write_all(&batch)?;
    let (before, begun) = (cpu_time(std::process::id())?, Instant::now());
    while begun.elapsed() < length {
        stream.write_all(&batch)?;
        sent += batch.len();
    }
    stream.conn.send_close_notify();
    stream.flush()?;
    let received = receiver.join().map_err(|_| anyhow!("the receiver panicked"))??;
    let spent = cpu_time(std::process::id())? - before;
    anyhow::ensure!(received == sent + BATCH, "{received} bytes came of {}", sent + BATCH);
    Ok(spent.as_secs_f64() * (payload + AROUND) as f64 / sent as f64)
}

fn receive(listener: &TcpListener, config: ServerConfig) -> Result<usize> {
    let (socket, _) = listener.accept()?;
    let mut stream = StreamOwned::new(ServerConnection::new(Arc::new(config))?, socket);
    let (mut buffer, mut received) = (vec![0; BATCH], 0);
    loop {
        match stream.read(&mut buffer).context("receiving over TLS")? {
            0 => return Ok(received),
            read => received += read,
        }
    }
}

fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.retain(|it| it.suite() == CipherSuite::TLS13_AES_128_GCM_SHA256);
    Arc::new(provider)
}
