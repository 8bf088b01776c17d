//! Who belongs to the cluster, and where: the nodes that the configuration names, until this node knows
//! the members that the `meta` group has noted.
//!
//! A node that says who it is, is let in if it is a member with the data folder that it comes with;
//! where it says that it is counts more than where it was. A node that joins knows no members yet and
//! believes whoever has the certificate of a node. Of processes with copies of one data folder it lets in at
//! most one at a time, see [`Lives`].

mod lives;

use std::collections::BTreeMap;
use std::fs;
use std::iter;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fleet::registry::{Drain, Member, MemberStatus, NotMember};
use links::{Certainty, Denied, Introduction, PeerAddress};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::config::{self, is_address};

pub use lives::Lives;

/// This node in its cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Own {
    /// Its number.
    pub node: u64,
    /// The name of its data folder.
    pub folder: String,
    /// Where others dial it; empty if it does not know.
    pub address: String,
    /// Whether it is none of the founders.
    pub joins: bool,
    /// The founders, as it was told; none if it joins.
    pub founders: Vec<u64>,
}

/// See the module.
pub struct Roster {
    /// This node; none if it is alone.
    pub own: Option<Own>,
    configured: BTreeMap<u64, String>,
    state: RwLock<State>,
    admitted: Mutex<Lives>,
    /// What is known of this node itself.
    standing: watch::Sender<Option<Member>>,
    /// Why this node may not go on.
    expelled: watch::Sender<Option<String>>,
    /// Set while this node goes on alone and the members do not know it yet: nobody else is one.
    deserted: AtomicBool,
    /// What says so in its data folder.
    recovery: Option<PathBuf>,
    /// Set while this node's own copy of the members is damaged: they may be others by now.
    learns: AtomicBool,
}

#[derive(Default)]
struct State {
    /// None until this node's own state is loaded.
    members: Option<BTreeMap<u64, Member>>,
    /// Where nodes that were let in have last said that they are.
    heard: BTreeMap<u64, String>,
    /// Where others have said that nodes are, to this one when it joined; where each should be comes first.
    hearsay: BTreeMap<u64, Vec<String>>,
    /// Where this node has found others that were not where they said.
    found: BTreeMap<u64, String>,
    /// The members are those that there were then, or later; none until it has been looked.
    as_of: Option<Instant>,
    /// Lives of nodes that are not let in, and when each first wanted to be.
    denied: BTreeMap<(u64, u64), Instant>,
}

/// What was looked at so lately is believed when somebody is to be denied for good.
const BELIEVED_FOR: Duration = Duration::from_secs(2);
/// Lives that were denied are remembered for so long.
const REMEMBERED_FOR: Duration = Duration::from_secs(60);

impl State {
    /// Notes where others are said to be, while this node may need to be told; true if that is news.
    fn hear_of(&mut self, others: &[PeerAddress], joining: bool) -> bool {
        if !joining {
            self.hearsay.clear();
            return false;
        }
        let mut said = BTreeMap::<u64, Vec<String>>::new();
        for PeerAddress { node, address } in others.iter().filter(|it| is_address(&it.address)) {
            said.entry(*node).or_default().push(address.clone());
        }
        let mut is_news = false;
        for (node, addresses) in said {
            is_news |= self.hearsay.get(&node) != Some(&addresses);
            self.hearsay.insert(node, addresses);
        }
        is_news
    }

    /// Whether the members were looked at lately, and after a life of a node first wanted to be let in.
    fn knows_more_than(&mut self, peer: Introduction<'_>) -> bool {
        let now = Instant::now();
        self.denied.retain(|_, first| now.duration_since(*first) < REMEMBERED_FOR);
        let first = *self.denied.entry((peer.node, peer.incarnation)).or_insert(now);
        self.as_of.is_some_and(|as_of| as_of > first && now.duration_since(as_of) < BELIEVED_FOR)
    }
}

impl Roster {
    /// The roster of a node before its state is loaded.
    pub fn new(
        cluster: Option<&config::Cluster>,
        folder: String,
        lives: Lives,
        recovery: Option<PathBuf>,
    ) -> Self {
        let own = cluster.map(|cluster| Own {
            node: cluster.node,
            folder,
            address: cluster.advertised(),
            joins: cluster.joins(),
            founders: cluster.founders(),
        });
        Self {
            own,
            configured: cluster.map(config::Cluster::known).unwrap_or_default(),
            state: RwLock::new(State { found: lives.found(), ..State::default() }),
            admitted: Mutex::new(lives),
            standing: watch::Sender::new(None),
            expelled: watch::Sender::new(None),
            deserted: AtomicBool::new(recovery.is_some()),
            recovery,
            learns: AtomicBool::new(false),
        }
    }

