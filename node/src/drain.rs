//! Takes a node out of service: no client loses anything by it, and those of a cluster find another node.
//!
//! The load balancer is told first and given time; then the leads go to other nodes; then connections
//! end, no more per second than other nodes take in; then the node stops, or rests until an operator
//! wants it back.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cluster::Order;
use fleet::registry::{Drain, Member};
use mqtt::Reason;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::config;
use crate::core::{Core, ToCore};
use crate::identity;
use crate::shared::Shared;

/// How long connections get to say goodbye once they are all told.
const GOODBYE: Duration = Duration::from_secs(10);
/// How long what members of shared subscriptions have left may be on its way to others: longer than it takes to
/// notice that a node is gone, and to choose again.
const LAST_COPIES: Duration = Duration::from_secs(20);
/// How long it may take until other nodes lead.
const HANDING_OVER: Duration = Duration::from_secs(5);
/// Between two looks, and two portions of connections.
const STEP: Duration = Duration::from_millis(20);

/// Ends every connection in order: version 5 clients are told why.
pub async fn drain(shared: &Arc<Shared>, cluster: Option<&config::Cluster>) {
    shared.leaving.store(true, Ordering::Relaxed);
    let reason = match cluster {
        Some(cluster) => {
            info!(delay = ?cluster.drain_delay, "leaving: the load balancer is given time");
            tokio::time::sleep(cluster.drain_delay).await;
            hand_over(shared).await;
            Reason::UseAnotherServer
        }
        None => Reason::ServerShuttingDown,
    };
    shared.draining.store(true, Ordering::Relaxed);
    info!("draining: no more connections are taken");
    tell(shared, reason, cluster.map(|cluster| cluster.drain_rate)).await;
    wait_for_ends(shared).await;
}

/// Takes the node out of service while an operator wants it so, and back. Never ends by itself.
pub async fn obey(shared: &Arc<Shared>, cluster: &config::Cluster) {
    let mut standing = shared.mesh.roster.watch_standing();
    loop {
        let wish = shared.mesh.roster.drain();
        if wish != Drain::No && !shared.is_drained() {
            tokio::select! {
                () = rest(shared, cluster) => shared.drained.store(true, Ordering::Relaxed),
                () = wanted_back(shared) => {}
            }
            continue;
        }
        if wish == Drain::No && shared.leaving.load(Ordering::Relaxed) {
            info!("back in service");
            shared.groups.order(Order::Abstain(false));
            for flag in [&shared.drained, &shared.resting, &shared.leaving] {
                flag.store(false, Ordering::Relaxed);
            }
        }
        if standing.changed().await.is_err() {
            // The sender is shared by all.
            return std::future::pending().await;
        }
    }
}

/// Resolves when the operator has thought better of it.
async fn wanted_back(shared: &Arc<Shared>) {
    let mut standing = shared.mesh.roster.watch_standing();
    let is_back = |member: &Option<Member>| member.as_ref().is_none_or(|it| it.drain == Drain::No);
    // The sender is shared by all.
    let _ = standing.wait_for(is_back).await;
}

/// Sends every client to another node, and has those lead.
async fn rest(shared: &Arc<Shared>, cluster: &config::Cluster) {
    shared.leaving.store(true, Ordering::Relaxed);
    if shared.mesh.roster.drain() == Drain::Wanted {
        info!(delay = ?cluster.drain_delay, "out of service: the load balancer is given time");
        tokio::time::sleep(cluster.drain_delay).await;
    } else {
        info!("out of service, as before this start");
    }
    hand_over(shared).await;
    shared.resting.store(true, Ordering::Relaxed);
    tell(shared, Reason::UseAnotherServer, Some(cluster.drain_rate)).await;
    wait_for_ends(shared).await;
}

/// Has other nodes lead what this one leads.
async fn hand_over(shared: &Arc<Shared>) {
    let until = Instant::now() + HANDING_OVER;
    let own = shared.mesh.own.node();
    let mut before = Vec::new();
    // Nobody hands anything back.
    shared.groups.order(Order::Abstain(true));
    loop {
        let led = identity::look(shared, move |groups| {
            let ids = groups.ids().into_iter().filter(|id| groups.leads(*id));
            let others = |id| {
                let voters = groups.status(id)?.voters.iter().copied();
                Some((
                    id,
                    voters
                        .filter(|node| *node != own && !groups.abstains_at(*node))
                        .collect::<Vec<_>>(),
                ))
            };
            ids.filter_map(others).collect::<Vec<_>>()
        });
        let led = led.await.unwrap_or_default();
        let up = shared.mesh.linked();
        let (mut left, mut alone) = (0, 0);
        for (id, others) in led {
            let can = |node: &u64| up.contains(node) && shared.mesh.roster.may_lead(*node);
            let others: Vec<_> = others.into_iter().filter(can).collect();
            if others.is_empty() {
                alone += 1;
                continue;
            }
            left += 1;
            if !before.contains(&id) {
                before.push(id);
                let to = others[id.0 as usize % others.len()];
                shared.groups.order(Order::Transfer { group: id, to });
            }
        }
        if left == 0 {
            info!(groups = before.len(), alone, "other nodes lead, but those that nobody else can");
            return;
        }
        if Instant::now() >= until {
            warn!(left, "not every group has found another leader in time");
            return;
        }
        tokio::time::sleep(STEP).await;
    }
}

/// Tells every connection to end, so many a second.
async fn tell(shared: &Arc<Shared>, reason: Reason, rate: Option<u32>) {
    let portion = rate.map_or(usize::MAX, |rate| {
        let cores = shared.cores.len() as u128 * 1000;
        (u128::from(rate) * STEP.as_millis()).div_ceil(cores) as usize
    });
    while ask_cores(shared, move |core| core.end_some(reason, portion)).await > 0 {
        tokio::time::sleep(STEP).await;
    }
}

async fn wait_for_ends(shared: &Arc<Shared>) {
    let told = Instant::now();
    loop {
        let open = ask_cores(shared, |core| core.endpoints.borrow().len()).await;
        // What their ends left to others must be there before the links stop, and what is to be stored, also
        // because nobody there could have it, on its way before the groups do.
        let owed = ask_cores(shared, |core| core.owed_to_peers()).await;
        let unsaid = ask_cores(shared, |core| core.unproposed()).await;
        if open + unsaid + owed == 0 {
            info!("drained");
            return;
        }
        let patience = if owed == 0 { GOODBYE } else { LAST_COPIES };
        if told.elapsed() >= patience {
            warn!(
                open,
                unsaid,
                owed,
                "not all is done in time: a stop now cuts these connections, and what is owed to others is \
                 lost with it"
            );
            return;
        }
        tokio::time::sleep(STEP).await;
    }
}

/// The sum of what every core answers.
async fn ask_cores(
    shared: &Shared,
    ask: impl Fn(&Core) -> usize + Clone + Send + 'static,
) -> usize {
    let mut sum = 0;
    for core in 0..shared.cores.len() {
        let ((answer, count), ask) = (oneshot::channel(), ask.clone());
        let run = Box::new(move |core: &Rc<Core>| {
            // Whoever asked may have gone away.
            let _ = answer.send(ask(core));
        });
        shared.send(core as u16, ToCore::Run(run));
        sum += count.await.unwrap_or(0);
    }
    sum
}
