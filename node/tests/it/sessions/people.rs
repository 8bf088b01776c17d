//! The clients: each wanders from node to node, does not always say goodbye, and writes down what it
//! sees.

use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use chaos_tests::history::Mark;
use chaos_tests::record::{At, What};
use chaos_tests::{Dice, End, Inbox, Received};
use mqtt::{AckKind, Connect, Outgoing, PacketId, QoS, Reason, Version, Will};
use tokio::time::{Instant, sleep};

use super::link::{Link, PATIENCE};
use super::stage::{Act, Stage};

/// How long sessions last that shall be there; more than all clocks together can jump.
const LONG_SECS: u32 = 3600;

/// The same for sessions that shall be over when hours have passed, and for those that shall not.
pub(super) const SHORT_SECS: u32 = 60;
pub(super) const LONGER_SECS: u32 = 4 * 3600;

/// From one look at everything to the next.
const MOMENT: Duration = Duration::from_millis(20);

/// A client id that wanders.
pub(super) struct Roamer {
    stage: Rc<Stage>,
    client: String,
    version: Version,
    /// Seconds its session outlives the connection; without them it has none that was there before.
    expiry: u32,
    /// How long it stays on a node, in milliseconds.
    stay: Range<u64>,
    /// How long it waits for an answer before it goes elsewhere.
    patience: Duration,
    dice: Dice,
    link: Option<Link>,
    moves_at: Instant,
    /// How long after a publication the next one comes.
    pace: Duration,
}

impl Roamer {
    pub(super) fn new(stage: &Rc<Stage>, client: &str, expiry: u32, dice: &mut Dice) -> Self {
        // Sessions of 3.1.1 last for as long as the configuration says.
        let is_old = expiry == LONG_SECS && dice.one_in(3);
        let new = Self {
            stage: Rc::clone(stage),
            client: client.to_owned(),
            version: if is_old { Version::V311 } else { Version::V5 },
            expiry,
            stay: 500..5_000,
            patience: PATIENCE,
            dice: dice.split(),
            link: None,
            moves_at: Instant::now(),
            pace: Duration::from_millis(30),
        };
        if stage.is_patient && dice.one_in(3) { new.patient() } else { new }
    }

    /// One that stays, and waits longer for an answer than any process stands still.
    pub(super) fn patient(self) -> Self {
        // Those without a session come to their end by moving on.
        let stay = if self.expiry == 0 { self.stay } else { 5_000..60_000 };
        Self { stay, patience: Duration::from_secs(90), ..self }
    }

    /// One that does not publish all that it may before it hears of it.
    pub(super) fn slow(mut self) -> Self {
        self.pace = self.dice.millis(500..3000);
        self
    }

    /// With a session that lasts.
    pub(super) fn lasting(stage: &Rc<Stage>, client: &str, dice: &mut Dice) -> Self {
        Self::new(stage, client, LONG_SECS, dice)
    }

    /// CONNECT. Now and then a session that does not last is asked for without a clean start.
    fn connect<'a>(&self, client: &'a str, clean: bool) -> Connect<'a> {
        let session_expiry = (self.version == Version::V5).then_some(self.expiry);
        Connect { clean_start: clean, session_expiry, ..Connect::new(self.version, client) }
    }

    /// The connection, and whether it is a new one: when there was none, or it was time to move.
    /// `None` when it cannot be had now.
    async fn link(&mut self, will: Option<&Will<'_>>) -> Option<(&mut Link, bool)> {
        if self.link.is_some() && self.moves_at > Instant::now() {
            return self.link.as_mut().map(|link| (link, false));
        }
        // A third each: closes the link, says goodbye, or lets the broker find out. A will that was
        // withdrawn and published would be no fault yet: its node may die before anybody hears of it.
        if let Some(mut link) = self.link.take() {
            match self.dice.within(0..3) {
                0 => drop(link),
                1 if will.is_none() => drop(link.leave().await),
                _ => link.forget(),
            }
        }
        let client = self.client.clone();
        let clean = self.expiry == 0 && self.dice.one_in(2);
        let connect = Connect { will: will.cloned(), ..self.connect(&client, clean) };
        // Of those in between, clocks decide whether they are still there.
        let is_old = |present| match self.expiry {
            0 => false,
            secs => secs >= LONG_SECS || present,
        };
        match Link::open(&self.stage, &connect, is_old, (self.patience, &mut self.dice)).await {
            Some(link) => {
                self.moves_at = Instant::now() + self.dice.millis(self.stay.clone());
                self.link = Some(link);
            }
            None => sleep(Duration::from_millis(100)).await,
        }
        self.link.as_mut().map(|link| (link, true))
    }

    /// What an outcome means for the connection.
    fn judge<T>(&mut self, outcome: Result<T, End>) -> Option<T> {
        match outcome {
            Ok(value) => return Some(value),
            Err(End::Closed(_)) => {}
            Err(End::Fault(text)) => {
                self.stage.note(What::Broken { client: self.client.clone(), text });
            }
        }
        self.link = None;
        None
    }

    async fn next(&mut self, within: Duration) -> Option<Received> {
        let outcome = self.link.as_mut()?.next(within).await;
        self.judge(outcome).flatten()
    }
}