    /// Where a founder is, as far as the configuration says.
    pub fn configured(&self, node: u64) -> String {
        self.configured.get(&node).cloned().unwrap_or_default()
    }

    /// Notes the members as a confirmed leader knew them at a moment, or later; true if they were others
    /// before.
    pub fn note(&self, members: &BTreeMap<u64, Member>, as_of: Instant) -> bool {
        self.state.write().as_of = Some(as_of);
        if self.state.read().members.as_ref() == Some(members) {
            return false;
        }
        self.state.write().members = Some(members.clone());
        let removed = members.iter().filter(|(_, it)| it.status == MemberStatus::Removed);
        let forgotten = removed.filter(|(node, _)| self.admitted.lock().forget(**node)).count();
        if forgotten > 0 {
            self.note_found();
        }
        let own = self.own.as_ref().and_then(|own| members.get(&own.node));
        self.standing.send_if_modified(|standing| {
            let is_new = standing.as_ref() != own;
            *standing = own.cloned();
            is_new
        });
        true
    }

    /// The members, if any are known.
    pub fn members(&self) -> BTreeMap<u64, Member> {
        self.state.read().members.clone().unwrap_or_default()
    }

    /// Whether a node may lead groups; as long as nobody is known every one may.
    pub fn may_lead(&self, node: u64) -> bool {
        let state = self.state.read();
        let members = state.members.as_ref().filter(|members| !members.is_empty());
        members.is_none_or(|members| members.get(&node).is_some_and(Member::may_lead))
    }

    /// Whether this node has yet to learn what there is.
    pub fn is_joining(&self) -> bool {
        let joins = self.own.as_ref().is_some_and(|own| own.joins);
        // Who leaves before it has learnt everything serves nobody, either.
        let learns = |it: &Member| match it.status {
            MemberStatus::Joining => true,
            MemberStatus::Leaving => it.drain == Drain::Done,
            MemberStatus::Active | MemberStatus::Removed => false,
        };
        joins && self.standing.borrow().as_ref().is_none_or(learns)
    }

    /// Whether the members know this node with its data folder: until then it would not be noticed if it
    /// came back without it.
    pub fn is_known(&self) -> bool {
        let standing = self.standing.borrow();
        let folder = standing.as_ref().and_then(|member| member.folder.as_ref());
        self.own.as_ref().is_none_or(|own| folder == Some(&own.folder))
    }

    /// Whether this node shall serve clients.
    pub fn drain(&self) -> Drain {
        self.standing.borrow().as_ref().map_or(Drain::No, |member| member.drain)
    }

    /// Tells of changes to what is known of this node.
    pub fn watch_standing(&self) -> watch::Receiver<Option<Member>> {
        self.standing.subscribe()
    }

    /// Whether nobody else is let in, because this node goes on alone.
    pub fn is_deserted(&self) -> bool {
        self.deserted.load(Ordering::Relaxed)
    }

    /// Notes whether this node's copy of the members is damaged. Then whoever has the certificate of a
    /// node is let in, as where one joins.
    pub fn note_damage(&self, is_damaged: bool) {
        self.learns.store(is_damaged, Ordering::Relaxed);
    }

    /// Whether there may be members that this node does not know.
    fn is_learning(&self) -> bool {
        self.is_joining() || self.learns.load(Ordering::Relaxed)
    }

    /// The members know that this node has gone on alone.
    pub fn end_recovery(&self) {
        if let Some(Err(error)) = self.recovery.as_ref().map(fs::remove_file) {
            warn!(%error, "the recovery is done, but its mark cannot be removed");
        }
        self.deserted.store(false, Ordering::Relaxed);
    }

    /// Another node says that this one may not go on.
    pub fn expel(&self, peer: u64, why: &str) {
        let said = self.expelled.send_if_modified(|expelled| {
            let is_new = expelled.is_none();
            expelled.get_or_insert_with(|| why.to_owned());
            is_new
        });
        if said {
            error!(peer, why, "another node does not let this one be what it was, and it stops");
        }
    }

