//! What is done to a cluster, drawn from dice.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::thread;

use anyhow::Result;

use crate::Dice;
use crate::cluster::{Cluster, NODES};
use crate::record::{At, Recorder, What};

/// A way to trouble a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// kill -9 of a node that leads, or of one that follows, and a start some time later.
    Kill,
    /// The process stands still, sometimes for longer than its leases.
    Stop,
    /// Links between nodes are cut, in one direction or both, or a node from all others.
    Cut,
    /// A node gets what it is sent slowly.
    Slow,
    /// The disk of a node is full.
    Full,
    /// Every node is restarted, one after the other.
    Term,
    /// The clock of a node goes wrong, by less than sessions last.
    Clock,
    /// kill -9 of a node that nobody hears of at once: its machine is gone.
    Power,
    /// A node is replaced by one with an empty disk.
    Replace,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Kill,
        Self::Stop,
        Self::Cut,
        Self::Slow,
        Self::Full,
        Self::Term,
        Self::Clock,
        Self::Power,
        Self::Replace,
    ];
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kill => "kill",
            Self::Stop => "stop",
            Self::Cut => "cut",
            Self::Slow => "slow",
            Self::Full => "full",
            Self::Term => "term",
            Self::Clock => "clock",
            Self::Power => "power",
            Self::Replace => "replace",
        })
    }
}

impl FromStr for Fault {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|fault| fault.to_string() == text);
        found.ok_or_else(|| anyhow::anyhow!("{text} is none of {:?}", Self::ALL))
    }
}

/// Troubles a cluster.
pub(crate) struct Faults<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) recorder: &'a Recorder,
    pub(crate) dice: Dice,
    /// How often each was done.
    pub(crate) done: BTreeMap<Fault, u64>,
}

