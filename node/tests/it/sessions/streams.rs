//! The streams between nodes: in order, late, and given up when nothing comes for a while.
//!
//! A process that stands still hears nothing: what came meanwhile, and that streams have ended, it finds
//! when it goes on.

use std::collections::{BTreeMap, VecDeque};

use links::proto::FanoutMessage;
use links::{Batch, Certainty, Direction, Purpose, Receiver, Stream};
use node::host::{Machine, NodeHost};
use simulation::Cluster;
use storage::dice::Dice;

use super::life::{Life, address_of};

/// Milliseconds after which a stream that brings nothing is given up where no process stands still: less
/// than a real one takes, so that more happens.
const GIVEN_UP: u64 = 1500;

/// How long it takes real ones: they are pinged every two seconds, and have five to answer.
const PINGED_EVERY: u64 = 2000;
const ANSWERED_WITHIN: u64 = 5000;

/// The longest wait between two attempts to dial.
const BACKOFF: u64 = 2000;

/// How soon one that is refused dials again.
const AGAIN: u64 = 500;

/// How often a node looks whom it wants no more.
const LOOKS: u64 = 100;

/// So many messages wait for a peer; where there is no end to it, nobody stands still.
const ROOM: usize = 500;

/// The streams from one node to another.
struct Line {
    /// The lives at its ends.
    from: u64,
    to: u64,
    /// When something last came.
    heard: u64,
    /// How long nothing may come.
    patience: u64,
    /// What is on its way, and when it arrives.
    flying: VecDeque<(u64, FanoutMessage)>,
}

/// What a process hears of a stream.
enum News {
    Said(u64, Vec<FanoutMessage>),
    Ended(u64, Direction),
}

/// See the module.
#[derive(Default)]
pub(super) struct Streams {
    lines: BTreeMap<(u64, u64), Line>,
    /// Where real ones are like these: what decides how long streams are missed and when they are dialled.
    dice: Option<Dice>,
    /// Whether members change, so that nodes are judged before there is a stream.
    judges: bool,
    /// What has happened to lives of nodes while they stood still.
    unheard: BTreeMap<u64, (u64, Vec<News>)>,
    /// No stream is opened before.
    dialled_at: BTreeMap<(u64, u64), u64>,
}

impl Streams {
    /// Streams between processes that may stand still, or may be no members.
    pub(super) fn real(dice: Dice, judges: bool) -> Self {
        Self { dice: Some(dice), judges, ..Self::default() }
    }

    /// A moment passes: nodes find and lose each other, and hear what the others have said.
    pub(super) fn pass(
        &mut self,
        cluster: &mut Cluster<Machine, NodeHost>,
        lives: &BTreeMap<u64, Life>,
    ) {
        self.catch_up(cluster, lives);
        let ids: Vec<_> = cluster.nodes.keys().copied().collect();
        for (from, to) in ids.iter().flat_map(|&from| ids.iter().map(move |&to| (from, to))) {
            if from != to {
                self.look(cluster, lives, (from, to));
            }
        }
        for (&from, life) in lives.iter().filter(|(_, it)| !it.links_stand_still(cluster.millis)) {
            let mut said = life.said.lock().unwrap();
            for (to, message) in std::mem::take(&mut said.messages) {
                let Some(line) = self.lines.get_mut(&(from, to)) else { continue };
                let last = line.flying.back().map_or(0, |(arrival, _)| *arrival);
                let late = 1 + cluster.dice.below(cluster.network.weather.delay);
                line.flying.push_back((last.max(cluster.millis + late), message));
            }
            if self.dice.is_some() {
                let is_full = |to: &u64| {
                    self.lines.get(&(from, *to)).is_some_and(|line| line.flying.len() >= ROOM)
                };
                said.full = said.open.iter().copied().filter(is_full).collect();
            }
        }
        for (&(from, to), line) in &mut self.lines {
            let receiver = lives.get(&to);
            if cluster.network.is_cut(from, to)
                || receiver.is_some_and(|it| it.links_stand_still(cluster.millis))
            {
                continue;
            }
            let messages = line.arrived(cluster.millis);
            if let Some(life) = receiver.filter(|_| !messages.is_empty()) {
                hear(life, News::Said(from, messages));
            }
        }
    }

    /// Whoever has gone on hears what has happened.
    fn catch_up(&mut self, cluster: &Cluster<Machine, NodeHost>, lives: &BTreeMap<u64, Life>) {
        let Some(dice) = &mut self.dice else { return };
        for (&node, life) in lives.iter().filter(|(_, it)| !it.links_stand_still(cluster.millis)) {
            let Some((incarnation, news)) = self.unheard.remove(&node) else { continue };
            if incarnation != life.incarnation {
                continue;
            }
            news.into_iter().for_each(|news| hear(life, news));
            for &other in cluster.nodes.keys() {
                for pair in [(node, other), (other, node)] {
                    self.dialled_at.insert(pair, cluster.millis + dice.below(BACKOFF));
                }
            }
        }
    }

    fn tell(&mut self, node: u64, life: &Life, now: u64, news: News) {
        if !life.links_stand_still(now) {
            return hear(life, news);
        }
        let unheard = self.unheard.entry(node).or_default();
        if unheard.0 != life.incarnation {
            *unheard = (life.incarnation, Vec::new());
        }
        unheard.1.push(news);
    }

