//! A running node: the raft thread, the cores, the control runtime.

use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::{Context, anyhow, bail};
use api::provisioning::Issuing;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};
use tokio_rustls::TlsAcceptor;
use tracing::{info, warn};

use crate::audit::Audit;
use crate::config::{self, Config};
use crate::core::{Core, ToCore};
use crate::current;
use crate::drain;
use crate::fanout::Fanout;
use crate::gateway::admission::Gate;
use crate::gateway::{Bound, Carrier, DataPlane, Door, QUIC_ALPN, Quic, Speaks};
use crate::host::{Groups, Machine, NodeHost};
use crate::kept;
use crate::mesh::{GroupPeers, Mesh};
use crate::metrics::{self, CoreMetrics};
use crate::roster::Roster;
use crate::shared::Shared;
use crate::telemetry::Traces;
use crate::tls::{self, ClientCertificates, HTTP_ALPN, MQTT_ALPN, OwnCertificate};

/// A node whose state is restored. Its listeners are bound and not open yet.
pub struct Node {
    /// What all its threads share.
    pub shared: Arc<Shared>,
    config: Config,
    running: cluster::Running,
    stopped: oneshot::Receiver<Option<String>>,
    inboxes: Vec<mpsc::UnboundedReceiver<ToCore>>,
    /// What the links to other nodes run on.
    links: Option<Runtime>,
}

impl Node {
    /// Opens the data directory and restores the state from it.
    pub fn restore(
        config: Config,
        traces: Option<Traces>,
        issuing: Option<Issuing>,
    ) -> anyhow::Result<Self> {
        metrics::describe();
        let cores = match config.cores {
            Some(cores) => usize::from(cores),
            None => std::thread::available_parallelism().map_or(1, Into::into),
        };
        let data = cluster::DataDir::open(&config.data)
            .with_context(|| format!("cannot use the data folder {}", config.data.display()))?;
        kept::keep(&config)?;
        let config = kept::settled(&config)?;
        let life = data.next_incarnation()?;
        let raft = cluster::Config { incarnation: life.number(), ..raft_config(&config) };
        let (groups, inbox) = Groups::new(&raft);
        let recovery = kept::recovery(&config.data);
        if recovery.is_some() {
            warn!("this node goes on alone: no other node is a member of its cluster any more");
        }
        let folder = kept::folder(&config.data)?;
        let roster =
            Roster::new(config.cluster.as_ref(), folder, kept::lives(&config.data)?, recovery);
        let mesh = Arc::new(Mesh::new(raft.node, raft.incarnation, roster));
        let (senders, inboxes): (Vec<_>, Vec<_>) =
            (0..cores).map(|_| mpsc::unbounded_channel()).unzip();
        let mut shared = Shared::new(
            &config,
            traces,
            (groups, raft.max_command_bytes),
            Arc::clone(&mesh),
            senders,
        );
        shared.issuing = issuing;
        let number = config.cluster.as_ref().map(|cluster| cluster.node);
        shared.audit = Audit::start(&config.audit, &shared.arns, number)?;
        let shared = Arc::new(shared);
        let links = match &config.cluster {
            Some(cluster) => {
                let runtime = links_runtime()?;
                mesh.start(cluster, life, &shared, &runtime)?;
                Some(runtime)
            }
            None => {
                life.begin()?;
                None
            }
        };
        let (tell, stopped) = oneshot::channel();
        let restored = kept::restored(&config.data)?.map(|it| it.outbox_ends).unwrap_or_default();
        let restored =
            restored.into_iter().map(|(group, end)| (cluster::GroupId(group), end)).collect();
        let host = NodeHost::new(Arc::clone(&shared), &raft, restored, tell);
        let mut running =
            cluster::start(raft, data, inbox, Machine::new, host, GroupPeers(mesh))
                .with_context(|| format!("cannot open the state in {}", config.data.display()))?;
        running.wait_started().context("cannot start")?;
        Ok(Self { shared, config, running, stopped, inboxes, links })
    }

