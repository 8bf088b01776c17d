//! The other nodes of the cluster: the links to them, and which life of each is known.
//!
//! What nodes say about groups goes straight to the raft thread, which hears of lives in
//! [`Mesh::lives`]. A node that is alone has an empty mesh.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, anyhow};
use cluster::{GroupId, Incarnation, PeerMessage, Peers};
use fleet::shard::Instance;
use links::proto::GroupMessage;
use links::{
    Batch, Denied, Direction, Identity, Introduction, Links, Message, Part, PeerAddress, Purpose,
    StartError, Stream, Unfit,
};
use parking_lot::{Mutex, RwLock};
use sha2::{Digest, Sha256};
use tokio::runtime::Runtime;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::config;
use crate::fanout::{Fanout, Urgency};
use crate::roster::Roster;
use crate::shared::Shared;
use crate::tls::Unusable;

/// What is known of a node.
#[derive(Clone, Copy, Debug)]
pub struct Life {
    /// The last life that was heard of.
    pub instance: Instance,
    /// Since when nothing is heard of it; none while there is a link.
    pub lost: Option<Instant>,
    /// Whether its process has ended: nobody listens any more where it did.
    pub has_ended: bool,
}

/// See the module.
pub struct Mesh {
    /// This node.
    pub own: Instance,
    /// Who belongs to the cluster.
    pub roster: Roster,
    lives: RwLock<BTreeMap<u64, Life>>,
    /// How many streams there are from and to each node.
    streams: Mutex<BTreeMap<u64, usize>>,
    /// The life of this node, as its data folder remembers it.
    life: OnceLock<Arc<Mutex<Incarnation>>>,
    /// When a node last did not know that this one is a member.
    doubted: Mutex<Option<Instant>>,
    links: OnceLock<Links>,
}

/// Longer than it takes to dial a node again.
const DOUBTED_FOR: Duration = Duration::from_secs(5);

impl Mesh {
    /// The mesh of a node before its links are up.
    pub fn new(node: u64, incarnation: u64, roster: Roster) -> Self {
        Self {
            own: Instance::new(node, incarnation),
            roster,
            lives: RwLock::default(),
            streams: Mutex::default(),
            life: OnceLock::new(),
            doubted: Mutex::default(),
            links: OnceLock::new(),
        }
    }

    /// Starts the links that a configuration names.
    pub fn start(
        self: &Arc<Self>,
        config: &config::Cluster,
        life: Incarnation,
        shared: &Arc<Shared>,
        runtime: &Runtime,
    ) -> anyhow::Result<()> {
        let identity = identity(config)?;
        let id = cluster_id(config, shared.shards);
        let own = self.roster.own.as_ref();
        let links = links::Config {
            folder: own.map(|own| own.folder.clone()).unwrap_or_default(),
            address: own.map(|own| own.address.clone()).unwrap_or_default(),
            joins: own.is_some_and(|own| own.joins),
            lives: life.lives(),
            ..links::Config::new(config.node, life.number(), id, config.listen, identity)
        };
        let ears = Ears(Arc::clone(shared));
        let links = Links::start(links, ears, runtime.handle()).map_err(|error| match error {
            StartError::Identity(unfit) => anyhow::Error::new(unusable(config, unfit)),
            listen => anyhow::Error::new(listen).context("cluster.listen"),
        })?;
        shared.interest.announce_to(shared.fanout.announcer());
        let to_peers = links.clone();
        shared.fanout.start(move |peer, message, urgency| match urgency {
            Urgency::Now => to_peers.send(peer, message).is_ok(),
            Urgency::Later => to_peers.send_patient(peer, message).is_ok(),
        });
        runtime.spawn(Fanout::run(Arc::clone(shared)));
        let _ = self.links.set(links);
        // Nobody can have let it in yet: a node that cannot listen does not begin a life.
        life.begin()?;
        let _ = self.life.set(Arc::new(Mutex::new(life)));
        self.follow_roster();
        Ok(())
    }

    /// The links, once there are any.
    pub fn links(&self) -> Option<&Links> {
        self.links.get()
    }

    /// Whether this node has others.
    pub fn has_peers(&self) -> bool {
        self.roster.own.is_some()
    }

    /// Has the links follow the roster.
    pub fn follow_roster(&self) {
        if let Some(links) = self.links() {
            links.set_peers(self.roster.places());
        }
    }

    /// What is known of each node that was ever linked.
    pub fn lives(&self) -> Vec<Life> {
        self.lives.read().values().copied().collect()
    }

