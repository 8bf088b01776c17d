//! [`proto::Parcels`](crate::proto::Parcels), written and read in place.
//!
//! Every publication between nodes passes here, so it is encoded out of the memory where it was read
//! and decoded into slices of the batch: what `prost` would make of it is five allocations and two
//! copies each. The encoding is the contract's.

use std::ops::Range;

use bytes::BufMut;
use prost::encoding::{
    DecodeContext, WireType, decode_key, decode_varint, encode_key, encode_varint,
    encoded_len_varint, skip_field,
};
use thiserror::Error;

/// Parcels that are not in the encoding of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not in the encoding of the contract")]
pub struct Unreadable;

/// A [`proto::Parcel`](crate::proto::Parcel) in the memory of somebody else.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parcel<'a> {
    /// What was published.
    pub publication: Publication<'a>,
    /// The member of a shared subscription that it is for; without it everybody who subscribed.
    pub member: Option<Member<'a>>,
    /// The sender waits until it is safe.
    pub asks: bool,
    /// It was accepted before: nothing but its size may refuse it.
    pub owed: bool,
}

/// A [`proto::Publication`](crate::proto::Publication) in the memory of somebody else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Publication<'a> {
    /// UTF-8, checked by whoever took it.
    pub topic: &'a [u8],
    /// The payload.
    pub payload: &'a [u8],
    /// The MQTT 5 properties that are forwarded, encoded as on the wire.
    pub properties: &'a [u8],
    /// QoS of the publisher.
    pub qos: u32,
    /// RETAIN of the publisher.
    pub retain: bool,
    /// Milliseconds of the epoch.
    pub expires_at: Option<u64>,
    /// Client id; empty when no client published it.
    pub publisher: &'a [u8],
    /// Milliseconds of the epoch.
    pub published_at: u64,
}

/// What a parcel says of a [`proto::ShareMember`](crate::proto::ShareMember): who it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Member<'a> {
    /// Name of the share.
    pub share: &'a str,
    /// Its topic filter.
    pub filter: &'a str,
    /// Client id.
    pub client: &'a str,
}

/// Adds a parcel to an encoded [`proto::Parcels`](crate::proto::Parcels).
pub fn encode_parcel(parcel: &Parcel<'_>, to: &mut Vec<u8>) {
    let publication = parcel.publication.encoded_len();
    let len = delimited_len(publication)
        + parcel.member.map_or(0, |member| delimited_len(member.encoded_len()))
        + number_len(parcel.asks.into())
        + number_len(parcel.owed.into());
    delimited(1, len, to);
    delimited(1, publication, to);
    parcel.publication.encode(to);
    if let Some(member) = &parcel.member {
        delimited(2, member.encoded_len(), to);
        member.encode(to);
    }
    number(3, parcel.asks.into(), to);
    number(4, parcel.owed.into(), to);
}

/// Where the parcels of an encoded [`proto::Parcels`](crate::proto::Parcels) lie; an error ends them.
pub fn encoded_parcels(
    parcels: &[u8],
) -> impl Iterator<Item = Result<Range<usize>, Unreadable>> + '_ {
    let mut rest = parcels;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            match field(&mut rest) {
                Ok((1, Value::Bytes(parcel))) => {
                    let end = parcels.len() - rest.len();
                    return Some(Ok(end - parcel.len()..end));
                }
                Ok(_) => {}
                Err(unreadable) => {
                    rest = &[];
                    return Some(Err(unreadable));
                }
            }
        }
        None
    })
}

impl<'a> Parcel<'a> {
    /// One of [`encoded_parcels`].
    pub fn decode(mut from: &'a [u8]) -> Result<Self, Unreadable> {
        let mut parcel = Self::default();
        while !from.is_empty() {
            match field(&mut from)? {
                (1, Value::Bytes(publication)) => {
                    parcel.publication = Publication::decode(publication)?;
                }
                (2, Value::Bytes(member)) => {
                    parcel.member = Some(Member::decode(member)?);
                }
                (3, Value::Number(asks)) => parcel.asks = asks != 0,
                (4, Value::Number(owed)) => parcel.owed = owed != 0,
                _ => {}
            }
        }
        Ok(parcel)
    }
}

