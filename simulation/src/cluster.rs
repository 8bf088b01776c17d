//! The nodes of a simulated cluster, what is between them, and what befalls them.

use std::collections::BTreeMap;
use std::time::Duration;

use cluster::{Config, Error, GroupConfig, GroupId, Host, Now, StateMachine, Status};
use storage::dice::Dice;
use storage::store::{Failing, StoreError};

use crate::network::{Network, Weather};
use crate::node::SimNode;

/// Milliseconds between two looks at everything.
const STEP: u64 = 5;

/// What the clocks would show at first if they were right.
const BEGIN_MS: u64 = 1_700_000_000_000;

/// Wall clocks are wrong by at most so many milliseconds, in either direction.
const CLOCK_OFF_MS: u64 = 10 * 60_000;

/// See the module.
pub struct Cluster<M: StateMachine, H: Host<M>> {
    seed: u64,
    /// Decides whatever could be otherwise.
    pub dice: Dice,
    /// The time.
    pub millis: u64,
    /// By number.
    pub nodes: BTreeMap<u64, SimNode<M, H>>,
    /// What is between them.
    pub network: Network,
    /// Whether disks have no room now and then.
    pub disks_fill: bool,
}

/// What came of a node's turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turned {
    /// There was none.
    Idle,
    /// It has begun a life.
    Started,
    /// It took one.
    Took,
    /// Its disk failed: what it told until then counts, and then it has to crash.
    Failed,
}

impl<M: StateMachine, H: Host<M>> Cluster<M, H> {
    /// A cluster without nodes.
    pub fn new(seed: u64, dice: Dice) -> Self {
        let (nodes, network) = (BTreeMap::new(), Network::default());
        Self { seed, dice, millis: 0, nodes, network, disks_fill: true }
    }

    /// Adds a node, whose clock is as wrong as any.
    pub fn add(&mut self, id: u64, config: Config) {
        self.nodes.insert(id, SimNode::new(id, self.seed, config));
        self.jump(id);
    }

    /// The time, as a node sees it.
    pub fn now(&self, id: u64) -> Now {
        let off_ms = self.nodes.get(&id).map_or(0, |node| node.clock_off_ms);
        Now {
            monotonic: Duration::from_millis(self.millis),
            unix_ms: (BEGIN_MS + self.millis).saturating_add_signed(off_ms),
        }
    }

    /// A moment passes, and what has arrived by then is there.
    pub fn pass(&mut self) {
        self.millis += STEP;
        for (to, message) in self.network.arrived(self.millis) {
            let node = self.nodes.get_mut(&to).expect("nobody knows of other nodes");
            node.hear(message, self.millis);
        }
    }

    /// A node takes a turn if there is a reason to; one that is down comes up when it is time. An error is
    /// what no disk explains.
    pub fn turn(
        &mut self,
        id: u64,
        machine: impl FnMut(GroupId) -> M + 'static,
        host: impl FnOnce(&Config) -> H,
    ) -> Result<Turned, Error> {
        let now = self.now(id);
        let node = self.nodes.get_mut(&id).expect("only known nodes take turns");
        if node.stands_still(self.millis) {
            return Ok(Turned::Idle);
        }
        if node.engine.is_none() && node.up_at <= self.millis {
            return match node.start(self.seed, now, machine, host) {
                Ok(()) => Ok(Turned::Started),
                // On a full disk it tries again, and with a store that cannot be written, where it has
                // a damage to note.
                Err(error) if node.is_full || is_of_store(&error) => {
                    self.crash(id);
                    Ok(Turned::Idle)
                }
                Err(error) => Err(error),
            };
        }
        let took = match node.turn(self.millis, now) {
            Ok(took) => took,
            Err(error @ (Error::Contradicted { .. } | Error::Raft { .. })) => return Err(error),
            Err(_) => return Ok(Turned::Failed),
        };
        if node.busy_until <= self.millis {
            for (to, batch) in std::mem::take(&mut node.unsent) {
                self.network.send(&mut self.dice, self.millis, (id, to), batch);
            }
        }
        Ok(if took { Turned::Took } else { Turned::Idle })
    }

    /// How a group stands on a node that is up.
    pub fn status(&self, id: u64, group: GroupId) -> Option<Status> {
        self.nodes[&id].engine.as_ref()?.status(group)
    }

