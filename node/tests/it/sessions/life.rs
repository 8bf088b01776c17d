//! One life of a simulated node's process: all of it but sockets, streams to other nodes, and the raft
//! thread, which the world drives.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chaos_tests::Dice;
use cluster::Inbox;
use links::proto::FanoutMessage;
use links::{Denied, Introduction, Message, Receiver};
use node::config::{self, Config};
use node::connection::handshake::{self, Peer};
use node::connection::transport::{Stream, Transport};
use node::core::Core;
use node::drain;
use node::endpoint::Record;
use node::fanout::Fanout;
use node::gateway::{Carrier, Door, Place, Speaks};
use node::host::{Groups, NodeHost, Reply, Signal};
use node::identity::Principal;
use node::mesh::{Ears, Mesh};
use node::metrics::CoreMetrics;
use node::roster::{Lives, Roster};
use node::shared::Shared;
use tokio::io::DuplexStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;

use super::still::Standstill;

/// Threads that a real node would serve its connections with.
const CORES: u16 = 2;

/// Groups besides `meta`.
pub(super) const SHARDS: u16 = 4;

/// What a node has to say to others.
#[derive(Default)]
pub(super) struct Said {
    /// Those that it has streams to.
    pub(super) open: BTreeSet<u64>,
    /// Those that have no room for more.
    pub(super) full: BTreeSet<u64>,
    pub(super) messages: Vec<(u64, FanoutMessage)>,
}

impl Said {
    fn say(&mut self, to: u64, message: Message) -> bool {
        let Message::Fanout(message) = message else { return false };
        let takes = self.open.contains(&to) && !self.full.contains(&to);
        if takes {
            self.messages.push((to, message));
        }
        takes
    }
}

/// A connection that is served.
#[derive(Clone, Debug)]
pub(super) struct Served {
    pub(super) node: u64,
    pub(super) client: Arc<str>,
    pub(super) record: Option<Record>,
}

/// See the module.
pub(super) struct Life {
    pub(super) incarnation: u64,
    pub(super) inbox: Inbox<Reply, Signal>,
    pub(super) cores: Vec<Rc<Core>>,
    /// Everything that its cores have to do.
    pub(super) tasks: LocalSet,
    pub(super) ears: Ears,
    pub(super) said: Arc<Mutex<Said>>,
    /// That it stands still, or did so lately.
    pub(super) still: Option<Standstill>,
    folder: Folder,
    /// Set when others have said that it is no member.
    expelled: Rc<Cell<bool>>,
    doors: Vec<mpsc::UnboundedSender<DuplexStream>>,
    _stopped: oneshot::Receiver<Option<String>>,
}

/// A data folder, as far as other nodes are told of it.
#[derive(Clone)]
pub(super) struct Folder {
    name: String,
    /// Those that were begun on it.
    pub(super) lives: Vec<u64>,
    /// What it remembers of the lives of other nodes.
    let_in: Arc<Mutex<Option<String>>>,
}

impl Folder {
    pub(super) fn new(name: String) -> Self {
        Self { name, lives: Vec::new(), let_in: Arc::default() }
    }

    fn remembered(&self) -> Lives {
        let (let_in, kept) = (Arc::clone(&self.let_in), self.let_in.lock().unwrap().clone());
        let keep = move |text: &str| {
            *let_in.lock().unwrap() = Some(text.to_owned());
            Ok(())
        };
        Lives::remember(kept.as_deref(), keep).unwrap()
    }
}

impl Life {
    /// Begins, with the host of its groups and the nodes that it is told of. One whose groups have no
    /// founders joins.
    pub(super) fn begin(known: &[u64], folder: Folder, raft: &cluster::Config) -> (Self, NodeHost) {
        let joins = raft.groups.iter().all(|group| group.voters.is_empty());
        let config = config(known, raft.node, joins);
        let (groups, inbox) = Groups::new(raft);
        let name = folder.name.clone();
        let roster = Roster::new(config.cluster.as_ref(), name, folder.remembered(), None);
        let mesh = Arc::new(Mesh::new(raft.node, raft.incarnation, roster));
        let (senders, inboxes): (Vec<_>, Vec<_>) =
            (0..CORES).map(|_| mpsc::unbounded_channel()).unzip();
        let groups = (groups, raft.max_command_bytes);
        let shared = Arc::new(Shared::new(&config, None, groups, mesh, senders));
        let (tell, stopped) = oneshot::channel();
        let host = NodeHost::new(Arc::clone(&shared), raft, BTreeMap::new(), tell);
        let tasks = LocalSet::new();
        let listener = config::Listener {
            address: Some(([127, 0, 0, 1], 1883).into()),
            ..config::Listener::default()
        };
        let (mut cores, mut doors) = (Vec::new(), Vec::new());
        for (id, inbox) in (0..CORES).zip(inboxes) {
            let core = Core::new(id, Arc::clone(&shared), CoreMetrics::register(id));
            let carrier = Carrier::Tcp(Speaks::Mqtt);
            let door = Door::new("simulated", &listener, carrier).unwrap().unwrap();
            let (knocks, knocking) = mpsc::unbounded_channel();
            tasks.spawn_local(Rc::clone(&core).run(inbox));
            tasks.spawn_local(Rc::clone(&core).keep_time());
            tasks.spawn_local(accept(Rc::clone(&core), door, knocking));
            cores.push(core);
            doors.push(knocks);
        }
        let said = Arc::new(Mutex::new(Said::default()));
        let mouth = Arc::clone(&said);
        shared.interest.announce_to(shared.fanout.announcer());
        shared.fanout.start(move |to, message, _| mouth.lock().unwrap().say(to, message));
        tasks.spawn_local(Fanout::run(Arc::clone(&shared)));
        let expelled = Rc::new(Cell::new(false));
        let (hears, is_expelled) = (Arc::clone(&shared), Rc::clone(&expelled));
        tasks.spawn_local(async move {
            hears.mesh.roster.expelled().await;
            is_expelled.set(true);
        });
        if let Some(cluster) = config.cluster {
            let shared = Arc::clone(&shared);
            tasks.spawn_local(async move { drain::obey(&shared, &cluster).await });
        }
        let life = Self {
            incarnation: raft.incarnation,
            inbox,
            ears: Ears(shared),
            said,
            still: None,
            cores,
            tasks,
            folder,
            expelled,
            doors,
            _stopped: stopped,
        };
        (life, host)
    }

