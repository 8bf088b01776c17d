//! A cursor over a packet's bytes that knows the protocol's data types.

use crate::reason::Sender;
use crate::{DecodeError, PacketId, PacketType, Reason, Version};

/// What is left of a packet. Each method takes one value off the front; its argument names the
/// value for the error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    #[inline]
    pub(crate) fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.rest.len()
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Everything that is left.
    #[inline]
    pub(crate) fn all(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    #[inline]
    pub(crate) fn take(
        &mut self,
        size: usize,
        what: &'static str,
    ) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(size).ok_or(DecodeError::Truncated(what))?;
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(DecodeError::Truncated(what))?;
        self.rest = rest;
        Ok(*taken)
    }

    #[inline]
    pub(crate) fn u8(&mut self, what: &'static str) -> Result<u8, DecodeError> {
        self.array::<1>(what).map(|[byte]| byte)
    }

    #[inline]
    pub(crate) fn u16(&mut self, what: &'static str) -> Result<u16, DecodeError> {
        self.array(what).map(u16::from_be_bytes)
    }

    #[inline]
    pub(crate) fn u32(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        self.array(what).map(u32::from_be_bytes)
    }

    /// Skips a single zero byte, which is how a length of nothing nearly always looks.
    #[inline]
    pub(crate) fn skip_zero(&mut self) -> bool {
        match self.rest {
            [0, rest @ ..] => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    /// A variable byte integer [v5 MQTT-1.5.5-1].
    #[inline]
    pub(crate) fn varint(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        let (value, minimal) = self.any_varint(what)?;
        if minimal { Ok(value) } else { Err(DecodeError::VarIntNotMinimal(what)) }
    }

    /// 3.1.1 does not ask for the shortest encoding, and some small clients always write four bytes.
    #[inline]
    pub(crate) fn remaining_length(&mut self, version: Version) -> Result<u32, DecodeError> {
        let what = "remaining length";
        let (value, minimal) = self.any_varint(what)?;
        if minimal || version == Version::V311 {
            Ok(value)
        } else {
            Err(DecodeError::VarIntNotMinimal(what))
        }
    }

    #[inline]
    fn any_varint(&mut self, what: &'static str) -> Result<(u32, bool), DecodeError> {
        let mut value = 0;
        for i in 0..4 {
            let byte = self.u8(what)?;
            value |= u32::from(byte & 0x7F) << (7 * i);
            if byte & 0x80 == 0 {
                return Ok((value, i == 0 || byte != 0));
            }
        }
        Err(DecodeError::VarIntTooLong(what))
    }

    /// Binary data: a two-byte length and as many bytes.
    #[inline]
    pub(crate) fn binary(&mut self, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let size = self.u16(what)?;
        self.take(usize::from(size), what)
    }

    /// A UTF-8 encoded string [v3 MQTT-1.5.3-1, v5 MQTT-1.5.4-1], without U+0000 [v3 MQTT-1.5.3-2,
    /// v5 MQTT-1.5.4-2].
    #[inline]
    pub(crate) fn string(&mut self, what: &'static str) -> Result<&'a str, DecodeError> {
        let bytes = self.binary(what)?;
        if bytes.contains(&0) {
            return Err(DecodeError::NullCharacter(what));
        }
        std::str::from_utf8(bytes).map_err(|_| DecodeError::Utf8(what))
    }

    /// A string that names a topic: no wildcards. May be empty.
    #[inline]
    pub(crate) fn topic(&mut self, what: &'static str) -> Result<&'a str, DecodeError> {
        let bytes = self.binary(what)?;
        // One pass without branches, which the compiler turns into vector code.
        let suspect = bytes.iter().fold(false, |suspect, byte| {
            suspect | (*byte == 0) | (*byte == b'+') | (*byte == b'#')
        });
        let topic = std::str::from_utf8(bytes).map_err(|_| DecodeError::Utf8(what))?;
        if !suspect {
            Ok(topic)
        } else if bytes.contains(&0) {
            Err(DecodeError::NullCharacter(what))
        } else {
            Err(DecodeError::TopicWildcard(what))
        }
    }

    #[inline]
    pub(crate) fn packet_id(&mut self) -> Result<PacketId, DecodeError> {
        PacketId::new(self.u16("packet identifier")?).ok_or(DecodeError::PacketIdZero)
    }

    /// A reason code that `sender` may put into `packet`.
    #[inline]
    pub(crate) fn reason(
        &mut self,
        packet: PacketType,
        sender: Sender,
    ) -> Result<Reason, DecodeError> {
        let code = self.u8("reason code")?;
        match Reason::try_from(code) {
            Ok(reason) if reason.allowed(packet, sender) => Ok(reason),
            _ => Err(DecodeError::ReasonCode { packet, code }),
        }
    }

    /// States that the packet ends here.
    #[inline]
    pub(crate) fn finish(&self, packet: PacketType) -> Result<(), DecodeError> {
        match self.len() {
            0 => Ok(()),
            bytes => Err(DecodeError::Trailing { packet, bytes }),
        }
    }
}

/// A response topic is a topic name [v5 MQTT-3.3.2-14].
pub(crate) fn check_response_topic(topic: &str) -> Result<(), DecodeError> {
    if topic.contains(['+', '#']) { Err(DecodeError::ResponseTopicWildcard) } else { Ok(()) }
}
