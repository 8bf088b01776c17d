//! What operators change about a cluster: asked of any node, decided by the `meta` group, and waited for
//! until it is so.
//!
//! A wish is taken or refused at once; what follows from it goes on whether or not somebody waits.

use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::bail;
use api::Source;
use api::audit::Watch;
use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use bytes::Bytes;
use cluster::{GroupId, Refusal};
use fleet::placement::next_change;
use fleet::registry::{Command, Drain, Member, MemberStatus};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::cluster::{Group, Standing};
use super::{Refused, ask, attempt, ended, is_for_now};
use crate::backend::Backend;
use crate::config::is_address;
use crate::host::{Outcome, Proposal, Reply};
use crate::shared::Shared;

/// The largest number a node may have.
const MAX_NODE: u64 = 0xFFFF;
/// Between two looks at how far a change is.
const STEP: Duration = Duration::from_millis(250);
/// How long whoever waits puts up with what does not go on by itself: a node may just be restarting.
const STUCK: Duration = Duration::from_secs(15);

/// What an operator wants.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Wish {
    /// A node more.
    Add {
        /// Its number.
        node: u64,
        /// Where others dial it.
        address: String,
    },
    /// A node less.
    Remove {
        /// Its number.
        node: u64,
        /// It never returns, so nobody asks it.
        dead: bool,
    },
    /// A node that serves no clients, or serves them again.
    Drain {
        /// Its number.
        node: u64,
        /// Whether it shall serve them again.
        undo: bool,
    },
    /// Another leader for a group.
    Transfer {
        /// The group.
        group: u32,
        /// The node; none for the one that is balanced.
        node: Option<u64>,
    },
}

/// `POST /admin/cluster`.
pub async fn change(
    State(shared): State<Arc<Shared>>,
    source: Option<Extension<Source>>,
    Json(wish): Json<Wish>,
) -> Result<StatusCode, Refused> {
    let attempt = attempt(&shared, source, wish.operation(), "cluster")?;
    let taken = take(&shared, &wish, &attempt.watch()).await;
    ended(attempt, taken).await
}

