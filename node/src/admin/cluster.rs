//! How the cluster stands, as one node sees it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use crate::identity;
use crate::shared::Shared;

/// How long a node has to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What `GET /admin/cluster` says.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Standing {
    /// The node that is asked.
    pub node: u64,
    /// The other nodes it has heard of, and whether they are linked.
    pub peers: BTreeMap<u64, bool>,
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
}

impl Standing {
    /// How it stands now; `None` when the groups do not answer.
    pub async fn look(shared: &Arc<Shared>) -> Option<Self> {
        let groups = identity::look(shared, |groups| {
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
                };
                Some((id.0, group))
            };
            ids.filter_map(status).collect()
        });
        let groups = tokio::time::timeout(PATIENCE, groups).await.ok()??;
        let peers = shared.mesh.lives().into_iter();
        let peers = peers.map(|life| (life.instance.node(), life.lost.is_none())).collect();
        Some(Self { node: shared.mesh.own.node(), peers, groups })
    }

    /// Asks a node by its admin listener.
    pub fn of(admin: &str) -> anyhow::Result<Self> {
        let cannot = || format!("cannot ask the node at {admin}");
        let mut stream = TcpStream::connect(admin).with_context(cannot)?;
        stream.set_read_timeout(Some(PATIENCE * 2))?;
        let request = "GET /admin/cluster HTTP/1.1\r\nHost: skein\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).with_context(cannot)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).with_context(cannot)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
        let status = head.split(' ').nth(1).unwrap_or_default();
        if status != "200" {
            bail!("the node at {admin} answers {status}: {}", body.trim());
        }
        serde_json::from_str(body).with_context(|| format!("{admin} is no node of this version"))
    }

    /// What is not as it should be, in words.
    pub fn complaints(&self) -> Vec<String> {
        let gone = self.peers.iter().filter(|(_, linked)| !**linked);
        let gone = gone.map(|(node, _)| format!("node {node} is not linked"));
        let leaderless = self.groups.iter().filter(|(_, group)| group.leader.is_none());
        let leaderless = leaderless.map(|(id, _)| format!("group {id} has no leader"));
        let changing = self.groups.iter().filter(|(_, group)| group.changing);
        let changing = changing.map(|(id, _)| format!("the members of group {id} are changing"));
        gone.chain(leaderless).chain(changing).collect()
    }

    /// As a table, for people.
    pub fn table(&self) -> String {
        let mut text = format!("asked: node {}\n", self.node);
        // Writing to a string cannot fail.
        for (node, linked) in &self.peers {
            let linked = if *linked { "linked" } else { "not linked" };
            let _ = writeln!(text, "node {node}: {linked}");
        }
        let _ = writeln!(text, "{:<7}{:<8}{:<8}{:<12}voters", "group", "leader", "term", "applied");
        for (id, group) in &self.groups {
            let leader = group.leader.map_or("none".into(), |node| node.to_string());
            let voters: Vec<_> = group.voters.iter().map(u64::to_string).collect();
            let (term, applied) = (group.term, group.applied);
            let _ = writeln!(text, "{id:<7}{leader:<8}{term:<8}{applied:<12}{}", voters.join(" "));
        }
        text
    }
}

#[cfg(test)]
mod tests {
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
        };
        let mut standing = Standing {
            node: 1,
            peers: [(2, true), (3, true)].into(),
            groups: [(0, group(Some(2)))].into(),
        };
        assert_eq!(standing.complaints(), Vec::<String>::new());
        standing.peers.insert(3, false);
        standing.groups.insert(1, group(None));
        assert_eq!(standing.complaints(), ["node 3 is not linked", "group 1 has no leader"]);
        assert!(standing.table().contains("1      none    3       7           1 2 3"));
    }
}