/// Somebody who takes a client id again and again.
pub(super) async fn duellist(mut roamer: Roamer) {
    roamer.stay = 50..1_500;
    while !roamer.stage.is_quiet() {
        if roamer.link(None).await.is_some() {
            roamer.next(MOMENT).await;
        }
    }
}

/// A publication on its way to the broker.
struct Pending {
    id: PacketId,
    topic: String,
    mark: Mark,
    /// PUBREC has come: from now on only PUBREL is sent.
    released: bool,
}

/// Publishes numbers on topics of its own; resends what was not acknowledged.
pub(super) async fn publisher(mut roamer: Roamer, topics: Vec<String>, qos: QoS) {
    const WINDOW: usize = 8;
    let stage = Rc::clone(&roamer.stage);
    let mut topics: VecDeque<_> = topics.into_iter().map(|topic| (topic, 0)).collect();
    let mut pending: VecDeque<Pending> = VecDeque::new();
    let (mut last_id, mut published) = (0, Instant::now());
    while !stage.is_calm() || !pending.is_empty() {
        let Some((link, is_new)) = roamer.link(None).await else { continue };
        if is_new {
            let resumed = resume(&mut pending, link, qos).await;
            if roamer.judge(resumed).is_none() {
                continue;
            }
        }
        if published.elapsed() >= roamer.pace && pending.len() < WINDOW && !stage.is_calm() {
            published = Instant::now();
            last_id = last_id % 1000 + 1;
            let id = PacketId::new(last_id).unwrap();
            let (topic, number) = topics.pop_front().unwrap();
            topics.push_back((topic.clone(), number + 1));
            let mark = Mark { number, attempt: 0 };
            // First the note, then the deed: what may have been sent counts as sent.
            stage.note(What::Published { topic: topic.clone(), number, qos });
            let new = Pending { id, topic, mark, released: false };
            let sent = match &mut roamer.link {
                Some(link) => send(link, qos, &new).await,
                None => Ok(()),
            };
            pending.push_back(new);
            roamer.judge(sent);
        }
        if let Some(received) = roamer.next(MOMENT).await {
            let taken = take(&stage, &mut pending, qos, &received);
            if let (Some(Some(release)), Some(link)) = (roamer.judge(taken), &mut roamer.link) {
                let released = link.acknowledge(AckKind::PubRel, release).await;
                roamer.judge(released);
            }
        }
    }
}

/// Sends again what was not acknowledged, in its order [v5 MQTT-4.4.0-1].
async fn resume(pending: &mut VecDeque<Pending>, link: &mut Link, qos: QoS) -> Result<(), End> {
    for it in pending {
        if it.released {
            link.acknowledge(AckKind::PubRel, it.id).await?;
        } else {
            it.mark.attempt += 1;
            send(link, qos, it).await?;
        }
    }
    Ok(())
}

async fn send(link: &mut Link, qos: QoS, pending: &Pending) -> Result<(), End> {
    let payload = pending.mark.payload(20);
    let (packet_id, dup) = (Some(pending.id), pending.mark.attempt > 0);
    let publish = Outgoing { packet_id, qos, dup, ..Outgoing::new(&pending.topic, &payload) };
    link.publish(&publish).await
}