async fn take(shared: &Arc<Shared>, wish: &Wish, watch: &Watch) -> Result<StatusCode, Refused> {
    let unavailable = |why: &str| (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n"));
    if shared.mesh.roster.is_deserted() {
        // What is changed before would be undone by that.
        return Err(unavailable(
            "it is not noted yet that this node goes on alone: ask again soon",
        ));
    }
    let refused = |why: String| (StatusCode::CONFLICT, format!("{why}\n"));
    if shared.mesh.roster.own.is_none() {
        return Err(refused("this node is alone: its configuration has no [cluster]".into()));
    }
    let standing = Standing::look(shared).await;
    let standing = standing.ok_or_else(|| unavailable("the groups do not answer"))?;
    let command = command(wish, &standing).map_err(refused)?;
    let backend = Backend::new(Arc::clone(shared));
    let seen = watch.before(&backend, &command).await;
    let seen = seen.map_err(|_| unavailable(&leaderless(&standing)))?;
    let command: Bytes = command.encode().into();
    let (answer, outcome) = oneshot::channel();
    let proposal = Proposal::asked(GroupId::META, command, Reply::Once(answer));
    if shared.groups.propose_all(vec![proposal]).await.is_err() {
        return Err(unavailable("the node is stopping"));
    }
    match outcome.await {
        Ok(Ok(Outcome::Registry(Ok(_)))) => {
            watch.after(&backend, seen).await;
            Ok(StatusCode::ACCEPTED)
        }
        Ok(Ok(Outcome::Registry(Err(rejection)))) => Err(refused(rejection.to_string())),
        Ok(Err(Refusal::NoLeader)) => Err(unavailable(&leaderless(&standing))),
        Ok(Err(Refusal::Unknown)) => {
            // Whoever asks does not wait much longer.
            let later = tokio::time::timeout(STEP, Standing::look(shared)).await;
            let why = unanswered(&later.ok().flatten().unwrap_or(standing));
            Err((StatusCode::GATEWAY_TIMEOUT, format!("{why}\n")))
        }
        // It was applied, and nobody hears more of it.
        Ok(Err(Refusal::Unseen)) => Ok(StatusCode::ACCEPTED),
        Ok(Err(
            refusal @ (Refusal::Busy
            | Refusal::DiskFull
            | Refusal::TooLarge
            | Refusal::UnknownGroup),
        )) => Err(unavailable(&refusal.to_string())),
        Ok(Err(Refusal::Stopping) | Ok(Outcome::Shard(_))) | Err(_) => {
            let why = "the node is stopping, and what was wanted may still be done\n";
            Err((StatusCode::GATEWAY_TIMEOUT, why.into()))
        }
    }
}

/// Why nobody decides: a leader that has died is followed by another one, a majority by nobody.
fn leaderless(standing: &Standing) -> String {
    let live = standing.live();
    let voters = standing.groups.get(&0).map(|group| &*group.voters).unwrap_or_default();
    let silent: Vec<_> =
        voters.iter().filter(|it| !live.contains(it)).map(u64::to_string).collect();
    if silent.len() * 2 < voters.len() {
        return "group 0 has no leader at the moment: its voters elect one".into();
    }
    format!(
        "no quorum: group 0 has no leader, because too few of its {} voters are up (not linked: {}). Start \
         them; if a majority never returns, see `skein cluster recover`",
        voters.len(),
        silent.join(", ")
    )
}

/// Why it is not known what has been decided.
fn unanswered(standing: &Standing) -> String {
    let what = "no quorum of group 0 has answered in time, and it may still do";
    let why = match standing.groups.get(&0).and_then(|group| group.leader) {
        Some(_) => "see `skein cluster status`".to_owned(),
        None => leaderless(standing),
    };
    format!("{what}: {why}")
}

/// What is proposed for a wish, or why it makes no sense. What only the members themselves decide is
/// decided when it is applied.
fn command(wish: &Wish, standing: &Standing) -> Result<Command, String> {
    if standing.members.is_empty() {
        return Err("the cluster has not begun yet: see `skein cluster status`".into());
    }
    Ok(match *wish {
        Wish::Add { node, ref address } => addition(standing, node, address)?,
        Wish::Remove { node, dead } => removal(standing, node, dead)?,
        Wish::Drain { node, undo: false } => {
            if is_member(standing, node) && !standing.live().contains(&node) {
                return Err(silent(node));
            }
            Command::DrainMember { node, drain: Drain::Wanted }
        }
        Wish::Drain { node, undo: true } => Command::DrainMember { node, drain: Drain::No },
        Wish::Transfer { group, node } => preference(standing, group, node)?,
    })
}

impl Wish {
    /// As it is recorded.
    fn operation(&self) -> &'static str {
        match self {
            Self::Add { .. } => "AddNode",
            Self::Remove { .. } => "RemoveNode",
            Self::Drain { undo: false, .. } => "DrainNode",
            Self::Drain { undo: true, .. } => "UndrainNode",
            Self::Transfer { .. } => "TransferLead",
        }
    }
}

fn addition(standing: &Standing, node: u64, address: &str) -> Result<Command, String> {
    if !(1..=MAX_NODE).contains(&node) {
        return Err(format!("{node} is not a number from 1 to {MAX_NODE}"));
    }
    if !is_address(address) {
        return Err(format!("{address:?} is not `host:port`, like \"10.0.0.4:7400\""));
    }
    let mut members = standing.members.iter();
    let owner = members.find(|(id, it)| {
        it.status != MemberStatus::Removed && **id != node && it.address == address
    });
    if let Some((owner, _)) = owner {
        return Err(format!("{address} is the address of node {owner}"));
    }
    match standing.members.get(&node) {
        Some(known) if known.status != MemberStatus::Removed => Err(already(node, known)),
        _ => Ok(Command::AddMember { node, address: address.to_owned() }),
    }
}

