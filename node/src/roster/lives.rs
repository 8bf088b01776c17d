//! The lives of other nodes' data folders: of processes with copies of one folder this node lets in at most
//! one at a time, and never one that lacks what another has promised it.
//!
//! Two of them would vote and acknowledge in the name of one node, each without knowing what the other has
//! promised. So each folder knows the lives that were begun on it, and a node lets in only a life that knows
//! of the one it has let in last, and only once that has ended or is not heard of any more. What it has let
//! in it remembers in its own folder. Clocks decide nothing: whose history is the right one, of two, an
//! operator has to say.
//!
//! Each node judges for itself, by what it has heard: two copies that nobody has let in since they were made
//! look the same, and one node may let in the one, another the other. When they hear of each other, both stop.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use links::{Certainty, Denied, Introduction};
use serde::{Deserialize, Serialize};
use storage::data::LIVES_KEPT;
use tokio::time::Instant;
use tracing::warn;

/// Keeps a text, where this node finds it at its next start.
type Keep = dyn Fn(&str) -> anyhow::Result<()> + Send + Sync;

/// See the module.
pub struct Lives {
    /// What was let in last, by the node's number.
    known: BTreeMap<u64, Known>,
    keep: Box<Keep>,
    /// Whether the folder has yet to be told what is known.
    is_news: bool,
}

/// A life that a later one wants to follow may go on unseen: it is waited for so long. Longer than it takes
/// it to dial this node again, also where names lead to some other places that do not answer.
const UNSEEN_FOR: Duration = Duration::from_secs(20);

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
    /// Where it said that it was; empty if it did not.
    address: String,
    /// Where else this node has found it; empty if nowhere.
    #[serde(default)]
    found: String,
    life: u64,
    /// It and those before it on the folder, the oldest first; none if it did not say.
    lives: Vec<u64>,
    /// Whether it is known to have ended.
    #[serde(skip)]
    has_ended: bool,
    /// Since when a later one wants to be let in, and nothing was heard of it.
    #[serde(skip)]
    awaited: Option<Instant>,
}

impl Lives {
    /// What this node remembers; `kept` is what it has kept last.
    pub fn remember(
        kept: Option<&str>,
        keep: impl Fn(&str) -> anyhow::Result<()> + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        let known = kept.map(serde_json::from_str).transpose();
        let known = known.context("the lives of other nodes that were let in cannot be read")?;
        Ok(Self { known: known.unwrap_or_default(), keep: Box::new(keep), is_news: false })
    }

    /// A process has said that it is a life of a node.
    pub(super) fn hear(&mut self, node: u64, life: u64) {
        if let Some(known) = self.known.get_mut(&node).filter(|known| known.life == life) {
            (known.has_ended, known.awaited) = (false, None);
        }
    }

    /// A life of a node is at an address: another one that was there has ended, if it is not linked.
    pub(super) fn find(&mut self, node: u64, life: u64, address: &str, is_linked: bool) {
        self.hear(node, life);
        let Some(known) = self.known.get_mut(&node) else { return };
        if known.life != life {
            known.has_ended |= !is_linked && known.at() == address;
            return;
        }
        let found = if address == known.address { "" } else { address };
        if known.found != found {
            found.clone_into(&mut known.found);
            self.is_news = true;
        }
    }

    /// Nobody listens at an address of a node; a life is named where that is known of it alone. If the one that
    /// was let in last was there, that has ended, and is given back; it counts for others when it is not linked.
    pub(super) fn miss(
        &mut self,
        node: u64,
        address: &str,
        life: Option<u64>,
        is_linked: bool,
    ) -> Option<u64> {
        let known = self.known.get_mut(&node)?;
        let was_there = known.at() == address && life.is_none_or(|life| life == known.life);
        known.has_ended |= was_there && !is_linked;
        was_there.then_some(known.life)
    }

    /// Where nodes were found that did not say where they were, or were not there.
    pub(super) fn found(&self) -> BTreeMap<u64, String> {
        let found = self.known.iter().filter(|(_, known)| !known.found.is_empty());
        found.map(|(node, known)| (*node, known.found.clone())).collect()
    }

    /// Forgets a node that is no member any more, and is not let in with the folder that it had; false if it
    /// was not known.
    pub(super) fn forget(&mut self, node: u64) -> bool {
        let is_known = self.known.remove(&node).is_some();
        self.is_news |= is_known;
        is_known
    }

