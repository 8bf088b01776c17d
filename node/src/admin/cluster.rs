//! How the cluster stands, as one node sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use fleet::placement::{Placement, next_change};
use fleet::registry::{Drain, Member, MemberStatus};
use links::Trouble;
use serde::{Deserialize, Serialize};

use crate::host::Machine;
use crate::identity;
use crate::shared::Shared;

/// How long a node has to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What `GET /admin/cluster` says.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Standing {
    /// The node that is asked.
    pub node: u64,
    /// The members of the cluster, those that were removed included; none before it has begun.
    #[serde(default)]
    pub members: BTreeMap<u64, Member>,
    /// The other nodes it has heard of, and whether they are linked.
    pub peers: BTreeMap<u64, bool>,
    /// Why those cannot be linked that are not, as far as is known.
    #[serde(default)]
    pub troubles: BTreeMap<u64, String>,
    /// Where those were found that are not where they say, and why not there.
    #[serde(default)]
    pub astray: BTreeMap<u64, String>,
    /// The groups by their number.
    pub groups: BTreeMap<u32, Group>,
}

/// A group.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Group {
    /// Who leads it, if anybody does.
    pub leader: Option<u64>,
    /// Raft's term.
    pub term: u64,
    /// The last entry that the asked node has applied.
    pub applied: u64,
    /// Who decides.
    pub voters: Vec<u64>,
    /// Who follows.
    pub learners: Vec<u64>,
    /// Whether its members are being changed.
    pub changing: bool,
    /// Whether the asked node has lost something of it, and waits for others to bring it up to date.
    #[serde(default)]
    pub damaged: bool,
}

impl Group {
    pub(super) fn placement(&self) -> Placement {
        Placement { voters: self.voters.clone(), learners: self.learners.clone() }
    }
}

impl Standing {
    /// How it stands now; `None` when the groups do not answer.
    pub async fn look(shared: &Arc<Shared>) -> Option<Self> {
        let look = identity::look(shared, |groups| {
            let registry = groups.get(cluster::GroupId::META).and_then(Machine::registry);
            let members = registry.map(|registry| registry.members().clone()).unwrap_or_default();
            let ids = groups.ids().into_iter();
            let status = |id: cluster::GroupId| {
                let status = groups.status(id)?.clone();
                let group = Group {
                    leader: status.leader,
                    term: status.term,
                    applied: status.applied,
                    voters: status.voters,
                    learners: status.learners,
                    changing: status.wanted.is_some(),
                    damaged: status.damaged,
                };
                Some((id.0, group))
            };
            (members, ids.filter_map(status).collect())
        });
        let (members, groups) = tokio::time::timeout(PATIENCE, look).await.ok()??;
        let own = shared.mesh.own.node();
        let lives = shared.mesh.lives().into_iter();
        let lives = lives.map(|life| (life.instance.node(), life.lost.is_none()));
        let peers = shared.mesh.roster.peers().into_iter().map(|peer| (peer.node, false));
        let mut peers: BTreeMap<u64, bool> = peers.chain(lives).collect();
        peers.retain(|node, _| *node != own && is_expected(&members, *node));
        let troubles = shared.mesh.links().map(links::Links::troubles).unwrap_or_default();
        let (mut not_linked, mut astray) = (BTreeMap::new(), BTreeMap::new());
        for (node, trouble) in troubles {
            match trouble {
                Trouble::NotLinked(why) => not_linked.insert(node, why),
                Trouble::Elsewhere(why) => astray.insert(node, why),
            };
        }
        Some(Self { node: own, members, peers, troubles: not_linked, astray, groups })
    }

    /// Asks a node by its admin listener.
    pub fn of(admin: &str) -> anyhow::Result<Self> {
        let body = super::ask(admin, "GET", "/admin/cluster", "")?;
        serde_json::from_str(&body).with_context(|| format!("{admin} is no node of this version"))
    }

    /// The nodes that can be reached from the asked one, itself included.
    pub(super) fn live(&self) -> BTreeSet<u64> {
        let linked = self.peers.iter().filter(|(_, linked)| **linked).map(|(node, _)| *node);
        linked.chain([self.node]).collect()
    }

    /// What is not as it should be, in words.
    pub fn complaints(&self) -> Vec<String> {
        let gone = self.peers.iter().filter(|(_, linked)| !**linked);
        let gone = gone.map(|(node, _)| match self.troubles.get(node) {
            Some(why) => format!("node {node} is not linked ({why})"),
            None => format!("node {node} is not linked"),
        });
        let linked = |(node, _): &(&u64, &String)| self.peers.get(node).is_some_and(|it| *it);
        let deaf = self.troubles.iter().filter(linked);
        let deaf =
            deaf.map(|(node, why)| format!("node {node} is heard, and cannot be dialled ({why})"));
        let astray = self.astray.iter().filter(linked);
        let astray = astray.map(|(node, why)| format!("node {node} is not where it says ({why})"));
        let damaged = self.groups.iter().filter(|(_, group)| group.damaged);
        let node = self.node;
        let damaged = counted(damaged, "is damaged on", "are damaged on");
        let damaged = damaged.into_iter().map(|what| format!("{what} node {node}"));
        let is_leaderless = |group: &Group| group.leader.is_none() && !group.damaged;
        let leaderless = self.groups.iter().filter(|(_, group)| is_leaderless(group));
        let leaderless = counted(leaderless, "has no leader", "have no leader");
        let changing = self.groups.iter().filter(|(_, group)| group.changing);
        let changing = counted(changing, "is changing its members", "are changing their members");
        let live = self.live();
        let misplaced = |(id, group): &(&u32, &Group)| {
            let next = next_change(**id, &self.members, &group.placement(), None, &live);
            !group.changing && next.is_some()
        };
        let misplaced = self.groups.iter().filter(misplaced);
        let misplaced = counted(misplaced, "is to get other members", "are to get other members");
        let members = self.members.iter();
        let unsettled = members.filter_map(|(node, it)| Some((node, in_transit(it)?)));
        let unsettled = unsettled.map(|(node, what)| format!("node {node} is {what}"));
        let has_begun = self.peers.is_empty() || !self.members.is_empty();
        let unfounded = (!has_begun).then(|| "the cluster has not noted its nodes yet".to_owned());
        let complaints = gone
            .chain(deaf)
            .chain(astray)
            .chain(damaged)
            .chain(leaderless)
            .chain(changing)
            .chain(misplaced)
            .chain(unsettled);
        complaints.chain(unfounded).collect()
    }