impl Faults<'_> {
    /// Does one of these, and undoes it. The cluster need not be well again afterwards.
    pub(crate) fn next(&mut self, among: &[Fault]) -> Result<()> {
        let fault = self.dice.pick(among);
        match fault {
            Fault::Kill => self.kill()?,
            Fault::Stop => self.stop()?,
            Fault::Cut => self.cut()?,
            Fault::Slow => self.slow()?,
            Fault::Full => self.full()?,
            Fault::Term => self.restart_all()?,
            Fault::Clock => self.set_clock()?,
            Fault::Power => self.power()?,
            Fault::Replace => self.replace()?,
        }
        *self.done.entry(fault).or_default() += 1;
        Ok(())
    }

    fn tell(&self, text: String) {
        eprintln!("{:>9.3} {text}", self.recorder.now().as_secs_f64());
        self.recorder.note(What::Fault(text));
    }

    /// Lets it be so for a while.
    fn last(&mut self, millis: std::ops::Range<u64>) {
        thread::sleep(self.dice.millis(millis));
    }

    fn any(&mut self) -> u64 {
        1 + self.dice.within(0..NODES)
    }

    fn other_than(&mut self, node: u64) -> u64 {
        1 + (node - 1 + self.dice.within(1..NODES)) % NODES
    }

    /// One that leads the first group, or one that does not.
    fn victim(&mut self) -> (u64, &'static str) {
        match (self.cluster.leader(), self.dice.one_in(2)) {
            (Some(leader), true) => (leader, "leader"),
            (Some(leader), false) => (self.other_than(leader), "follower"),
            (None, _) => (self.any(), "while none leads"),
        }
    }

    fn kill(&mut self) -> Result<()> {
        let (node, role) = self.victim();
        self.tell(format!("kill node {node}, {role}"));
        self.cluster.kill9(node)?;
        self.last(0..4_000);
        self.cluster.spawn(node)?;
        if self.dice.one_in(4) {
            // While it reads its log, or before it has opened it.
            self.last(0..300);
            self.tell(format!("kill node {node} as it starts"));
            self.cluster.kill9(node)?;
            *self.done.entry(Fault::Kill).or_default() += 1;
            self.last(0..1_000);
            self.cluster.spawn(node)?;
        }
        Ok(())
    }

    fn stop(&mut self) -> Result<()> {
        let (node, role) = self.victim();
        let since = self.recorder.now();
        self.tell(format!("stop node {node}, {role}"));
        self.cluster.stop(node)?;
        match self.dice.one_in(3) {
            // Longer than its leases.
            true => self.last(9_000..13_000),
            false => self.last(300..6_000),
        }
        // Before it goes on: what it says from now on is judged by this.
        self.recorder.note(What::Stopped { node, since });
        self.tell(format!("node {node} goes on"));
        self.cluster.go_on(node)
    }

    fn cut(&mut self) -> Result<()> {
        let (node, role) = self.victim();
        let other = self.other_than(node);
        match self.dice.within(0..4) {
            0 => {
                self.tell(format!("cut nodes {node} and {other}"));
                self.cluster.cut(node, other)?;
                self.cluster.cut(other, node)?;
            }
            1 => {
                self.tell(format!("cut from node {node} to {other}"));
                self.cluster.cut(node, other)?;
            }
            2 => {
                self.tell(format!("node {node} is not heard, {role}"));
                for other in (1..=NODES).filter(|other| *other != node) {
                    self.cluster.cut(node, other)?;
                }
            }
            _ => {
                self.tell(format!("isolate node {node}, {role}"));
                self.isolate(node)?;
            }
        }
        match self.dice.one_in(3) {
            // Longer than its leases.
            true => self.last(9_000..13_000),
            false => self.last(500..8_000),
        }
        self.tell("heal".into());
        self.cluster.heal();
        Ok(())
    }

    fn isolate(&self, node: u64) -> Result<()> {
        for other in (1..=NODES).filter(|other| *other != node) {
            self.cluster.cut(node, other)?;
            self.cluster.cut(other, node)?;
        }
        Ok(())
    }

    fn power(&mut self) -> Result<()> {
        let (node, role) = self.victim();
        self.tell(format!("node {node} has no power, {role}"));
        self.isolate(node)?;
        self.cluster.kill9(node)?;
        // Mostly long enough for the others to take its connections for ended.
        self.last(2_000..14_000);
        self.tell(format!("node {node} has power"));
        self.cluster.heal();
        self.cluster.spawn(node)
    }

    /// The others must be well: what was on the disk is on two of them. They serve before that, while a node
    /// that was replaced just before does not decide in every group yet.
    fn replace(&mut self) -> Result<()> {
        self.mend(None)?;
        self.cluster.wait_settled()?;
        let (node, role) = self.victim();
        self.tell(format!("node {node}, {role}, is replaced by one with an empty disk"));
        self.cluster.replace(node, self.other_than(node))
    }

    fn slow(&mut self) -> Result<()> {
        let (node, bytes) = (self.any(), self.dice.pick(&[8_000, 30_000, 100_000]));
        self.tell(format!("node {node} gets {bytes} bytes a second"));
        self.cluster.slow(node, bytes)?;
        self.last(2_000..8_000);
        self.tell("heal".into());
        self.cluster.heal();
        Ok(())
    }

    fn full(&mut self) -> Result<()> {
        let (node, left) = (self.any(), self.dice.pick(&[0, 64 << 10, 8 << 20]));
        self.tell(format!("the disk of node {node} has {left} bytes left"));
        self.cluster.fill_disk(node, left)?;
        self.last(1_000..8_000);
        self.tell(format!("the disk of node {node} has room"));
        self.cluster.empty_disk(node)
    }

    fn set_clock(&mut self) -> Result<()> {
        let (node, role) = self.victim();
        let seconds = self.dice.pick(&[-600, -30, -1, 1, 30, 600]);
        self.tell(format!("the clock of node {node}, {role}, is wrong by {seconds} s"));
        self.cluster.set_clock(node, seconds)?;
        self.last(1_500..8_000);
        self.tell(format!("the clock of node {node} is right"));
        self.cluster.set_clock(node, 0)
    }

    fn restart_all(&mut self) -> Result<()> {
        for node in 1..=NODES {
            self.cluster.wait_ready()?;
            self.tell(format!("restart node {node}"));
            self.cluster.terminate(node)?;
            self.cluster.spawn(node)?;
        }
        Ok(())
    }

    /// Everything is whole again, and every node serves: the end of what began then, if something did.
    pub(crate) fn mend(&mut self, troubled: Option<At>) -> Result<()> {
        self.cluster.heal();
        let ready = self.cluster.wait_ready();
        if let Some(since) = troubled {
            self.recorder.note(What::Troubled { since });
        }
        ready.map(drop)
    }
}
