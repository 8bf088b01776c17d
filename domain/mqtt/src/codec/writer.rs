//! Appending the protocol's data types to a buffer.

use crate::{PropertyId, Version};

/// The greatest variable byte integer.
pub(crate) const MAX_VARINT: u32 = 268_435_455;

/// How many bytes `value` takes as a variable byte integer.
pub(crate) const fn varint_len(value: usize) -> usize {
    match value {
        0..=0x7F => 1,
        0x80..=0x3FFF => 2,
        0x4000..=0x1F_FFFF => 3,
        _ => 4,
    }
}

/// Appends `value` in the fewest bytes [v5 MQTT-1.5.5-1].
pub(crate) fn put_varint(out: &mut Vec<u8>, value: usize) {
    debug_assert!(value <= MAX_VARINT as usize, "{value} does not fit a variable byte integer");
    let mut rest = value;
    while rest > 0x7F {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

pub(crate) fn put_u16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_be_bytes());
}

pub(crate) fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// Appends at most the 65 535 bytes that a length prefix can announce, so that an oversized value
/// is cut short instead of corrupting what follows it.
pub(crate) fn put_binary(out: &mut Vec<u8>, bytes: &[u8]) {
    let size = bytes.len().min(usize::from(u16::MAX));
    put_u16(out, size as u16);
    out.extend_from_slice(&bytes[..size]);
}

/// Like [`put_binary`], and never cuts inside a character.
pub(crate) fn put_string(out: &mut Vec<u8>, text: &str) {
    put_binary(out, &text.as_bytes()[..written_len(text)]);
}

/// How many bytes of a text [`put_string`] appends behind its length.
pub(crate) fn written_len(text: &str) -> usize {
    text.floor_char_boundary(usize::from(u16::MAX))
}

/// Appends what `write` appends, preceded by its length.
pub(crate) fn put_counted(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.push(0);
    write(out);
    let size = out.len() - start - 1;
    let prefix = varint_len(size);
    // Nearly always a single byte, which has its place already.
    if prefix > 1 {
        let end = out.len();
        out.resize(end + prefix - 1, 0);
        out.copy_within(start + 1..end, start + prefix);
    }
    let mut rest = size;
    for (i, byte) in out[start..start + prefix].iter_mut().enumerate() {
        *byte = rest as u8 & 0x7F | if i + 1 < prefix { 0x80 } else { 0 };
        rest >>= 7;
    }
}

/// Appends a whole packet: its first byte, its remaining length, and what `write` appends.
pub(crate) fn put_packet(out: &mut Vec<u8>, first_byte: u8, write: impl FnOnce(&mut Vec<u8>)) {
    out.push(first_byte);
    put_counted(out, write);
}

/// Appends a counted block of properties, which only MQTT 5 has.
pub(crate) fn put_properties(
    out: &mut Vec<u8>,
    version: Version,
    write: impl FnOnce(&mut PropertyWriter<'_>),
) {
    if version == Version::V5 {
        put_counted(out, |out| write(&mut PropertyWriter { out }));
    }
}

/// Appends properties; those that are `None` leave no trace.
pub(crate) struct PropertyWriter<'a> {
    pub(crate) out: &'a mut Vec<u8>,
}

impl PropertyWriter<'_> {
    pub(crate) fn flag(&mut self, id: PropertyId, value: Option<bool>) {
        if let Some(value) = value {
            self.out.extend_from_slice(&[id as u8, u8::from(value)]);
        }
    }

    pub(crate) fn short(&mut self, id: PropertyId, value: Option<u16>) {
        if let Some(value) = value {
            self.out.push(id as u8);
            put_u16(self.out, value);
        }
    }

    pub(crate) fn long(&mut self, id: PropertyId, value: Option<u32>) {
        if let Some(value) = value {
            self.out.push(id as u8);
            put_u32(self.out, value);
        }
    }

    pub(crate) fn varint(&mut self, id: PropertyId, value: Option<u32>) {
        if let Some(value) = value {
            self.out.push(id as u8);
            put_varint(self.out, value as usize);
        }
    }

    pub(crate) fn text(&mut self, id: PropertyId, value: Option<&str>) {
        if let Some(value) = value {
            self.out.push(id as u8);
            put_string(self.out, value);
        }
    }

    pub(crate) fn bytes(&mut self, id: PropertyId, value: Option<&[u8]>) {
        if let Some(value) = value {
            self.out.push(id as u8);
            put_binary(self.out, value);
        }
    }

    /// Properties that are encoded already.
    pub(crate) fn raw(&mut self, properties: &[u8]) {
        self.out.extend_from_slice(properties);
    }
}
