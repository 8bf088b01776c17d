//! The lives of other nodes' data folders: of processes with copies of one folder at most one is let in.
//!
//! Two of them would vote and acknowledge in the name of one node, each without knowing what the other has
//! promised. So each folder knows the lives that were begun on it, and a node lets in only a life that knows
//! of the one it has let in last, and only once that has ended. What it has let in it remembers in its own
//! folder. Clocks decide nothing: whose history is the right one, of two, an operator has to say.

use std::collections::BTreeMap;

use anyhow::Context;
use fleet::shard::Instance;
use links::{Certainty, Denied, Introduction};
use serde::{Deserialize, Serialize};
use storage::data::LIVES_KEPT;
use tracing::warn;

/// Keeps a text, where this node finds it at its next start.
type Keep = dyn Fn(&str) -> anyhow::Result<()> + Send + Sync;

/// See the module.
pub struct Lives {
    /// What was let in last, by the node's number.
    known: BTreeMap<u64, Known>,
    keep: Box<Keep>,
}

/// Whether a life goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// There is a link.
    Linked,
    /// It may go on, and there is no link.
    Unseen,
    /// Its process has ended, or it was not heard of for long.
    Ended,
}

/// What a life on a folder, or on a copy of it, is to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    /// It knows of it.
    Later,
    /// The other knows of it.
    Earlier,
    /// Neither knows of the other: one folder has gone on, and a copy of it, too.
    Diverged,
}

/// A life that was let in.
#[derive(Debug, Deserialize, Serialize)]
struct Known {
    /// The name of its folder.
    folder: String,
    /// Where it was; empty if it did not say.
    address: String,
    life: u64,
    /// It and those before it on the folder, the oldest first; none if it did not say.
    lives: Vec<u64>,
}

impl Lives {
    /// What this node remembers; `kept` is what it has kept last.
    pub fn remember(
        kept: Option<&str>,
        keep: impl Fn(&str) -> anyhow::Result<()> + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        let known = kept.map(serde_json::from_str).transpose();
        let known = known.context("the lives of other nodes that were let in cannot be read")?;
        Ok(Self { known: known.unwrap_or_default(), keep: Box::new(keep) })
    }

    /// The life of each node that was let in last.
    pub(super) fn last(&self) -> impl Iterator<Item = Instance> {
        self.known.iter().map(|(node, known)| Instance::new(*node, known.life))
    }

    /// Whether the life of a node that was let in last was at an address.
    pub(super) fn was_at(&self, node: u64, address: &str) -> bool {
        self.known.get(&node).is_some_and(|known| known.address == address)
    }

    /// Notes that a life is let in. What cannot be kept is remembered until this process ends.
    pub(super) fn note(&mut self, peer: Introduction<'_>) {
        let before = self.known.get(&peer.node);
        if before.is_some_and(|it| it.life == peer.incarnation && it.folder == peer.folder) {
            return;
        }
        let first = peer.lives.len().saturating_sub(LIVES_KEPT);
        let (folder, address) = (peer.folder.to_owned(), peer.address.to_owned());
        let lives = peer.lives[first..].to_vec();
        self.known.insert(peer.node, Known { folder, address, life: peer.incarnation, lives });
        let text = serde_json::to_string(&self.known).context("cannot be written as JSON");
        if let Err(error) = text.and_then(|text| (self.keep)(&text)) {
            let (error, peer) = (format!("{error:#}"), peer.node);
            warn!(
                error,
                peer, "which life of a node was let in is forgotten when this process ends"
            );
        }
    }

    /// Refuses a process on a copy of a node's folder. `presence` is that of the life that was let in last.
    pub(super) fn judge(&self, peer: Introduction<'_>, presence: Presence) -> Result<(), Denied> {
        let known = self.known.get(&peer.node).filter(|known| known.folder == peer.folder);
        // Who has a folder of its own has taken the place of the other.
        let Some(known) = known.filter(|known| known.life != peer.incarnation) else {
            return Ok(());
        };
        let at = match known.address.as_str() {
            "" => String::new(),
            address => format!(" at {address}"),
        };
        let relation = known.relation(peer);
        let why = match (relation, presence) {
            (Relation::Later, Presence::Ended) => return Ok(()),
            (Relation::Later, Presence::Linked) => format!(
                "is linked in its life before{at}: if that has ended this is noticed within some seconds; \
                 otherwise two processes have copies of its data folder, and one has to be stopped"
            ),
            (Relation::Later, Presence::Unseen) => format!(
                "was in its life before{at}, and may be there still: this one is let in when nobody listens \
                 there any more, or in some seconds"
            ),
            (Relation::Earlier, _) => {
                format!("has begun another life on this data folder or a copy of it{at}")
            }
            (Relation::Diverged, _) => format!(
                "has gone on{at} without this data folder, which is a copy or was set back: what it has \
                 promised since is not in this one. Use the folder on which it ran last; if that is lost, \
                 `skein cluster replace {}`",
                peer.node
            ),
        };
        let certainty = match (relation, presence) {
            (Relation::Earlier | Relation::Diverged, Presence::Linked) => Certainty::ForGood,
            _ => Certainty::ForNow,
        };
        Err(Denied { why, certainty })
    }
}

