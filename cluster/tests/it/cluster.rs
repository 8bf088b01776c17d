//! Engines that agree over a bad network, on disks that crash, from seeds.

mod checker;
mod damage;
mod stories;
mod witness;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use storage::dice::seeds;

use world::{Plan, World};

/// Runs a seed; a panic of an engine is a finding as any other.
fn run(seed: u64, plan: Plan) -> Result<World, String> {
    let run = || {
        let mut world = World::new(seed, plan);
        world.run().map(|()| world)
    };
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(text.unwrap_or_else(|| "a panic".into()))
    })
}

#[test]
fn what_a_cluster_acknowledged_is_kept_through_faults_and_it_recovers() {
    let (started, seeds) = (Instant::now(), seeds(40));
    let mut happened = [0; 5];
    let count = seeds.len();
    for seed in seeds {
        let world = run(seed, Plan::default()).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        let World { looks, snapshots, changes, checker, .. } = &world;
        let (commands, elections) = (checker.acknowledged.len(), checker.elections());
        for (sum, here) in
            happened.iter_mut().zip([commands, elections, *looks, *snapshots, *changes])
        {
            *sum += here;
        }
    }
    let per_minute = count as f64 * 60.0 / started.elapsed().as_secs_f64();
    let [commands, elections, looks, snapshots, changes] = happened;
    println!(
        "{count} seeds, {per_minute:.0} a minute: {commands} commands, {elections} elections, {looks} \
         looks, {snapshots} snapshots, {changes} orders"
    );
    assert!(happened.iter().all(|&count| count > 0), "{happened:?}");
}

#[test]
fn what_a_cluster_acknowledged_is_kept_though_disks_rot_and_each_is_mended() {
    let plan = Plan { rotting: true, ..Plan::default() };
    let (mut damages, mut snapshots) = (0, 0);
    for seed in seeds(40) {
        let world = run(seed, plan).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        (damages, snapshots) = (damages + world.damages, snapshots + world.snapshots);
    }
    println!("{damages} damages, {snapshots} snapshots");
    assert!(damages > 0);
}

#[test]
fn one_seed_gives_one_history_of_a_cluster() {
    for seed in 0..3 {
        let history = || run(seed, Plan::default()).map(|world| world.trace).unwrap();
        assert_eq!(history(), history(), "seed {seed}");
    }
}

#[test]
fn disks_that_lie_about_their_syncs_are_found_out() {
    let plan = Plan { lying: true, ..Plan::default() };
    let found: Vec<_> = (0..5).filter_map(|seed| run(seed, plan).err()).collect();
    // The checker sees it, not just the engine.
    assert!(found.iter().any(|what| what.contains("commands")), "{found:?}");
}
