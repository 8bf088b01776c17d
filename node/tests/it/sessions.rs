//! Sessions on a cluster that is troubled: whole nodes but for their sockets and threads, from seeds. What
//! clients see is judged as that of real processes is.

mod life;
mod link;
mod people;
mod stage;
mod streams;
mod world;

use std::collections::BTreeMap;
use std::time::Instant;

use chaos_tests::record;
use storage::dice::seeds;

#[test]
fn what_sessions_are_promised_is_kept_through_faults() {
    let (started, seeds) = (Instant::now(), seeds(3));
    let (count, mut happened) = (seeds.len(), BTreeMap::new());
    for seed in seeds {
        let ran = world::run(seed);
        let judged = ran.verdict.and_then(|verdict| match &verdict.violations[..] {
            [] => Ok(verdict),
            violations => Err(format!("{violations:#?}")),
        });
        let verdict = judged.unwrap_or_else(|why| {
            let path = format!("{}/sessions-{seed}.txt", env!("CARGO_TARGET_TMPDIR"));
            record::write(&ran.history, path.as_ref()).unwrap();
            panic!("seed {seed}: {why}; the history is in {path}");
        });
        *happened.entry("crashes").or_insert(0) += ran.crashes;
        *happened.entry("disks that rotted").or_insert(0) += ran.damages;
        for (what, count) in verdict.counts {
            *happened.entry(what).or_insert(0) += count;
        }
    }
    let per_minute = count as f64 * 60.0 / started.elapsed().as_secs_f64();
    println!("{count} seeds, {per_minute:.0} a minute: {happened:?}");
}

#[test]
fn one_seed_gives_one_history_of_sessions() {
    let (one, other) = (world::run(1).history, world::run(1).history);
    let differs = one.iter().zip(&other).find(|(one, other)| one != other);
    assert_eq!(differs, None);
    assert_eq!(one.len(), other.len());
}
