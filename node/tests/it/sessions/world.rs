//! A cluster of whole nodes in one thread, its clients, and what befalls them.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::{Arc, Once};
use std::time::Duration;

use chaos_tests::check::{Promise, Verdict, check};
use chaos_tests::record::Event;
use cluster::{GroupId, Input};
use mqtt::QoS;
use node::host::{Machine, NodeHost, Reply, Signal};
use simulation::{Cluster, Turned, small};
use storage::dice::Dice;
use tokio::task::LocalSet;

use super::life::{Folder, Life, SHARDS, Served};
use super::members::Operator;
use super::people::{self, LONGER_SECS, Roamer, SHORT_SECS, Subscription};
use super::stage::{Act, Stage};
use super::still::Stopper;
use super::streams::Streams;

/// How long faults go on, and how soon after their end everything must be well.
const TROUBLE: u64 = 20_000;
const RECOVERY: u64 = 30_000;

/// How far all clocks are moved on when hours pass.
const HOURS: Duration = Duration::from_secs(2 * 3600);

const KEYS: &[&str] = &["kept/a", "kept/b"];

thread_local! {
    static PANICKED: Cell<bool> = const { Cell::new(false) };
}

/// Tasks keep panics for themselves.
fn watch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICKED.set(true);
            before(panic);
        }));
    });
    PANICKED.set(false);
}

/// What befalls nodes besides crashes, bad disks and a bad network.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Plan {
    /// Processes stand still, and some clients have patience with them.
    pub(super) standstills: bool,
    /// Nodes come and go, and some come back with an empty disk.
    pub(super) members: bool,
}

pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) cluster: Cluster<Machine, NodeHost>,
    pub(super) founders: Vec<u64>,
    /// Who has members change, where they do, and whether there may be another wish.
    pub(super) operator: Option<Operator>,
    pub(super) wishes: bool,
    pub(super) lives: BTreeMap<u64, Life>,
    /// The data folders, by their names.
    folders: BTreeMap<String, Folder>,
    streams: Streams,
    pub(super) stage: Rc<Stage>,
    people: LocalSet,
    crashes: usize,
    /// Whether disks rot, one at a time.
    rots: bool,
    /// The node whose disk has rotted last, until it is whole again.
    rotten: Option<u64>,
    damages: usize,
    /// What has nodes stand still, and how often they did.
    pub(super) stopper: Option<Stopper>,
    pub(super) stops: usize,
    /// Connections that were served beside later ones by nodes that had stood still: by node and epoch.
    revenants: BTreeSet<(u64, Option<u64>)>,
}

/// What came of a seed.
pub(super) struct Ran {
    /// What its clients have seen.
    pub(super) history: Vec<Event>,
    /// What befell the nodes, and how often.
    pub(super) befell: BTreeMap<&'static str, usize>,
    /// What is to be said of that, unless it came to something that must not be.
    pub(super) verdict: Result<Verdict, String>,
}

/// Runs a seed.
pub(super) fn run(seed: u64, plan: Plan) -> Ran {
    watch_panics();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut world = World::new(seed, plan);
        let ran = world.run().await;
        let verdict = ran.map(|()| world.verdict());
        let befell = [
            ("crashes", world.crashes),
            ("disks that rotted", world.damages),
            ("standstills", world.stops),
            ("nodes added", world.operator.as_ref().map_or(0, |it| it.added)),
            ("nodes removed", world.operator.as_ref().map_or(0, |it| it.removed)),
            ("nodes lost with their disks", world.operator.as_ref().map_or(0, |it| it.lost)),
            ("connections that outlasted leases", world.revenants.len()),
        ];
        Ran { history: world.stage.history(), befell: befell.into(), verdict }
    })
}

impl World {
    fn new(seed: u64, plan: Plan) -> Self {
        let mut stopper = plan.standstills.then(|| Stopper::new(seed));
        let mut dice = Dice::new(seed);
        let count = [3, 3, 3, 4, 5, 7][dice.below(6) as usize];
        let founders: Vec<u64> = (1..=count).collect();
        let mut cluster = Cluster::new(seed, dice);
        cluster.network.streams = true;
        cluster.disks_fill = seed % 2 == 1;
        for &id in &founders {
            let config = config(&mut cluster.dice, id, &founders, plan);
            cluster.add(id, config);
        }
        let mut operator = plan.members.then(|| Operator::new(seed, &founders));
        let dice = stopper.as_mut().map(Stopper::split);
        let dice = dice.or_else(|| operator.as_mut().map(Operator::split));
        let real = |dice| Streams::real(dice, plan.members);
        Self {
            plan,
            cluster,
            founders,
            lives: BTreeMap::new(),
            folders: BTreeMap::new(),
            operator,
            wishes: false,
            streams: dice.map_or_else(Streams::default, real),
            stage: Rc::new(Stage::new(count, plan.standstills)),
            people: LocalSet::new(),
            crashes: 0,
            // Of two disks that one group has lost, nobody may be the only one to remember.
            rots: seed % 3 == 2 && !plan.members,
            rotten: None,
            damages: 0,
            stopper,
            stops: 0,
            revenants: BTreeSet::new(),
        }
    }