    /// Whether a node lately did not know that this one is a member.
    pub fn is_doubted(&self) -> bool {
        self.doubted.lock().is_some_and(|at| at.elapsed() < DOUBTED_FOR)
    }

    /// Nodes that are linked now.
    pub fn linked(&self) -> Vec<u64> {
        let lives = self.lives.read();
        let linked = lives.iter().filter(|(_, life)| life.lost.is_none());
        linked.map(|(node, _)| *node).collect()
    }

    /// Whether there is a stream from or to a node.
    fn is_linked(&self, node: u64) -> bool {
        self.streams.lock().contains_key(&node)
    }

    fn opened(&self, node: u64) {
        *self.streams.lock().entry(node).or_default() += 1;
    }

    fn closed(&self, node: u64) {
        let mut streams = self.streams.lock();
        if let Entry::Occupied(mut count) = streams.entry(node) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }

    /// Another node has let this life in.
    fn note_let_in(&self, node: u64) {
        let Some(life) = self.life.get().cloned() else { return };
        // It waits for the disk, and nothing waits for it.
        tokio::task::spawn_blocking(move || {
            if let Err(error) = life.lock().note_let_in(node) {
                let error = format!("{error:#}");
                warn!(
                    error,
                    peer = node,
                    "that a node has let this one in is not written down: it may not know this one any \
                     more after many starts that it does not hear of"
                );
            }
        });
    }

    fn up(&self, node: u64, incarnation: u64) {
        let instance = Instance::new(node, incarnation);
        self.lives.write().insert(node, Life { instance, lost: None, has_ended: false });
    }

    /// Somebody holds a connection in a life of another node that was not heard of yet: it counts as
    /// lost from now on, until there is a link. What became of the life before says nothing of it.
    pub fn meet(&self, instance: Instance) {
        let node = instance.node();
        if node == self.own.node() || node == 0 {
            return;
        }
        let knows = |lives: &BTreeMap<u64, Life>| {
            lives.get(&node).is_some_and(|life| life.instance >= instance)
        };
        if knows(&self.lives.read()) {
            return;
        }
        let mut lives = self.lives.write();
        // A link may have come up meanwhile.
        if !knows(&lives) {
            lives.insert(node, Life { instance, lost: Some(Instant::now()), has_ended: false });
        }
    }

    fn down(&self, node: u64) {
        if let Some(life) = self.lives.write().get_mut(&node) {
            life.lost.get_or_insert_with(Instant::now);
        }
    }

    /// Nobody listens where a life was. A node that lives always does: it opens that port first and closes it
    /// last. Others have heard of a later one before this node does.
    fn ended(&self, instance: Instance) {
        if let Some(life) = self.lives.write().get_mut(&instance.node()) {
            life.has_ended |= life.lost.is_some() && life.instance <= instance;
        }
    }
}

/// What other nodes know this one by.
pub fn identity(config: &config::Cluster) -> Result<Identity, Unusable> {
    let [certificate, private_key, ca] = config.keyed_files().map(|(key, file)| {
        let cannot = || format!("cannot read {}", file.display());
        fs::read(file).with_context(cannot).map_err(|why| Unusable { key, why })
    });
    Ok(Identity { certificate: certificate?, private_key: private_key?, ca: ca? })
}

/// A file of the identity with which no node is believed.
pub fn unusable(config: &config::Cluster, unfit: Unfit) -> Unusable {
    let [certificate, private_key, ca] = config.keyed_files();
    let (key, file) = match unfit.part {
        Part::Certificate => certificate,
        Part::PrivateKey => private_key,
        Part::Ca => ca,
    };
    Unusable { key, why: anyhow!("{} cannot be used: {unfit}", file.display()) }
}

/// What tells this cluster from others.
fn cluster_id(config: &config::Cluster, shards: u16) -> [u8; 16] {
    let name = &config.id;
    let mut said = format!("skein cluster\0{name}\0{shards}");
    if let Some(backup) = &config.restored_from {
        said = format!("{said}\0{backup}");
    }
    let hash = Sha256::digest(said);
    hash[..16].try_into().expect("a hash has 32 bytes")
}

/// Hears what comes over the links.
pub struct Ears(pub Arc<Shared>);

/// The stream that tells whether a node lives: what it says about groups.
fn tells_of_life(stream: Stream) -> bool {
    stream.purpose == Purpose::Raft && stream.direction == Direction::Incoming
}

impl links::Receiver for Ears {
    fn admit(&self, peer: Introduction<'_>) -> Result<(), Denied> {
        let mesh = &self.0.mesh;
        if mesh.roster.admit(peer, mesh.is_linked(peer.node))? {
            mesh.follow_roster();
        }
        Ok(())
    }