    /// What becomes of the streams from one node to another.
    fn look(
        &mut self,
        cluster: &mut Cluster<Machine, NodeHost>,
        lives: &BTreeMap<u64, Life>,
        (from, to): (u64, u64),
    ) {
        let now = cluster.millis;
        let is_cut = cluster.network.is_cut(from, to);
        let [sender, receiver] = [from, to].map(|id| lives.get(&id));
        let stands_still = |life: Option<&Life>| life.is_some_and(|it| it.links_stand_still(now));
        if let Some(line) = self.lines.get_mut(&(from, to)) {
            let sender = sender.filter(|it| it.incarnation == line.from);
            let receiver = receiver.filter(|it| it.incarnation == line.to);
            let are_up = sender.is_some() && receiver.is_some();
            let still = [sender, receiver].map(stands_still);
            if are_up && !is_cut && still == [false; 2] {
                line.heard = now;
            }
            // The end of a process is told by its machine; its standing still, by nobody, nor to one that
            // does so itself.
            let is_over = match is_cut || are_up && still != [false; 2] {
                true => now - line.heard > line.patience && still != [true; 2],
                false => !are_up,
            };
            let is_wanted = |one: Option<&Life>, other| one.is_none_or(|life| life.knows(other));
            let is_over = is_over
                || self.judges
                    && now.is_multiple_of(LOOKS)
                    && !(is_wanted(sender, to) && is_wanted(receiver, from));
            if !is_over {
                return;
            }
            let mut line = self.lines.remove(&(from, to)).expect("it was just there");
            if self.dice.is_some() {
                cluster.network.closed.insert((from, to));
            }
            if let Some(sender) = sender {
                self.tell(from, sender, now, News::Ended(to, Direction::Outgoing));
            }
            if let Some(receiver) = receiver {
                if still[1] && !is_cut {
                    self.tell(to, receiver, now, News::Said(from, line.arrived(now)));
                }
                self.tell(to, receiver, now, News::Ended(from, Direction::Incoming));
            }
            return;
        }
        if stands_still(sender) || stands_still(receiver) {
            return;
        }
        let waits = self.dialled_at.get(&(from, to)).is_some_and(|at| *at > now);
        match (sender, receiver) {
            (Some(sender), Some(receiver)) if !is_cut && !waits => {
                if self.judges && !greet((from, sender), (to, receiver)) {
                    let again = self.dice.as_mut().map_or(0, |dice| 50 + dice.below(AGAIN));
                    self.dialled_at.insert((from, to), now + again);
                    return;
                }
                let patience = self
                    .dice
                    .as_mut()
                    .map_or(GIVEN_UP, |dice| ANSWERED_WITHIN + dice.below(PINGED_EVERY));
                let (flying, heard) = (VecDeque::new(), now);
                let (of_sender, of_receiver) = (sender.incarnation, receiver.incarnation);
                let line = Line { from: of_sender, to: of_receiver, heard, patience, flying };
                self.lines.insert((from, to), line);
                cluster.network.closed.remove(&(from, to));
                sender.said.lock().unwrap().open.insert(to);
                begin(receiver, (from, sender.incarnation), Direction::Incoming);
                begin(sender, (to, receiver.incarnation), Direction::Outgoing);
            }
            // Nobody listens there.
            (Some(sender), None) if !is_cut => sender.ears.refused(to, &address_of(to), None),
            _ => {}
        }
    }
}

impl Line {
    /// What has arrived by now.
    fn arrived(&mut self, now: u64) -> Vec<FanoutMessage> {
        let count = self.flying.partition_point(|(arrival, _)| *arrival <= now);
        self.flying.drain(..count).map(|(_, message)| message).collect()
    }
}

/// Whether both want the stream that one of them dials; who is not wanted hears why.
fn greet((from, sender): (u64, &Life), (to, receiver): (u64, &Life)) -> bool {
    if !sender.knows(to) {
        return false;
    }
    sender.ears.found(to, &address_of(to), receiver.incarnation);
    if let Err(denied) = receiver.admit(from, sender, false) {
        match denied.certainty {
            Certainty::ForGood => sender.ears.denied(to, &denied.why),
            Certainty::Unsure => sender.ears.doubted(to),
            Certainty::ForNow => {}
        }
        return false;
    }
    receiver.knows(from) && sender.admit(to, receiver, true).is_ok()
}

fn streams(peer: u64, direction: Direction) -> impl Iterator<Item = Stream> {
    let purposes = [Purpose::Raft, Purpose::Fanout].into_iter();
    purposes.map(move |purpose| Stream { peer, purpose, direction })
}

fn begin(life: &Life, (peer, incarnation): (u64, u64), direction: Direction) {
    streams(peer, direction).for_each(|stream| life.ears.connected(stream, incarnation));
}

fn hear(life: &Life, news: News) {
    match news {
        News::Said(from, messages) => life.ears.received(from, Batch::Fanout(messages)),
        News::Ended(peer, direction) => {
            if direction == Direction::Outgoing {
                life.said.lock().unwrap().open.remove(&peer);
            }
            streams(peer, direction).for_each(|stream| life.ears.lost(stream));
        }
    }
}
