//! The cluster's members, as far as this node looks after them: what it says of itself, and, of the
//! groups it leads, who shall be in them.
//!
//! What there is to do is found anew each time from the state alone, so it goes on wherever a lead goes,
//! and what was lost is said again. A leader changes the members of one group at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use cluster::{GroupId, GroupsView, Order, Status};
use fleet::placement::{Placement, next_change};
use fleet::registry::{Command, Drain, Member, MemberStatus, Timestamp};
use tokio::time::Instant;
use tracing::info;

use super::{Machine, NodeHost};
use crate::clock::now_ms;
use crate::roster::{Own, Roster};

/// The version of the data that this node writes.
const DATA_VERSION: u32 = 2;

/// Between two looks: rarely is something proposed twice before it is decided.
const EVERY: Duration = Duration::from_millis(300);

/// What decides about a node's duties.
struct View<'a> {
    own: &'a Own,
    members: &'a BTreeMap<u64, Member>,
    /// Whether it leads the `meta` group.
    leads_meta: bool,
    /// Whether it has a replica of every group, with a leader.
    has_all: bool,
    /// Whether it serves no client any more.
    is_drained: bool,
    /// Whether it goes on alone and the members do not know it yet.
    is_deserted: bool,
    /// The nodes that are in some group.
    placed: &'a BTreeSet<u64>,
}

/// What a node has to propose to the `meta` group.
fn duties(view: &View<'_>, configured: impl Fn(u64) -> String) -> Vec<Command> {
    let View { own, members, .. } = *view;
    let node = own.node;
    if view.is_deserted {
        let (folder, address) = (own.folder.clone(), own.address.clone());
        let recover = Command::RecoverMember { survivor: node, folder, address };
        return Vec::from_iter(view.leads_meta.then_some(recover));
    }
    if members.is_empty() {
        let address = |node| if node == own.node { own.address.clone() } else { configured(node) };
        let nodes = own.founders.iter().map(|node| (*node, address(*node))).collect();
        return Vec::from_iter(view.leads_meta.then_some(Command::FoundCluster { nodes }));
    }
    let mut commands = Vec::new();
    if let Some(member) = members.get(&node).filter(|it| it.status != MemberStatus::Removed) {
        let is_known = member.folder.as_ref() == Some(&own.folder)
            && (own.address.is_empty() || member.address == own.address)
            && member.data_version == DATA_VERSION;
        if !is_known {
            let (folder, address) = (own.folder.clone(), own.address.clone());
            let data_version = DATA_VERSION;
            commands.push(Command::AnnounceMember { node, folder, address, data_version });
        } else if member.status == MemberStatus::Joining && view.has_all {
            commands.push(Command::ActivateMember { node });
        }
        if member.drain == Drain::Wanted && view.is_drained {
            commands.push(Command::DrainMember { node, drain: Drain::Done });
        }
    }
    if view.leads_meta {
        let has_left = |(node, member): &(&u64, &Member)| {
            member.status == MemberStatus::Leaving
                && !member.is_placed()
                && !view.placed.contains(node)
        };
        let left = members.iter().filter(has_left);
        commands.extend(left.map(|(node, _)| Command::RetireMember { node: *node }));
    }
    commands
}

/// The nodes that are in a group, or are to be, or are about to leave it.
fn nodes_of(status: &Status, all: &BTreeMap<u64, Member>) -> BTreeSet<u64> {
    if status.wanted.is_some() {
        // Who goes still decides while old and new members do so together.
        return all.keys().copied().collect();
    }
    status.voters.iter().chain(&status.learners).copied().collect()
}

fn placement(voters: &[u64], learners: &[u64]) -> Placement {
    Placement { voters: voters.into(), learners: learners.into() }
}

impl NodeHost {
    /// Tells the rest of the node who the members are.
    pub(super) fn note_members(&self, groups: &GroupsView<'_, Machine>) {
        let mesh = &self.shared.mesh;
        // Before the members are read, which may be later ones.
        let as_of = self.shared.registry.as_of();
        let is_damaged = groups.status(GroupId::META).is_some_and(|status| status.damaged);
        mesh.roster.note_damage(is_damaged);
        let Some(registry) = groups.get(GroupId::META).and_then(Machine::registry) else { return };
        let members = registry.members();
        if let Some(own) = &mesh.roster.own
            && mesh.roster.is_deserted()
            && is_alone(own, members)
        {
            info!("this node is the only member of its cluster");
            mesh.roster.end_recovery();
        }
        if mesh.roster.note(members, as_of) {
            mesh.follow_roster();
        }
        let version = match mesh.roster.own {
            Some(_) => readable_by_all(members),
            None => DATA_VERSION,
        };
        metrics::gauge!("cluster_data_version").set(version);
        self.shared.data_version.store(version, Ordering::Relaxed);
    }

