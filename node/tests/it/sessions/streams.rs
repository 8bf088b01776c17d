//! The streams between nodes: in order, late, and given up when nothing comes for a while.

use std::collections::{BTreeMap, VecDeque};

use links::proto::FanoutMessage;
use links::{Batch, Direction, Purpose, Receiver, Stream};
use node::host::{Machine, NodeHost};
use simulation::Cluster;

use super::life::Life;

/// Milliseconds after which a stream that brings nothing is given up.
const GIVEN_UP: u64 = 1500;

/// The streams from one node to another.
struct Line {
    /// The lives at its ends.
    from: u64,
    to: u64,
    /// When something last came.
    heard: u64,
    /// What is on its way, and when it arrives.
    flying: VecDeque<(u64, FanoutMessage)>,
}

/// See the module.
#[derive(Default)]
pub(super) struct Streams(BTreeMap<(u64, u64), Line>);

impl Streams {
    /// A moment passes: nodes find and lose each other, and hear what the others have said.
    pub(super) fn pass(
        &mut self,
        cluster: &mut Cluster<Machine, NodeHost>,
        lives: &BTreeMap<u64, Life>,
    ) {
        let ids: Vec<_> = cluster.nodes.keys().copied().collect();
        for (from, to) in ids.iter().flat_map(|&from| ids.iter().map(move |&to| (from, to))) {
            if from != to {
                self.look(cluster, lives, (from, to));
            }
        }
        for (&from, life) in lives {
            let said = std::mem::take(&mut life.said.lock().unwrap().messages);
            for (to, message) in said {
                let Some(line) = self.0.get_mut(&(from, to)) else { continue };
                let last = line.flying.back().map_or(0, |(arrival, _)| *arrival);
                let late = 1 + cluster.dice.below(cluster.network.weather.delay);
                line.flying.push_back((last.max(cluster.millis + late), message));
            }
        }
        for (&(from, to), line) in &mut self.0 {
            if cluster.network.is_cut(from, to) {
                continue;
            }
            let count = line.flying.partition_point(|(arrival, _)| *arrival <= cluster.millis);
            let messages: Vec<_> = line.flying.drain(..count).map(|(_, message)| message).collect();
            if let Some(life) = lives.get(&to).filter(|_| !messages.is_empty()) {
                life.ears.received(from, Batch::Fanout(messages));
            }
        }
    }

    /// What becomes of the streams from one node to another.
    fn look(
        &mut self,
        cluster: &Cluster<Machine, NodeHost>,
        lives: &BTreeMap<u64, Life>,
        (from, to): (u64, u64),
    ) {
        let now = cluster.millis;
        let is_cut = cluster.network.is_cut(from, to);
        let [sender, receiver] = [from, to].map(|id| lives.get(&id));
        if let Some(line) = self.0.get_mut(&(from, to)) {
            let sender = sender.filter(|it| it.incarnation == line.from);
            let receiver = receiver.filter(|it| it.incarnation == line.to);
            let are_up = sender.is_some() && receiver.is_some();
            if are_up && !is_cut {
                line.heard = now;
            }
            // The end of a process is told by its machine.
            let is_over = if is_cut { now - line.heard > GIVEN_UP } else { !are_up };
            if !is_over {
                return;
            }
            self.0.remove(&(from, to));
            if let Some(sender) = sender {
                sender.said.lock().unwrap().open.remove(&to);
                end(sender, to, Direction::Outgoing);
            }
            if let Some(receiver) = receiver {
                end(receiver, from, Direction::Incoming);
            }
            return;
        }
        match (sender, receiver) {
            (Some(sender), Some(receiver)) if !is_cut => {
                let (flying, heard) = (VecDeque::new(), now);
                let line =
                    Line { from: sender.incarnation, to: receiver.incarnation, heard, flying };
                self.0.insert((from, to), line);
                sender.said.lock().unwrap().open.insert(to);
                begin(receiver, (from, sender.incarnation), Direction::Incoming);
                begin(sender, (to, receiver.incarnation), Direction::Outgoing);
            }
            // Nobody listens there.
            (Some(sender), None) if !is_cut => sender.ears.refused(to),
            _ => {}
        }
    }
}

fn streams(peer: u64, direction: Direction) -> impl Iterator<Item = Stream> {
    let purposes = [Purpose::Raft, Purpose::Fanout].into_iter();
    purposes.map(move |purpose| Stream { peer, purpose, direction })
}

fn begin(life: &Life, (peer, incarnation): (u64, u64), direction: Direction) {
    streams(peer, direction).for_each(|stream| life.ears.connected(stream, incarnation));
}

fn end(life: &Life, peer: u64, direction: Direction) {
    streams(peer, direction).for_each(|stream| life.ears.lost(stream));
}