    /// A node goes down, and comes up again before long.
    pub fn crash(&mut self, id: u64) {
        let up_at = self.millis + 50 + self.dice.below(3000);
        let node = self.nodes.get_mut(&id).expect("only known nodes crash");
        node.crash(&mut self.dice, up_at);
    }

    /// Any node.
    pub fn anybody(&mut self) -> u64 {
        1 + self.dice.below(self.nodes.len() as u64)
    }

    /// A node's wall clock jumps.
    pub fn jump(&mut self, id: u64) {
        let off_ms = self.dice.below(2 * CLOCK_OFF_MS) as i64 - CLOCK_OFF_MS as i64;
        let node = self.nodes.get_mut(&id).expect("only known nodes have clocks");
        node.clock_off_ms = off_ms;
    }

    /// Something goes wrong, or is mended; gives the node that has to crash, if one has.
    pub fn trouble(&mut self) -> Option<u64> {
        let id = self.anybody();
        match self.dice.below(15) {
            0..3 => return Some(id),
            3 => {
                // Its disk takes nothing any more; it finds out with its next sync.
                if self.nodes[&id].engine.is_some() {
                    self.nodes[&id].disk.fail_syncs();
                }
            }
            4 => {
                let parts = 2 + self.dice.below(2);
                let part = |dice: &mut Dice| dice.below(parts);
                let ids: Vec<_> = self.nodes.keys().copied().collect();
                let parts = ids.into_iter().map(|id| (id, part(&mut self.dice))).collect();
                self.network.split(&parts);
            }
            5 => {
                let ids = self.nodes.keys().copied();
                self.network.split(&ids.map(|other| (other, u64::from(other == id))).collect());
            }
            6 => {
                let other = self.anybody();
                self.network.cut(id, other);
            }
            7 => {
                self.network.weather = Weather {
                    lost: self.dice.below(200),
                    doubled: self.dice.below(100),
                    overtaking: self.dice.below(500),
                    delay: 1 + self.dice.below(300),
                };
            }
            8..10 => self.network.heal(),
            10 => {
                let slow = if self.dice.one_in(2) { self.dice.below(300) } else { 0 };
                self.nodes.get_mut(&id).expect("it is one of them").sync_ms = slow;
            }
            11 => {
                let failing = if self.dice.one_in(2) { Failing::Yes } else { Failing::Full };
                self.nodes[&id].store.set_failing(failing);
            }
            12 => self.nodes[&id].store.set_failing(Failing::No),
            13 => self.jump(id),
            _ => {
                let node = self.nodes.get_mut(&id).expect("it is one of them");
                node.is_full = self.disks_fill && self.dice.one_in(2);
                let room = if node.is_full { 2000 } else { u64::MAX };
                node.disk.set_capacity(node.disk.used_bytes().saturating_add(room));
            }
        }
        None
    }

    /// Nothing is wrong any more but the clocks, and who is down comes up soon.
    pub fn heal(&mut self) {
        self.network.heal();
        for node in self.nodes.values_mut() {
            (node.sync_ms, node.is_full) = (0, false);
            node.store.set_failing(Failing::No);
            node.disk.set_capacity(u64::MAX);
            node.up_at = node.up_at.min(self.millis + 500);
        }
    }
}

fn is_of_store(error: &Error) -> bool {
    matches!(error, Error::Store(StoreError::Failed { .. } | StoreError::Full { .. }))
}

/// How a node runs its groups where everything is small.
pub fn small(id: u64, groups: u32, voters: &[u64], dice: &mut Dice) -> Config {
    let group = |group| GroupConfig { id: GroupId(group), voters: voters.to_vec() };
    Config {
        node: id,
        groups: (0..groups).map(group).collect(),
        segment_bytes: 16 << 10,
        checkpoint_bytes: 24 << 10,
        checkpoint_interval: Duration::from_secs(3),
        max_log_bytes: 16 << 20,
        max_command_bytes: 4 << 10,
        min_free_bytes: 0,
        lag_bytes: if dice.one_in(2) { 0 } else { 64 << 10 },
        snapshot_chunk_bytes: 1 + dice.below(1000) as usize,
        snapshot_window_bytes: 2000,
        snapshot_bytes_per_second: 20_000 << dice.below(8),
        ..Config::new("/data", 0)
    }
}
