//! Many commands in one entry: a version byte, then runs of commands, each with who proposed them.
//!
//! A run is the proposer's node and incarnation, the number of its first command and how many there
//! are, all as varints, and then each command behind its length.

use bytes::{Buf, Bytes};

use crate::sources::Source;

/// Also what tells commands from changes of members in the log ([`crate::members::CHANGE`], which is 2).
const VERSION: u8 = 3;
/// Entries of nodes that had no peers: commands without a proposer.
const WITHOUT_SOURCE: u8 = 1;

/// Bytes that a command takes in an entry, at most, beside those of its run.
pub(crate) fn packed_len(command: &Bytes) -> usize {
    10 + command.len()
}

/// Commands that one node has proposed one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// Who proposed them; entries of earlier versions do not say.
    pub(crate) source: Option<Source>,
    /// The number of the first command.
    pub(crate) first: u64,
    pub(crate) commands: Vec<Bytes>,
}

impl Run {
    /// Bytes it takes, at most.
    pub(crate) fn packed_len(&self) -> usize {
        40 + self.commands.iter().map(packed_len).sum::<usize>()
    }

    fn pack(&self, packed: &mut Vec<u8>) {
        let Some(source) = self.source else { return };
        let count = self.commands.len() as u64;
        for part in [source.node, source.incarnation, self.first, count] {
            put_varint(packed, part);
        }
        for command in &self.commands {
            put_varint(packed, command.len() as u64);
            packed.extend_from_slice(command);
        }
    }

    /// Takes a run off the front. Each command is copied, so that a machine that keeps one does not
    /// keep all.
    fn unpack(data: &mut Bytes) -> Result<Self, String> {
        let mut part = || varint(data).ok_or("the head of a run is cut off");
        let (node, incarnation, first, count) = (part()?, part()?, part()?, part()?);
        if node == 0 || first == 0 {
            return Err("a run of nobody, or without a first command".into());
        }
        let mut commands = Vec::new();
        for _ in 0..count {
            commands.push(command(data)?);
        }
        Ok(Self { source: Some(Source { node, incarnation }), first, commands })
    }
}

/// Packs runs, which all have a source, into the data of one entry, or of a message to its leader.
pub(crate) fn pack(runs: &[Run]) -> Vec<u8> {
    let len = 1 + runs.iter().map(Run::packed_len).sum::<usize>();
    let mut packed = Vec::with_capacity(len);
    packed.push(VERSION);
    for run in runs {
        run.pack(&mut packed);
    }
    packed
}

/// The commands of an entry.
pub(crate) fn unpack(mut data: Bytes) -> Result<Vec<Run>, String> {
    let mut runs = Vec::new();
    if data.is_empty() {
        // What a new leader writes to find out what is committed.
        return Ok(runs);
    }
    match data.get_u8() {
        VERSION => {
            while !data.is_empty() {
                runs.push(Run::unpack(&mut data)?);
            }
        }
        WITHOUT_SOURCE => {
            let mut commands = Vec::new();
            while !data.is_empty() {
                commands.push(command(&mut data)?);
            }
            runs.push(Run { source: None, first: 0, commands });
        }
        version => return Err(format!("entry version {version} is not known to this version")),
    }
    Ok(runs)
}

fn command(data: &mut Bytes) -> Result<Bytes, String> {
    let len = varint(data).ok_or("the length of a command is cut off")?;
    if len > data.len() as u64 {
        return Err("a command is longer than its entry".into());
    }
    Ok(Bytes::copy_from_slice(&data.split_to(len as usize)))
}

/// Appends a number, seven bits to a byte, the lowest first.
pub(crate) fn put_varint(out: &mut Vec<u8>, number: u64) {
    let mut rest = number;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Takes such a number off the front.
pub(crate) fn varint(data: &mut Bytes) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = data.try_get_u8().ok()?;
        value |= u64::from(byte & 0x7F) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(node: u64, first: u64, lens: &[usize]) -> Run {
        let commands = lens.iter().map(|&len| Bytes::from(vec![len as u8; len])).collect();
        Run { source: Some(Source { node, incarnation: 1 << 60 }), first, commands }
    }

    #[test]
    fn commands_survive_packing() {
        for runs in [
            vec![],
            vec![run(1, 1, &[0])],
            vec![run(1, 5, &[1, 0, 127, 128, 300]), run(u64::MAX, u64::MAX, &[])],
            vec![run(3, 300, &[70_000, 3]), run(1, 1, &[2]), run(3, 302, &[9])],
        ] {
            let packed = pack(&runs);
            let most = 1 + runs.iter().map(Run::packed_len).sum::<usize>();
            assert!(packed.len() <= most);
            assert_eq!(unpack(packed.into()).unwrap(), runs);
        }
    }

    #[test]
    fn entries_of_the_first_version_are_read() {
        let runs = unpack(Bytes::from_static(&[1, 2, 7, 8, 0])).unwrap();
        let commands = vec![Bytes::from_static(&[7, 8]), Bytes::new()];
        assert_eq!(runs, [Run { source: None, first: 0, commands }]);
    }

    #[test]
    fn what_is_no_entry_is_refused() {
        for data in [
            &[2][..],
            &[1, 5, 0],
            &[1, 0x80],
            &[1, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1],
            &[3, 1, 1, 1],
            &[3, 1, 1, 1, 1],
            &[3, 0, 1, 1, 0],
            &[3, 1, 1, 0, 0],
        ] {
            assert!(unpack(Bytes::from_static(data)).is_err(), "{data:?}");
        }
        assert!(unpack(Bytes::new()).unwrap().is_empty());
    }
}
