use std::collections::BTreeMap;

use super::*;

type Store = BTreeMap<Vec<u8>, Vec<u8>>;

/// Writes a checkpoint to a store, as a node does.
pub(super) fn write(store: &mut Store, changes: Vec<(Vec<u8>, Option<Vec<u8>>)>) {
    for (key, value) in changes {
        match value {
            Some(value) => drop(store.insert(key, value)),
            None => drop(store.remove(&key)),
        }
    }
}

pub(super) fn load(store: &Store) -> Result<Shard, LoadError> {
    let mut shard = Shard::new();
    // Backwards, for order must not matter.
    for (key, value) in store.iter().rev() {
        shard.load(key, value)?;
    }
    shard.loaded()?;
    Ok(shard)
}

/// The same shard, as a peer gets it.
pub(super) fn reloaded(shard: &Shard) -> Shard {
    load(&shard.dump().into_iter().collect()).unwrap()
}

/// A client that somebody listens for.
fn present(name: &str) -> Connect {
    let session = Bytes::from_static(&[7; 16]);
    let thing = Some("lamp".into());
    let presence = Some(Presence { session, thing, ..Presence::default() });
    Connect { presence, heard: true, ..client(name) }
}

/// One of everything.
pub(super) fn furnished() -> Probe {
    let mut probe = Probe::default();
    probe.connected(Connect { will: will("gone", 5), ..client("a") });
    probe.connected(client("b"));
    for filter in ["t", "t/+", "$share/g/t/#"] {
        let options = Options { subscription_id: 4, no_local: true, ..qos(2) };
        probe.subscribed("a", filter, options);
    }
    probe.subscribed("b", "t", qos(1));
    for payload in ["one", "two", "three"] {
        let expires_at = Some(50);
        probe.published(Publication { expires_at, ..publication("t", payload, 2) });
    }
    probe.pubrec("a", &[2]);
    probe.acknowledge("b", &[1, 3]);
    probe.disconnect("b", 7, WillAction::Discard);
    let publication = Publication { expires_at: Some(60), ..publication("r/1", "kept", 1) };
    let origin = Some(Origin { group: 3, seq: 9, part: Some(1) });
    probe.told(Publish { publication, store_retained: true, origin, ..Publish::default() });
    let (client, epoch) = probe.fence("a");
    let (packet_id, store_retained) = (77, true);
    let publication = super::publication("o", "out", 2);
    probe.told(ReceiveQos2 { client, epoch, packet_id, publication, store_retained });
    for name in [None, Some("blue".to_owned())] {
        let payload = Bytes::from_static(br#"{"state":{"desired":{"on":true}}}"#);
        let thing = "lamp".into();
        probe.told(UpdateShadow { thing, name, payload, reply: true, ..Default::default() });
    }
    let share = "$share/g/t/#";
    let publication = super::publication("t/s", "shared", 2);
    let (client, _) = probe.fence("a");
    let directed = vec![Directed { client, qos: 2, share: share.into(), ..Directed::default() }];
    probe.told(Publish { publication: publication.clone(), directed, ..Publish::default() });
    let (client, epoch) = probe.fence("a");
    probe.told(BeginShared { client, epoch, below: 5 });
    for returned in [false, true, false] {
        let (publication, filters) = (publication.clone(), vec![share.into()]);
        let (limit_bytes, limit_messages, origin) = (99, 9, None);
        let command =
            EnqueueShared { publication, filters, returned, limit_bytes, limit_messages, origin };
        probe.told(command);
    }
    let (filter, most, most_bytes) = (share.into(), 1, 99);
    probe.told(AssignShared { filter, most, most_bytes, ..AssignShared::default() });
    for (name, expiry_secs) in [("seen", 100), ("away", 0)] {
        probe.connected(Connect { expiry_secs, ..present(name) });
    }
    probe.disconnect("away", 8, WillAction::Discard);
    let (thing, name, at, reply, payload) = ("lamp".into(), None, 0, true, Bytes::new());
    probe.told(DeleteShadow { thing, name, payload, at, reply, origin: None });
    probe
}

#[test]
fn a_loaded_shard_is_the_same_and_goes_on_the_same() {
    let mut probe = furnished();
    let mut store = Store::new();
    write(&mut store, probe.checkpoint());
    let mut loaded = Probe { shard: load(&store).unwrap(), ..Probe::default() };
    assert_eq!(loaded.checkpoint(), []);
    assert_eq!(loaded.stats(), probe.stats());
    assert_eq!(loaded.interests(), probe.interests());
    assert_eq!(loaded.next_deadline(), probe.next_deadline());
    for probe in [&mut probe, &mut loaded] {
        probe.published(publication("t", "four", 1));
        probe.acknowledge("a", &[1, 2, 3, 4]);
        probe.connected(client("b"));
        probe.connected(present("seen"));
        probe.connected(present("away"));
        probe.connected(Connect { clean_start: true, ..client("a") });
        probe.acknowledge("b", &[2]);
        let (filter, most, most_bytes) = ("$share/g/t/#".into(), 1, 99);
        probe.told(AssignShared { filter, most, most_bytes, ..AssignShared::default() });
        assert_eq!(probe.assigned("$share/g/t/#"), 2);
    }
    assert_eq!(loaded.digest(), probe.digest());
    assert_eq!(loaded.effects, probe.effects);
    assert_eq!(loaded.stats(), probe.stats());
    write(&mut store, loaded.checkpoint());
    assert_eq!(store, probe.dump().into_iter().collect());
}

/// What a checkpoint says after each of these, by the kinds of its keys; `-` is deleted.
#[test]
fn only_what_changed_and_lasted_is_written() {
    let mut probe = Probe::default();
    assert_eq!(kinds(&mut probe), "c");
    assert_eq!(kinds(&mut probe), "");
    probe.connected(client("a"));
    assert_eq!(kinds(&mut probe), "cps");
    probe.subscribed("a", "t", qos(2));
    assert_eq!(kinds(&mut probe), "f");
    probe.published(publication("t", "passes", 1));
    probe.acknowledge("a", &[1]);
    assert_eq!(kinds(&mut probe), "cp", "made and removed in between");
    probe.published(publication("t", "stays", 2));
    assert_eq!(kinds(&mut probe), "cmpq");
    probe.pubrec("a", &[2]);
    assert_eq!(kinds(&mut probe), "-mq");
    probe.acknowledge("a", &[2]);
    assert_eq!(kinds(&mut probe), "-q");
    probe.published(publication("t", "stays", 2));
    kinds(&mut probe);
    probe.pubrec("a", &[3]);
    probe.acknowledge("a", &[3]);
    assert_eq!(kinds(&mut probe), "-m-q");
    let retained = Publish {
        publication: publication("t", "kept", 0),
        store_retained: true,
        ..Publish::default()
    };
    probe.told(retained.clone());
    assert_eq!(kinds(&mut probe), "r");
    let publication = publication("t", "", 0);
    probe.told(Publish { publication, ..retained });
    assert_eq!(kinds(&mut probe), "-r");
    probe.connected(Connect { clean_start: true, ..client("a") });
    assert_eq!(kinds(&mut probe), "-f-p-scps");
    probe.connected(Connect { clean_start: true, ..client("b") });
    probe.subscribed("b", "t", qos(2));
    probe.published(super::publication("t", "lost", 2));
    probe.connected(Connect { clean_start: true, expiry_secs: 0, ..client("b") });
    probe.disconnect("b", 0, WillAction::Discard);
    assert_eq!(kinds(&mut probe), "c", "sessions that came and went");
    let filters = vec!["$share/g/t".into()];
    let (publication, returned) = (super::publication("t", "waits", 1), true);
    probe.told(EnqueueShared { publication, filters, returned, ..EnqueueShared::default() });
    assert_eq!(kinds(&mut probe), "cgm");
    probe.told(ForgetShared { filter: "$share/g/t".into() });
    assert_eq!(kinds(&mut probe), "-g-m");
}

fn kinds(probe: &mut Probe) -> String {
    let mut kinds: Vec<_> = probe
        .checkpoint()
        .into_iter()
        .map(|(key, value)| format!("{}{}", if value.is_none() { "-" } else { "" }, key[0] as char))
        .collect();
    kinds.sort();
    kinds.concat()
}

/// Pairs that contradict each other are refused: without this kind of key, or with this one more.
#[test]
fn damaged_stores_are_refused() {
    let whole: Store = furnished().dump().into_iter().collect();
    assert!(load(&whole).is_ok());
    for (kind, refused) in [
        ('c', true),
        ('s', true),
        ('p', true),
        ('m', true),
        ('f', false),
        ('q', false),
        ('r', false),
        ('w', false),
        ('a', false),
        ('h', false),
        ('o', false),
        ('g', false),
    ] {
        assert!(whole.keys().any(|key| key[0] == kind as u8), "{kind}");
        let mut store = whole.clone();
        store.retain(|key, _| key[0] != kind as u8);
        assert_eq!(load(&store).is_err(), refused, "without {kind}");
    }
    for key in [&b""[..], b"x", b"c1", b"s123", b"q12345678", b"f12345678\xff", b"zzz"] {
        assert!(Shard::new().load(key, &[1]).is_err(), "{key:?}");
    }
    for value in [&b""[..], b"\x02", b"\x01\xff"] {
        assert!(Shard::new().load(b"c", value).is_err(), "{value:?}");
    }
}

#[test]
fn a_message_that_nobody_holds_is_deleted_after_loading() {
    let mut store: Store = furnished().dump().into_iter().collect();
    store.retain(|key, _| key[0] != b'q' && key[0] != b'g');
    let mut shard = load(&store).unwrap();
    assert_eq!(shard.stats().messages, 0);
    let changes = shard.checkpoint();
    assert!(!changes.is_empty());
    assert!(changes.iter().all(|(key, value)| key[0] == b'm' && value.is_none()));
}
