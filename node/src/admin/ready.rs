//! Whether the node serves clients, and what it waits for if not: for load balancers, people and alarms.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ::cluster::Blocked;
use axum::extract::State;
use axum::http::StatusCode;
use fleet::registry::MemberStatus;
use links::Trouble;
use metrics::{Unit, describe_gauge, gauge};

use crate::audit;
use crate::identity;
use crate::shared::Shared;

/// Longer than this without an answer from the groups, and the node is not ready.
const PATIENCE: Duration = Duration::from_secs(2);

/// `GET /readyz`.
pub async fn ready(State(shared): State<Arc<Shared>>) -> (StatusCode, String) {
    let judged = match reason_to_wait(&shared) {
        Some(why) => Err(why),
        None => judge(&shared, look(&shared).await),
    };
    match judged {
        Ok(text) => (StatusCode::OK, text + "\n"),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, why + "\n"),
    }
}

/// Describes what [`observe`] sets; once per process.
pub fn describe() {
    describe_gauge!("node_ready", Unit::Count, "1 while the node serves clients, as /readyz says");
    describe_gauge!("cluster_members", Unit::Count, "Nodes of the cluster, this one included");
    describe_gauge!(
        "cluster_members_linked",
        Unit::Count,
        "Nodes of the cluster that this one is linked with"
    );
    describe_gauge!(
        "raft_leaderless_groups",
        Unit::Count,
        "Groups of which this node knows no leader"
    );
}

/// Sets the metrics that are looked up when somebody reads them.
pub async fn observe(shared: &Shared) {
    let groups = look(shared).await;
    // Not what it was when they last answered.
    let leaderless = groups.as_ref().map_or(f64::NAN, |groups| (groups.all - groups.led) as f64);
    gauge!("raft_leaderless_groups").set(leaderless);
    let is_ready = reason_to_wait(shared).is_none() && judge(shared, groups).is_ok();
    gauge!("node_ready").set(f64::from(u8::from(is_ready)));
    let members = shared.mesh.roster.members();
    let there = members.values().filter(|it| it.status != MemberStatus::Removed).count();
    gauge!("cluster_members").set(there as f64);
    gauge!("cluster_members_linked").set(shared.mesh.linked().len() as f64);
}

/// How the groups of this node are.
struct Groups {
    all: usize,
    /// Of which a leader is known.
    led: usize,
    /// Who leads any of them.
    leaders: BTreeSet<u64>,
    damaged: usize,
    accepting: Result<(), Blocked>,
}

/// None if they do not answer.
async fn look(shared: &Shared) -> Option<Groups> {
    let look = identity::look(shared, |groups| {
        let ids = groups.ids();
        let count = |is: &dyn Fn(&::cluster::Status) -> bool| {
            ids.iter().filter(|id| groups.status(**id).is_some_and(is)).count()
        };
        Groups {
            all: ids.len(),
            led: count(&|status| status.leader.is_some()),
            leaders: ids.iter().filter_map(|id| groups.status(*id)?.leader).collect(),
            damaged: count(&|status| status.damaged),
            accepting: groups.accepting(),
        }
    });
    tokio::time::timeout(PATIENCE, look).await.ok().flatten()
}

/// Why the node is not ready whatever its groups say.
fn reason_to_wait(shared: &Shared) -> Option<String> {
    if shared.leaving.load(Ordering::Relaxed) {
        return Some("draining".into());
    }
    if shared.mesh.roster.is_joining() {
        return Some(format!("joining{}{}", linked(shared), unlinked(shared)));
    }
    None
}

/// Ready: the listeners are open, the groups answer, their leaders can be reached, and there is room here for
/// what must be stored. The text says what is missing, and the remedy where there is one; and whether the
/// audit log fails, which does not keep clients away.
fn judge(shared: &Shared, groups: Option<Groups>) -> Result<String, String> {
    let roster = &shared.mesh.roster;
    if roster.is_deserted() {
        return Err("recovering: it is not noted yet that this node goes on alone".into());
    }
    let serves = shared.serving.load(Ordering::Relaxed);
    let Some(Groups { all, led, leaders, damaged, accepting }) = groups else {
        return Err(if serves { "the groups do not answer" } else { "starting" }.into());
    };
    if damaged > 0 {
        let what = "groups are damaged here, until other nodes have brought them up to date";
        return Err(format!("{damaged} of {all} {what}"));
    }
    accepting.map_err(|blocked| blocked.to_string())?;
    if led < all {
        return Err(format!("{led} of {all} groups have a leader{}", unlinked(shared)));
    }
    if let Some(leader) = leaders.into_iter().find(|node| is_deaf(shared, *node)) {
        let what = format!("node {leader} leads groups, and cannot be reached from here");
        return Err(format!("{what}{}", unlinked(shared)));
    }
    if !serves {
        return Err(format!("starting{}", unlinked(shared)));
    }
    if !shared.currency.is_current() {
        return Err(format!("catching up with what other nodes have decided{}", unlinked(shared)));
    }
    if !roster.is_known() {
        return Err(format!("the cluster has not noted this node yet{}", unlinked(shared)));
    }
    // Devices are served as ever: who took the node away from them would help no change.
    let trouble = shared.audit.as_ref().and_then(audit::Audit::trouble);
    let trouble = trouble.map(|why| format!("; {why}")).unwrap_or_default();
    Ok(format!("ready{trouble}"))
}

/// Whether a node is heard and hears nothing: it is not down, so that nobody else will lead its groups.
fn is_deaf(shared: &Shared, node: u64) -> bool {
    let mesh = &shared.mesh;
    let reachable = || mesh.links().is_some_and(|links| links.reachable(node));
    mesh.linked().contains(&node) && !reachable()
}

/// The nodes that this one cannot reach, and why: what it waits for when it is not ready.
fn unlinked(shared: &Shared) -> String {
    let troubles = shared.mesh.links().map(links::Links::troubles).unwrap_or_default();
    let unlinked = troubles.iter().filter_map(|(node, trouble)| match trouble {
        Trouble::NotLinked(why) => Some(format!("; node {node} is not linked, {why}")),
        Trouble::Elsewhere(_) => None,
    });
    unlinked.collect()
}

/// The nodes that one which joins has found.
fn linked(shared: &Shared) -> String {
    let linked: Vec<_> = shared.mesh.linked().iter().map(u64::to_string).collect();
    match &*linked.join(", ") {
        "" => "; no node is linked yet".into(),
        linked => format!("; linked with {linked}, of which one is to send what there is"),
    }
}