impl<'a> Publication<'a> {
    fn encoded_len(&self) -> usize {
        bytes_len(self.topic)
            + bytes_len(self.payload)
            + bytes_len(self.properties)
            + number_len(self.qos.into())
            + number_len(self.retain.into())
            + self.expires_at.map_or(0, |at| 1 + encoded_len_varint(at))
            + bytes_len(self.publisher)
            + number_len(self.published_at)
    }

    /// Adds it, encoded.
    pub fn encode(&self, to: &mut Vec<u8>) {
        bytes(1, self.topic, to);
        bytes(2, self.payload, to);
        bytes(3, self.properties, to);
        number(4, self.qos.into(), to);
        number(5, self.retain.into(), to);
        if let Some(at) = self.expires_at {
            encode_key(6, WireType::Varint, to);
            encode_varint(at, to);
        }
        bytes(7, self.publisher, to);
        number(8, self.published_at, to);
    }

    /// One that was encoded.
    pub fn decode(mut from: &'a [u8]) -> Result<Self, Unreadable> {
        let mut publication = Self::default();
        while !from.is_empty() {
            match field(&mut from)? {
                (1, Value::Bytes(topic)) => publication.topic = topic,
                (2, Value::Bytes(payload)) => publication.payload = payload,
                (3, Value::Bytes(properties)) => publication.properties = properties,
                // What does not fit is cut as `prost` cuts it.
                (4, Value::Number(qos)) => publication.qos = qos as u32,
                (5, Value::Number(retain)) => publication.retain = retain != 0,
                (6, Value::Number(at)) => publication.expires_at = Some(at),
                (7, Value::Bytes(publisher)) => publication.publisher = publisher,
                (8, Value::Number(at)) => publication.published_at = at,
                _ => {}
            }
        }
        Ok(publication)
    }
}

impl<'a> Member<'a> {
    fn encoded_len(&self) -> usize {
        [self.share, self.filter, self.client].iter().map(|name| bytes_len(name.as_bytes())).sum()
    }

    fn encode(&self, to: &mut Vec<u8>) {
        for (tag, name) in (1..).zip([self.share, self.filter, self.client]) {
            bytes(tag, name.as_bytes(), to);
        }
    }

    fn decode(mut from: &'a [u8]) -> Result<Self, Unreadable> {
        let mut member = Self::default();
        while !from.is_empty() {
            let (tag, value) = field(&mut from)?;
            let place = match tag {
                1 => &mut member.share,
                2 => &mut member.filter,
                3 => &mut member.client,
                _ => continue,
            };
            if let Value::Bytes(name) = value {
                *place = std::str::from_utf8(name).map_err(|_| Unreadable)?;
            }
        }
        Ok(member)
    }
}

/// What a field holds.
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Of a type that nothing here has.
    Other,
}

/// Takes the next field: its number and what it holds.
fn field<'a>(from: &mut &'a [u8]) -> Result<(u32, Value<'a>), Unreadable> {
    let (tag, wire_type) = decode_key(from).map_err(|_| Unreadable)?;
    let value = match wire_type {
        WireType::Varint => Value::Number(decode_varint(from).map_err(|_| Unreadable)?),
        WireType::LengthDelimited => {
            let len = decode_varint(from).ok().and_then(|len| usize::try_from(len).ok());
            let (bytes, rest) = len.and_then(|len| from.split_at_checked(len)).ok_or(Unreadable)?;
            *from = rest;
            Value::Bytes(bytes)
        }
        _ => {
            let skipped = skip_field(wire_type, tag, from, DecodeContext::default());
            skipped.map_err(|_| Unreadable)?;
            Value::Other
        }
    };
    Ok((tag, value))
}

// All tags here are below 16: a key is one byte.

fn delimited_len(len: usize) -> usize {
    1 + encoded_len_varint(len as u64) + len
}

fn delimited(tag: u32, len: usize, to: &mut Vec<u8>) {
    encode_key(tag, WireType::LengthDelimited, to);
    encode_varint(len as u64, to);
}

fn bytes_len(value: &[u8]) -> usize {
    if value.is_empty() { 0 } else { delimited_len(value.len()) }
}

fn bytes(tag: u32, value: &[u8], to: &mut Vec<u8>) {
    if !value.is_empty() {
        delimited(tag, value.len(), to);
        to.put_slice(value);
    }
}

fn number_len(value: u64) -> usize {
    if value == 0 { 0 } else { 1 + encoded_len_varint(value) }
}