    /// The configuration it was started with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Opens the listeners and serves until the raft thread ends or `stop` resolves; then drains.
    pub async fn serve(
        self,
        data_plane: Option<axum::Router>,
        verifier: api::sigv4::Verifier,
        ready: impl FnOnce(),
        stop: impl Future<Output = ()>,
    ) -> anyhow::Result<()> {
        let doors = match doors(&self.config, self.inboxes.len(), data_plane, verifier) {
            Ok(doors) => doors,
            Err(why) => return give_up(self.running, self.links, why).await,
        };
        let (mut stop, mut stopped) = (pin!(stop), self.stopped);
        let cluster = self.config.cluster.as_ref();
        let roster = &self.shared.mesh.roster;
        if self.shared.mesh.has_peers() {
            let end = tokio::select! {
                () = ready_for_clients(&self.shared) => None,
                failed = &mut stopped => Some(Err(cannot_go_on(failed.ok().flatten()))),
                why = roster.expelled() => Some(Err(expelled(&why))),
                () = &mut stop => Some(Ok(())),
            };
            match end {
                None => {}
                Some(Ok(())) => return close(self.running, self.links).await,
                Some(Err(why)) => return give_up(self.running, self.links, why).await,
            }
        }
        if let Err(why) = open(&self.shared, &doors, self.inboxes) {
            return give_up(self.running, self.links, why).await;
        }
        self.shared.serving.store(true, Ordering::Relaxed);
        ready();
        let resting = async {
            match cluster {
                Some(cluster) => drain::obey(&self.shared, cluster).await,
                None => std::future::pending().await,
            }
        };
        let failed = tokio::select! {
            failed = &mut stopped => failed.ok().flatten().map(|error| cannot_go_on(Some(error))),
            why = roster.expelled() => Some(expelled(&why)),
            () = resting => None,
            () = &mut stop => None,
        };
        if let Some(why) = failed {
            return give_up(self.running, self.links, why).await;
        }
        drain::drain(&self.shared, cluster).await;
        close(self.running, self.links).await
    }
}

fn cannot_go_on(error: Option<String>) -> anyhow::Error {
    anyhow!("the node cannot go on: {}", error.as_deref().unwrap_or("its groups have ended"))
}

fn expelled(why: &str) -> anyhow::Error {
    anyhow!("this node may not be part of the cluster: {why}")
}

/// Ends what can still be ended in order.
async fn give_up(
    running: cluster::Running,
    links: Option<Runtime>,
    why: anyhow::Error,
) -> anyhow::Result<()> {
    if let Err(error) = close(running, links).await {
        warn!(error = format!("{error:#}"), "the end is not in order");
    }
    Err(why)
}

/// Waits until this node of a cluster may let clients in.
async fn ready_for_clients(shared: &Arc<Shared>) {
    if shared.mesh.roster.is_joining() {
        info!("joining: clients are let in once this node is added and has all there is");
        joined(shared).await;
        info!("joined");
    }
    Fanout::routes_restored(shared).await;
    current::catch_up(shared).await;
}

/// Waits until this node has been added to its cluster and knows everything.
async fn joined(shared: &Arc<Shared>) {
    let mut standing = shared.mesh.roster.watch_standing();
    while shared.mesh.roster.is_joining() {
        if standing.changed().await.is_err() {
            // The sender is shared by all.
            return std::future::pending().await;
        }
    }
}

/// Ends the groups in order, and then the links they need for it.
async fn close(running: cluster::Running, links: Option<Runtime>) -> anyhow::Result<()> {
    let stopped = tokio::task::spawn_blocking(move || running.stop()).await;
    if let Some(runtime) = links {
        runtime.shutdown_background();
    }
    stopped.context("the raft thread panicked")?.context("the state was not closed in order")
}

/// How the groups of this node are run, in whichever life.
pub fn raft_config(config: &Config) -> cluster::Config {
    let alone = cluster::Config {
        accept_log_loss: config.accept_log_loss,
        ..cluster::Config::new(&config.data, config.shards.into())
    };
    let Some(cluster) = &config.cluster else { return alone };
    let voters = cluster.founders();
    let groups = alone
        .groups
        .iter()
        .map(|group| cluster::GroupConfig { id: group.id, voters: voters.clone() });
    cluster::Config {
        node: cluster.node,
        groups: groups.collect(),
        snapshot_bytes_per_second: cluster.snapshot_bytes_per_second,
        ..alone
    }
}

/// A thread for what nodes say to each other, so that no REST request delays a heartbeat. One: whether a node
/// is let in is judged by the streams that there are, and two of its streams must not be judged at once.
fn links_runtime() -> anyhow::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("skein-links")
        .enable_all()
        .build()
        .context("cannot start the runtime of the links")
}

/// What a listener that is not opened is told to be.
pub fn cannot_listen(listener: &str, address: SocketAddr) -> String {
    format!("{listener} cannot listen on {address}")
}

