//! The lives of other nodes' data folders: of processes with copies of one folder at most one is let in.
//!
//! Two of them would vote and acknowledge in the name of one node, each without knowing what the other has
//! promised. So each folder knows the lives that were begun on it, and a node lets in only a life that knows
//! of the one it has let in last. What it has let in it remembers in its own folder. Clocks decide nothing:
//! whose history is the right one, of two, an operator has to say.

use std::collections::BTreeMap;

use anyhow::Context;
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

    /// The life of a node that was let in last.
    pub(super) fn last(&self, node: u64) -> Option<u64> {
        Some(self.known.get(&node)?.life)
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

    /// Refuses a process on a copy of a node's folder. `is_linked` says whether the life that was let in
    /// last is linked now.
    pub(super) fn judge(&self, peer: Introduction<'_>, is_linked: bool) -> Result<(), Denied> {
        let known = self.known.get(&peer.node).filter(|known| known.folder == peer.folder);
        // Who has a folder of its own has taken the place of the other.
        let Some(known) = known.filter(|known| known.life != peer.incarnation) else {
            return Ok(());
        };
        let at = match known.address.as_str() {
            "" => String::new(),
            address => format!(" at {address}"),
        };
        let node = peer.node;
        let (why, certainty) = match known.followed_by(peer) {
            Some(true) if !is_linked => return Ok(()),
            Some(true) => (
                format!(
                    "is linked in its life before{at}: if that has ended this is noticed within some \
                     seconds; otherwise two processes have copies of its data folder, and one has to be \
                     stopped"
                ),
                Certainty::ForNow,
            ),
            Some(false) => (
                format!("has begun another life on this data folder or a copy of it{at}"),
                if is_linked { Certainty::ForGood } else { Certainty::ForNow },
            ),
            None => (
                format!(
                    "has gone on{at} without this data folder, which is a copy or was set back: what it \
                     has promised since is not in this one. Use the folder on which it ran last; if that \
                     is lost, `skein cluster replace {node}`"
                ),
                if is_linked { Certainty::ForGood } else { Certainty::ForNow },
            ),
        };
        Err(Denied { why, certainty })
    }
}

impl Known {
    /// Whether a life comes after this one, or before; none if neither knows of the other.
    fn followed_by(&self, peer: Introduction<'_>) -> Option<bool> {
        let is_later = peer.incarnation > self.life;
        let has = |lives: &[u64], life: u64| {
            // Those that came before the oldest are forgotten.
            lives.contains(&life) || lives.len() >= LIVES_KEPT && life < lives[0]
        };
        if peer.lives.is_empty() || self.lives.is_empty() || has(peer.lives, self.life) {
            // A node of a version that does not say it.
            return Some(is_later);
        }
        has(&self.lives, peer.incarnation).then_some(false)
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
        for (known, peer, is_linked, expected) in [
            // The same; it has several streams.
            ("3 5", "3 5", true, None),
            // It was restarted; perhaps nobody has noticed its end yet, or it was not noticed here at all.
            ("3 5", "3 5 6", false, None),
            ("3 5", "3 5 6", true, Some((ForNow, "life before at here:1"))),
            ("3 5", "3 5 6 7", false, None),
            ("5", "3 5 6", false, None),
            // A copy from before that life, however often it was started, and whatever its clock says.
            ("3 5", "3 6", true, Some((ForGood, "gone on at here:1"))),
            ("3 5", "3 6", true, Some((ForGood, "skein cluster replace 4"))),
            ("3 5", "3 6", false, Some((ForNow, "gone on at here:1"))),
            ("3 5", "3 6 7", false, Some((ForNow, "gone on"))),
            ("3 5", "3 4", true, Some((ForGood, "gone on"))),
            ("3 5", "3 4", false, Some((ForNow, "gone on"))),
            ("5", "6", false, Some((ForNow, "gone on"))),
            // The folder of which a copy was let in.
            ("3 6 7", "3 5 8", true, Some((ForGood, "gone on"))),
            ("3 6 7", "3 5 8", false, Some((ForNow, "gone on"))),
            // A copy that was made while the folder was in use has been let in.
            ("3 5 6", "3 5", true, Some((ForGood, "another life"))),
            ("3 5 6", "3 5", false, Some((ForNow, "another life"))),
        ] {
            let numbers = |text: &str| -> Vec<u64> {
                text.split(' ').map(|number| number.parse().unwrap()).collect()
            };
            let (known, peer) = (&*numbers(known), &*numbers(peer));
            let mut lives = forgetful();
            lives.note(life(known, "a"));
            let found = lives.judge(life(peer, "a"), is_linked).err();
            let found = found.as_ref().map(|it| (it.certainty, &*it.why));
            let is_as_expected = match (found, expected) {
                (Some((certainty, why)), Some((wanted, said))) => {
                    certainty == wanted && why.contains(said)
                }
                (found, expected) => found.is_some() == expected.is_some(),
            };
            assert!(
                is_as_expected,
                "{known:?}, {peer:?}, {is_linked}: {found:?}, not {expected:?}"
            );
            assert_eq!(lives.judge(life(peer, "b"), is_linked), Ok(()), "another replica");
        }
    }

    #[test]
    fn a_folder_remembers_so_many_lives() {
        let mut lives = forgetful();
        let told: Vec<u64> = (1..=9 + LIVES_KEPT as u64).collect();
        lives.note(life(&told[..5], "a"));
        assert!(lives.judge(life(&told[6..9], "a"), false).is_err());
        assert_eq!(lives.judge(life(&told[9..], "a"), false), Ok(()));
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
            assert_eq!(lives.judge(after, false), Ok(()));
            assert!(lives.judge(after, true).is_err());
            assert!(lives.judge(Introduction { incarnation: 4, ..after }, true).is_err());
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
        assert_eq!(lives.last(4), Some(5));
        assert!(lives.judge(life(&[3, 6], "a"), false).is_err());
        assert!(Lives::remember(Some("{"), |_| Ok(())).is_err());
    }
}