fn number(tag: u32, value: u64, to: &mut Vec<u8>) {
    if value != 0 {
        encode_key(tag, WireType::Varint, to);
        encode_varint(value, to);
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::proto::{self, ShareMember};

    /// Each field absent, present and large, and a member with and without.
    fn parcels() -> Vec<proto::Parcel> {
        let member = ShareMember {
            share: "s".into(),
            filter: "a/#".into(),
            client: "c".repeat(200),
            ..ShareMember::default()
        };
        let full = proto::Publication {
            topic: "a/b".into(),
            payload: vec![7; 100_000].into(),
            properties: vec![8; 130].into(),
            qos: 2,
            retain: true,
            expires_at: Some(u64::MAX),
            publisher: "d".into(),
            published_at: 1_800_000_000_000,
        };
        let publications = [
            proto::Publication::default(),
            proto::Publication { expires_at: Some(0), ..proto::Publication::default() },
            proto::Publication { qos: 1, ..full.clone() },
            full,
        ];
        let mut parcels = Vec::new();
        for publication in publications {
            for (member, asks, owed) in
                [(None, false, false), (Some(member.clone()), true, false), (None, true, true)]
            {
                let publication = Some(publication.clone());
                parcels.push(proto::Parcel { publication, member, asks, owed });
            }
        }
        parcels
    }

    fn borrowed(parcel: &proto::Parcel) -> Parcel<'_> {
        let it = parcel.publication.as_ref().unwrap();
        let publication = Publication {
            topic: &it.topic,
            payload: &it.payload,
            properties: &it.properties,
            qos: it.qos,
            retain: it.retain,
            expires_at: it.expires_at,
            publisher: &it.publisher,
            published_at: it.published_at,
        };
        let member = parcel.member.as_ref().map(|it| Member {
            share: &it.share,
            filter: &it.filter,
            client: &it.client,
        });
        let (asks, owed) = (parcel.asks, parcel.owed);
        Parcel { publication, member, asks, owed }
    }

    #[test]
    fn the_encoding_is_the_contracts() {
        let parcels = parcels();
        let mut encoded = Vec::new();
        parcels.iter().for_each(|parcel| encode_parcel(&borrowed(parcel), &mut encoded));
        let contract = proto::Parcels { parcels: parcels.clone() }.encode_to_vec();
        assert!(encoded == contract);
        let read: Result<Vec<_>, _> = encoded_parcels(&contract).collect();
        let decode = |at: Range<usize>| Parcel::decode(&contract[at]);
        let read: Result<Vec<_>, _> = read.unwrap().into_iter().map(decode).collect();
        let expected: Vec<_> = parcels.iter().map(borrowed).collect();
        assert!(read.unwrap() == expected);
    }

    #[test]
    fn fields_of_a_later_contract_are_passed_over() {
        let mut parcel = parcels()[1].clone();
        // A parcel does not say how the member has subscribed.
        parcel.member.as_mut().unwrap().subscription_ids = vec![1, 1 << 28];
        let mut inner = parcel.encode_to_vec();
        encode_key(90, WireType::SixtyFourBit, &mut inner);
        inner.put_slice(&[0; 8]);
        number(91, 5, &mut inner);
        let mut encoded = Vec::new();
        number(9, 5, &mut encoded);
        bytes(1, &inner, &mut encoded);
        let read: Vec<_> = encoded_parcels(&encoded).collect();
        assert_eq!(read.len(), 1);
        assert!(Parcel::decode(&encoded[read[0].clone().unwrap()]) == Ok(borrowed(&parcel)));
    }

    #[test]
    fn what_is_cut_short_cannot_be_read() {
        let mut encoded = Vec::new();
        encode_parcel(&borrowed(&parcels()[4]), &mut encoded);
        for len in [1, 2, 100, encoded.len() - 1] {
            assert_eq!(encoded_parcels(&encoded[..len]).last(), Some(Err(Unreadable)), "{len}");
        }
        assert_eq!(encoded_parcels(&[]).next(), None);
        let inner = &encoded[encoded_parcels(&encoded).next().unwrap().unwrap()];
        for len in [1, 2, 100, inner.len() - 1] {
            assert_eq!(Parcel::decode(&inner[..len]), Err(Unreadable), "{len}");
        }
    }
}