    /// As a table, for people.
    pub fn table(&self) -> String {
        let mut text = format!("asked: node {}\n", self.node);
        // Writing to a string cannot fail.
        for (node, linked) in &self.peers {
            let linked = if *linked { "linked" } else { "not linked" };
            let member = self.members.get(node);
            let address = member.map_or("", |member| &member.address);
            let what =
                member.and_then(in_transit).map_or(String::new(), |what| format!(", {what}"));
            let line = format!("node {node}: {linked}{what} {address}");
            let _ = writeln!(text, "{}", line.trim_end());
        }
        let _ = writeln!(
            text,
            "{:<7}{:<9}{:<8}{:<12}{:<12}learners",
            "group", "leader", "term", "applied", "voters"
        );
        for (id, group) in &self.groups {
            let leader = match group.leader {
                _ if group.damaged => "damaged".into(),
                Some(node) => node.to_string(),
                None => "none".into(),
            };
            let list = |nodes: &[u64]| {
                let nodes: Vec<_> = nodes.iter().map(u64::to_string).collect();
                nodes.join(" ")
            };
            let (term, applied) = (group.term, group.applied);
            let (voters, learners) = (list(&group.voters), list(&group.learners));
            let line = format!("{id:<7}{leader:<9}{term:<8}{applied:<12}{voters:<12}{learners}");
            let _ = writeln!(text, "{}", line.trim_end());
        }
        text
    }
}

/// What is wrong with some groups: a single one is named.
fn counted<'a>(
    groups: impl Iterator<Item = (&'a u32, &'a Group)>,
    one: &str,
    several: &str,
) -> Option<String> {
    match &*groups.map(|(id, _)| id).collect::<Vec<_>>() {
        [] => None,
        [id] => Some(format!("group {id} {one}")),
        ids => Some(format!("{} groups {several}", ids.len())),
    }
}

/// Whether a node should be linked: it is a member, or nobody knows yet who is.
fn is_expected(members: &BTreeMap<u64, Member>, node: u64) -> bool {
    let member = members.get(&node);
    members.is_empty() || member.is_some_and(|it| it.status != MemberStatus::Removed)
}

/// What becomes of a member, if anything does.
fn in_transit(member: &Member) -> Option<&'static str> {
    match (member.status, member.drain) {
        (MemberStatus::Joining, _) => Some("joining"),
        (MemberStatus::Leaving, _) => Some("leaving"),
        (MemberStatus::Active, Drain::Wanted) => Some("draining"),
        (MemberStatus::Active, Drain::Done) => Some("drained"),
        (MemberStatus::Active, Drain::No) | (MemberStatus::Removed, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use fleet::registry::{Command, Registry};

    use super::*;

    #[test]
    fn what_is_wrong_is_said() {
        let group = |leader| Group {
            leader,
            term: 3,
            applied: 7,
            voters: vec![1, 2, 3],
            learners: vec![],
            changing: false,
            damaged: false,
        };
        let mut standing = Standing {
            node: 1,
            members: BTreeMap::new(),
            peers: [(2, true), (3, true)].into(),
            troubles: [(3, "host-3:7400: cannot connect".to_owned())].into(),
            astray: [(2, "found elsewhere".to_owned())].into(),
            groups: [(0, group(Some(2)))].into(),
        };
        let [deaf, astray, unfounded] = [
            "node 3 is heard, and cannot be dialled (host-3:7400: cannot connect)",
            "node 2 is not where it says (found elsewhere)",
            "the cluster has not noted its nodes yet",
        ];
        assert_eq!(standing.complaints(), [deaf, astray, unfounded]);
        standing.astray.clear();
        let troubles = std::mem::take(&mut standing.troubles);
        assert_eq!(standing.complaints(), ["the cluster has not noted its nodes yet"]);
        let mut registry = Registry::default();
        let nodes = (1..=3).map(|node| (node, format!("host-{node}:7400"))).collect();
        registry.apply(Command::FoundCluster { nodes }).unwrap();
        standing.members.clone_from(registry.members());
        assert_eq!(standing.complaints(), Vec::<String>::new());
        standing.peers.insert(3, false);
        standing.troubles = troubles;
        standing.groups.insert(1, group(None));
        let gone = "node 3 is not linked (host-3:7400: cannot connect)";
        assert_eq!(standing.complaints(), [gone, "group 1 has no leader"]);
        assert!(standing.table().contains("node 3: not linked host-3:7400"));
        assert!(standing.table().contains("1      none     3       7           1 2 3"));
        standing.groups.insert(2, group(None));
        assert_eq!(standing.complaints(), [gone, "2 groups have no leader"]);
        standing.groups.insert(2, Group { damaged: true, ..group(None) });
        assert!(standing.complaints().contains(&"group 2 is damaged on node 1".to_owned()));
        assert!(standing.table().contains("2      damaged  3       7           1 2 3"));
        standing.members.clear();
        assert!(standing.table().contains("node 3: not linked\n"), "no blank at the end");
    }
}