/// Why a member cannot be added, and how its address is corrected.
fn already(node: u64, known: &Member) -> String {
    let (state, otherwise) = match known.status {
        MemberStatus::Joining => {
            (", joining,", format!(", or `skein cluster remove {node}` and add it again"))
        }
        MemberStatus::Leaving => (", leaving,", String::new()),
        MemberStatus::Active | MemberStatus::Removed => ("", String::new()),
    };
    let address = &known.address;
    format!(
        "node {node} is already a member{state} at {address}. To correct its address, set it in its own \
         configuration and start it{otherwise}"
    )
}

fn removal(standing: &Standing, node: u64, dead: bool) -> Result<Command, String> {
    let command = Command::RemoveMember { node, dead };
    let stays = |(id, it): (&u64, &Member)| *id != node && it.status == MemberStatus::Active;
    if !is_member(standing, node) || !standing.members.iter().any(stays) {
        // The members say why not.
        return Ok(command);
    }
    let is_live = standing.live().contains(&node);
    if dead && is_live {
        return Err(format!("node {node} is alive: stop it first, or leave --dead away"));
    }
    let serves = standing.members[&node].status != MemberStatus::Joining;
    if !dead && !is_live && serves {
        return Err(unremoved(node));
    }
    if node == standing.node {
        return Err(format!("ask another node: this is node {node}, which cannot tell of its end"));
    }
    match stuck_without(standing, node) {
        Some(group) => Err(format!(
            "group {group} would have no quorum without node {node}: too few of the others are up"
        )),
        None => Ok(command),
    }
}

/// That a node would have to answer before it is told to drain.
fn silent(node: u64) -> String {
    format!(
        "node {node} does not answer the node that was asked, so it cannot be drained: while it is down it has \
         no clients"
    )
}

/// That a node would have to answer to be removed in order.
fn unremoved(node: u64) -> String {
    format!(
        "node {node} does not answer, so its clients are not sent elsewhere: start it, or say `skein cluster \
         remove {node} --dead` if it never returns"
    )
}

/// That a node would have to answer to go on being drained.
fn undrained(node: u64) -> String {
    format!(
        "node {node} does not answer the node that was asked: it is drained when it does again, unless you say `skein cluster drain {node} --undo`"
    )
}

fn preference(standing: &Standing, group: u32, node: Option<u64>) -> Result<Command, String> {
    let found = standing.groups.get(&group).ok_or_else(|| format!("there is no group {group}"))?;
    if let Some(node) = node.filter(|node| is_member(standing, *node)) {
        if !found.voters.contains(&node) {
            let voters: Vec<_> = found.voters.iter().map(u64::to_string).collect();
            let voters = voters.join(", ");
            return Err(format!("node {node} only follows group {group}: {voters} decide in it"));
        }
        if !standing.live().contains(&node) {
            return Err(format!("node {node} does not answer"));
        }
        if standing.members[&node].drain != Drain::No {
            return Err(format!("node {node} is drained"));
        }
    }
    Ok(Command::PreferLeader { group, node })
}

fn is_member(standing: &Standing, node: u64) -> bool {
    standing.members.get(&node).is_some_and(|it| it.status != MemberStatus::Removed)
}

/// A group that could not do without a node, because too few of the others are up.
fn stuck_without(standing: &Standing, node: u64) -> Option<u32> {
    let live = standing.live();
    let mut members = standing.members.clone();
    if let Some(member) = members.get_mut(&node) {
        (member.status, member.dead) = (MemberStatus::Leaving, true);
    }
    let is_stuck = |(id, group): &(&u32, &Group)| {
        let is_in = group.voters.contains(&node) || group.learners.contains(&node);
        is_in && next_change(**id, &members, &group.placement(), None, &live).is_none()
    };
    standing.groups.iter().find(is_stuck).map(|(id, _)| *id)
}

/// How far a wish is.
#[derive(Debug, PartialEq, Eq)]
enum Progress {
    Done(String),
    /// It goes on, and is here.
    Going(String),
    /// It does not go on unless somebody does what is said here.
    Stuck(String),
    /// It will not come to that.
    Failed(String),
}

