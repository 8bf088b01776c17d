//! What all threads of a node share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use api::provisioning::Issuing;
use tokio::sync::{Semaphore, mpsc};

use crate::audit::Audit;
use crate::authorizers::Authorizers;
use crate::backup::Backups;
use crate::config::{Config, Limits};
use crate::core::ToCore;
use crate::current::Currency;
use crate::decisions::Watches;
use crate::endpoint::Budget;
use crate::fanout::Fanout;
use crate::freshness::Freshness;
use crate::host::Groups;
use crate::inquiry::Inquiries;
use crate::interest::InterestIndex;
use crate::just_in_time;
use crate::mesh::Mesh;
use crate::people::People;
use crate::provisioning;
use crate::registration::Registrations;
use crate::telemetry::Traces;

/// What a command holds besides the publication: client ids, of at most 64 KiB each, and numbers.
const AROUND_PUBLICATION: usize = 256 << 10;

/// The first version of the data that knows of queues of shared subscriptions.
const SHARE_QUEUES: u32 = 2;
/// The first one that knows of nodes that are asked to end connections.
const ASKED_HOLDERS: u32 = 2;
/// The first one that knows of [`fleet::shard::UpdateShadow::takes_empty`].
const EMPTY_SHADOWS: u32 = 2;
/// The first one that knows of [`fleet::shard::Will::asked`].
const NAMES_WITH_WILLS: u32 = 2;

/// See the module.
pub struct Shared {
    /// Filter → destinations.
    pub interest: InterestIndex,
    /// Inboxes of the cores, by number.
    pub cores: Vec<mpsc::UnboundedSender<ToCore>>,
    /// The replicated state.
    pub groups: Groups,
    /// Whether this node knows of every subscription.
    pub currency: Currency,
    /// When this node last had all of the registry.
    pub registry: Arc<Freshness>,
    /// This node and the others.
    pub mesh: Arc<Mesh>,
    /// What nodes ask each other.
    pub inquiries: Inquiries,
    /// What nodes publish to each other's connections.
    pub fanout: Fanout,
    /// How many groups besides `meta` there are: a power of two.
    pub shards: u16,
    /// Bytes of a publication that a command to a group can carry.
    pub publication_bytes: usize,
    /// Names of this account.
    pub arns: policy::Arns,
    /// Limits of sessions and packets.
    pub limits: Limits,
    /// How much of them may wait for one connection.
    pub budget: Arc<Budget>,
    /// Whether there are lifecycle events.
    pub lifecycle_events: bool,
    /// Traces, where they are configured.
    pub traces: Option<Traces>,
    /// Set when the listeners are open.
    pub serving: AtomicBool,
    /// Set when the node is about to stop: load balancers shall send it nobody.
    pub leaving: AtomicBool,
    /// Where devices reach the cluster, if that is known.
    pub public_host: Option<String>,
    /// Set when the node stops: it takes no more connections.
    pub draining: AtomicBool,
    /// Set while an operator has taken the node out of service: it turns clients away.
    pub resting: AtomicBool,
    /// Set once it has turned all of them away.
    pub drained: AtomicBool,
    /// Set while the queues of all sessions hold as much as they may.
    pub queues_full: AtomicBool,
    /// Devices with new certificates that are introduced now.
    pub introductions: Arc<Semaphore>,
    /// Makes certificates for devices, where an issuer is configured.
    pub issuing: Option<Issuing>,
    /// Requests of devices that provision themselves, which are served now.
    pub provisionings: Arc<Semaphore>,
    /// Set while events of the registry are being published.
    pub announcing: AtomicBool,
    /// Clients whose decisions are noted.
    pub watches: Watches,
    /// Who has changed what, where that is recorded.
    pub audit: Option<Audit>,
    /// Custom authorizers that are asked now, and what they have answered.
    pub authorizers: Authorizers,
    /// With whom people log in.
    pub people: People,
    /// The backups of this node.
    pub backups: Backups,
    /// Where things are registered from in bulk, and when that is this node's business.
    pub registrations: Registrations,
    /// The version of the data that all nodes can read; 0 while it is not known.
    pub data_version: AtomicU32,
    /// Groups whose outbox is longer than it should be: [`crate::core::Uses::outbox_bit`].
    pub long_outboxes: AtomicU64,
}