/// What came to a publisher; gives what is to be released.
fn take(
    stage: &Stage,
    pending: &mut VecDeque<Pending>,
    qos: QoS,
    got: &Received,
) -> Result<Option<PacketId>, End> {
    let waiting: Vec<_> = pending.iter().map(|it| (it.id, it.released)).collect();
    let unexpected = || End::fault(format!("unexpected {got:?} while waiting for {waiting:?}"));
    let &Received::Ack { kind, id, reason } = got else { return unexpected() };
    // Acknowledgements come in the order of what they acknowledge [v5 MQTT-4.6.0-2].
    let first = match (kind, qos) {
        (AckKind::PubAck, QoS::AtLeastOnce) | (AckKind::PubComp, QoS::ExactlyOnce) => 0,
        (AckKind::PubRec, QoS::ExactlyOnce) => pending.iter().take_while(|it| it.released).count(),
        _ => return unexpected(),
    };
    let Some(it) = pending.get_mut(first).filter(|it| it.id == id) else { return unexpected() };
    let (topic, number) = (it.topic.clone(), it.mark.number);
    if kind == AckKind::PubComp {
        // A release that is repeated may find that it was done before.
        let done = reason == Reason::PacketIdentifierNotFound;
        if !it.released || (reason.is_error() && !done) {
            return unexpected();
        }
        pending.remove(first);
        return Ok(None);
    }
    if reason.is_error() {
        stage.note(What::Refused { topic, number });
        pending.remove(first);
        return Ok(None);
    }
    stage.note(What::Acknowledged { topic, number });
    if kind == AckKind::PubRec {
        it.released = true;
        return Ok(Some(id));
    }
    pending.remove(first);
    Ok(None)
}

/// What a subscriber is.
pub(super) struct Subscription {
    pub(super) filters: Vec<&'static str>,
    /// How the topics begin that they match.
    pub(super) prefix: &'static str,
    pub(super) qos: QoS,
    /// What is told of a shared subscription, which has other members.
    pub(super) share: Option<&'static str>,
}

/// Has a session that lasts, and takes what comes.
pub(super) async fn subscriber(mut roamer: Roamer, subscription: Subscription) {
    const QUIET: Duration = Duration::from_secs(6);
    let stage = Rc::clone(&roamer.stage);
    let Subscription { filters, prefix, qos, share } = subscription;
    let mut inbox = Inbox::new(&roamer.client);
    let (mut subscribed, mut heard) = (false, Instant::now());
    while !stage.is_quiet() || heard.elapsed() < QUIET {
        let Some((link, is_new)) = roamer.link(None).await else {
            heard = Instant::now();
            continue;
        };
        if is_new {
            inbox.reconnected();
        }
        if !subscribed {
            let outcome = link.subscribe(&filters, qos).await;
            if roamer.judge(outcome).is_some() {
                subscribed = true;
                let client = share.unwrap_or(&roamer.client).to_owned();
                stage.note(What::Subscribed { client, prefix: prefix.to_owned(), qos });
            }
            continue;
        }
        if stage.is_quiet() {
            roamer.moves_at = Instant::now() + QUIET;
        }
        if let Some(got) = roamer.next(MOMENT).await {
            heard = Instant::now();
            let taken = inbox.take(&got);
            if let Some(Some(delivered)) = roamer.judge(taken) {
                stage.note(of_share(delivered, share));
            }
        }
        if (stage.is_quiet() || roamer.dice.one_in(3))
            && let Some(link) = &mut roamer.link
        {
            let mut paid = Ok(());
            for (kind, id) in inbox.due() {
                paid = link.acknowledge(kind, id).await;
                if paid.is_err() {
                    break;
                }
            }
            roamer.judge(paid);
        }
    }
}

/// What is noted of what a member of a shared subscription was given: the subscription has it.
fn of_share(delivered: What, share: Option<&str>) -> What {
    match (delivered, share) {
        (What::Delivered { topic, number, .. }, Some(share)) => {
            What::Shared { share: share.to_owned(), topic, number }
        }
        (delivered, _) => delivered,
    }
}