fn doors(
    config: &Config,
    cores: usize,
    data_plane: Option<axum::Router>,
    verifier: api::sigv4::Verifier,
) -> anyhow::Result<Vec<Door>> {
    let listeners = &config.listeners;
    let only_sockets = DataPlane { router: None, verifier: verifier.clone() };
    let mut doors = Vec::new();
    let mut open = |key, listener: &config::Listener, carrier| {
        doors.extend(Door::new(key, listener, carrier)?);
        anyhow::Ok(())
    };
    open("listeners.mqtt", &listeners.mqtt, Carrier::Tcp(Speaks::Mqtt))?;
    let sockets = Speaks::WebSocket(Arc::new(only_sockets));
    open("listeners.ws", &listeners.ws, Carrier::Tcp(sockets))?;
    let is_open = |listener: &config::Listener| listener.address.is_some();
    let secure = [&listeners.mqtts, &listeners.quic, &listeners.https];
    if !secure.into_iter().any(is_open) {
        return Ok(doors);
    }
    let own = own_certificate(config)?;
    let tls = |clients, alpn: &[&[u8]]| tls::server_config(Arc::clone(&own), clients, alpn);
    if is_open(&listeners.mqtts) {
        let tls = tls(ClientCertificates::Required, &MQTT_ALPN);
        let speaks = Speaks::Mqtts(TlsAcceptor::from(Arc::new(tls)));
        open("listeners.mqtts", &listeners.mqtts, Carrier::Tcp(speaks))?;
    }
    if is_open(&listeners.quic) {
        let mut tls = tls(ClientCertificates::Optional, &[QUIC_ALPN]);
        // QUIC knows all or nothing.
        tls.max_early_data_size = if listeners.quic.early_data { u32::MAX } else { 0 };
        // Nodes may share a certificate.
        let purpose = format!("skein quic stateless reset {}", kept::folder(&config.data)?);
        let quic = Quic::new(tls, &own.derive(purpose.as_bytes())?, cores)?;
        open("listeners.quic", &listeners.quic, Carrier::Quic(Arc::new(quic)))?;
    }
    if is_open(&listeners.https) {
        let tls = tls(ClientCertificates::Optional, &[MQTT_ALPN, HTTP_ALPN].concat());
        let data_plane = Arc::new(DataPlane { router: data_plane, verifier });
        let speaks = Speaks::Https(TlsAcceptor::from(Arc::new(tls)), data_plane);
        open("listeners.https", &listeners.https, Carrier::Tcp(speaks))?;
    }
    Ok(doors)
}

/// The node's certificate, which is followed from now on.
fn own_certificate(config: &Config) -> anyhow::Result<Arc<OwnCertificate>> {
    let tls = &config.tls;
    let (Some(certificate), Some(private_key)) = (&tls.certificate, &tls.private_key) else {
        bail!("a TLS listener needs tls.certificate and tls.private_key");
    };
    let own =
        Arc::new(OwnCertificate::load(certificate, private_key, tls.ocsp_response.as_deref())?);
    tokio::spawn(Arc::clone(&own).follow());
    Ok(own)
}

/// Opens the listeners on every core. Every address is taken before any client is let in.
fn open(
    shared: &Arc<Shared>,
    doors: &[Door],
    inboxes: Vec<mpsc::UnboundedReceiver<ToCore>>,
) -> anyhow::Result<()> {
    for door in doors {
        door.probe().with_context(|| cannot_listen(door.key, door.address))?;
    }
    let bind = |door: &Door| door.bind().with_context(|| cannot_listen(door.key, door.address));
    let bind_all = || doors.iter().map(bind).collect::<anyhow::Result<Vec<Bound>>>();
    let bound = inboxes.iter().map(|_| bind_all()).collect::<anyhow::Result<Vec<_>>>()?;
    for ((id, inbox), bound) in inboxes.into_iter().enumerate().zip(bound) {
        start_core(id as u16, Arc::clone(shared), inbox, bound)?;
    }
    for door in doors {
        info!(listener = door.key, address = %door.address, "listening");
    }
    Ok(())
}

/// Starts the arbiter of a core. Only `main` and this function know how many there are.
fn start_core(
    id: u16,
    shared: Arc<Shared>,
    inbox: mpsc::UnboundedReceiver<ToCore>,
    bound: Vec<Bound>,
) -> anyhow::Result<()> {
    let mut open = Vec::new();
    for bound in bound {
        let (key, address) = (bound.door().key, bound.door().address);
        open.push(bound.open().with_context(|| cannot_listen(key, address))?);
    }
    let arbiter = actix::Arbiter::new();
    arbiter.spawn_fn(move || {
        let core = Core::new(id, shared, CoreMetrics::register(id));
        actix_rt::spawn(Rc::clone(&core).run(inbox));
        actix_rt::spawn(Rc::clone(&core).keep_time());
        let gate = Gate::new(&core.shared.limits);
        for opened in open {
            actix_rt::spawn(opened.serve(Rc::clone(&core), Rc::clone(&gate)));
        }
    });
    Ok(())
}