impl Shared {
    /// What the threads of a node share before it serves anybody: its groups, whose commands have so many
    /// bytes at most, the other nodes, and the inboxes of its cores.
    pub fn new(
        config: &Config,
        traces: Option<Traces>,
        (groups, max_command_bytes): (Groups, usize),
        mesh: Arc<Mesh>,
        cores: Vec<mpsc::UnboundedSender<ToCore>>,
    ) -> Self {
        Self {
            interest: InterestIndex::default(),
            cores,
            groups,
            currency: Currency::new(!mesh.has_peers()),
            registry: Arc::default(),
            mesh,
            inquiries: Inquiries::default(),
            fanout: Fanout::default(),
            shards: config.shards,
            publication_bytes: max_command_bytes.saturating_sub(AROUND_PUBLICATION),
            arns: policy::Arns {
                partition: config.account.partition.clone(),
                region: config.account.region.clone(),
                account: config.account.id.clone(),
            },
            limits: config.limits.clone(),
            budget: Arc::new(Budget {
                outbox: config.limits.outbox_bytes,
                pending: config.limits.pending_bytes,
                patience: config.limits.slow_consumer_patience,
            }),
            lifecycle_events: config.lifecycle_events,
            traces,
            serving: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            resting: AtomicBool::new(false),
            drained: AtomicBool::new(false),
            public_host: config.public_host.clone(),
            queues_full: AtomicBool::new(false),
            introductions: Arc::new(Semaphore::new(just_in_time::AT_ONCE)),
            issuing: None,
            provisionings: Arc::new(Semaphore::new(provisioning::AT_ONCE)),
            announcing: AtomicBool::new(false),
            watches: Watches::default(),
            audit: None,
            authorizers: Authorizers::new(&config.jwt_issuers),
            people: People::new(&config.oidc),
            backups: Backups::new(config),
            registrations: Registrations::new(config),
            data_version: AtomicU32::new(0),
            long_outboxes: AtomicU64::new(0),
        }
    }

    /// The group that a client id, a topic or a thing name belongs to. The function is part of the
    /// stored format: FNV-1a, 64 bit, folded.
    pub fn group_of(&self, key: &str) -> u16 {
        let hash = fnv1a(key);
        let folded = hash ^ (hash >> 32);
        1 + (folded % u64::from(self.shards)) as u16
    }

    /// The core that keeps the claim on a client id.
    pub fn home_of(&self, client: &str) -> u16 {
        let hash = fnv1a(client);
        ((hash >> 16) % self.cores.len() as u64) as u16
    }

    /// The core that carries the outbox of a group.
    pub fn courier_of(&self, group: u16) -> u16 {
        group % self.cores.len() as u16
    }

    /// Sends a message to a core. When the core has ended the node is stopping, and nobody is left
    /// to tell.
    pub fn send(&self, core: u16, message: ToCore) {
        let _ = self.cores[usize::from(core)].send(message);
    }

    /// Runs something on every core.
    pub fn on_every_core(
        self: &Arc<Self>,
        run: impl Fn(&std::rc::Rc<crate::core::Core>) + Clone + Send + 'static,
    ) {
        for core in 0..self.cores.len() {
            let run = run.clone();
            self.send(core as u16, ToCore::Run(Box::new(move |core| run(core))));
        }
    }

    /// Says which groups' outboxes are long now; whoever waited for others may go on.
    pub fn set_long_outboxes(self: &Arc<Self>, long: u64) {
        let before = self.long_outboxes.swap(long, Ordering::Relaxed);
        if before & !long != 0 {
            self.on_every_core(|core| core.wake_publishers());
        }
    }

    /// Whether one of these outboxes is so long that publishers have to wait for it.
    pub fn is_long(&self, outboxes: u64) -> bool {
        self.long_outboxes.load(Ordering::Relaxed) & outboxes != 0
    }

    /// The version of the data that all nodes can read; 0 while it is not known.
    pub fn known_data_version(&self) -> u32 {
        self.data_version.load(Ordering::Relaxed)
    }

    /// Whether what no member of a shared subscription can have now waits in the subscription's queue;
    /// else it waits in that of a member.
    pub fn has_share_queues(&self) -> bool {
        self.known_data_version() >= SHARE_QUEUES
    }

    /// Whether every node knows what it is asked for with [`fleet::shard::EndConnection`].
    pub fn can_ask_holders(&self) -> bool {
        self.known_data_version() >= ASKED_HOLDERS
    }

    /// Whether every node knows what an update of a shadow with nothing in it means.
    pub fn takes_empty_shadows(&self) -> bool {
        self.known_data_version() >= EMPTY_SHADOWS
    }

    /// Whether every node keeps the name that a client has asked for with its will.
    pub fn keeps_names_with_wills(&self) -> bool {
        self.known_data_version() >= NAMES_WITH_WILLS
    }

    /// Whether clients are to go to another node.
    pub fn is_resting(&self) -> bool {
        self.resting.load(Ordering::Relaxed)
    }

    /// Whether an operator has taken the node out of service and it has no client any more.
    pub fn is_drained(&self) -> bool {
        self.drained.load(Ordering::Relaxed)
    }

    /// Whether the node stops.
    pub fn draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

/// FNV-1a, 64 bit.
fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
