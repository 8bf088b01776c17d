//! The machine and the host of these tests: a machine that remembers every command in order.

use std::collections::BTreeMap;
use std::sync::mpsc::Sender;

use bytes::Bytes;
use cluster::{
    Blocked, Error, GroupId, GroupsView, Host, LoadError, Pairs, Refusal, StateMachine, Unreadable,
};

/// Remembers the number at the front of every command, in the order they were applied.
#[derive(Default)]
pub(crate) struct Chronicle {
    pub(crate) numbers: Vec<u64>,
    stored: usize,
}

/// A command with a number, of about `len` bytes.
pub(crate) fn command(number: u64, len: usize) -> Bytes {
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.resize(8 + len, number as u8);
    bytes.into()
}

impl StateMachine for Chronicle {
    type Outcome = u64;

    fn apply(&mut self, command: Bytes) -> Result<u64, Unreadable> {
        let Some(number) = command.first_chunk() else {
            return Err(Unreadable(format!("{} bytes are no number", command.len())));
        };
        let number = u64::from_be_bytes(*number);
        assert!(command[8..].iter().all(|&byte| byte == number as u8), "a mangled command");
        self.numbers.push(number);
        Ok(number)
    }

    fn checkpoint(&mut self) -> Pairs {
        let new = self.numbers[self.stored..].iter().enumerate();
        let key = |at: usize| ((self.stored + at) as u32).to_be_bytes().to_vec();
        let pairs = new.map(|(at, number)| (key(at), Some(number.to_be_bytes().to_vec())));
        let pairs = pairs.collect();
        self.stored = self.numbers.len();
        pairs
    }

    fn load(&mut self, key: &[u8], value: &[u8]) -> Result<(), LoadError> {
        if key != (self.numbers.len() as u32).to_be_bytes() {
            return Err(LoadError(format!("pair {} is missing", self.numbers.len())));
        }
        self.numbers.push(u64::from_be_bytes(value.try_into().unwrap()));
        Ok(())
    }

    fn loaded(&mut self) -> Result<(), LoadError> {
        self.stored = self.numbers.len();
        Ok(())
    }
}

/// What became of proposals.
#[derive(Default)]
pub(crate) struct Ledger {
    /// Numbers whose outcome was told, by group, in order.
    pub(crate) acknowledged: BTreeMap<GroupId, Vec<u64>>,
    pub(crate) refused: Vec<(u64, Refusal)>,
    pub(crate) signals: Vec<u64>,
    /// What the last signal found.
    pub(crate) blocked: Option<Blocked>,
    pub(crate) ticks: u64,
    pub(crate) stopped: bool,
    /// Collects what a signal finds in all machines; `told` then hears how many, and each.
    pub(crate) held: Option<Vec<u64>>,
    /// Hears of every outcome and refusal, when a test waits for it.
    pub(crate) told: Option<Sender<Result<u64, Refusal>>>,
}

impl Ledger {
    fn tell(&self, what: Result<u64, Refusal>) {
        if let Some(told) = &self.told {
            let _ = told.send(what);
        }
    }
}

impl Host<Chronicle> for Ledger {
    type Reply = u64;
    type Signal = u64;

    fn applied(
        &mut self,
        group: GroupId,
        machine: &mut Chronicle,
        reply: Option<u64>,
        outcome: u64,
    ) {
        assert_eq!(machine.numbers.last(), Some(&outcome));
        if let Some(number) = reply {
            assert_eq!(number, outcome, "the reply of another command");
            self.acknowledged.entry(group).or_default().push(number);
            self.tell(Ok(number));
        }
    }

    fn refused(&mut self, reply: u64, why: Refusal) {
        self.refused.push((reply, why));
        self.tell(Err(why));
    }

    fn signal(&mut self, groups: &mut GroupsView<'_, Chronicle>, signal: u64) {
        assert!(groups.leads(GroupId::META));
        self.signals.push(signal);
        self.blocked = groups.accepting().err();
        if let Some(mut held) = self.held.take() {
            for id in groups.ids() {
                held.extend(&groups.get(id).unwrap().numbers);
            }
            self.tell(Ok(held.len() as u64));
            held.into_iter().for_each(|number| self.tell(Ok(number)));
        }
    }

    fn ticked(&mut self, _: &mut GroupsView<'_, Chronicle>, _: u64) -> Vec<(GroupId, Bytes)> {
        self.ticks += 1;
        Vec::new()
    }

    fn turn_ended(&mut self) {}

    fn stopped(&mut self, _: Option<&Error>) {
        self.stopped = true;
    }
}
