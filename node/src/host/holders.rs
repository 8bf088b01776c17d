//! Who holds the connections of a cluster's clients, and what follows when a node is lost.
//!
//! A client id that another node holds is given up there first: the shard says who has to end a
//! connection, and later that it has ended ([`shard::Effects`]), on every replica; whoever waits for
//! that asks again. A node that is lost cannot say it. So a node whose group has had no leader for
//! [`KEEPS_FOR`] ends its connections by itself, and the leader ends those of a node that it has not
//! heard of for [`LOST_AFTER`], which is longer: never are there two.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use api::backend::Ending;
use bytes::Bytes;
use cluster::{GroupId, GroupsView};
use fleet::shard::{Deletion, Held, Instance, Shard, Vacated};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{info, warn};

use super::{Machine, NodeHost};
use crate::claims::Eviction;
use crate::clock::now_ms;
use crate::core::{Core, ToCore};
use crate::mesh::Life;

/// How long a node keeps the connections of a group that has no leader. It takes up to two seconds
/// until a node notices that it has none.
const KEEPS_FOR: Duration = Duration::from_secs(3);

/// How long a leader waits for a node that it does not hear of. Longer than that node needs to end its
/// connections, also when it was the one to lose contact last.
const LOST_AFTER: Duration = Duration::from_secs(8);

/// How often connections of lost nodes are looked for, in case commands of theirs came late.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// What a group of a cluster knows of its connections.
#[derive(Default)]
pub(super) struct Holders {
    /// Who waits for a client id to be given up elsewhere.
    awaiting: rustc_hash::FxHashMap<Bytes, Vec<oneshot::Sender<()>>>,
    /// Since when the group has no leader.
    leaderless: Option<Instant>,
    /// When connections of lost nodes were last looked for.
    looked: Option<Instant>,
}

impl Holders {
    /// Forgets when it has looked for connections of lost nodes: it has to look.
    pub(super) fn look_anew(&mut self) {
        self.looked = None;
    }
}

/// Whether connections of an instance are gone, as far as this node knows.
fn is_gone(own: Instance, lives: &[Life], holder: Instance) -> bool {
    if holder.node() == own.node() || holder.node() == 0 {
        return holder != own;
    }
    match lives.iter().find(|life| life.instance.node() == holder.node()) {
        Some(life) if holder < life.instance => true,
        Some(life) if holder > life.instance => false,
        Some(Life { has_ended: true, .. }) => true,
        Some(life) => life.lost.is_some_and(|since| since.elapsed() > LOST_AFTER),
        // Of a life that was not heard of nothing is known: see `Mesh::meet`.
        None => false,
    }
}

impl NodeHost {
    /// Has connections end that their clients have left for another node, and wakes those who wait for
    /// that.
    pub(super) fn note_holders(
        &mut self,
        group: GroupId,
        contested: &mut Vec<Held>,
        vacated: &mut Vec<Vacated>,
    ) {
        if !self.shared.mesh.has_peers() {
            contested.clear();
            vacated.clear();
            return;
        }
        for held in contested.drain(..) {
            self.evict(held, None);
        }
        for Vacated { held, by_holder } in vacated.drain(..) {
            let holders = &mut self.beside.entry(group).or_default().holders;
            for waiting in holders.awaiting.remove(&held.client).into_iter().flatten() {
                // Whoever waited may have gone away.
                let _ = waiting.send(());
            }
            if !by_holder {
                self.evict(held, None);
            }
        }
    }

    /// Ends connections of this node that an operator wants to end.
    pub(super) fn delete_connections(&self, deletions: &mut Vec<Deletion>) {
        for Deletion { held, clean_session, prevent_will } in deletions.drain(..) {
            self.evict(held, Some(Ending { clean_session, prevent_will }));
        }
    }

    /// Ends a connection of this node, if it is one.
    fn evict(&self, Held { client, epoch, holder }: Held, ending: Option<Ending>) {
        let Ok(client) = std::str::from_utf8(&client) else { return };
        if holder != self.shared.mesh.own {
            return;
        }
        let (home, client) = (self.shared.home_of(client), client.to_owned());
        let run = move |core: &Rc<Core>| core.evict(&client, Eviction { epoch, ending });
        self.shared.send(home, ToCore::Run(Box::new(run)));
    }

    /// Tells `vacant` when no other node holds a client id, as far as this replica knows.
    pub(super) fn await_vacancy(
        &mut self,
        group: GroupId,
        shard: &Shard,
        client: Bytes,
        vacant: oneshot::Sender<()>,
    ) {
        let own = self.shared.mesh.own;
        let occupied = |session: &fleet::shard::Session| {
            session.connected() && session.holder().keeps_out(own)
        };
        if shard.session(&client).is_some_and(occupied) {
            let holders = &mut self.beside.entry(group).or_default().holders;
            let awaiting = holders.awaiting.entry(client).or_default();
            awaiting.retain(|waiting| !waiting.is_closed());
            awaiting.push(vacant);
        } else {
            // Whoever waits may have gone away.
            let _ = vacant.send(());
        }
    }

