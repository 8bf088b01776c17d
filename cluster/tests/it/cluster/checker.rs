//! What must hold of a cluster, whatever happens to it.

use std::collections::{BTreeMap, BTreeSet};

use cluster::{GroupId, OnFull, Refusal};

use crate::chronicle::Chronicle;

/// What one group has done, as all its replicas together show it.
#[derive(Default)]
struct History {
    /// Every command that any replica applied, in order; replicas may be behind, never beside.
    numbers: Vec<u64>,
    /// Where in it a command stands.
    places: BTreeMap<u64, usize>,
    /// How many commands are applied after an entry.
    at: BTreeMap<u64, usize>,
    /// So many commands any leader must have: up to the last that was acknowledged.
    acknowledged: usize,
    /// Which node led in which term.
    leaders: BTreeMap<u64, u64>,
    /// The last command of each proposer that is applied.
    last_of: BTreeMap<Proposer, u64>,
}

/// A node and which of its lives.
type Proposer = (u64, u64);

/// Compares what every node shows with what others have shown.
#[derive(Default)]
pub(super) struct Checker {
    groups: BTreeMap<GroupId, History>,
    proposers: BTreeMap<u64, Proposer>,
    /// What must never be applied.
    refused: BTreeMap<u64, Refusal>,
    /// What is applied, though the proposer did not see it.
    unseen: BTreeSet<u64>,
    /// What may not be refused.
    owed: BTreeSet<u64>,
    pub(super) acknowledged: BTreeSet<u64>,
}

impl Checker {
    /// A replica has applied entries up to `applied`; `seen` commands of it are known from before.
    pub(super) fn applied(
        &mut self,
        group: GroupId,
        machine: &Chronicle,
        seen: usize,
        applied: u64,
    ) -> Result<(), String> {
        let history = self.groups.entry(group).or_default();
        for (place, &number) in machine.numbers.iter().enumerate().skip(seen) {
            if let Some(&before) = history.numbers.get(place) {
                if before != number {
                    return Err(format!("{number} is applied where {before} was, at {place}"));
                }
                continue;
            }
            if let Some(before) = history.places.insert(number, place) {
                return Err(format!("{number} is applied at {before} and at {place}"));
            }
            history.numbers.push(number);
            let proposer = self.proposers[&number];
            let before = history.last_of.insert(proposer, number).unwrap_or_default();
            if before > number {
                return Err(format!("{number} of node {} is applied after {before}", proposer.0));
            }
        }
        let count = machine.numbers.len();
        let before = *history.at.entry(applied).or_insert(count);
        if before != count {
            return Err(format!("after entry {applied} there are {count} commands, or {before}"));
        }
        Ok(())
    }

    /// A client proposes a command; greater numbers are proposed later.
    pub(super) fn proposed(&mut self, number: u64, node: u64, life: u64, on_full: OnFull) {
        self.proposers.insert(number, (node, life));
        if on_full != OnFull::Refuse {
            self.owed.insert(number);
        }
    }

    /// A client was told that its command is applied.
    pub(super) fn acknowledged(&mut self, group: GroupId, number: u64) -> Result<(), String> {
        let history = self.groups.entry(group).or_default();
        let Some(&place) = history.places.get(&number) else {
            return Err(format!("{number} is acknowledged and applied nowhere"));
        };
        history.acknowledged = history.acknowledged.max(place + 1);
        if !self.acknowledged.insert(number) {
            return Err(format!("{number} is acknowledged twice"));
        }
        Ok(())
    }

    /// A client was told that its command has no outcome, by a node that may be no member.
    pub(super) fn refused(
        &mut self,
        number: u64,
        why: Refusal,
        is_member: bool,
    ) -> Result<(), String> {
        match why {
            Refusal::Stopping => {}
            Refusal::Unknown if !is_member => {}
            Refusal::Unseen => drop(self.unseen.insert(number)),
            why if self.owed.contains(&number) => {
                return Err(format!("{number} is owed and refused ({why})"));
            }
            Refusal::Unknown => {}
            why => drop(self.refused.insert(number, why)),
        }
        Ok(())
    }

    /// A node's host was told that it leads.
    pub(super) fn led(
        &mut self,
        group: GroupId,
        node: u64,
        term: u64,
        count: usize,
    ) -> Result<(), String> {
        let history = self.groups.entry(group).or_default();
        let other = *history.leaders.entry(term).or_insert(node);
        if other != node {
            return Err(format!("{node} and {other} lead group {group} in term {term}"));
        }
        if count < history.acknowledged {
            let acknowledged = history.acknowledged;
            return Err(format!("{node} leads with {count} of {acknowledged} commands"));
        }
        Ok(())
    }

    /// How many of a group's commands any look from now on must find.
    pub(super) fn acknowledged_count(&self, group: GroupId) -> usize {
        self.groups.get(&group).map_or(0, |history| history.acknowledged)
    }

    /// How many commands a group has applied.
    pub(super) fn count(&self, group: GroupId) -> usize {
        self.groups.get(&group).map_or(0, |history| history.numbers.len())
    }

    /// Nothing of what was refused for certain is there.
    pub(super) fn finish(&self) -> Result<(), String> {
        for history in self.groups.values() {
            let wrong = self.refused.iter().find(|(number, _)| history.places.contains_key(number));
            if let Some((number, why)) = wrong {
                return Err(format!("{number} was refused ({why}) and is applied"));
            }
        }
        let applied = |number| self.groups.values().any(|it| it.places.contains_key(number));
        match self.unseen.iter().find(|number| !applied(number)) {
            Some(number) => Err(format!("{number} is said to be applied and is not")),
            None => Ok(()),
        }
    }

    /// How many times a leader was found, and in how many terms at most.
    pub(super) fn elections(&self) -> usize {
        self.groups.values().map(|history| history.leaders.len()).sum()
    }
}