    /// Judges what clients have seen.
    fn verdict(&self) -> Verdict {
        let mut verdict = check(&self.stage.history());
        // What a full disk has refused comes again from who has not heard of that, behind what was taken.
        let is_promised = |promise| promise != Promise::Ordered || !self.cluster.disks_fill;
        verdict.violations.retain(|violation| is_promised(violation.promise));
        verdict
    }

    /// Trouble, then peace, then hours later; an error says what must not have happened.
    async fn run(&mut self) -> Result<(), String> {
        self.until("well at first", |world| world.is_well()).await?;
        self.cast();
        let began = self.cluster.millis;
        let trouble = if self.plan.members { 2 * TROUBLE } else { TROUBLE };
        while self.cluster.millis < began + trouble {
            if self.cluster.dice.one_in(120)
                && let Some(id) = self.cluster.trouble()
            {
                self.crash(id);
            }
            if self.rots && self.cluster.dice.one_in(250) {
                self.rot();
            }
            self.stop_somebody();
            self.wishes = true;
            self.step().await?;
        }
        self.wishes = false;
        self.cluster.heal();
        while self.somebody_stands_still() {
            self.step().await?;
        }
        self.until("well again", |world| world.is_well()).await?;
        // Until nobody waits for a lost node any more.
        let well = self.cluster.millis;
        self.until("calm", |world| world.cluster.millis > well + 10_000).await?;
        self.stage.act.set(Act::Calm);
        self.until("done", |world| world.stage.acting.borrow().is_empty()).await?;
        for node in self.cluster.nodes.values_mut() {
            node.clock_off_ms += HOURS.as_millis() as i64;
        }
        self.stage.skipped.set(HOURS);
        let later = self.cluster.millis;
        self.until("later", |world| world.cluster.millis > later + 1000).await?;
        self.stage.act.set(Act::Later);
        let woken = self.cluster.millis;
        self.until("over", |world| world.cluster.millis > woken + 5000).await
    }

    async fn until(
        &mut self,
        what: &str,
        mut is_so: impl FnMut(&mut Self) -> bool,
    ) -> Result<(), String> {
        // A node that joins is brought everything first, and patient clients take their time.
        let times = match self.plan {
            Plan { members: true, .. } => 4,
            Plan { standstills: true, .. } => 2,
            Plan { .. } => 1,
        };
        let end = self.cluster.millis + times * RECOVERY;
        while !is_so(self) {
            self.step().await?;
            if self.cluster.millis > end {
                let acting = self.stage.acting.borrow();
                let (now, wished) = (self.cluster.millis, self.wished());
                return Err(format!("not {what} by {now} ms; still act: {acting:?}; {wished}"));
            }
        }
        Ok(())
    }

    /// Whether every group has one leader that everybody follows.
    fn is_well(&self) -> bool {
        let groups = || (0..=u32::from(SHARDS)).map(GroupId);
        let leader = |id, group| self.cluster.status(id, group).and_then(|status| status.leader);
        let is_whole = |id| groups().all(|group| !self.is_damaged(id, group));
        let members = self.members();
        self.is_as_wished()
            && members.iter().all(|&id| is_whole(id))
            && groups().all(|group| {
                let first = leader(members[0], group);
                first.is_some() && members.iter().all(|&id| leader(id, group) == first)
            })
    }

