//! Who leads: ticks and elections, and what the host hears of them.
//!
//! Raft's own election timer is never let run out, since it draws from a generator that no seed
//! reaches; the engine stands for election instead.

use raft::StateRole;
use storage::dice::Dice;

use super::group::Group;
use super::{Engine, Now, refuse};
use crate::error::Error;
use crate::host::{Host, Refusal, Status, Wanted};
use crate::machine::StateMachine;

/// Ticks after which a leader that was not heard of may be replaced; up to twice as many pass.
pub(super) const ELECTION_TICKS: usize = 10;
/// Ticks between a leader's signs of life.
pub(super) const HEARTBEAT_TICKS: usize = 2;
/// How many times as long as others a node waits for a leader that should be none itself.
const RELUCTANCE: usize = 3;
/// Ticks without a leader after which nothing is taken any more that may be refused: an election of
/// nodes that reach each other is over by then.
const GIVE_UP_TICKS: usize = 2 * ELECTION_TICKS;

impl<R, S> Group<R, S> {
    /// How long it waits for the next leader.
    pub(super) fn draw_patience(&mut self, dice: &mut Dice) {
        self.patience = ELECTION_TICKS + dice.below(ELECTION_TICKS as u64) as usize;
    }

    /// A unit of Raft's time has passed. Who is reluctant lets others stand for election first. Tells
    /// whether it has heard no leader for long.
    fn tick(&mut self, is_reluctant: bool, dice: &mut Dice) -> bool {
        if self.stands_still || self.mending.is_some() {
            return false;
        }
        // Also of who was removed: others may need its vote to find out that they do not.
        self.raft.tick();
        let patience = if is_reluctant { RELUCTANCE * self.patience } else { self.patience };
        if self.is_leader() || self.removed || self.raft.raft.election_elapsed < patience {
            return false;
        }
        self.draw_patience(dice);
        self.raft.raft.election_elapsed = 0;
        if self.raft.raft.promotable() {
            // Whether it can, Raft decides.
            let _ = self.raft.campaign();
        }
        true
    }
}

impl<M: StateMachine, H: Host<M>> Engine<M, H> {
    /// Groups that need nobody else do not wait for a leader.
    pub(super) fn stand_alone(&mut self) -> Result<(), Error> {
        if self.held.is_some() {
            return Ok(());
        }
        for group in &mut self.groups {
            let raft = &group.raft.raft;
            let replayed = group.applied.index == raft.raft_log.committed;
            if replayed && group.is_alone() && raft.state == StateRole::Follower {
                let failed =
                    |e: raft::Error| Error::Raft { group: group.id, reason: e.to_string() };
                group.raft.campaign().map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Passes time on to the groups. A turn that took long counts as one tick: who was away for a
    /// while must first hear what others have to say.
    pub(super) fn tick_groups(&mut self, now: Now) -> Result<(), Error> {
        if now.monotonic < self.next_raft_tick {
            return Ok(());
        }
        self.next_raft_tick = now.monotonic + self.config.raft_tick;
        self.roles_changed = true;
        self.tick_mending()?;
        self.tick_room();
        for group in &mut self.groups {
            group.tick_leaderless(self.held.is_some());
        }
        if self.held.is_some() {
            // Raft must not move before what it gave out is durable.
            return Ok(());
        }
        for place in 0..self.groups.len() {
            if self.groups[place].tick(self.room.abstains(), &mut self.dice) {
                self.ask_whether_removed(place);
            }
            let group = &mut self.groups[place];
            let is_member = !group.removed && group.members.contain(self.config.node);
            refuse(&mut self.host, group.proposals.tick(is_member), Refusal::Unknown);
        }
        self.tick_members();
        self.tick_reads();
        self.tick_snapshots(now);
        self.tick_capture(now);
        self.tick_staging();
        Ok(())
    }

    /// Tells the host which groups this node leads no more. Before anything is applied: what then
    /// comes, others have decided.
    pub(super) fn note_lost(&mut self) {
        if !self.roles_changed {
            return;
        }
        for group in &mut self.groups {
            let term = group.raft.raft.term;
            if group.led.is_some_and(|led| led != term || !group.is_leader()) {
                group.lose();
                self.statuses.entry(group.id).or_default().leads = false;
                self.host.lost(group.id);
            }
        }
    }

    /// Tells the host which groups this node leads from now on, and brings what it sees of all
    /// groups up to date.
    pub(super) fn note_led(&mut self) {
        self.note_lost();
        if !std::mem::take(&mut self.roles_changed) {
            return;
        }
        for group in &mut self.groups {
            let raft = &group.raft.raft;
            let leads = group.is_leader() && raft.apply_to_current_term();
            let is_new = leads && group.led.is_none();
            if is_new {
                group.led = Some(raft.term);
            }
            group.show(self.statuses.entry(group.id).or_default());
            if is_new {
                let machine = self.machines.get_mut(&group.id).expect("every group has a machine");
                self.host.led(group.id, machine);
            }
        }
    }
}

impl<R, S> Group<R, S> {
    /// Whether it had no leader for so long that one may be long in coming.
    pub(super) fn is_given_up(&self) -> bool {
        self.leaderless_ticks > GIVE_UP_TICKS
    }

    /// A unit of time has passed: counts those in which nothing was heard of a leader. One that can
    /// not make anything durable is as good as none. While a snapshot is stored nothing can be heard.
    fn tick_leaderless(&mut self, is_held: bool) {
        if self.is_alone() || self.led.is_some() && !is_held {
            self.leaderless_ticks = 0;
        } else if !self.stands_still {
            self.leaderless_ticks += 1;
        }
    }

    /// How it stands.
    pub(super) fn status(&self) -> Status {
        let mut status = Status::default();
        self.show(&mut status);
        status
    }

    /// Brings its status up to date.
    fn show(&self, status: &mut Status) {
        let raft = &self.raft.raft;
        status.leads = self.led.is_some();
        // Who leads is of no use to a replica that has nothing.
        let is_whole = self.members.are_founded() && self.mending.is_none();
        let is_of_use = is_whole && !self.is_given_up();
        status.leader = Some(raft.leader_id).filter(|&id| id != raft::INVALID_ID && is_of_use);
        status.term = raft.term;
        status.applied = self.applied.index;
        status.removed = self.removed;
        status.damaged = self.mending.is_some();
        let wanted = self.asked.as_ref().or(self.members.target.as_ref());
        status.wanted = wanted.map(|it| Wanted::new(&it.voters, &it.learners));
        let conf = &self.members.conf;
        for (shown, ids) in
            [(&mut status.voters, &conf.voters), (&mut status.learners, &conf.learners)]
        {
            shown.clear();
            shown.extend_from_slice(ids);
            shown.sort_unstable();
        }
    }
}
