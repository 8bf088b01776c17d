//! A rolling restart under load, with many sessions that last.

use std::fmt;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::Result;

use crate::Dice;
use crate::check::{Promise, Verdict, check};
use crate::cluster::{Cluster, Equipment, NODES};
use crate::fleet::{Place, Swarm};
use crate::record::Recorder;
use crate::story::settle;

/// What was measured.
#[derive(Debug)]
pub struct Rolling {
    sessions: usize,
    /// From the first SIGTERM until all nodes serve again.
    took: Duration,
    verdict: Verdict,
    troubles: Vec<String>,
}

impl Rolling {
    /// Whether nothing was lost, and nothing delivered twice that must not be.
    pub fn is_good(&self) -> bool {
        self.verdict.violations.is_empty() && self.troubles.is_empty()
    }
}

impl fmt::Display for Rolling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |promise| {
            let violations = self.verdict.violations.iter();
            violations.filter(|violation| violation.promise == promise).count()
        };
        writeln!(
            f,
            "rolling restart of {NODES} nodes, {} sessions, {:?}",
            self.sessions, self.took
        )?;
        for (name, count) in &self.verdict.counts {
            writeln!(f, "{count:>9} {name}")?;
        }
        writeln!(f, "{:>9} sessions that lack something", count(Promise::Delivered))?;
        writeln!(f, "{:>9} sessions that were given QoS 2 twice", count(Promise::Once))?;
        writeln!(f, "{:>9} violations", self.verdict.violations.len() + self.troubles.len())?;
        for violation in self.verdict.violations.iter().take(20) {
            writeln!(f, "  {violation}")?;
        }
        self.troubles.iter().try_for_each(|trouble| writeln!(f, "  {trouble}"))
    }
}

/// Restarts all nodes, one after the other, while `rate` publications a second are on their way to
/// `sessions` sessions; `from` another build, if one is given. `None` where there can be no cluster.
pub fn rolling(
    sessions: usize,
    rate: u32,
    from: Option<PathBuf>,
    dice: &mut Dice,
) -> Result<Option<Rolling>> {
    let equipment = Equipment { first_program: from, ..Equipment::default() };
    let Some(cluster) = Cluster::start(equipment)? else { return Ok(None) };
    let recorder = Recorder::default();
    let place = Place::new(&recorder, cluster.addresses());
    let mut swarm = Swarm::new(sessions, rate, dice);
    let mut troubles = Vec::new();
    let mut took = Duration::ZERO;
    thread::scope(|scope| {
        let running = swarm.live(&place, scope);
        let begun = recorder.now();
        eprintln!("{:>9.3} all are subscribed", begun.as_secs_f64());
        for node in 1..=NODES {
            let restarted = cluster
                .terminate(node)
                .and_then(|()| {
                    cluster.upgrade(node);
                    cluster.spawn(node)
                })
                .and_then(|()| cluster.wait_ready());
            eprintln!("{:>9.3} node {node} is back", recorder.now().as_secs_f64());
            troubles.extend(restarted.err().map(|error| format!("{error:#}")));
        }
        took = recorder.now() - begun;
        place.finish();
        let debts = settle(&recorder, || running.has_finished());
        troubles.extend(debts.map(|debts| format!("at the end: {debts}")));
        place.end();
    });
    let verdict = check(&recorder.history());
    Ok(Some(Rolling { sessions, took, verdict, troubles }))
}