    /// Notes that a life is let in. What cannot be kept is tried again with the next.
    pub(super) fn note(&mut self, peer: Introduction<'_>) {
        let before = self.known.get(&peer.node);
        if before.is_none_or(|it| it.life != peer.incarnation || it.folder != peer.folder) {
            let first = peer.lives.len().saturating_sub(LIVES_KEPT);
            let found = match peer.found {
                // One that says what the one before has said is where that was found, as far as is known.
                "" => before.filter(|it| it.address == peer.address).map_or("", |it| &it.found),
                found if found == peer.address => "",
                found => found,
            };
            let known = Known {
                folder: peer.folder.to_owned(),
                address: peer.address.to_owned(),
                found: found.to_owned(),
                life: peer.incarnation,
                lives: peer.lives[first..].to_vec(),
                has_ended: false,
                awaited: None,
            };
            self.known.insert(peer.node, known);
            self.is_news = true;
        }
        if !self.is_news {
            return;
        }
        let text = serde_json::to_string(&self.known).context("cannot be written as JSON");
        match text.and_then(|text| (self.keep)(&text)) {
            Ok(()) => self.is_news = false,
            Err(error) => {
                let (error, peer) = (format!("{error:#}"), peer.node);
                warn!(
                    error,
                    peer,
                    "which life of a node was let in is not written down: if this process ends before it \
                     is, a copy of that node's folder may be let in"
                );
            }
        }
    }

    /// Refuses a process on a copy of a node's folder. `is_linked` says whether there is a stream from or
    /// to that node.
    pub(super) fn judge(&mut self, peer: Introduction<'_>, is_linked: bool) -> Result<(), Denied> {
        let known = self.known.get_mut(&peer.node).filter(|known| known.folder == peer.folder);
        // Who has a folder of its own has taken the place of the other.
        let Some(known) = known.filter(|known| known.life != peer.incarnation) else {
            return Ok(());
        };
        let relation = known.relation(peer);
        let at = match known.at() {
            "" => String::new(),
            address => format!(" at {address}"),
        };
        let why = match relation {
            Relation::Later if is_linked => format!(
                "is linked in its life before{at}: if that has ended this is noticed within some seconds; \
                 otherwise two processes have copies of its data folder, and one has to be stopped"
            ),
            Relation::Later if known.is_gone() => return Ok(()),
            Relation::Later => format!(
                "was in its life before{at}, and may be there still: this one is let in when nobody listens \
                 there any more, or in some seconds"
            ),
            Relation::Earlier => {
                format!("has begun another life on this data folder or a copy of it{at}")
            }
            Relation::Diverged => format!(
                "has gone on{at} without this data folder, which is a copy or was set back: what it has \
                 promised since is not in this one. Use the folder on which it ran last; if that is lost, \
                 `skein cluster replace {}`",
                peer.node
            ),
        };
        let certainty = match relation {
            Relation::Earlier | Relation::Diverged if is_linked => Certainty::ForGood,
            _ => Certainty::ForNow,
        };
        Err(Denied { why, certainty })
    }
}

impl Known {
    /// Where it was; empty if that is not known.
    fn at(&self) -> &str {
        if self.found.is_empty() { &self.address } else { &self.found }
    }

    /// Whether this life has ended, or nothing was heard of it since a later one came.
    fn is_gone(&mut self) -> bool {
        let now = Instant::now();
        self.has_ended || now.duration_since(*self.awaited.get_or_insert(now)) >= UNSEEN_FOR
    }

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
        let (address, found, others) = ("here:1", "", &[]);
        let (incarnation, joins) = (*lives.last().unwrap(), false);
        Introduction { node: 4, incarnation, folder, lives, address, found, joins, others }
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
            ("3 5", "3 5", false, None),
            // It was restarted; perhaps nobody has noticed its end yet, or it was not noticed here at all.
            ("3 5", "3 5 6", false, None),
            ("3 5", "3 5 6", true, Some((ForNow, "linked in its life before at here:1"))),
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
            lives.miss(4, "here:1", None, false);
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

    #[tokio::test(start_paused = true)]
    async fn a_later_life_waits_until_the_one_before_has_ended() {
        type Happens = fn(&mut Lives);
        let happens: [(&str, bool, Happens); 11] = [
            ("nothing", false, |_| ()),
            ("nobody listens where it was", true, |it| _ = it.miss(4, "here:1", None, false)),
            ("nobody listens where it was not", false, |it| _ = it.miss(4, "there:1", None, false)),
            ("another is where it was", true, |it| it.find(4, 6, "here:1", false)),
            ("another is elsewhere", false, |it| it.find(4, 6, "there:1", false)),
            ("it is where it was", false, |it| it.find(4, 5, "here:1", false)),
            ("nobody listened there, and it is back", false, |it| {
                it.miss(4, "here:1", None, false);
                it.hear(4, 5);
            }),
            ("another node has ended", false, |it| _ = it.miss(3, "here:1", None, false)),
            ("another life has ended there", false, |it| _ = it.miss(4, "here:1", Some(4), false)),
            ("it has ended there", true, |it| _ = it.miss(4, "here:1", Some(5), false)),
            ("it is linked", false, |it| _ = it.miss(4, "here:1", None, true)),
        ];
        for (what, has_ended, happens) in happens {
            let mut lives = forgetful();
            lives.note(life(&[3, 5], "a"));
            happens(&mut lives);
            let later = life(&[3, 5, 6], "a");
            let is_let_in = |lives: &mut Lives| lives.judge(later, false).is_ok();
            assert_eq!(is_let_in(&mut lives), has_ended, "{what}");
            if has_ended {
                continue;
            }
            let why = lives.judge(later, false).unwrap_err().why;
            assert!(why.contains("was in its life before at here:1"), "{why}");
            tokio::time::advance(UNSEEN_FOR / 2).await;
            lives.hear(4, 5);
            tokio::time::advance(UNSEEN_FOR / 2).await;
            assert!(!is_let_in(&mut lives), "{what}: it was heard of");
            tokio::time::advance(UNSEEN_FOR).await;
            assert!(is_let_in(&mut lives), "{what}: long ago");
        }
    }

