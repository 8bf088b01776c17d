//! A host that remembers what it hears.

use bytes::Bytes;
use cluster::{GroupId, GroupsView, Host, Refusal};

use crate::chronicle::Chronicle;

/// What a host hears, in order.
#[derive(Debug)]
pub(super) enum Heard {
    Led(GroupId, usize),
    Lost(GroupId),
    Applied(GroupId, u64),
    Refused(u64, Refusal),
    /// A look at a group found so many commands, where there were so many acknowledged before.
    Seen(GroupId, usize, usize),
    Unseen,
    Replaced,
}

/// A look at a group: so many commands must be there.
pub(super) type Look = (GroupId, usize);

/// A host that remembers.
#[derive(Default)]
pub(super) struct Witness {
    pub(super) heard: Vec<Heard>,
}

impl Host<Chronicle> for Witness {
    type Reply = u64;
    type Signal = Look;

    fn applied(&mut self, group: GroupId, _: &mut Chronicle, reply: Option<u64>, outcome: u64) {
        if let Some(number) = reply {
            assert_eq!(number, outcome, "the reply of another command");
            self.heard.push(Heard::Applied(group, number));
        }
    }

    fn led(&mut self, group: GroupId, machine: &mut Chronicle) {
        self.heard.push(Heard::Led(group, machine.numbers.len()));
    }

    fn lost(&mut self, group: GroupId) {
        self.heard.push(Heard::Lost(group));
    }

    fn refused(&mut self, reply: u64, why: Refusal) {
        self.heard.push(Heard::Refused(reply, why));
    }

    fn signal(&mut self, groups: &mut GroupsView<'_, Chronicle>, (group, acknowledged): Look) {
        let found = groups.get(group).expect("every group has a machine").numbers.len();
        self.heard.push(Heard::Seen(group, found, acknowledged));
    }

    fn unread(&mut self, _: Look, _: Refusal) {
        self.heard.push(Heard::Unseen);
    }

    fn replaced(&mut self, _: GroupId, _: &mut Chronicle) {
        self.heard.push(Heard::Replaced);
    }

    fn ticked(&mut self, _: &mut GroupsView<'_, Chronicle>, _: u64) -> Vec<(GroupId, Bytes)> {
        Vec::new()
    }

    fn turn_ended(&mut self) {}
}