    /// Resolves, with the reason, when this node is found to be one that may not go on.
    pub async fn expelled(&self) -> String {
        let mut expelled = self.expelled.subscribe();
        loop {
            if let Some(why) = expelled.borrow_and_update().clone() {
                return why;
            }
            if expelled.changed().await.is_err() {
                // The sender is part of this.
                return std::future::pending().await;
            }
        }
    }

    /// Judges a node that is who it says it is; true if somebody was not known to be where it is. One that
    /// may have been let in while this node stood still is not denied for good. `is_linked` says whether
    /// there is a stream from or to that node.
    pub fn admit(&self, peer: Introduction<'_>, is_linked: bool) -> Result<bool, Denied> {
        match peer.found {
            "" => self.admitted.lock().hear(peer.node, peer.incarnation),
            found => self.find(peer.node, peer.incarnation, found, is_linked),
        }
        let joining = self.is_learning();
        self.judge(peer, joining)?;
        {
            let mut lives = self.admitted.lock();
            lives.judge(peer, is_linked).map_err(|denied| match joining {
                // Who is behind knows nothing for good.
                true => Denied { certainty: Certainty::ForNow, ..denied },
                false => denied,
            })?;
            // Seldom, and it must be safe before it counts: this may wait for the disk.
            lives.note(peer);
        }
        self.note_found();
        let mut state = self.state.write();
        state.denied.remove(&(peer.node, peer.incarnation));
        let before = state.heard.get(&peer.node).cloned();
        let moved = !peer.address.is_empty() && before.as_deref() != Some(peer.address);
        if moved {
            if let Some(from) = before {
                info!(peer = peer.node, from, to = peer.address, "a node has moved");
            }
            state.heard.insert(peer.node, peer.address.to_owned());
        }
        Ok(state.hear_of(peer.others, joining) || moved)
    }

    /// Judges a node by who is a member, and with which folder.
    fn judge(&self, peer: Introduction<'_>, joining: bool) -> Result<(), Denied> {
        let mut state = self.state.write();
        let deserted = self.is_deserted();
        let judged = judge(state.members.as_ref(), &self.configured, joining, deserted, peer);
        judged.map_err(|mut denied| {
            let is_certain = !peer.joins || state.knows_more_than(peer);
            denied.certainty = match denied.certainty {
                Certainty::ForGood if !is_certain => Certainty::Unsure,
                // It may lead the group that could tell of it, and this node hear of nothing.
                Certainty::Unsure if is_certain => Certainty::ForNow,
                certainty => certainty,
            };
            denied
        })
    }

    /// A life of a node is at an address. `is_linked` says whether there is a stream from or to that node.
    pub fn find(&self, node: u64, life: u64, address: &str, is_linked: bool) {
        self.admitted.lock().find(node, life, address, is_linked);
        self.note_found();
    }

    /// Lives may be waiting for the disk when somebody asks where nodes were found.
    fn note_found(&self) {
        let lives = self.admitted.lock();
        self.state.write().found = lives.found();
    }

    /// Nobody listens at an address of a node; a life is named where that is known of it alone. Tells which
    /// life has ended, if the one that was let in last was there.
    pub fn miss(
        &self,
        node: u64,
        address: &str,
        life: Option<u64>,
        is_linked: bool,
    ) -> Option<u64> {
        self.admitted.lock().miss(node, address, life, is_linked)
    }

    /// Where to dial the other nodes: where they are, and then wherever else this node has found them, or is
    /// told that they are. All of them may have moved while they were stopped.
    pub fn places(&self) -> Vec<PeerAddress> {
        let mut places = self.whereabouts();
        let nodes: Vec<u64> = places.iter().map(|place| place.node).collect();
        let state = self.state.read();
        for node in nodes {
            let heard = state.hearsay.get(&node).into_iter().flatten();
            add_places(&mut places, node, self.configured.get(&node).into_iter().chain(heard));
        }
        places
    }

    /// Where others that have yet to learn it may find the other nodes: where they are, and then where this
    /// node has found them.
    pub fn whereabouts(&self) -> Vec<PeerAddress> {
        let (mut places, state) = (self.peers(), self.state.read());
        for (node, found) in &state.found {
            if places.iter().any(|peer| peer.node == *node) {
                add_places(&mut places, *node, iter::once(found));
            }
        }
        places
    }

