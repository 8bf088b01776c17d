//! One life of a simulated node's process: all of it but sockets, streams to other nodes, and the raft
//! thread, which the world drives.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use chaos_tests::Dice;
use cluster::Inbox;
use links::Message;
use links::proto::FanoutMessage;
use node::config::{self, Config};
use node::connection::handshake::{self, Peer};
use node::connection::transport::{Stream, Transport};
use node::core::Core;
use node::fanout::Fanout;
use node::gateway::{Door, Place, Speaks};
use node::host::{Groups, NodeHost, Reply, Signal};
use node::identity::Principal;
use node::mesh::{Ears, Mesh};
use node::metrics::CoreMetrics;
use node::roster::Roster;
use node::shared::Shared;
use tokio::io::DuplexStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;

/// Threads that a real node would serve its connections with.
const CORES: u16 = 2;

/// Groups besides `meta`.
pub(super) const SHARDS: u16 = 4;

/// What a node has to say to others.
#[derive(Default)]
pub(super) struct Said {
    /// Those that it has streams to.
    pub(super) open: BTreeSet<u64>,
    pub(super) messages: Vec<(u64, FanoutMessage)>,
}

impl Said {
    fn say(&mut self, to: u64, message: Message) -> bool {
        let Message::Fanout(message) = message else { return false };
        let is_open = self.open.contains(&to);
        if is_open {
            self.messages.push((to, message));
        }
        is_open
    }
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
    doors: Vec<mpsc::UnboundedSender<DuplexStream>>,
    _stopped: oneshot::Receiver<Option<String>>,
}

impl Life {
    /// Begins, with the host of its groups.
    pub(super) fn begin(founders: &[u64], raft: &cluster::Config) -> (Self, NodeHost) {
        let config = config(founders, raft.node);
        let (groups, inbox) = Groups::new(raft);
        let folder = format!("folder-{}", raft.node);
        let roster = Roster::new(config.cluster.as_ref(), folder, None);
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
            let door = Door::new("simulated", &listener, Speaks::Mqtt).unwrap().unwrap();
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
        let life = Self {
            incarnation: raft.incarnation,
            inbox,
            ears: Ears(shared),
            said,
            cores,
            tasks,
            doors,
            _stopped: stopped,
        };
        (life, host)
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

fn config(founders: &[u64], node: u64) -> Config {
    let peer = |&node| config::Peer { node, address: format!("node-{node}:7400") };
    let cluster = config::Cluster {
        id: "simulated".into(),
        node,
        peers: founders.iter().map(peer).collect(),
        ..config::Cluster::default()
    };
    let mut config = Config::default();
    (config.shards, config.cluster, config.lifecycle_events) = (SHARDS, Some(cluster), false);
    config
}