    fn others(&self) -> Vec<PeerAddress> {
        self.0.mesh.roster.whereabouts()
    }

    fn denied(&self, peer: u64, why: &str) {
        self.0.mesh.roster.expel(peer, why);
    }

    fn doubted(&self, peer: u64) {
        let before = self.0.mesh.doubted.lock().replace(Instant::now());
        if before.is_none_or(|at| at.elapsed() > DOUBTED_FOR) {
            info!(peer, "a node does not know yet that this one is a member");
        }
    }

    fn connected(&self, stream: Stream, incarnation: u64) {
        self.0.mesh.opened(stream.peer);
        if stream.purpose == Purpose::Raft && stream.direction == Direction::Outgoing {
            self.0.mesh.note_let_in(stream.peer);
        }
        if tells_of_life(stream) {
            self.0.mesh.up(stream.peer, incarnation);
        }
        if stream.purpose == Purpose::Fanout {
            self.0.fanout.connected(&self.0, stream, incarnation);
        }
    }

    fn lost(&self, stream: Stream) {
        self.0.mesh.closed(stream.peer);
        if tells_of_life(stream) {
            self.0.mesh.down(stream.peer);
        }
        if stream.purpose == Purpose::Fanout {
            self.0.fanout.lost(&self.0, stream);
        }
    }

    fn refused(&self, peer: u64, address: &str, life: Option<u64>) {
        let mesh = &self.0.mesh;
        if let Some(life) = mesh.roster.miss(peer, address, life, mesh.is_linked(peer)) {
            mesh.ended(Instance::new(peer, life));
            self.0.fanout.ended(&self.0, peer, life);
        }
    }

    fn found(&self, peer: u64, address: &str, incarnation: u64) {
        let mesh = &self.0.mesh;
        mesh.roster.find(peer, incarnation, address, mesh.is_linked(peer));
    }

    fn received(&self, peer: u64, batch: Batch) {
        match batch {
            Batch::Raft(messages) => {
                self.0.groups.receive(messages.into_iter().map(|message| PeerMessage {
                    from: peer,
                    group: GroupId(message.group),
                    message: message.message,
                }));
            }
            Batch::Fanout(messages) => self.0.fanout.received(&self.0, peer, messages),
            Batch::Control(messages) => self.0.inquiries.received(&self.0, peer, messages),
        }
    }
}

/// Sends what groups have to say to other nodes.
pub struct GroupPeers(pub Arc<Mesh>);

impl Peers for GroupPeers {
    fn send(&mut self, to: u64, batch: Vec<(GroupId, Vec<u8>)>) {
        let Some(links) = self.0.links() else { return };
        for (group, message) in batch {
            let message = GroupMessage { group: group.0, message: message.into() };
            // What finds no room, or nobody, is said again.
            let _ = links.send(to, Message::Raft(message));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::roster::Lives;

    #[test]
    fn a_life_that_was_not_heard_of_is_lost_from_when_it_is_met() {
        let lives = Lives::remember(None, |_| Ok(())).unwrap();
        let mesh = Mesh::new(1, 100, Roster::new(None, "a".to_owned(), lives, None));
        let life = |node| mesh.lives().into_iter().find(|life| life.instance.node() == node);
        for nobody in [Instance::new(1, 100), Instance::new(1, 99), Instance(7)] {
            mesh.meet(nobody);
        }
        assert!(mesh.lives().is_empty());

        mesh.meet(Instance::new(2, 50));
        let met = life(2).expect("it is known now");
        assert!(met.instance == Instance::new(2, 50) && met.lost.is_some() && !met.has_ended);
        mesh.meet(Instance::new(2, 50));
        assert_eq!(life(2).and_then(|it| it.lost), met.lost);

        mesh.ended(Instance::new(2, 49));
        assert!(life(2).is_some_and(|it| !it.has_ended), "that is a life before it");
        mesh.ended(Instance::new(2, 50));
        assert!(life(2).is_some_and(|it| it.has_ended));
        mesh.meet(Instance::new(2, 51));
        assert!(life(2).is_some_and(|it| it.instance == Instance::new(2, 51) && !it.has_ended));

        mesh.up(2, 52);
        for not_later in [51, 52] {
            mesh.meet(Instance::new(2, not_later));
        }
        assert!(life(2).is_some_and(|it| it.instance == Instance::new(2, 52) && it.lost.is_none()));
    }
}