    /// Does what this node has to do for the members of the cluster; gives what it proposes.
    pub(super) fn tend_members(
        &mut self,
        groups: &GroupsView<'_, Machine>,
    ) -> Vec<(GroupId, Bytes)> {
        self.note_members(groups);
        let mesh = &self.shared.mesh;
        let Some(own) = &mesh.roster.own else { return Vec::new() };
        if self.tended.elapsed() < EVERY {
            return Vec::new();
        }
        self.tended = Instant::now();
        let Some(registry) = groups.get(GroupId::META).and_then(Machine::registry) else {
            return Vec::new();
        };
        let members = registry.members();
        let ids = groups.ids();
        let statuses = || ids.iter().filter_map(|id| groups.status(*id));
        let view = View {
            own,
            members,
            leads_meta: groups.leads(GroupId::META),
            has_all: statuses().all(|status| status.leader.is_some()),
            is_drained: self.shared.is_drained(),
            is_deserted: mesh.roster.is_deserted(),
            placed: &statuses().flat_map(|status| nodes_of(status, members)).collect(),
        };
        let commands = duties(&view, |node| mesh.roster.configured(node));
        // Until it is decided it is proposed again and again.
        if let Some(audit) = self.shared.audit.as_ref().filter(|_| commands != self.recorded_duties)
        {
            let now = Timestamp(now_ms());
            for command in &commands {
                audit.ledger.note_proposed(registry, command, now);
            }
            self.recorded_duties.clone_from(&commands);
        }
        self.place(groups, &mesh.roster, members);
        let encoded = commands.iter().map(|command| (GroupId::META, command.encode().into()));
        encoded.collect()
    }

    /// Orders the next change of the members of a group that this node leads.
    fn place(
        &self,
        groups: &GroupsView<'_, Machine>,
        roster: &Roster,
        members: &BTreeMap<u64, Member>,
    ) {
        if roster.is_deserted() {
            return;
        }
        let live: BTreeSet<u64> =
            self.shared.mesh.linked().into_iter().chain([self.shared.mesh.own.node()]).collect();
        let led: Vec<_> = groups.ids().into_iter().filter(|id| groups.leads(*id)).collect();
        let mut is_changing = false;
        let mut next = None;
        for id in led {
            let Some(status) = groups.status(id) else { continue };
            let now = placement(&status.voters, &status.learners);
            let wanted = status.wanted.as_ref().map(|it| placement(&it.voters, &it.learners));
            let change = next_change(id.0, members, &now, wanted.as_ref(), &live);
            // What cannot be reached any more is given up for something else at once.
            let is_redirected = change.is_some() && wanted.is_some();
            is_changing |= wanted.is_some() && !is_redirected;
            if let Some(change) = change.filter(|_| next.is_none() || is_redirected) {
                next = Some((id, change));
            }
        }
        if let Some((group, Placement { voters, learners })) = next.filter(|_| !is_changing) {
            info!(%group, ?voters, ?learners, "the members of a group are to change");
            self.shared.groups.order(Order::ChangeMembers { group, voters, learners });
        }
    }
}

/// The version of the data that every member can read, as far as they have said; 0 while nobody has.
/// Who has never said it has no data: it does not take back what the others have agreed on.
fn readable_by_all(members: &BTreeMap<u64, Member>) -> u32 {
    let members = members.values().filter(|it| it.status != MemberStatus::Removed);
    let said = members.map(|member| member.data_version).filter(|version| *version > 0);
    said.min().unwrap_or(0)
}

/// Whether a node is the only member.
fn is_alone(own: &Own, members: &BTreeMap<u64, Member>) -> bool {
    let is_gone = |(node, member): (&u64, &Member)| {
        *node == own.node || member.status == MemberStatus::Removed
    };
    members.get(&own.node).is_some_and(|it| it.folder.as_ref() == Some(&own.folder))
        && members.iter().all(is_gone)
}

#[cfg(test)]
mod tests {
    use fleet::registry::Registry;

    use super::*;

    fn own(node: u64, address: &str) -> Own {
        let (folder, address) = (format!("folder-{node}"), address.to_owned());
        Own { node, folder, address, joins: node > 3, founders: vec![1, 2, 3] }
    }

