//! Processes that stand still: SIGSTOP, a machine that hangs, a pause of any other kind.
//!
//! For a while a node executes nothing. Its connections stay open, and what clients and peers send it
//! waits in buffers that have an end; then it goes on where it was, with all timers due at once and
//! clocks that have jumped. Of its threads any may be the first.

use std::time::Duration;

use chaos_tests::record::What;
use cluster::GroupId;
use mqtt::QoS;
use node::host::Machine;
use storage::dice::Dice;

use super::life::{Life, Served};
use super::people::{self, Roamer, Subscription};
use super::world::World;

/// How soon a node that goes on has noticed what became of its connections (ADR 10: three seconds
/// without a leader, and up to two until it sees that there is none).
const NOTICES: u64 = 5000;

/// A node that is not heard of for so long may lose connections to others (ADR 10: eight seconds).
const LEASE: u64 = 8000;

/// What is not heard of a node that stands still may have begun so much earlier.
const BEAT: u64 = 1000;

/// Once in so many moments somebody stands still.
const OFTEN: u64 = 700;

/// That a node stands still, or did so lately.
pub(super) struct Standstill {
    since: u64,
    /// When what speaks with other nodes goes on.
    pub(super) links_until: u64,
    /// When what serves connections does.
    pub(super) cores_until: u64,
    /// When its groups do.
    raft_until: u64,
    /// Whether it is written down.
    is_noted: bool,
}

impl Standstill {
    /// When the last of its threads goes on.
    fn until(&self) -> u64 {
        self.links_until.max(self.cores_until).max(self.raft_until)
    }

    /// Whether it is so long ago that others may have connections which this node takes for its own.
    fn outlasted_leases(&self, now: u64) -> bool {
        now - self.since + BEAT > LEASE
    }
}

/// What has nodes stand still.
pub(super) struct Stopper(Dice);

impl Stopper {
    /// Chance is its own: other faults come when they would come without it.
    pub(super) fn new(seed: u64) -> Self {
        Self(Dice::new(seed ^ 0x5709_5709_5709_5709))
    }

    /// Chance for something beside it.
    pub(super) fn split(&mut self) -> Dice {
        Dice::new(self.0.bits())
    }

    /// How long, in milliseconds: half of the time less than leases last, and up to a minute.
    fn pause(&mut self) -> u64 {
        match self.0.below(4) {
            0 | 1 => 1000 + self.0.below(4000),
            2 => 5000 + self.0.below(10_000),
            _ => 15_000 + self.0.below(45_000),
        }
    }

    /// How much later than others a thread goes on.
    fn lag(&mut self) -> u64 {
        if self.0.one_in(2) { 0 } else { 5 * self.0.below(20) }
    }

    /// Who stands still now, if anybody does: one that is up. Seldom are those that are left no majority.
    fn pick(&mut self, nodes: usize, up: &[u64]) -> Option<u64> {
        if !self.0.one_in(OFTEN) || up.is_empty() {
            return None;
        }
        let is_majority = 2 * (up.len() - 1) > nodes;
        let picked = up[self.0.below(up.len() as u64) as usize];
        (is_majority || self.0.one_in(5)).then_some(picked)
    }
}

impl World {
    /// Now and then a node stands still.
    pub(super) fn stop_somebody(&mut self) {
        let Some(stopper) = &mut self.stopper else { return };
        let runs = |(id, life): (&u64, &Life)| life.still.is_none().then_some(*id);
        let up: Vec<_> = self.lives.iter().filter_map(runs).collect();
        let Some(id) = stopper.pick(self.cluster.nodes.len(), &up) else { return };
        let since = self.cluster.millis;
        let pause = stopper.pause();
        let until = since + pause;
        let comes_after = (pause > LEASE).then(|| NOTICES + stopper.0.below(pause - NOTICES));
        let [links_until, cores_until, raft_until] = [0; 3].map(|_| until + stopper.lag());
        let still = Standstill { since, links_until, cores_until, raft_until, is_noted: false };
        self.lives.get_mut(&id).expect("it is up").still = Some(still);
        self.cluster.nodes.get_mut(&id).expect("it is one of them").still_until = raft_until;
        self.stops += 1;
        if let Some(millis) = comes_after {
            self.bring_latecomer(Duration::from_millis(millis));
        }
    }

    /// A session begins of which the node that stands still hears only when it goes on.
    fn bring_latecomer(&self, comes_after: Duration) {
        let client = format!("latecomer {}", self.stops);
        let mut dice = chaos_tests::Dice::seeded(&client, self.cluster.millis);
        let roamer = Roamer::lasting(&self.stage, &client, &mut dice);
        let (filters, prefix) = (vec!["t/#"], "t/");
        let subscription = Subscription { filters, prefix, qos: QoS::AtLeastOnce, share: None };
        self.acts(&client, async move {
            tokio::time::sleep(comes_after).await;
            people::subscriber(roamer, subscription).await;
        });
    }

    /// Whether a node stands still.
    pub(super) fn somebody_stands_still(&self) -> bool {
        let mut stills = self.lives.values().filter_map(|life| life.still.as_ref());
        stills.any(|still| still.until() > self.cluster.millis)
    }

    /// Writes down who goes on, and forgets who has had the time to notice what there was meanwhile.
    pub(super) fn note_standstills(&mut self) {
        let now = self.cluster.millis;
        for (&node, life) in &mut self.lives {
            let Some(still) = &mut life.still else { continue };
            if !still.is_noted && still.cores_until <= now {
                let since = Duration::from_millis(still.since);
                self.stage.note(What::Stopped { node, since });
                still.is_noted = true;
            }
            if still.until() + NOTICES < now {
                life.still = None;
            }
        }
    }

    /// Whether a node that has just gone on does not know yet that a connection is another's.
    pub(super) fn has_not_noticed(&self, served: &Served) -> bool {
        let still = self.lives.get(&served.node).and_then(|life| life.still.as_ref());
        let Some((record, still)) = served.record.zip(still) else { return false };
        let engine = self.cluster.nodes[&served.node].engine.as_ref();
        let machine = engine.and_then(|it| it.machine(GroupId::from(record.group)));
        let session = machine
            .and_then(Machine::shard)
            .and_then(|shard| shard.session(served.client.as_bytes()));
        still.outlasted_leases(self.cluster.millis)
            && session.is_some_and(|it| it.epoch() == record.epoch)
    }
}
