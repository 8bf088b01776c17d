//! A cluster, its clients, and what is done to them: told from a seed, judged at the end.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::Dice;
use crate::check::{Verdict, check};
use crate::cluster::{Cluster, Equipment};
use crate::faults::{Fault, Faults};
use crate::fleet::{Fleet, Place};
use crate::record::{self, Event, Recorder, What};

/// How long nothing that is owed may arrive at the end before it counts as lost. Longer than any
/// lease.
const STILL: Duration = Duration::from_secs(30);

/// What lasts for less may expire before it arrives. No story takes so long.
const LASTING_SECS: u32 = 3600;

/// What is to be told.
#[derive(Clone, Debug)]
pub struct Story {
    /// Who draws.
    pub dice: Dice,
    /// How long faults are made.
    pub length: Duration,
    /// Which.
    pub faults: Vec<Fault>,
    /// Keeps the history and the nodes' data also when all was well.
    pub keep: bool,
}

/// What came of it.
#[derive(Debug)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// What was done.
    pub done: BTreeMap<Fault, u64>,
    /// The judgement over what clients saw.
    pub verdict: Verdict,
    /// What went wrong beside it.
    pub troubles: Vec<String>,
    /// Where the history, the data and the output are kept.
    pub kept: Option<PathBuf>,
}

impl Report {
    /// Whether everything is as it should be.
    pub fn is_good(&self) -> bool {
        self.verdict.violations.is_empty() && self.troubles.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}", self.seed)?;
        let done: Vec<_> =
            self.done.iter().map(|(fault, count)| format!("{fault} {count}")).collect();
        writeln!(f, "faults: {}", done.join(", "))?;
        for (name, count) in &self.verdict.counts {
            writeln!(f, "{count:>9} {name}")?;
        }
        writeln!(
            f,
            "{:>9} connections answered once more after a long stop",
            self.verdict.revenants
        )?;
        writeln!(f, "{:>9} violations", self.verdict.violations.len() + self.troubles.len())?;
        for violation in &self.verdict.violations {
            writeln!(f, "  {violation}")?;
        }
        for trouble in &self.troubles {
            writeln!(f, "  {trouble}")?;
        }
        match &self.kept {
            Some(path) => writeln!(f, "kept in {}", path.display()),
            None => Ok(()),
        }
    }
}

impl Story {
    /// Tells it. `None` where it cannot be told; why was said then.
    pub fn tell(self) -> Result<Option<Report>> {
        let mut dice = self.dice.clone();
        let does = |fault| self.faults.contains(&fault);
        let equipment = Equipment {
            disks: does(Fault::Full),
            clocks: does(Fault::Clock),
            ..Equipment::default()
        };
        let Some(cluster) = Cluster::start(equipment)? else { return Ok(None) };
        let recorder = Recorder::default();
        let mut fleet = Fleet::new(!does(Fault::Clock), cluster.authority()?, &mut dice);
        let mut faults = Faults {
            cluster: &cluster,
            recorder: &recorder,
            dice: dice.split(),
            done: BTreeMap::new(),
        };
        let place = Place::new(&recorder, cluster.addresses());
        let mut troubles = Vec::new();
        thread::scope(|scope| {
            let running = fleet.live(&place, scope);
            if let Err(error) = self.trouble(&mut faults) {
                troubles.push(format!("{error:#}"));
            }
            place.finish();
            if troubles.is_empty() {
                let debts = settle(&recorder, || running.has_finished());
                troubles.extend(debts.map(|debts| format!("at the end: {debts}")));
            }
            place.end();
        });
        let done = faults.done;
        let panics = cluster.panics();
        if panics > 0 {
            troubles.push(format!("nodes panicked {panics} times"));
        }
        let history = recorder.history();
        let verdict = check(&history);
        let seed = dice.seed();
        let mut report = Report { seed, done, verdict, troubles, kept: None };
        if self.keep || !report.is_good() {
            eprintln!("{}", cluster.said(20));
            let path = cluster.folder().join("history");
            record::write(&history, &path).context("the history cannot be written")?;
            report.kept = Some(cluster.keep()?);
        }
        Ok(Some(report))
    }