fn progress(wish: &Wish, standing: &Standing) -> Progress {
    let member = |node: &u64| standing.members.get(node);
    let is_live = |node: &u64| standing.live().contains(node);
    let groups = standing.groups.len();
    let with = |node: u64| {
        let has =
            |it: &&super::cluster::Group| it.voters.contains(&node) || it.learners.contains(&node);
        standing.groups.values().filter(has).count()
    };
    let led_by = |node: u64| standing.groups.values().filter(|it| it.leader == Some(node)).count();
    let serves = |node: u64| {
        let is_open = |it: &Member| it.status == MemberStatus::Active && it.drain == Drain::No;
        is_live(&node) && member(&node).is_some_and(is_open)
    };
    let others_serve =
        |node: u64| standing.members.keys().any(|other| *other != node && serves(*other));
    match wish {
        Wish::Add { node, .. } => match member(node).map(|it| it.status) {
            Some(MemberStatus::Active) => Progress::Done(format!(
                "node {node} takes part; `skein cluster status` says when the groups have settled"
            )),
            Some(MemberStatus::Joining) => Progress::Going(format!(
                "node {node} is joining: {}, {} of {groups} groups know it",
                match (standing.peers.get(node), standing.troubles.get(node)) {
                    (Some(true), _) => "linked".to_owned(),
                    (_, None) => "not linked yet".to_owned(),
                    (_, Some(why)) => format!("not linked yet ({why})"),
                },
                with(*node)
            )),
            _ => Progress::Failed(format!("node {node} was removed meanwhile")),
        },
        Wish::Remove { node, .. } => match member(node) {
            Some(Member { status: MemberStatus::Removed, .. }) | None => Progress::Done(format!(
                "node {node} is removed: its process stops; delete its data folder{}",
                reserve(standing)
            )),
            Some(it) if it.status != MemberStatus::Leaving => {
                Progress::Failed(format!("node {node} was added again meanwhile"))
            }
            Some(it) if !it.dead && it.drain != Drain::Done && !is_live(node) => {
                Progress::Stuck(unremoved(*node))
            }
            Some(it) if !it.dead && it.drain != Drain::Done => {
                Progress::Going(format!("node {node} is leaving: its clients go elsewhere"))
            }
            Some(_) => Progress::Going(format!(
                "node {node} is leaving: still in {} of {groups} groups",
                with(*node)
            )),
        },
        Wish::Drain { node, undo } => match member(node).map(|it| it.drain) {
            Some(Drain::No) if *undo && !is_live(node) => Progress::Done(format!(
                "node {node} is to serve clients again; it does not answer now"
            )),
            Some(Drain::No) if *undo => Progress::Done(format!("node {node} serves clients again")),
            Some(Drain::Done) if !undo => Progress::Done(format!(
                "node {node} is drained: it has no clients{}{}",
                match led_by(*node) {
                    0 => " and leads nothing".to_owned(),
                    led => format!(
                        ", and still leads {led} of {groups} groups, which nobody else may lead or has \
                         taken in time"
                    ),
                },
                if others_serve(*node) {
                    ""
                } else {
                    ". No other node serves clients: none is served now"
                }
            )),
            Some(Drain::Wanted) if !undo && !is_live(node) => Progress::Stuck(undrained(*node)),
            Some(Drain::Wanted) if !undo => Progress::Going(format!(
                "node {node} is draining: {}",
                match others_serve(*node) {
                    true => "its clients go elsewhere",
                    false => "no other node serves clients, so that they have nowhere to go",
                }
            )),
            _ => Progress::Failed(format!("node {node} was told otherwise meanwhile")),
        },
        Wish::Transfer { group, node } => {
            let leader = standing.groups.get(group).and_then(|it| it.leader);
            match node {
                Some(node) if leader != Some(*node) => {
                    let leader = leader.map_or("nobody".into(), |leader| format!("node {leader}"));
                    Progress::Going(format!("group {group} is still led by {leader}"))
                }
                Some(node) => Progress::Done(format!("node {node} leads group {group}")),
                None => Progress::Done(format!("the lead of group {group} is balanced again")),
            }
        }
    }
}