    /// Brings the clients on.
    fn cast(&self) {
        let mut dice = chaos_tests::Dice::seeded("sessions", self.cluster.dice.clone().bits());
        let dice = &mut dice;
        let stage = &self.stage;
        let lasting = |client: &str, dice: &mut _| Roamer::lasting(stage, client, dice);
        let brief = |client: &str, dice: &mut _| Roamer::new(stage, client, 0, dice);
        let (once, twice) = (QoS::AtLeastOnce, QoS::ExactlyOnce);
        for (client, qos) in [("publisher 1", once), ("publisher 2", twice)] {
            let topics = ["t", "u/t", "s"].map(|topic| format!("{topic}/{client}")).to_vec();
            self.publishes(client, people::publisher(lasting(client, dice), topics, qos));
        }
        for (client, filters, prefix, qos) in [
            ("subscriber 1", &["t/#"][..], "t/", once),
            ("subscriber 2", &["t/#", "t/+"], "t/", twice),
            ("subscriber 3", &["u/#", "u/t/+", "+/t/#"], "u/", twice),
            ("watcher", &["wills/#"], "wills/", twice),
        ] {
            let subscription = Subscription { filters: filters.to_vec(), prefix, qos, share: None };
            self.acts(client, people::subscriber(lasting(client, dice), subscription));
        }
        for client in ["member 1", "member 2", "member 3"] {
            let share = Some("$share/g/s/#");
            let filters = share.into_iter().collect();
            let subscription = Subscription { filters, prefix: "s/", qos: once, share };
            self.acts(client, people::subscriber(lasting(client, dice), subscription));
        }
        if self.plan.standstills {
            for (client, qos) in [("patient 1", once), ("patient 2", twice), ("patient 3", once)] {
                let topics = ["t", "u/t"].map(|topic| format!("{topic}/{client}")).to_vec();
                let roamer = lasting(client, dice).patient().slow();
                self.publishes(client, people::publisher(roamer, topics, qos));
            }
            for number in 3..=5 {
                let client = format!("keeper {number}");
                let roamer = brief(&client, dice).patient();
                self.acts(&client, people::keeper(roamer, number, KEYS));
            }
        }
        for _ in 0..2 {
            self.acts("duellist", people::duellist(brief("duellist", dice)));
        }
        for client in ["mortal 1", "mortal 2"] {
            self.publishes(client, people::mortal(brief(client, dice)));
        }
        for number in 1..=2 {
            let client = format!("keeper {number}");
            self.acts(&client, people::keeper(brief(&client, dice), number, KEYS));
        }
        for (client, expiry) in [("sleeper 1", SHORT_SECS), ("sleeper 2", LONGER_SECS)] {
            let roamer = Roamer::new(stage, client, expiry, dice);
            let stage = Rc::clone(stage);
            stage.acting.borrow_mut().push(client.to_owned());
            self.people.spawn_local(async move {
                let asleep = people::fall_asleep(roamer).await;
                stage.done(client);
                people::wake(asleep).await;
            });
        }
    }

    pub(super) fn acts(&self, client: &str, person: impl Future<Output = ()> + 'static) {
        let (stage, client) = (Rc::clone(&self.stage), client.to_owned());
        stage.acting.borrow_mut().push(client.clone());
        self.people.spawn_local(async move {
            person.await;
            stage.done(&client);
        });
    }

    fn publishes(&self, client: &str, person: impl Future<Output = ()> + 'static) {
        let stage = Rc::clone(&self.stage);
        stage.publishing.set(stage.publishing.get() + 1);
        self.acts(client, async move {
            person.await;
            stage.publishing.set(stage.publishing.get() - 1);
        });
    }

    pub(super) fn crash(&mut self, id: u64) {
        self.crashes += 1;
        self.end(id);
    }

    /// A node's process ends.
    pub(super) fn end(&mut self, id: u64) {
        self.cluster.crash(id);
        self.stage.entrances.borrow_mut().remove(&id);
        self.lives.remove(&id);
    }

    fn is_damaged(&self, id: u64, group: GroupId) -> bool {
        self.cluster.status(id, group).is_none_or(|status| status.damaged)
    }

    /// A node goes down and its disk rots, if all that rotted before is mended.
    fn rot(&mut self) {
        let mut groups = (0..=u32::from(SHARDS)).map(GroupId);
        if self.rotten.is_some_and(|id| groups.any(|group| self.is_damaged(id, group))) {
            return;
        }
        let id = self.cluster.anybody();
        self.crash(id);
        (self.rotten, self.damages) = (Some(id), self.damages + 1);
        let Cluster { nodes, dice, .. } = &mut self.cluster;
        nodes.get_mut(&id).expect("it is one of them").rot(dice);
    }