    /// What its threads share.
    pub(super) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.ears.0)
    }

    /// Whether it has yet to learn what there is, and lets nobody in.
    pub(super) fn is_joining(&self) -> bool {
        self.ears.0.mesh.roster.is_joining()
    }

    /// Whether it has heard that it is no member.
    pub(super) fn is_expelled(&self) -> bool {
        self.expelled.get()
    }

    /// Whether it dials a node, and lets it in.
    pub(super) fn knows(&self, node: u64) -> bool {
        self.ears.0.mesh.roster.peers().iter().any(|peer| peer.node == node)
    }

    /// Whether it wants what another node, which says who it is, has to say. In an answer that may tell it
    /// where others are.
    pub(super) fn admit(&self, node: u64, other: &Self, answers: bool) -> Result<(), Denied> {
        let (incarnation, Folder { name: folder, lives, .. }) = (other.incarnation, &other.folder);
        let address = &address_of(node);
        let joins = |life: &Self| life.ears.0.mesh.roster.own.as_ref().is_some_and(|own| own.joins);
        let others = if answers && joins(self) { other.ears.others() } else { Vec::new() };
        let (joins, others) = (joins(other), &*others);
        let found = if answers { address } else { "" };
        let peer = Introduction { node, incarnation, folder, lives, address, found, joins, others };
        self.ears.admit(peer)
    }

    /// Whether what speaks with other nodes executes nothing now.
    pub(super) fn links_stand_still(&self, millis: u64) -> bool {
        self.still.as_ref().is_some_and(|still| still.links_until > millis)
    }

    /// Whether what serves connections executes nothing now.
    pub(super) fn cores_stand_still(&self, millis: u64) -> bool {
        self.still.as_ref().is_some_and(|still| still.cores_until > millis)
    }

    /// The connections that are served.
    pub(super) fn served(&self, node: u64) -> Vec<Served> {
        let mut served = Vec::new();
        for core in &self.cores {
            for (_, endpoint) in core.endpoints.borrow().iter() {
                if endpoint.doomed().is_none() && !endpoint.is_closed() {
                    let (client, record) = (&endpoint.profile.client, endpoint.profile.record);
                    served.push(Served { node, client: Arc::clone(client), record });
                }
            }
        }
        served
    }

    /// The way in, for clients.
    pub(super) fn entrance(&self) -> Entrance {
        Entrance(self.doors.clone())
    }
}

/// Where clients come in.
#[derive(Clone)]
pub(super) struct Entrance(Vec<mpsc::UnboundedSender<DuplexStream>>);

impl Entrance {
    /// A connection to one of the node's cores, unless the node is gone.
    pub(super) fn enter(&self, dice: &mut Dice) -> Option<DuplexStream> {
        const SOCKET_BYTES: usize = 256 << 10;
        let (here, there) = tokio::io::duplex(SOCKET_BYTES);
        let door = &self.0[dice.within(0..self.0.len() as u64) as usize];
        door.send(there).is_ok().then_some(here)
    }
}

/// Lets everybody in.
async fn accept(core: Rc<Core>, door: Door, mut knocking: mpsc::UnboundedReceiver<DuplexStream>) {
    while let Some(stream) = knocking.recv().await {
        let place = Place::take(&door).expect("there are few");
        let (core, transport) = (Rc::clone(&core), Transport::Stream(Stream::Memory(stream)));
        let principal = Principal::AccessKey("simulated".into(), api::Role::Admin);
        let peer = Peer::nobody(principal, None, 0);
        tokio::task::spawn_local(async move {
            // Why it failed, the client is told.
            let _ = handshake::connect(&core, transport, peer, place).await;
        });
    }
}

/// Where a node is.
pub(super) fn address_of(node: u64) -> String {
    format!("node-{node}:7400")
}

fn config(known: &[u64], node: u64, join: bool) -> Config {
    let peer = |&node| config::Peer { node, address: address_of(node) };
    let cluster = config::Cluster {
        id: "simulated".into(),
        node,
        address: Some(address_of(node)),
        peers: known.iter().map(peer).collect(),
        join,
        drain_delay: Duration::from_millis(500),
        ..config::Cluster::default()
    };
    let mut config = Config::default();
    (config.shards, config.cluster, config.lifecycle_events) = (SHARDS, Some(cluster), false);
    config
}