    fn announce(node: u64, address: &str) -> Command {
        let Own { folder, address, .. } = own(node, address);
        Command::AnnounceMember { node, folder, address, data_version: DATA_VERSION }
    }

    #[test]
    fn nothing_is_written_that_a_member_cannot_read() {
        let announce = |node: u64, data_version| Command::AnnounceMember {
            node,
            folder: format!("folder-{node}"),
            address: String::new(),
            data_version,
        };
        let mut registry = Registry::default();
        let mut after = |command| {
            registry.apply(command).unwrap();
            readable_by_all(registry.members())
        };
        let nodes = (1..=2).map(|node| (node, format!("host-{node}:1"))).collect();
        let add = Command::AddMember { node: 3, address: "host-3:1".into() };
        for (case, command, expected) in [
            ("nobody has said", Command::FoundCluster { nodes }, 0),
            ("one has", announce(1, 2), 2),
            ("one is of the version before", announce(2, 1), 1),
            ("all do", announce(2, 3), 2),
            ("one comes that has not said", add, 2),
            ("it does too", announce(3, 2), 2),
            ("it is of the version before", announce(3, 1), 1),
            ("it goes", Command::RemoveMember { node: 3, dead: true }, 1),
            ("it is gone", Command::RetireMember { node: 3 }, 2),
        ] {
            assert_eq!(after(command), expected, "{case}");
        }
        assert_eq!(readable_by_all(&BTreeMap::new()), 0, "members are not known");
    }

    #[test]
    fn a_node_says_what_the_others_do_not_know_yet() {
        let founded = || Command::FoundCluster {
            nodes: (1..=3).map(|node| (node, format!("host-{node}:1"))).collect(),
        };
        let recover = Command::RecoverMember {
            survivor: 1,
            folder: "folder-1".into(),
            address: "host-1:1".into(),
        };
        let known = || vec![founded(), announce(1, "host-1:1")];
        let with = |more: Vec<Command>| [known(), more].concat();
        let add = || Command::AddMember { node: 4, address: "host-4:1".into() };
        let drain = |drain| Command::DrainMember { node: 1, drain };
        let remove = |dead| Command::RemoveMember { node: 3, dead };
        let (leads, follows) = (true, false);
        for (case, state, node, leads_meta, expected) in [
            ("the first leader founds", vec![], 1, leads, vec![founded()]),
            ("others wait", vec![], 1, follows, vec![]),
            ("it says who it is", vec![founded()], 1, follows, vec![announce(1, "host-1:1")]),
            ("once", known(), 1, follows, vec![]),
            (
                "it has moved",
                vec![founded(), announce(1, "old:1")],
                1,
                follows,
                vec![announce(1, "host-1:1")],
            ),
            ("nobody has added it", known(), 4, follows, vec![]),
            ("it was added", with(vec![add()]), 4, follows, vec![announce(4, "host-4:1")]),
            (
                "it has everything",
                with(vec![add(), announce(4, "host-4:1")]),
                4,
                follows,
                vec![Command::ActivateMember { node: 4 }],
            ),
            (
                "it is drained",
                with(vec![drain(Drain::Wanted)]),
                1,
                follows,
                vec![drain(Drain::Done)],
            ),
            ("one leaves and is still drained", with(vec![remove(false)]), 1, leads, vec![]),
            (
                "one has left",
                with(vec![remove(true)]),
                1,
                leads,
                vec![Command::RetireMember { node: 3 }],
            ),
            ("the leader tells", with(vec![remove(true)]), 1, follows, vec![]),
        ] {
            let mut registry = Registry::default();
            for command in state {
                registry.apply(command).unwrap();
            }
            let view = View {
                own: &own(node, &format!("host-{node}:1")),
                members: registry.members(),
                leads_meta,
                has_all: true,
                is_drained: true,
                is_deserted: false,
                placed: &[1, 2].into(),
            };
            let configured = |node| format!("host-{node}:1");
            assert_eq!(duties(&view, configured), expected, "{case}");
            let waiting =
                View { placed: &[1, 2, 3].into(), has_all: false, is_drained: false, ..view };
            let still: Vec<_> = duties(&waiting, configured);
            let needs = |it: &Command| {
                matches!(it, Command::RetireMember { .. } | Command::ActivateMember { .. })
                    || matches!(it, Command::DrainMember { .. })
            };
            assert!(!still.iter().any(needs), "{case}: {still:?}");
            let deserted = duties(&View { is_deserted: true, ..view }, configured);
            assert_eq!(deserted.contains(&recover), leads_meta && node == 1, "{case}");
        }
    }
}