impl Known {
    /// What a life is to this one.
    fn relation(&self, peer: Introduction<'_>) -> Relation {
        let is_later = peer.incarnation > self.life;
        // A node of a version before does not say which lives there were.
        let is_told = !peer.lives.is_empty() && !self.lives.is_empty();
        if peer.lives.contains(&self.life) || !is_told && is_later {
            Relation::Later
        } else if self.lives.contains(&peer.incarnation) || !is_told {
            Relation::Earlier
        } else {
            Relation::Diverged
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    /// A life of node 4, whose number is the last.
    fn life<'a>(lives: &'a [u64], folder: &'a str) -> Introduction<'a> {
        let (address, others, incarnation) = ("here:1", &[], *lives.last().unwrap());
        Introduction { node: 4, incarnation, folder, lives, address, joins: false, others }
    }

    fn forgetful() -> Lives {
        Lives::remember(None, |_| Ok(())).unwrap()
    }

    #[test]
    fn only_a_life_that_knows_of_the_one_let_in_last_is_let_in() {
        use Certainty::{ForGood, ForNow};
        use Presence::{Ended, Linked, Unseen};
        for (known, peer, presence, expected) in [
            // The same; it has several streams.
            ("3 5", "3 5", Linked, None),
            ("3 5", "3 5", Unseen, None),
            // It was restarted; perhaps nobody has noticed its end yet, or it was not noticed here at all.
            ("3 5", "3 5 6", Ended, None),
            ("3 5", "3 5 6", Linked, Some((ForNow, "linked in its life before at here:1"))),
            ("3 5", "3 5 6", Unseen, Some((ForNow, "was in its life before at here:1"))),
            ("3 5", "3 5 6 7", Ended, None),
            ("5", "3 5 6", Ended, None),
            // A copy from before that life, however often it was started, and whatever its clock says.
            ("3 5", "3 6", Linked, Some((ForGood, "gone on at here:1"))),
            ("3 5", "3 6", Linked, Some((ForGood, "skein cluster replace 4"))),
            ("3 5", "3 6", Unseen, Some((ForNow, "gone on at here:1"))),
            ("3 5", "3 6", Ended, Some((ForNow, "gone on at here:1"))),
            ("3 5", "3 6 7", Ended, Some((ForNow, "gone on"))),
            ("3 5", "3 4", Linked, Some((ForGood, "gone on"))),
            ("3 5", "3 4", Ended, Some((ForNow, "gone on"))),
            ("5", "6", Ended, Some((ForNow, "gone on"))),
            // The folder of which a copy was let in.
            ("3 6 7", "3 5 8", Linked, Some((ForGood, "gone on"))),
            ("3 6 7", "3 5 8", Ended, Some((ForNow, "gone on"))),
            // A copy that was made while the folder was in use has been let in.
            ("3 5 6", "3 5", Linked, Some((ForGood, "another life"))),
            ("3 5 6", "3 5", Ended, Some((ForNow, "another life"))),
        ] {
            let numbers = |text: &str| -> Vec<u64> {
                text.split(' ').map(|number| number.parse().unwrap()).collect()
            };
            let (known, peer) = (&*numbers(known), &*numbers(peer));
            let mut lives = forgetful();
            lives.note(life(known, "a"));
            let found = lives.judge(life(peer, "a"), presence).err();
            let found = found.as_ref().map(|it| (it.certainty, &*it.why));
            let is_as_expected = match (found, expected) {
                (Some((certainty, why)), Some((wanted, said))) => {
                    certainty == wanted && why.contains(said)
                }
                (found, expected) => found.is_some() == expected.is_some(),
            };
            assert!(
                is_as_expected,
                "{known:?}, {peer:?}, {presence:?}: {found:?}, not {expected:?}"
            );
            assert_eq!(lives.judge(life(peer, "b"), presence), Ok(()), "another replica");
        }
    }

    #[test]
    fn a_copy_is_not_let_in_for_being_started_often() {
        let mut lives = forgetful();
        let told: Vec<u64> = (1..=9 + LIVES_KEPT as u64).collect();
        lives.note(life(&told[..5], "a"));
        assert!(lives.judge(life(&told[9..], "a"), Presence::Ended).is_err());
        lives.note(life(&told, "a"));
        assert_eq!(lives.known[&4].lives.len(), LIVES_KEPT);
    }

    #[test]
    fn versions_that_do_not_tell_are_known_by_the_number() {
        for (known, peer) in [(false, true), (true, false), (false, false)] {
            let mut lives = forgetful();
            let [before, after] = [(known, &[3, 5][..]), (peer, &[6][..])].map(|(tells, lives)| {
                let of = life(lives, "a");
                Introduction { lives: if tells { of.lives } else { &[] }, ..of }
            });
            lives.note(before);
            assert_eq!(lives.judge(after, Presence::Ended), Ok(()));
            assert!(lives.judge(after, Presence::Linked).is_err());
            let earlier = Introduction { incarnation: 4, ..after };
            assert!(lives.judge(earlier, Presence::Ended).is_err());
        }
    }

    #[test]
    fn what_was_let_in_is_remembered_at_the_next_start() {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let keeps = Arc::clone(&kept);
        let keep = move |text: &str| {
            keeps.lock().push(text.to_owned());
            Ok(())
        };
        let mut lives = Lives::remember(None, keep).unwrap();
        for told in [&[3][..], &[3], &[3, 5], &[3, 5]] {
            lives.note(life(told, "a"));
        }
        let kept = kept.lock().clone();
        assert_eq!(kept.len(), 2, "once for each: {kept:?}");
        let lives = Lives::remember(Some(&kept[1]), |_| Ok(())).unwrap();
        assert!(lives.last().eq([Instance::new(4, 5)]));
        assert!(lives.was_at(4, "here:1") && !lives.was_at(4, "there:1"));
        assert!(lives.judge(life(&[3, 6], "a"), Presence::Ended).is_err());
        assert!(Lives::remember(Some("{"), |_| Ok(())).is_err());
    }
}