/// What is to be known where too few nodes are left for one of them to fail.
fn reserve(standing: &Standing) -> &'static str {
    let is_left = |it: &&Member| it.status != MemberStatus::Removed;
    match standing.members.values().filter(is_left).count() {
        2 => ". Two nodes are left: while either is down nothing is decided",
        1 => ". One node is left: what it has no other has",
        _ => "",
    }
}

/// Asks a node for something and says how it goes until it is so.
pub fn carry_out(admin: &str, wish: &Wish, patience: Duration) -> anyhow::Result<()> {
    println!("{}", await_end(admin, wish, patience)?);
    Ok(())
}

/// The same; gives what is to be said in the end.
fn await_end(admin: &str, wish: &Wish, patience: Duration) -> anyhow::Result<String> {
    let until = Instant::now() + patience;
    insist(admin, wish, until.min(Instant::now() + STUCK))?;
    let mut said = String::new();
    let mut stuck_since = None;
    loop {
        // The asked node may be the one that goes, or be busy for a moment.
        let now = match Standing::of(admin) {
            Ok(standing) => progress(wish, &standing),
            Err(error) => Progress::Going(format!("{error:#}")),
        };
        match now {
            Progress::Done(text) => return Ok(text),
            Progress::Failed(text) => bail!(text),
            Progress::Going(text) if Instant::now() >= until => {
                bail!("not within {} s, but it goes on: {text}", patience.as_secs())
            }
            Progress::Stuck(text) => {
                let since = *stuck_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= STUCK || Instant::now() >= until {
                    bail!(text);
                }
                tell(&mut said, text);
            }
            Progress::Going(text) => {
                stuck_since = None;
                tell(&mut said, text);
            }
        }
        sleep(STEP);
    }
}

/// Says what has not just been said.
fn tell(said: &mut String, text: String) {
    if text != *said {
        println!("{text}");
        *said = text;
    }
}

/// Asks until the wish is taken or refused. While a leader is elected nobody can take it.
fn insist(admin: &str, wish: &Wish, until: Instant) -> anyhow::Result<()> {
    let wish = serde_json::to_string(wish)?;
    let mut said = String::new();
    loop {
        match ask(admin, "POST", "/admin/cluster", &wish) {
            Ok(_) => return Ok(()),
            Err(error) if is_for_now(&error) && Instant::now() < until => {
                tell(&mut said, format!("{error}; asking again"));
            }
            Err(error) => return Err(error),
        }
        // Each time is recorded.
        sleep(STEP * 4);
    }
}

