//! Many commands in one entry: a version byte, then each command behind its length as a varint.

use bytes::{Buf, Bytes};

/// Also what tells commands from changes of members in the log ([`crate::members::CHANGE`]).
const VERSION: u8 = 1;

/// Bytes a command takes in an entry, at most.
pub(crate) fn packed_len(command: &Bytes) -> usize {
    10 + command.len()
}

/// Packs commands into the data of one entry.
pub(crate) fn pack<'a>(commands: impl Iterator<Item = &'a Bytes> + Clone) -> Vec<u8> {
    let len = 1 + commands.clone().map(packed_len).sum::<usize>();
    let mut packed = Vec::with_capacity(len);
    packed.push(VERSION);
    for command in commands {
        put_varint(&mut packed, command.len());
        packed.extend_from_slice(command);
    }
    packed
}

/// The commands of an entry. Each is copied, so that a machine that keeps one does not keep all.
pub(crate) fn unpack(mut data: Bytes) -> Result<Vec<Bytes>, String> {
    let mut commands = Vec::new();
    if data.is_empty() {
        // What a new leader writes to find out what is committed.
        return Ok(commands);
    }
    let version = data.get_u8();
    if version != VERSION {
        return Err(format!("entry version {version} is not known to this version"));
    }
    while !data.is_empty() {
        let len = varint(&mut data).ok_or("the length of a command is cut off")?;
        if len > data.len() as u64 {
            return Err("a command is longer than its entry".into());
        }
        commands.push(Bytes::copy_from_slice(&data.split_to(len as usize)));
    }
    Ok(commands)
}

/// Appends a length, seven bits to a byte, the lowest first.
pub(crate) fn put_varint(out: &mut Vec<u8>, len: usize) {
    let mut rest = len as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Takes such a length off the front.
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

    #[test]
    fn commands_survive_packing() {
        for lens in [&[][..], &[0], &[1, 0, 127, 128, 300], &[70_000, 3]] {
            let commands: Vec<_> =
                lens.iter().map(|&len| Bytes::from(vec![len as u8; len])).collect();
            assert_eq!(unpack(pack(commands.iter()).into()).unwrap(), commands);
        }
    }

    #[test]
    fn what_is_no_entry_is_refused() {
        for data in [
            &[2][..],
            &[1, 5, 0],
            &[1, 0x80],
            &[1, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1],
        ] {
            assert!(unpack(Bytes::from_static(data)).is_err(), "{data:?}");
        }
        assert!(unpack(Bytes::new()).unwrap().is_empty());
    }
}