    /// The other nodes, and where they are.
    pub fn peers(&self) -> Vec<PeerAddress> {
        let state = self.state.read();
        let own = self.own.as_ref().map_or(0, |own| own.node);
        let joining = self.is_learning();
        addresses(&state, &self.configured, joining)
            .into_iter()
            .filter(|peer| peer.node != own)
            .collect()
    }
}

fn add_places<'a>(
    places: &mut Vec<PeerAddress>,
    node: u64,
    addresses: impl Iterator<Item = &'a String>,
) {
    for address in addresses.filter(|address| !address.is_empty()) {
        let place = PeerAddress { node, address: address.clone() };
        if !places.contains(&place) {
            places.push(place);
        }
    }
}

fn judge(
    members: Option<&BTreeMap<u64, Member>>,
    configured: &BTreeMap<u64, String>,
    joining: bool,
    deserted: bool,
    peer: Introduction<'_>,
) -> Result<(), Denied> {
    let denied = |why: &str, certainty| Err(Denied { why: why.to_owned(), certainty });
    let Some(members) = members else {
        return denied("is not judged before this node has loaded its state", Certainty::ForNow);
    };
    if deserted {
        return denied(&NotMember::Removed.to_string(), Certainty::ForGood);
    }
    let stranger = || {
        denied("is no member of the cluster: `skein cluster add` makes it one", Certainty::Unsure)
    };
    match members.get(&peer.node) {
        None if joining || members.is_empty() && configured.contains_key(&peer.node) => Ok(()),
        None => stranger(),
        Some(former) if begins_anew(former, peer) => stranger(),
        // It is of a version without names for folders.
        Some(member) if peer.folder.is_empty() && member.folder.is_none() => Ok(()),
        Some(member) => member.admits(peer.folder).or_else(|why| {
            let node = peer.node;
            let remedy = match why {
                NotMember::Removed => "an empty data folder and `join = true`, after `skein cluster add`, \
                    bring it back"
                    .to_owned(),
                NotMember::Former => "use that".to_owned(),
                NotMember::Folder => format!(
                    "use that; if it is lost, `skein cluster replace {node}`, then start it with an \
                     empty data folder and `join = true`"
                ),
            };
            // Who is behind knows nothing for good.
            denied(&format!("{why}: {remedy}"), if joining { Certainty::ForNow } else { Certainty::ForGood })
        }),
    }
}

/// Whether a node comes under the number of one that was removed, and with another folder.
fn begins_anew(former: &Member, peer: Introduction<'_>) -> bool {
    let is_other = |folder: &String| folder != peer.folder;
    former.status == MemberStatus::Removed
        && peer.joins
        && former.folder.as_ref().is_some_and(is_other)
        && former.former_folders.iter().all(is_other)
}

fn addresses<'a>(
    State { members, heard, hearsay, .. }: &'a State,
    configured: &'a BTreeMap<u64, String>,
    joining: bool,
) -> Vec<PeerAddress> {
    let mut all = BTreeMap::<u64, &str>::new();
    let members = members.as_ref().filter(|members| !members.is_empty());
    if joining || members.is_none() {
        all.extend(configured.iter().map(|(node, address)| (*node, address.as_str())));
    }
    if joining {
        let first = |(node, said): (&u64, &'a Vec<String>)| Some((*node, said.first()?.as_str()));
        all.extend(hearsay.iter().filter_map(first));
    }
    for (node, member) in members.into_iter().flatten() {
        if member.status == MemberStatus::Removed {
            all.remove(node);
            continue;
        }
        let known = configured.get(node).map_or("", String::as_str);
        let address = if member.address.is_empty() { known } else { &member.address };
        all.insert(*node, address);
    }
    let is_gone = |node| {
        members.and_then(|it| it.get(node)).is_some_and(|it| it.status == MemberStatus::Removed)
    };
    for (node, address) in heard {
        if all.contains_key(node) || joining && !is_gone(node) {
            all.insert(*node, address);
        }
    }
    let known = all.into_iter().filter(|(_, address)| !address.is_empty());
    known.map(|(node, address)| PeerAddress { node, address: address.to_owned() }).collect()
}

#[cfg(test)]
mod tests;
