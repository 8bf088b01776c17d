//! Sessions on a cluster that is troubled: whole nodes but for their sockets and threads, from seeds. What
//! clients see is judged as that of real processes is.

mod life;
mod link;
mod members;
mod people;
mod stage;
mod still;
mod streams;
mod world;

use std::collections::BTreeMap;
use std::time::Instant;

use chaos_tests::record;
use storage::dice::seeds;
use world::Plan;

/// Runs seeds, `usual` many of them every day; `name` is that of the histories that are left.
fn judge(name: &str, usual: u64, plan: impl Fn(u64) -> Plan) {
    let (started, seeds) = (Instant::now(), seeds(usual));
    let (count, mut happened) = (seeds.len(), BTreeMap::new());
    for seed in seeds {
        let ran = world::run(seed, plan(seed));
        let judged = ran.verdict.and_then(|verdict| match &verdict.violations[..] {
            [] => Ok(verdict),
            violations => Err(format!("{violations:#?}")),
        });
        let verdict = judged.unwrap_or_else(|why| {
            let path = format!("{}/{name}-{seed}.txt", env!("CARGO_TARGET_TMPDIR"));
            record::write(&ran.history, path.as_ref()).unwrap();
            panic!("seed {seed}: {why}; the history is in {path}");
        });
        for (what, count) in ran.befell.into_iter().chain(verdict.counts) {
            *happened.entry(what).or_insert(0) += count;
        }
    }
    let per_minute = count as f64 * 60.0 / started.elapsed().as_secs_f64();
    println!("{count} seeds, {per_minute:.0} a minute: {happened:?}");
}

#[test]
fn what_sessions_are_promised_is_kept_through_faults() {
    judge("sessions", 3, |_| Plan::default());
}

#[test]
fn what_sessions_are_promised_is_kept_while_processes_stand_still() {
    judge("still", 1, |_| Plan { standstills: true, members: false });
}

#[test]
fn what_sessions_are_promised_is_kept_while_nodes_come_and_go() {
    judge("members", 1, |seed| Plan { standstills: seed % 2 == 1, members: true });
}

#[test]
fn one_seed_gives_one_history_of_sessions() {
    for plan in [Plan::default(), Plan { standstills: true, members: true }] {
        let (one, other) = (world::run(1, plan).history, world::run(1, plan).history);
        let differs = one.iter().zip(&other).find(|(one, other)| one != other);
        assert_eq!(differs, None);
        assert_eq!(one.len(), other.len());
    }
}