/// Takes a node that lost its data out, and lets it join again with an empty folder.
pub fn replace(
    admin: &str,
    node: u64,
    address: Option<String>,
    patience: Duration,
) -> anyhow::Result<()> {
    let standing = Standing::of(admin)?;
    let Some(member) = standing.members.get(&node) else {
        bail!("node {node} is no member of the cluster");
    };
    let address = address.unwrap_or_else(|| member.address.clone());
    if member.status != MemberStatus::Removed {
        if standing.live().contains(&node) {
            bail!(
                "node {node} is alive: only one that is stopped and has lost its data is replaced"
            );
        }
        await_end(admin, &Wish::Remove { node, dead: true }, patience)?;
    }
    println!("start node {node} with an empty data folder and `join = true` now");
    carry_out(admin, &Wish::Add { node, address }, patience)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use fleet::registry::Registry;

    use super::*;

    /// Three nodes and group 0, as node 1 sees them after some commands.
    fn standing(commands: Vec<Command>, linked: &[u64], learners: &[u64]) -> Standing {
        let mut registry = Registry::default();
        let nodes = (1..=3).map(|node| (node, String::new())).collect();
        for command in [vec![Command::FoundCluster { nodes }], commands].concat() {
            registry.apply(command).unwrap();
        }
        let group = Group {
            leader: Some(1),
            term: 1,
            applied: 1,
            voters: vec![1, 2, 3],
            learners: learners.into(),
            changing: false,
            damaged: false,
        };
        Standing {
            node: 1,
            members: registry.members().clone(),
            peers: [2, 3, 4].map(|node| (node, linked.contains(&node))).into(),
            troubles: BTreeMap::new(),
            astray: BTreeMap::new(),
            groups: [(0, group)].into(),
        }
    }

    fn join() -> Vec<Command> {
        vec![
            Command::AddMember { node: 4, address: String::new() },
            Command::ActivateMember { node: 4 },
        ]
    }

    #[test]
    fn a_wish_that_cannot_come_true_is_refused() {
        let remove = |node, dead| Wish::Remove { node, dead };
        let add = |node, address: &str| Wish::Add { node, address: address.into() };
        let drain = |node, undo| Wish::Drain { node, undo };
        let transfer = |group, node| Wish::Transfer { group, node: Some(node) };
        let drained = || vec![Command::DrainMember { node: 2, drain: Drain::Wanted }];
        let joining = || vec![Command::AddMember { node: 4, address: "host-4:7400".into() }];
        for (commands, linked, learners, wish, refused) in [
            (vec![], &[2, 3][..], &[][..], add(4, "host:7400"), None),
            (vec![], &[2, 3], &[], add(4, "host"), Some("is not `host:port`")),
            (vec![], &[2, 3], &[], add(0, "host:7400"), Some("is not a number")),
            (joining(), &[2, 3], &[], add(5, "host-4:7400"), Some("is the address of node 4")),
            (
                joining(),
                &[2, 3],
                &[],
                add(4, "other:7400"),
                Some("node 4 is already a member, joining, at host-4:7400"),
            ),
            (joining(), &[2, 3], &[], add(4, "host-4:7400"), Some("`skein cluster remove 4`")),
            (vec![], &[2, 3], &[], add(3, "host:7400"), Some("node 3 is already a member at")),
            // What nobody has served needs no drain.
            (joining(), &[2, 3], &[4], remove(4, false), None),
            (vec![], &[2, 3], &[], remove(3, false), None),
            (vec![], &[2], &[], remove(3, false), Some("does not answer")),
            (vec![], &[2], &[], remove(3, true), None),
            (vec![], &[2, 3], &[], remove(3, true), Some("is alive")),
            (vec![], &[2, 3], &[], remove(1, false), Some("ask another node")),
            (vec![], &[2], &[], remove(2, false), Some("group 0 would have no quorum")),
            (join(), &[2, 4], &[4], remove(2, false), None),
            (vec![], &[], &[], remove(3, true), Some("group 0 would have no quorum")),
            // Whether it is one, the members say.
            (vec![], &[2, 3], &[], remove(9, false), None),
            (vec![], &[2, 3], &[], drain(3, false), None),
            (vec![], &[2], &[], drain(3, false), Some("does not answer")),
            (vec![], &[2], &[], drain(3, true), None),
            (vec![], &[2, 3], &[], transfer(0, 2), None),
            (vec![], &[2, 3], &[], transfer(1, 2), Some("there is no group 1")),
            (vec![], &[3], &[], transfer(0, 2), Some("does not answer")),
            (join(), &[2, 3, 4], &[4], transfer(0, 4), Some("only follows group 0: 1, 2, 3")),
            (drained(), &[2, 3], &[], transfer(0, 2), Some("is drained")),
        ] {
            let found = command(&wish, &standing(commands, linked, learners)).err();
            let is_as_expected = match (&found, refused) {
                (Some(found), Some(refused)) => found.contains(refused),
                (found, refused) => found.is_some() == refused.is_some(),
            };
            assert!(is_as_expected, "{wish:?}: {found:?}, not {refused:?}");
        }
        let alone = Standing { members: BTreeMap::new(), ..standing(vec![], &[], &[]) };
        assert!(command(&remove(1, false), &alone).unwrap_err().contains("has not begun"));
    }

    #[test]
    fn whoever_waits_hears_how_it_goes() {
        let remove = |dead| Command::RemoveMember { node: 3, dead };
        let removing = Wish::Remove { node: 3, dead: true };
        let going = |text: &str| Progress::Going(text.into());
        let drain = |undo| Wish::Drain { node: 3, undo };
        let drain_begins = |node| Command::DrainMember { node, drain: Drain::Wanted };
        let drain_ends = |node| Command::DrainMember { node, drain: Drain::Done };
        for (commands, wish, expected) in [
            (
                join(),
                Wish::Add { node: 4, address: String::new() },
                Progress::Done(
                    "node 4 takes part; `skein cluster status` says when the groups have settled"
                        .into(),
                ),
            ),
            (
                join()[..1].to_vec(),
                Wish::Add { node: 4, address: String::new() },
                going("node 4 is joining: not linked yet, 0 of 1 groups know it"),
            ),
            (
                vec![remove(false)],
                removing.clone(),
                going("node 3 is leaving: its clients go elsewhere"),
            ),
            (vec![remove(true)], removing.clone(), going("node 3 is leaving: still in 1 of 1 groups")),
            (
                vec![remove(true), Command::RetireMember { node: 3 }],
                removing,
                Progress::Done(
                    "node 3 is removed: its process stops; delete its data folder. Two nodes are left: \
                     while either is down nothing is decided"
                        .into(),
                ),
            ),
            (vec![], drain(true), Progress::Done("node 3 serves clients again".into())),
            (
                [1, 2, 3].map(drain_begins).into(),
                drain(false),
                going("node 3 is draining: no other node serves clients, so that they have nowhere to go"),
            ),
            (
                vec![drain_begins(3)],
                drain(false),
                going("node 3 is draining: its clients go elsewhere"),
            ),
            (
                vec![drain_begins(3), drain_ends(3)],
                drain(false),
                Progress::Done("node 3 is drained: it has no clients and leads nothing".into()),
            ),
            (
                [1, 2, 3].into_iter().flat_map(|it| [drain_begins(it), drain_ends(it)]).collect(),
                Wish::Drain { node: 1, undo: false },
                Progress::Done(
                    "node 1 is drained: it has no clients, and still leads 1 of 1 groups, which nobody else may \
                     lead or has taken in time. No other node serves clients: none is served now"
                        .into(),
                ),
            ),
            (vec![], drain(false), Progress::Failed("node 3 was told otherwise meanwhile".into())),
            (
                vec![],
                Wish::Transfer { group: 0, node: Some(2) },
                going("group 0 is still led by node 1"),
            ),
            (
                vec![],
                Wish::Transfer { group: 0, node: Some(1) },
                Progress::Done("node 1 leads group 0".into()),
            ),
        ] {
            assert_eq!(progress(&wish, &standing(commands, &[2, 3], &[])), expected);
        }
        let drained = Command::DrainMember { node: 3, drain: Drain::Wanted };
        for (command, wish, why) in [
            (remove(false), Wish::Remove { node: 3, dead: false }, unremoved(3)),
            (drained, drain(false), undrained(3)),
        ] {
            let found = progress(&wish, &standing(vec![command], &[2], &[]));
            assert_eq!(found, Progress::Stuck(why));
        }
        assert!(unremoved(3).contains("`skein cluster remove 3 --dead`"));
        assert!(!undrained(3).contains("remove") && undrained(3).contains("drain 3 --undo"));
        let resumed = progress(&drain(true), &standing(vec![], &[2], &[]));
        assert!(matches!(resumed, Progress::Done(text) if text.ends_with("does not answer now")));
        let mut joining = standing(join()[..1].to_vec(), &[2, 3], &[]);
        joining.troubles.insert(4, "host:7: cannot connect".into());
        let Progress::Going(text) =
            progress(&Wish::Add { node: 4, address: String::new() }, &joining)
        else {
            panic!("it has not joined");
        };
        assert!(text.contains("not linked yet (host:7: cannot connect)"), "{text}");
    }

    #[test]
    fn an_election_is_told_from_a_lost_majority() {
        for (linked, expected) in
            [(&[2, 3][..], "elect one"), (&[3], "elect one"), (&[4], "not linked: 2, 3")]
        {
            let why = leaderless(&standing(vec![], linked, &[]));
            assert!(why.contains(expected), "{why}");
        }
    }
}
