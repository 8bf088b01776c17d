use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};

use super::*;
use crate::identity::Principal;
use crate::interest::Live;

const OUTBOX: usize = 64 * 1024;
const PATIENCE: Duration = Duration::from_secs(1);

/// The delivery side of a persistent session.
fn endpoint(version: Version) -> Endpoint {
    let profile = Profile {
        client: "client".into(),
        version,
        persistent: true,
        record: Some(Record { group: 1, session: 1, epoch: 1 }),
        persistent_connect: true,
        will: None,
        principal: Principal::Unidentified,
        thing: None,
        source_ip: None,
        source_port: 0,
        domain_name: None,
        keep_alive: 0,
        connected_at_ms: 0,
        maximum_packet_size: u32::MAX,
        live: Live { core: 0, slot: 0, generation: 0 },
    };
    let budget = Budget { outbox: OUTBOX, pending: OUTBOX, patience: PATIENCE };
    let permissions = Arc::new(ArcSwap::from_pointee(Compiled::allow_all()));
    Endpoint::new(profile, permissions, Arc::new(budget), 100, 0)
}

/// An endpoint with what surrounds it on its core.
struct Session {
    endpoint: Endpoint,
    pool: Pool,
    clock: Clock,
    /// What it may not receive any more.
    denied: NotSent,
}

impl Session {
    fn new() -> Self {
        let clock = Clock { now: Instant::now(), epoch_ms: 0 };
        Self {
            endpoint: endpoint(Version::V5),
            pool: Pool::new(usize::MAX),
            clock,
            denied: NotSent::default(),
        }
    }

    /// The queue hands out a PUBLISH.
    fn deliver(&mut self, seq: u64, qos: QoS, payload: &[u8]) {
        let publication = Publication::borrowed("topic", payload, qos, false);
        let terms = Terms { qos, retain: false, subscription_ids: &[], share: None };
        let endpoint = &self.endpoint;
        let delivered =
            endpoint.deliver_queued(&publication, terms, seq, false, self.clock, &mut self.pool);
        assert_eq!(delivered, Delivered::Taken);
    }

    /// A publication comes that is in no queue.
    fn publish(&mut self, qos: QoS, payload: &[u8]) -> Delivered {
        let publication = Publication::borrowed("topic", payload, qos, false);
        let terms = Terms { qos, retain: false, subscription_ids: &[], share: None };
        self.endpoint.deliver(&publication, terms, self.clock, &mut self.pool)
    }

    /// The queue hands out a PUBREL.
    fn release(&mut self, seq: u64) {
        self.endpoint.release_queued(seq, &mut self.pool);
    }

    fn settle(&mut self, kind: AckKind, seq: u64) -> Settled {
        let id = Window::packet_id(seq);
        self.endpoint.settle(kind, id, Reason::Success, &mut self.pool)
    }

    /// Everything that can go to the client goes.
    fn drain(&mut self) -> usize {
        let mut sent = 0;
        loop {
            let denied = self.endpoint.refill(self.clock, &mut self.pool);
            self.denied.count += denied.count;
            self.denied.queued.extend(denied.queued);
            self.denied.expired.extend(denied.expired);
            let written = self.endpoint.flush(Waker::noop(), |outbox| {
                let length = outbox.len();
                outbox.advance(length, &mut self.pool);
                length
            });
            sent += written;
            if written == 0 {
                return sent;
            }
        }
    }
}

#[test]
fn an_exchange_that_is_over_is_not_opened_again() {
    let mut session = Session::new();
    session.deliver(7, QoS::ExactlyOnce, b"x");
    assert_eq!(session.settle(AckKind::PubRec, 7), Settled::Received(7));
    // Said twice, PUBREC has the release committed twice.
    assert_eq!(session.settle(AckKind::PubRec, 7), Settled::ReceivedAgain(7));
    session.release(7);
    session.drain();
    assert_eq!(session.settle(AckKind::PubComp, 7), Settled::Ended(7));
    session.release(7);
    assert_eq!(session.drain(), 0, "nobody waits for this PUBREL");
    assert_eq!(session.settle(AckKind::PubComp, 7), Settled::Unknown);
    // After a whole cycle of identifiers the ghost would stand for the new exchange.
    session.deliver(7 + 65_535, QoS::AtLeastOnce, b"y");
    session.drain();
    assert_eq!(session.settle(AckKind::PubAck, 7 + 65_535), Settled::Ended(7 + 65_535));
}

