//! Nodes come, go, and come back as somebody else.

use super::*;

fn found() -> Registry {
    let mut registry = Registry::default();
    let nodes = (1..=3).map(|node| (node, format!("host-{node}:7400"))).collect();
    registry.apply(Command::FoundCluster { nodes }).unwrap();
    registry
}

fn announce(node: u64, folder: &str) -> Command {
    let (folder, address) = (folder.into(), format!("new-{node}:7400"));
    Command::AnnounceMember { node, folder, address, data_version: 1 }
}

fn add(node: u64) -> Command {
    Command::AddMember { node, address: format!("host-{node}:7400") }
}

fn drain(node: u64, drain: Drain) -> Command {
    Command::DrainMember { node, drain }
}

fn remove(node: u64, dead: bool) -> Command {
    Command::RemoveMember { node, dead }
}

fn status(registry: &Registry, node: u64) -> MemberStatus {
    registry.members()[&node].status
}

#[test]
fn a_cluster_is_founded_once() {
    let mut registry = found();
    let nodes = [(9, "host-9:7400".into())].into();
    registry.apply(Command::FoundCluster { nodes }).unwrap();
    assert_eq!(registry.members().keys().copied().collect::<Vec<_>>(), [1, 2, 3]);
    assert!(registry.members().values().all(Member::may_lead));
}

#[test]
fn what_is_wrong_is_refused_and_changes_nothing() {
    use Rejection as R;
    let gone = |node| vec![remove(node, true), Command::RetireMember { node }];
    let prefer = |node| Command::PreferLeader { group: 1, node: Some(node) };
    for (before, command, rejection) in [
        (vec![], add(3), R::MemberExists(3)),
        (vec![], remove(4, false), R::MemberNotFound(4)),
        (vec![], drain(4, Drain::Wanted), R::MemberNotFound(4)),
        (gone(3), remove(3, false), R::MemberRemoved(3)),
        (gone(3), announce(3, "a"), R::MemberRemoved(3)),
        (gone(3), drain(3, Drain::No), R::MemberRemoved(3)),
        (vec![remove(3, false)], drain(3, Drain::No), R::MemberLeaving(3)),
        ([gone(3), gone(2)].concat(), remove(1, false), R::LastMember(1)),
        (vec![add(4)], prefer(4), R::MemberNotActive(4)),
        (vec![], prefer(5), R::MemberNotFound(5)),
        (
            vec![announce(3, "a")],
            announce(3, "b"),
            R::MemberRefused { node: 3, why: NotMember::Folder },
        ),
        (
            [vec![announce(3, "a")], gone(3), vec![add(3)]].concat(),
            announce(3, "a"),
            R::MemberRefused { node: 3, why: NotMember::Former },
        ),
    ] {
        let mut registry = found();
        for command in before {
            registry.apply(command).unwrap();
        }
        let untouched = registry.clone();
        assert_eq!(registry.apply(command), Err(rejection));
        assert_eq!(registry, untouched);
    }
}

#[test]
fn a_node_joins_moves_drains_and_leaves() {
    let mut registry = found();
    let mut apply = |command| {
        registry.apply(command).unwrap();
        registry.clone()
    };
    assert_eq!(status(&apply(add(4)), 4), MemberStatus::Joining);
    assert_eq!(apply(announce(4, "a")).members()[&4].address, "new-4:7400");
    assert_eq!(status(&apply(Command::ActivateMember { node: 4 }), 4), MemberStatus::Active);
    assert!(!apply(drain(4, Drain::Wanted)).members()[&4].may_lead());
    assert_eq!(apply(drain(4, Drain::Done)).members()[&4].drain, Drain::Done);
    assert!(apply(drain(4, Drain::No)).members()[&4].may_lead());
    // It says so too late.
    assert!(apply(drain(4, Drain::Done)).members()[&4].may_lead());
    apply(Command::PreferLeader { group: 2, node: Some(4) });
    let leaving = apply(remove(4, false));
    assert!(leaving.members()[&4].is_placed());
    // Not before it is drained.
    assert_eq!(status(&apply(Command::RetireMember { node: 4 }), 4), MemberStatus::Leaving);
    assert!(!apply(drain(4, Drain::Done)).members()[&4].is_placed());
    let gone = apply(Command::RetireMember { node: 4 });
    assert_eq!(status(&gone, 4), MemberStatus::Removed);
    assert!(gone.preferred_leaders().is_empty());
    // On an empty disk, under the same number.
    assert_eq!(status(&apply(add(4)), 4), MemberStatus::Joining);
    let back = apply(announce(4, "b")).members()[&4].clone();
    assert_eq!(back.admits("a"), Err(NotMember::Former));
    assert_eq!(back.admits("b"), Ok(()));
    assert_eq!(back.admits("c"), Err(NotMember::Folder));
}

#[test]
fn who_leaves_without_having_been_active_never_decides() {
    for dead in [false, true] {
        for before in [vec![], vec![announce(4, "a")], vec![drain(4, Drain::Wanted)]] {
            let mut registry = found();
            for command in [vec![add(4)], before, vec![remove(4, dead)]].concat() {
                registry.apply(command).unwrap();
                let member = &registry.members()[&4];
                assert!(!member.may_vote() && !member.may_lead(), "{member:?}");
            }
            // Nobody waits for what it would have to say.
            assert!(!registry.members()[&4].is_placed());
            registry.apply(Command::RetireMember { node: 4 }).unwrap();
            assert_eq!(status(&registry, 4), MemberStatus::Removed);
        }
    }
}

#[test]
fn a_survivor_is_all_there_is() {
    let mut registry = found();
    registry.apply(announce(2, "b")).unwrap();
    registry.apply(Command::PreferLeader { group: 2, node: Some(2) }).unwrap();
    let (folder, address) = ("a".into(), "host-1:7400".into());
    registry.apply(Command::RecoverMember { survivor: 1, folder, address }).unwrap();
    assert_eq!(status(&registry, 1), MemberStatus::Active);
    assert_eq!(registry.members()[&2].admits("b"), Err(NotMember::Removed));
    assert!(registry.preferred_leaders().is_empty());
    registry.apply(create("lamp", None, &[])).unwrap();
    let changed = registry.checkpoint().into_iter();
    let mut pairs = changed.filter_map(|(key, value)| Some((key, value?))).collect();
    let loaded = |pairs: &BTreeMap<Vec<u8>, Vec<u8>>| {
        let mut loaded = Registry::default();
        pairs.iter().for_each(|(key, value)| loaded.load(key, value).unwrap());
        loaded.loaded().unwrap();
        loaded
    };
    assert_eq!(loaded(&pairs).members(), registry.members());
    // In another cluster it has everything but these.
    forget_members(&mut pairs);
    let elsewhere = loaded(&pairs);
    assert!(elsewhere.members().is_empty() && elsewhere.thing("lamp").is_some());
}
