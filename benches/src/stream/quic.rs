//! MQTT over QUIC: a thread of its own speaks it for all connections, and hands their bytes on.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, OnceLock, mpsc};
use std::thread;

use anyhow::{Context, Result, anyhow};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, Endpoint, RecvStream, SendStream};
use rustls::ClientConfig;
use tokio::io::{self, AsyncWriteExt};
use tokio::net::UnixStream as Bridge;
use tokio::runtime::{self, Handle};

/// What a client names by ALPN.
const ALPN: &[u8] = b"mqtt";

/// Opens a connection and its stream. Its bytes come and go over what is returned.
pub(super) fn dial(address: SocketAddr, config: &Arc<ClientConfig>) -> Result<UnixStream> {
    let mut config = ClientConfig::clone(config);
    config.alpn_protocols = vec![ALPN.to_vec()];
    let config = QuicClientConfig::try_from(config).context("QUIC needs TLS 1.3")?;
    let config = quinn::ClientConfig::new(Arc::new(config));
    let (here, there) = UnixStream::pair()?;
    there.set_nonblocking(true)?;
    let (tell, opened) = mpsc::channel();
    runtime()?.spawn(async move {
        match open(address, config, there).await {
            Ok((bridge, connection, streams)) => {
                // Whoever asked waits for this.
                let _ = tell.send(Ok(()));
                carry(bridge, connection, streams).await;
            }
            Err(error) => drop(tell.send(Err(error))),
        }
    });
    opened.recv().map_err(|_| anyhow!("the thread for QUIC has ended"))??;
    Ok(here)
}

/// The thread, which is started with the first connection.
fn runtime() -> Result<&'static Handle> {
    static RUNTIME: OnceLock<Option<Handle>> = OnceLock::new();
    let start = || {
        let runtime = runtime::Builder::new_current_thread().enable_all().build().ok()?;
        let handle = runtime.handle().clone();
        let run = move || runtime.block_on(std::future::pending::<()>());
        thread::Builder::new().name("quic".into()).spawn(run).ok()?;
        Some(handle)
    };
    RUNTIME.get_or_init(start).as_ref().context("cannot start a thread for QUIC")
}

type Opened = (Bridge, Connection, (SendStream, RecvStream));

async fn open(
    address: SocketAddr,
    config: quinn::ClientConfig,
    there: UnixStream,
) -> Result<Opened> {
    let bridge = Bridge::from_std(there)?;
    let any = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    // As devices do, each connection has a socket of its own.
    let connecting =
        Endpoint::client(any)?.connect_with(config, address, &address.ip().to_string())?;
    let connection =
        connecting.await.with_context(|| format!("connecting to {address} by QUIC"))?;
    let streams = connection.open_bi().await?;
    Ok((bridge, connection, streams))
}

/// Until either side ends.
async fn carry(
    bridge: Bridge,
    connection: Connection,
    (mut send, mut receive): (SendStream, RecvStream),
) {
    let (mut from, mut to) = bridge.into_split();
    let sent = async {
        io::copy(&mut from, &mut send).await?;
        send.finish()?;
        Ok::<_, io::Error>(())
    };
    let received = async {
        io::copy(&mut receive, &mut to).await?;
        to.shutdown().await
    };
    // How it ended, the packets that are missing tell.
    let _ = tokio::join!(sent, received);
    connection.close(0_u32.into(), b"");
}
