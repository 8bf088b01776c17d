use fleet::registry::{Command, Registry};

use super::*;

/// Nodes 1 to 3, of which 2 has the folder "b" and 3 was removed; 4 joins.
fn members() -> BTreeMap<u64, Member> {
    let mut registry = Registry::default();
    let nodes = (1..=3).map(|node| (node, format!("old-{node}:1"))).collect();
    let (folder, address) = ("b".to_owned(), "new-2:1".to_owned());
    for command in [
        Command::FoundCluster { nodes },
        Command::AnnounceMember { node: 2, folder, address, data_version: 1 },
        Command::RemoveMember { node: 3, dead: true },
        Command::RetireMember { node: 3 },
        Command::AddMember { node: 4, address: "old-4:1".into() },
    ] {
        registry.apply(command).unwrap();
    }
    registry.members().clone()
}

fn lives() -> Lives {
    Lives::remember(None, |_| Ok(())).unwrap()
}

fn configured() -> BTreeMap<u64, String> {
    (1..=3).map(|node| (node, format!("conf-{node}:1"))).collect()
}

fn introduction(node: u64) -> Introduction<'static> {
    let (folder, address, found, others, lives) = ("", "", "", &[], &[]);
    Introduction { node, incarnation: 1, folder, lives, address, found, joins: false, others }
}