/// Has a will on every connection, on a topic of its own: what becomes of one that nobody has heard of
/// again, or when, is not said. None ends well before the nodes are.
pub(super) async fn mortal(mut roamer: Roamer) {
    let (stage, qos) = (Rc::clone(&roamer.stage), QoS::ExactlyOnce);
    let payload = Mark { number: 0, attempt: 0 }.payload(20);
    for life in 0.. {
        let topic = format!("wills/{} {life}", roamer.client);
        let will = Will {
            topic: &topic,
            payload: &payload,
            qos,
            retain: false,
            delay: 0,
            expiry: None,
            properties: Default::default(),
        };
        stage.note(What::Published { topic: topic.clone(), number: 0, qos });
        if roamer.link(Some(&will)).await.is_none() {
            continue;
        }
        let withdraws = stage.is_calm() && roamer.dice.one_in(2);
        while Instant::now() < roamer.moves_at && roamer.link.is_some() {
            roamer.next(MOMENT).await;
        }
        match roamer.link.take() {
            Some(mut link) if withdraws => {
                if link.leave().await.is_ok() {
                    stage.note(What::Withdrawn { topic, number: 0 });
                }
            }
            // However it ends, it ends badly.
            link => {
                let waits = !stage.is_calm() && roamer.dice.one_in(2);
                link.into_iter().filter(|_| waits).for_each(Link::forget);
                stage.note(What::Acknowledged { topic, number: 0 });
            }
        }
        if withdraws || stage.is_calm() && roamer.dice.one_in(2) {
            break;
        }
    }
}

/// Writes and reads what is kept under a topic.
pub(super) async fn keeper(mut roamer: Roamer, number: u64, keys: &[&str]) {
    let stage = Rc::clone(&roamer.stage);
    let mut count = 0;
    loop {
        let is_last = stage.is_calm();
        let key = roamer.dice.pick(keys);
        let writes = !is_last && roamer.dice.one_in(3);
        let Some((link, _)) = roamer.link(None).await else { continue };
        let asked = stage.now();
        let outcome = if writes {
            count += 1;
            let value = (number << 32) | count;
            let outcome = link.keep(key, value.to_string().as_bytes()).await;
            let (key, acknowledged) = (key.to_owned(), outcome.is_ok());
            // Nobody sends it again: what was not acknowledged may be there or not.
            stage.note(What::Wrote { key, value, asked, acknowledged, version: None });
            outcome
        } else {
            read(&stage, link, key).await
        };
        if roamer.judge(outcome).is_some() && is_last {
            return;
        }
        sleep(MOMENT).await;
    }
}

/// A subscription is told what is kept, also when it was there before.
async fn read(stage: &Stage, link: &mut Link, key: &str) -> Result<(), End> {
    // What others write meanwhile comes too, and is not marked as kept.
    while link.next(Duration::ZERO).await?.is_some() {}
    let asked = stage.now();
    link.subscribe(&[key], QoS::AtMostOnce).await?;
    // Only an answer says that there is nothing: what is kept comes before it.
    link.ping().await?;
    let mut value = 0;
    while let Some(got) = link.next(Duration::ZERO).await? {
        let Received::Publish(arrival) = got else { continue };
        if arrival.topic != key {
            continue;
        }
        if !arrival.retain {
            // What is newer comes instead of what was kept, and is perhaps not kept yet.
            return Err(End::Closed(None));
        }
        let text = String::from_utf8_lossy(&arrival.payload);
        let Ok(read) = text.parse() else { return End::fault(format!("{key} is {text}")) };
        value = read;
        break;
    }
    stage.note(What::Read { key: key.to_owned(), value, asked, version: None });
    Ok(())
}

/// Makes sure that its session is there, and leaves it; gives when.
pub(super) async fn fall_asleep(mut roamer: Roamer) -> (Roamer, At) {
    while !roamer.stage.is_calm() {
        if roamer.expiry > SHORT_SECS && roamer.link(None).await.is_some() {
            roamer.next(MOMENT).await;
        } else {
            sleep(MOMENT).await;
        }
    }
    while roamer.link(None).await.is_none() {}
    roamer.link = None;
    let left = roamer.stage.now();
    (roamer, left)
}

/// Comes back when hours have passed.
pub(super) async fn wake((mut roamer, left): (Roamer, At)) {
    while roamer.stage.act.get() < Act::Later {
        sleep(MOMENT).await;
    }
    let (kept, asked) = (Duration::from_secs(roamer.expiry.into()), roamer.stage.now());
    loop {
        let woken = roamer.link(None).await;
        if let Some(present) = woken.map(|(link, _)| link.session_present) {
            let client = roamer.client.clone();
            roamer.stage.note(What::Woke { client, left, asked, kept, present });
            return;
        }
    }
}