    #[test]
    fn a_life_has_ended_when_nobody_listens_where_it_was_found() {
        let said_and_found = [("said:1", ""), ("", "found:1"), ("said:1", "found:1")];
        for ((address, found), first_dials) in
            said_and_found.into_iter().flat_map(|it| [(it, true), (it, false)])
        {
            let kept = Arc::new(Mutex::new(String::new()));
            let keeps = Arc::clone(&kept);
            let keep = move |text: &str| {
                text.clone_into(&mut keeps.lock());
                Ok(())
            };
            let mut lives = Lives::remember(None, keep).unwrap();
            let dials = Introduction { address, ..life(&[3], "a") };
            let dialled = Introduction { found, ..dials };
            let both = if first_dials { [dials, dialled] } else { [dialled, dials] };
            for peer in both {
                if !peer.found.is_empty() {
                    lives.find(4, 3, found, true);
                }
                lives.note(peer);
            }
            assert_eq!(lives.found().remove(&4).unwrap_or_default(), found);

            let mut lives = Lives::remember(Some(&kept.lock()), |_| Ok(())).unwrap();
            let at = if found.is_empty() { address } else { found };
            for missed in
                ["said:1", "found:1"].into_iter().filter(|missed| *missed != at).chain([at])
            {
                lives.miss(4, missed, None, false);
                let is_let_in = lives.judge(life(&[3, 5], "a"), false).is_ok();
                assert_eq!(is_let_in, missed == at, "{address}, {found}: {missed}");
            }
        }
    }

    #[test]
    fn a_copy_is_not_let_in_for_being_started_often() {
        let mut lives = forgetful();
        let told: Vec<u64> = (1..=9 + LIVES_KEPT as u64).collect();
        lives.note(life(&told[..5], "a"));
        lives.miss(4, "here:1", None, false);
        assert!(lives.judge(life(&told[9..], "a"), false).is_err());
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
            lives.miss(4, "here:1", None, false);
            assert_eq!(lives.judge(after, false), Ok(()));
            assert!(lives.judge(after, true).is_err());
            assert!(lives.judge(Introduction { incarnation: 4, ..after }, false).is_err());
        }
    }

    #[test]
    fn what_cannot_be_kept_is_tried_again() {
        let kept = Arc::new(Mutex::new(None));
        let keeps = Arc::clone(&kept);
        let mut tries = 0..;
        let tries = Mutex::new(move || tries.next());
        let keep = move |text: &str| {
            anyhow::ensure!(tries.lock()() > Some(0), "the disk is full");
            *keeps.lock() = Some(text.to_owned());
            Ok(())
        };
        let mut lives = Lives::remember(None, keep).unwrap();
        lives.note(life(&[3], "a"));
        assert_eq!(*kept.lock(), None);
        lives.note(life(&[3], "a"));
        assert!(kept.lock().as_ref().is_some_and(|text| text.contains("[3]")));
        lives.forget(4);
        lives.note(Introduction { node: 5, ..life(&[9], "b") });
        assert!(kept.lock().as_ref().is_some_and(|text| !text.contains("[3]")));
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
        let mut lives = Lives::remember(Some(&kept[1]), |_| Ok(())).unwrap();
        lives.miss(4, "here:1", None, false);
        assert!(lives.judge(life(&[3, 6], "a"), false).is_err());
        assert_eq!(lives.judge(life(&[3, 5, 6], "a"), false), Ok(()));
        assert!(Lives::remember(Some("{"), |_| Ok(())).is_err());

        // As a version before kept one that did not say where it was.
        let kept = r#"{"4": {"folder": "a", "address": "there:1", "says_address": false, "life": 5, "lives": [5]}}"#;
        let mut lives = Lives::remember(Some(kept), |_| Ok(())).unwrap();
        lives.miss(4, "there:1", None, false);
        assert_eq!(lives.judge(life(&[5, 6], "a"), false), Ok(()));
    }
}