#[test]
fn whoever_is_a_member_with_its_folder_is_let_in() {
    let (members, nobody) = (members(), BTreeMap::new());
    let (known, unfounded, unloaded) = (Some(&members), Some(&nobody), None);
    for (members, joining, deserted, node, folder, expected) in [
        (known, false, false, 1, "a", None),
        (known, false, false, 1, "", None),
        (known, false, false, 2, "b", None),
        (known, false, false, 2, "c", Some(("skein cluster replace 2", true))),
        (known, false, false, 2, "", Some(("another data folder", true))),
        (known, false, false, 3, "d", Some(("was removed", true))),
        (known, true, false, 3, "d", Some(("was removed", false))),
        (known, true, false, 2, "c", Some(("skein cluster replace 2", false))),
        (known, false, false, 4, "e", None),
        (known, false, false, 5, "f", Some(("skein cluster add", false))),
        (known, false, true, 2, "b", Some(("was removed", true))),
        (unfounded, false, false, 3, "d", None),
        (unfounded, false, false, 4, "e", Some(("skein cluster add", false))),
        (unfounded, true, false, 4, "e", None),
        (unloaded, false, false, 1, "a", Some(("has loaded its state", false))),
    ] {
        let peer = Introduction { folder, ..introduction(node) };
        let found = judge(members, &configured(), joining, deserted, peer);
        let found = found.err().map(|denied| (denied.why, denied.certainty == Certainty::ForGood));
        match (&found, expected) {
            (None, None) => {}
            (Some((why, for_good)), Some((said, wanted)))
                if why.contains(said) && *for_good == wanted => {}
            _ => panic!("node {node} with {folder:?}: {found:?}, not {expected:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_is_denied_for_good_who_may_have_been_let_in_meanwhile() {
    let (roster, start) = (Roster::new(None, String::new(), lives(), None), Instant::now());
    let at = |millis| start + Duration::from_millis(millis);
    let look = |millis| roster.note(&members(), at(millis));
    let denied = |joins, incarnation| {
        let peer = Introduction { incarnation, folder: "d", joins, ..introduction(3) };
        roster.admit(peer, false).unwrap_err().certainty
    };
    look(0);
    tokio::time::advance(Duration::from_secs(1)).await;
    look(900);
    assert_eq!(denied(true, 1), Certainty::Unsure, "it has looked, but before");
    assert_eq!(denied(false, 1), Certainty::ForGood, "a founder is let in by nobody");
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(denied(true, 1), Certainty::Unsure, "it has not looked again");
    look(1900);
    assert_eq!(denied(true, 1), Certainty::ForGood);
    assert_eq!(denied(true, 2), Certainty::Unsure, "it may live anew because it was let in");
    assert_eq!(denied(true, 1), Certainty::ForGood, "two lives do not disturb each other");
    tokio::time::advance(Duration::from_secs(3)).await;
    assert_eq!(denied(true, 2), Certainty::Unsure, "the last look was long ago");
    look(4900);
    assert_eq!(denied(true, 2), Certainty::ForGood);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_cannot_look_says_so_to_one_that_it_does_not_know() {
    let roster = Roster::new(None, String::new(), lives(), None);
    roster.note(&members(), Instant::now());
    let denied = |joins| {
        roster.admit(Introduction { joins, ..introduction(5) }, false).unwrap_err().certainty
    };
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(denied(true), Certainty::Unsure, "it may have been added since");
    assert_eq!(denied(false), Certainty::ForNow, "a founder is known to everybody");
    tokio::time::advance(Duration::from_millis(1)).await;
    roster.note(&members(), Instant::now());
    assert_eq!(denied(true), Certainty::ForNow);
    tokio::time::advance(Duration::from_secs(3)).await;
    assert_eq!(denied(true), Certainty::Unsure, "that was long ago");
}

#[test]
fn a_node_is_where_it_says() {
    let (members, nobody) = (members(), BTreeMap::new());
    let said = |it: u64, how: &str| (it, format!("{how}-{it}:1"));
    let heard =
        |nodes: &[u64]| -> BTreeMap<_, _> { nodes.iter().map(|it| said(*it, "heard")).collect() };
    for (members, heard, joining, expected) in [
        (&nobody, heard(&[]), false, "conf-1:1 conf-2:1 conf-3:1"),
        (&nobody, heard(&[2, 9]), false, "conf-1:1 heard-2:1 conf-3:1"),
        (&nobody, heard(&[9]), true, "hearsay-1:1 conf-2:1 hearsay-3:1 hearsay-8:1 heard-9:1"),
        (&nobody, heard(&[8]), true, "hearsay-1:1 conf-2:1 hearsay-3:1 heard-8:1"),
        (&members, heard(&[]), true, "old-1:1 new-2:1 old-4:1 hearsay-8:1"),
        (&members, heard(&[]), false, "old-1:1 new-2:1 old-4:1"),
        (&members, heard(&[1, 3, 4]), false, "heard-1:1 new-2:1 heard-4:1"),
    ] {
        let state = State {
            members: Some(members.clone()),
            heard,
            hearsay: [1, 3, 8].map(|it| (it, vec![said(it, "hearsay").1])).into(),
            ..State::default()
        };
        let found = addresses(&state, &configured(), joining);
        let found: Vec<_> = found.into_iter().map(|peer| peer.address).collect();
        assert_eq!(found.join(" "), expected);
    }
}

#[test]
fn a_node_is_dialled_where_it_should_be_and_then_where_it_was_configured() {
    let peers = [1, 2, 3].map(|it| format!("[[peers]]\nnode = {it}\naddress = 'conf-{it}:1'"));
    let config = format!("node = 1\n{}", peers.join("\n"));
    let config: config::Cluster = toml::from_str(&config).unwrap();
    let roster = Roster::new(Some(&config), String::new(), lives(), None);
    let places = |roster: &Roster| -> Vec<_> {
        roster.places().into_iter().map(|it| format!("{} {}", it.node, it.address)).collect()
    };
    assert_eq!(places(&roster), ["2 conf-2:1", "3 conf-3:1"]);
    roster.note(&members(), Instant::now());
    assert_eq!(places(&roster), ["2 new-2:1", "4 old-4:1", "2 conf-2:1"]);
    let back = Introduction { folder: "b", address: "conf-2:1", ..introduction(2) };
    assert_eq!(roster.admit(back, false), Ok(true));
    assert_eq!(places(&roster), ["2 conf-2:1", "4 old-4:1"]);
    let lives = &[1, 2];
    let astray = Introduction { address: "new-2:1", found: "there-2:1", lives, ..back };
    roster.miss(2, "conf-2:1", None, false);
    assert_eq!(roster.admit(Introduction { incarnation: 2, ..astray }, false), Ok(true));
    assert_eq!(places(&roster), ["2 new-2:1", "4 old-4:1", "2 there-2:1", "2 conf-2:1"]);
}

#[test]
fn a_node_that_is_not_where_it_says_has_ended_when_nobody_listens_where_it_was_found() {
    let roster = Roster::new(None, String::new(), lives(), None);
    roster.note(&members(), Instant::now());
    let life = |lives, incarnation, address, found| {
        let peer = introduction(2);
        let peer = Introduction { folder: "b", lives, incarnation, address, found, ..peer };
        roster.admit(peer, false)
    };
    let whereabouts = || {
        let of_two = roster.whereabouts().into_iter().filter(|it| it.node == 2);
        of_two.map(|it| it.address).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(life(&[7], 7, "", "new-2:1"), Ok(false));
    assert_eq!(life(&[7, 8], 8, "", "").unwrap_err().certainty, Certainty::ForNow);
    roster.miss(2, "conf-2:1", None, false);
    assert!(life(&[7, 8], 8, "", "").is_err());
    roster.miss(2, "new-2:1", None, false);
    assert_eq!(life(&[7, 8], 8, "wrong-2:1", "conf-2:1"), Ok(true));
    assert_eq!(whereabouts(), "wrong-2:1 conf-2:1");
    roster.miss(2, "wrong-2:1", None, false);
    assert!(life(&[7, 8, 9], 9, "wrong-2:1", "").is_err());
    roster.miss(2, "conf-2:1", None, false);
    assert_eq!(life(&[7, 8, 9], 9, "wrong-2:1", ""), Ok(false));
    assert_eq!(whereabouts(), "wrong-2:1 conf-2:1", "it is likely to be there again");
}

#[test]
fn who_is_behind_knows_no_life_for_good() {
    let roster = Roster::new(None, String::new(), lives(), None);
    roster.note(&members(), Instant::now());
    let life = |lives, incarnation, is_linked| {
        let peer = Introduction { folder: "b", lives, incarnation, ..introduction(2) };
        roster.admit(peer, is_linked)
    };
    assert_eq!(life(&[5, 7], 7, false), Ok(false));
    for (is_damaged, expected) in [(false, Certainty::ForGood), (true, Certainty::ForNow)] {
        roster.note_damage(is_damaged);
        assert_eq!(life(&[5, 8], 8, true).unwrap_err().certainty, expected);
    }
}

#[test]
fn a_number_is_taken_again_before_the_node_is_added_or_after() {
    let mut members = members();
    let known = members.get_mut(&2).unwrap();
    known.status = MemberStatus::Removed;
    known.former_folders.push("a".to_owned());
    for (folder, joins, expected) in [
        ("c", true, "skein cluster add"),
        ("c", false, "was removed"),
        ("b", true, "was removed"),
        ("a", true, "was removed"),
    ] {
        let peer = Introduction { folder, joins, ..introduction(2) };
        let denied = judge(Some(&members), &configured(), false, false, peer).unwrap_err();
        assert!(denied.why.contains(expected), "{folder}: {denied:?}");
        assert_eq!(denied.certainty == Certainty::Unsure, folder == "c" && joins);
    }
}

#[test]
fn who_joins_learns_from_one_node_where_the_others_are() {
    let address = |it: u64| PeerAddress { node: it, address: format!("said-{it}:1") };
    let nowhere = PeerAddress { node: 7, address: "nowhere".to_owned() };
    let others = [address(2), address(3), nowhere];
    let peer = Introduction { others: &others, ..introduction(1) };
    for joins in [true, false] {
        let founders = if joins { "" } else { "founders = [1, 4]" };
        let config = format!(
            "node = 4\njoin = {joins}\naddress = 'own:1'\n{founders}\n\
             [[peers]]\nnode = 1\naddress = 'conf-1:1'"
        );
        let config: config::Cluster = toml::from_str(&config).unwrap();
        let roster = Roster::new(Some(&config), String::new(), lives(), None);
        roster.note(&BTreeMap::new(), Instant::now());
        assert_eq!(roster.admit(peer, false), Ok(joins));
        assert_eq!(roster.admit(peer, false), Ok(false), "it is known by now");
        let known: Vec<_> = roster.peers().into_iter().map(|peer| peer.node).collect();
        assert_eq!(known, if joins { vec![1, 2, 3] } else { vec![1] });
    }
}