#[test]
fn a_pubcomp_that_comes_too_early_leaves_nothing_open() {
    let mut session = Session::new();
    session.deliver(7, QoS::ExactlyOnce, b"x");
    session.drain();
    assert_eq!(session.settle(AckKind::PubRec, 7), Settled::Received(7));
    assert_eq!(session.settle(AckKind::PubComp, 7), Settled::Ended(7));
    session.release(7);
    assert_eq!(session.drain(), 0);
    assert_eq!(session.settle(AckKind::PubComp, 7), Settled::Unknown);
}

#[test]
fn a_resumed_session_releases_what_the_client_has() {
    let mut session = Session::new();
    session.release(7);
    assert_eq!(session.drain(), 4);
    assert_eq!(session.settle(AckKind::PubComp, 7), Settled::Ended(7));
}

#[test]
fn a_release_does_not_close_what_waits_before_it() {
    let mut session = Session::new();
    session.deliver(7, QoS::AtLeastOnce, &[0; OUTBOX]);
    // No room in the outbox.
    session.deliver(8, QoS::AtLeastOnce, b"x");
    session.release(9);
    session.drain();
    for seq in [7, 8] {
        assert_eq!(session.settle(AckKind::PubAck, seq), Settled::Ended(seq));
    }
    assert_eq!(session.settle(AckKind::PubComp, 9), Settled::Ended(9));
}

/// Somebody who waits for room.
#[derive(Default)]
struct Waiter(AtomicBool);

impl Wake for Waiter {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A session that is behind for longer than anybody has patience, and has just made progress, with
/// somebody who waits for it.
fn behind_for_long() -> (Session, Arc<Waiter>) {
    let mut session = Session::new();
    let now = session.clock.now;
    session.clock.now = now.checked_sub(10 * PATIENCE).expect("the machine runs for seconds");
    assert_eq!(session.publish(QoS::AtMostOnce, &[0; OUTBOX / 4 * 3]), Delivered::Pressed);
    let (endpoint, pool) = (&session.endpoint, &mut session.pool);
    endpoint.flush(Waker::noop(), |outbox| outbox.advance(1, pool));
    session.clock.now = now;
    let waiter = Arc::<Waiter>::default();
    assert!(session.endpoint.wait_for_room(&waiter.clone().into()));
    (session, waiter)
}

#[test]
fn nobody_waits_for_ever_for_a_client_that_makes_little_progress() {
    let (session, waiter) = behind_for_long();
    assert!(!session.endpoint.check_patience(session.clock.now), "nothing to ask any more");
    assert!(waiter.0.load(Ordering::Relaxed));
    assert!(!session.endpoint.wait_for_room(Waker::noop()));
}

#[test]
fn a_publication_that_finds_a_client_slow_lets_the_others_go_on() {
    let (mut session, waiter) = behind_for_long();
    assert_eq!(session.publish(QoS::AtMostOnce, b"x"), Delivered::Taken);
    assert!(waiter.0.load(Ordering::Relaxed));
}

#[test]
fn what_waits_is_not_sent_after_the_right_to_receive_it_is_gone() {
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let mut session = Session::new();
        session.deliver(7, qos, &[0; OUTBOX]);
        // No room in the outbox.
        session.deliver(8, qos, b"x");
        // That comes from no queue.
        session.publish(QoS::AtLeastOnce, b"y");
        let arns = policy::Arns {
            partition: "aws".into(),
            region: "us-east-1".into(),
            account: "123456789012".into(),
        };
        let nothing = Compiled::new(&[], &arns, &policy::Variables::default());
        session.endpoint.set_policy(nothing);
        let sent = session.drain();
        assert!((OUTBOX..OUTBOX + 20).contains(&sent), "only what was in the outbox: {sent}");
        assert_eq!((session.denied.count, &*session.denied.queued), (2, &[(8, qos, false)][..]));
        for kind in [AckKind::PubAck, AckKind::PubRec] {
            assert_eq!(session.settle(kind, 8), Settled::Unknown, "its exchange is over");
        }
    }
}