    /// Ends the connections of groups without a leader, which others may be about to take over.
    pub(super) fn let_go(&mut self, groups: &GroupsView<'_, Machine>) {
        if !self.shared.mesh.has_peers() {
            return;
        }
        for id in groups.ids().into_iter().filter(|id| *id != GroupId::META) {
            let holders = &mut self.beside.entry(id).or_default().holders;
            if groups.status(id).is_some_and(|status| status.leader.is_some()) {
                if holders.leaderless.take().is_some_and(|since| since.elapsed() > KEEPS_FOR) {
                    info!(group = %id, "the group has a leader again");
                }
                continue;
            }
            let since = *holders.leaderless.get_or_insert_with(Instant::now);
            if since.elapsed() > KEEPS_FOR {
                self.shared.currency.lose();
                let group = id.0 as u16;
                self.shared.on_every_core(move |core| core.let_go(group));
            }
        }
    }

    /// Ends the connections of nodes that are gone, in the groups that this node leads.
    pub(super) fn end_lost(&mut self, groups: &GroupsView<'_, Machine>) {
        if !self.shared.mesh.has_peers() {
            return;
        }
        let (own, lives) = (self.shared.mesh.own, self.shared.mesh.lives());
        let lost: Vec<_> =
            lives.iter().map(|life| (life.instance, is_gone(own, &lives, life.instance))).collect();
        let changed = lost != self.lost;
        for (instance, _) in lost.iter().filter(|it| it.1 && !self.lost.contains(it)) {
            warn!(node = instance.node(), "a node is lost: its connections are taken for ended");
        }
        self.lost = lost;
        for id in groups.ids() {
            let Some(shard) = groups.get(id).and_then(Machine::shard) else { continue };
            if !groups.leads(id) {
                continue;
            }
            let holders = &mut self.beside.entry(id).or_default().holders;
            if !changed && holders.looked.is_some_and(|at| at.elapsed() < LOOK_AGAIN) {
                continue;
            }
            holders.looked = Some(Instant::now());
            let is_lost = |holder| {
                self.shared.mesh.meet(holder);
                is_gone(own, &lives, holder)
            };
            for command in shard.ends_of(is_lost, |client| self.is_heard(client), now_ms()) {
                let command = self.without_denied_will(groups, shard, command);
                self.owe(id, command);
            }
        }
    }

    /// Another replica's state has taken the place of a group's, and nobody saw how it came about:
    /// connections that it does not know have lost their session, sessions that have no connection
    /// here end, and who waits for a client id asks again.
    pub(super) fn reconcile(&mut self, group: GroupId, shard: &Shard) {
        let own = self.shared.mesh.own;
        let held = || shard.sessions().filter(|it| it.connected() && it.holder() == own);
        let known: rustc_hash::FxHashMap<u64, u64> =
            held().map(|session| (session.id(), session.epoch())).collect();
        let number = group.0 as u16;
        let known = Arc::new(known);
        self.shared.on_every_core(move |core| core.end_unknown(number, &known));
        for session in held() {
            let Ok(client) = std::str::from_utf8(session.client()) else { continue };
            let (home, client, epoch) =
                (self.shared.home_of(client), client.to_owned(), session.epoch());
            let run = move |core: &Rc<Core>| core.end_unclaimed(&client, epoch);
            self.shared.send(home, ToCore::Run(Box::new(run)));
        }
        let holders = &mut self.beside.entry(group).or_default().holders;
        for waiting in std::mem::take(&mut holders.awaiting).into_values().flatten() {
            // Whoever waited may have gone away.
            let _ = waiting.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_gone_when_it_lives_anew_or_is_not_heard_of() {
        let own = Instance::new(1, 100);
        let peer = |incarnation| Instance::new(2, incarnation);
        let now = Instant::now();
        let life = |lost, has_ended| Life { instance: peer(50), lost, has_ended };
        let long_ago = now.checked_sub(LOST_AFTER + Duration::from_secs(1));
        for (case, lives, holder, gone) in [
            ("itself", vec![], own, false),
            ("its earlier life", vec![], Instance::new(1, 99), true),
            ("before there were clusters", vec![], Instance(1), true),
            ("linked", vec![life(None, false)], peer(50), false),
            ("an earlier life of it", vec![life(None, false)], peer(49), true),
            ("a later one, not heard of yet", vec![life(None, false)], peer(51), false),
            ("a later one, the last lost", vec![life(long_ago, false)], peer(51), false),
            ("a later one, the last ended", vec![life(Some(now), true)], peer(51), false),
            ("just lost", vec![life(Some(now), false)], peer(50), false),
            ("lost for long", vec![life(long_ago, false)], peer(50), true),
            ("known to have ended", vec![life(Some(now), true)], peer(50), true),
            ("never heard of", vec![], peer(50), false),
        ] {
            assert_eq!(is_gone(own, &lives, holder), gone, "{case}");
        }
    }
}