    fn trouble(&self, faults: &mut Faults<'_>) -> Result<()> {
        let begun = Instant::now();
        let mut since = None;
        while begun.elapsed() < self.length && !self.faults.is_empty() {
            since.get_or_insert_with(|| faults.recorder.now());
            if let Err(error) = faults.next(&self.faults) {
                // Clients were troubled all the same.
                return faults.mend(since).and(Err(error));
            }
            // Mostly it is well before the next one comes, now and then for so long that seconds can
            // be counted.
            if !faults.dice.one_in(4) {
                faults.mend(since.take())?;
                let is_long = faults.dice.one_in(6);
                let calm = if is_long { 4_000..8_000 } else { 0..1_500 };
                thread::sleep(faults.dice.millis(calm));
            }
        }
        faults.mend(since)
    }
}

/// Waits until everything that was acknowledged has arrived and everybody has finished, or until
/// nothing arrives any more; gives what is missing then.
pub(crate) fn settle(recorder: &Recorder, has_finished: impl Fn() -> bool) -> Option<String> {
    let mut debts = Debts::default();
    let (mut seen, mut changed) = (0, Instant::now());
    loop {
        let before = (debts.count(), has_finished());
        seen = recorder.since(seen, |event| debts.note(event));
        if debts.count() == 0 && has_finished() {
            return None;
        }
        if (debts.count(), has_finished()) != before {
            changed = Instant::now();
        }
        if changed.elapsed() > STILL {
            let clients = if has_finished() { "" } else { ", and clients do not come to an end" };
            return Some(format!("{} deliveries are missing{clients}", debts.count()));
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// What sessions are still to be given.
#[derive(Default)]
struct Debts {
    sessions: Vec<(String, String)>,
    /// What may expire: topics and numbers.
    fleeting: HashSet<(String, u64)>,
    owed: HashSet<(String, String, u64)>,
    given: HashSet<(String, String, u64)>,
    /// By session that is told, and key.
    versions: BTreeMap<String, u64>,
    told: BTreeMap<String, u64>,
}

impl Debts {
    fn count(&self) -> usize {
        let untold = self
            .versions
            .iter()
            .filter(|(key, version)| self.told.get(*key).is_none_or(|told| told < *version));
        self.owed.len() + untold.count()
    }

    fn note(&mut self, event: &Event) {
        match &event.what {
            What::Subscribed { client, prefix, .. } => {
                self.sessions.push((client.clone(), prefix.clone()));
            }
            What::Expiring { topic, number, interval, .. } if *interval < LASTING_SECS => {
                self.fleeting.insert((topic.clone(), *number));
            }
            What::Acknowledged { topic, number } => {
                if self.fleeting.contains(&(topic.clone(), *number)) {
                    return;
                }
                for (client, prefix) in &self.sessions {
                    if !topic.starts_with(prefix) {
                        continue;
                    }
                    let debt = (client.clone(), topic.clone(), *number);
                    if !self.given.contains(&debt) {
                        self.owed.insert(debt);
                    }
                }
            }
            What::Delivered { client, topic, number, .. } => {
                let debt = (client.clone(), topic.clone(), *number);
                self.owed.remove(&debt);
                self.given.insert(debt);
            }
            What::Wrote { key, version: Some(version), .. }
            | What::Read { key, version: Some(version), .. } => {
                let newest = self.versions.entry(key.clone()).or_default();
                *newest = (*newest).max(*version);
            }
            What::Told { key, version, .. } => {
                let newest = self.told.entry(key.clone()).or_default();
                *newest = (*newest).max(*version);
            }
            _ => {}
        }
    }
}