#[test]
fn what_expires_while_it_waits_is_not_sent() {
    for (qos, dup, is_sent) in [
        (QoS::AtLeastOnce, false, false),
        (QoS::AtLeastOnce, true, false),
        (QoS::ExactlyOnce, false, false),
        (QoS::ExactlyOnce, true, true),
    ] {
        let mut session = Session::new();
        session.deliver(7, qos, &[0; OUTBOX]);
        let mut publication = Publication::borrowed("topic", b"x", qos, false);
        publication.expires_at = Some(session.clock.epoch_ms + 1);
        let terms = Terms { qos, retain: false, subscription_ids: &[], share: None };
        let deliver = |session: &mut Session, seq| {
            let Session { endpoint, clock, pool, .. } = session;
            endpoint.deliver_queued(&publication, terms, seq, dup, *clock, pool)
        };
        // No room in the outbox.
        assert_eq!(deliver(&mut session, 8), Delivered::Taken);
        session.clock.epoch_ms += 1;
        let expected =
            if is_sent { Delivered::Taken } else { Delivered::Dropped(DropReason::Expired) };
        assert_eq!(deliver(&mut session, 9), expected);
        session.drain();
        let expired: &[u64] = if is_sent { &[] } else { &[8] };
        assert_eq!(session.denied.expired, expired);
        let kind = if qos == QoS::AtLeastOnce { AckKind::PubAck } else { AckKind::PubRec };
        let settled = if is_sent { Settled::Received(8) } else { Settled::Unknown };
        assert_eq!(session.settle(kind, 8), settled);
    }
}

#[test]
fn what_is_urgent_is_so_whatever_else_a_connection_was_to_end_for() {
    use Reason::{NotAuthorized, QuotaExceeded, ServerBusy, SessionTakenOver};
    for (reasons, expected) in [
        ([QuotaExceeded, ServerBusy], QuotaExceeded),
        ([QuotaExceeded, SessionTakenOver], SessionTakenOver),
        ([NotAuthorized, QuotaExceeded], NotAuthorized),
        ([NotAuthorized, SessionTakenOver], NotAuthorized),
    ] {
        let endpoint = endpoint(Version::V5);
        reasons.iter().for_each(|reason| endpoint.doom(*reason));
        assert_eq!(endpoint.doomed(), Some(expected), "{reasons:?}");
    }
}

#[test]
fn only_what_the_protocol_can_say_is_said_of_a_publication_that_failed() {
    let cases = [
        (Version::V5, AckKind::PubAck, Reason::QuotaExceeded, true),
        (Version::V5, AckKind::PubAck, Reason::ServerBusy, false),
        (Version::V5, AckKind::PubRec, Reason::QuotaExceeded, true),
        (Version::V5, AckKind::PubRec, Reason::ServerBusy, false),
        (Version::V5, AckKind::PubRec, Reason::ServerShuttingDown, false),
        (Version::V5, AckKind::PubRec, Reason::UnspecifiedError, false),
        (Version::V5, AckKind::PubComp, Reason::PacketIdentifierNotFound, true),
        (Version::V5, AckKind::PubComp, Reason::QuotaExceeded, false),
        (Version::V311, AckKind::PubAck, Reason::QuotaExceeded, false),
        (Version::V311, AckKind::PubRec, Reason::QuotaExceeded, false),
        (Version::V311, AckKind::PubComp, Reason::ServerBusy, false),
    ];
    for (version, kind, reason, is_said) in cases {
        let (endpoint, mut pool) = (endpoint(version), Pool::new(usize::MAX));
        let id = PacketId::new(7).unwrap();
        let owed = Owed { kind, id, reason: Reason::Success, waiting: 1 };
        let (earlier, failed) = (endpoint.owe(owed), endpoint.owe(owed));
        let (mut sent, case) = (Vec::new(), (version, kind, reason));
        endpoint.failed(failed, reason);
        assert_eq!(endpoint.takes_no_more(), !is_said, "{case:?}");
        endpoint.acknowledge(&mut pool, |owed| sent.push(owed.reason));
        assert_eq!((&sent[..], endpoint.doomed()), (&[][..], None), "{case:?}: not its turn");
        endpoint.taken(earlier);
        endpoint.acknowledge(&mut pool, |owed| sent.push(owed.reason));
        let (said, doomed) = match is_said {
            true => (vec![Reason::Success, reason], None),
            false => (vec![Reason::Success], Some(reason)),
        };
        assert_eq!((sent, endpoint.doomed()), (said, doomed), "{case:?}");
    }
}