    /// A moment passes.
    async fn step(&mut self) -> Result<(), String> {
        self.cluster.pass();
        self.streams.pass(&mut self.cluster, &self.lives);
        self.operate();
        for id in self.cluster.nodes.keys().copied().collect::<Vec<_>>() {
            node::clock::simulate(self.cluster.now(id).unix_ms);
            if self.turn(id)? == Turned::Failed {
                self.crash(id);
            }
        }
        self.open_and_stop();
        self.note_standstills();
        let now = self.cluster.millis;
        // Whatever cores and clients have to do until then, they do.
        let mut moment = pin!(tokio::time::sleep_until(self.stage.at(self.cluster.millis)));
        poll_fn(|cx| {
            for (&id, life) in &mut self.lives {
                if life.cores_stand_still(now) {
                    continue;
                }
                node::clock::simulate(self.cluster.now(id).unix_ms);
                let _ = Pin::new(&mut life.tasks).poll(cx);
            }
            let _ = Pin::new(&mut self.people).poll(cx);
            moment.as_mut().poll(cx)
        })
        .await;
        if PANICKED.get() {
            return Err("a panic".into());
        }
        self.look_for_doubles()
    }

    /// A node's raft thread takes a turn.
    fn turn(&mut self, id: u64) -> Result<Turned, String> {
        let now = self.cluster.now(id);
        let node = self.cluster.nodes.get_mut(&id).expect("it is one of them");
        if node.stands_still(self.cluster.millis) {
            return Ok(Turned::Idle);
        }
        if let (Some(engine), Some(life)) = (&mut node.engine, self.lives.get(&id)) {
            let mut arrived = Input::default();
            let taken = life.inbox.take(&mut arrived, engine.allowance(now), Duration::ZERO);
            engine.taken(taken.bytes);
            append(&mut node.input, arrived);
        }
        let mut begun = None;
        let (known, name) = match &self.operator {
            Some(operator) => (self.known(id), operator.folder(id)),
            None => (self.founders.clone(), format!("folder-{id}")),
        };
        let folder = self.folders.entry(name.clone()).or_insert_with(|| Folder::new(name));
        let turned = self.cluster.turn(id, Machine::new, |raft| {
            folder.lives.push(raft.incarnation);
            let (life, host) = Life::begin(&known, folder.clone(), raft);
            begun = Some(life);
            host
        });
        let turned = turned.map_err(|error| format!("node {id} does not start: {error}"))?;
        if let Some(life) = begun.filter(|_| turned == Turned::Started) {
            self.lives.insert(id, life);
        }
        Ok(turned)
    }

    /// No client id has two connections that are served.
    fn look_for_doubles(&mut self) -> Result<(), String> {
        let now = self.cluster.millis;
        let running = self.lives.iter().filter(|(_, life)| !life.cores_stand_still(now));
        let all: Vec<Served> = running.flat_map(|(id, life)| life.served(*id)).collect();
        let mut served: BTreeMap<Arc<str>, Served> = BTreeMap::new();
        for one in all {
            let Some(other) = served.insert(Arc::clone(&one.client), one.clone()) else { continue };
            // Whoever was let in last is right.
            let epoch = |it: &Served| it.record.map(|record| record.epoch);
            let (old, new) = if epoch(&one) < epoch(&other) { (one, other) } else { (other, one) };
            if epoch(&old) == epoch(&new) || !self.has_not_noticed(&old) {
                return Err(format!("a client is served twice: {old:?}, {new:?}"));
            }
            self.revenants.insert((old.node, epoch(&old)));
            served.insert(Arc::clone(&new.client), new);
        }
        Ok(())
    }
}

/// How a node runs its groups.
pub(super) fn config(dice: &mut Dice, id: u64, voters: &[u64], plan: Plan) -> cluster::Config {
    let small = small(id, u32::from(SHARDS) + 1, voters, dice);
    let slowest = if plan.members { 500_000 } else { 0 };
    cluster::Config {
        segment_bytes: 256 << 10,
        checkpoint_bytes: 256 << 10,
        max_command_bytes: 1 << 20,
        snapshot_chunk_bytes: 4 << 10,
        snapshot_window_bytes: 32 << 10,
        snapshot_bytes_per_second: small.snapshot_bytes_per_second.max(slowest),
        ..small
    }
}

fn append(input: &mut Input<Reply, Signal>, mut arrived: Input<Reply, Signal>) {
    input.proposals.append(&mut arrived.proposals);
    input.signals.append(&mut arrived.signals);
    input.reads.append(&mut arrived.reads);
    input.messages.append(&mut arrived.messages);
    input.orders.append(&mut arrived.orders);
    input.captures.append(&mut arrived.captures);
}
