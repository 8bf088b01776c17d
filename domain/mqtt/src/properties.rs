//! The properties that travel with a publication from publisher to subscriber, in the encoded form
//! in which [`crate::Publish::properties`] carries them.
//!
//! Publications keep this form while they are routed, queued and stored, because forwarding it is
//! a copy; only rules, REST and tracing look inside.

use crate::codec::{check_response_topic, put_string, put_u16};
use crate::property::{Found, PropertyReader, Value, WILL};
use crate::{PacketType, PropertyId};

/// One property of a publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Property<'a> {
    /// Whether the payload is UTF-8 text.
    PayloadFormat(bool),
    /// What the payload is, often a MIME type.
    ContentType(&'a str),
    /// Where an answer is expected.
    ResponseTopic(&'a str),
    /// What ties an answer to its request.
    CorrelationData(&'a [u8]),
    /// A name and a value that the applications agreed on; may repeat.
    User(&'a str, &'a str),
}

/// The properties in `raw`, in order; ends at the first that does not belong to a publication or
/// is not well formed, which does not happen in properties that the codec returned.
pub fn iter(raw: &[u8]) -> Iter<'_> {
    Iter { reader: PropertyReader::over(raw, PacketType::Publish, WILL) }
}

/// The value of the first user property called `name`.
pub fn user<'a>(raw: &'a [u8], name: &str) -> Option<&'a str> {
    iter(raw).find_map(|property| match property {
        Property::User(found, value) if found == name => Some(value),
        _ => None,
    })
}

/// The W3C trace context that the publisher sent along.
pub fn traceparent(raw: &[u8]) -> Option<&str> {
    user(raw, "traceparent")
}

/// Whether `raw` is a block that [`crate::Outgoing`] may carry: every property belongs to a
/// publication, is well formed, and repeats only where it may.
pub fn is_valid(raw: &[u8]) -> bool {
    let mut reader = iter(raw).reader;
    loop {
        match reader.next() {
            Ok(None) => return true,
            Ok(Some(found)) if is_acceptable(&found) => {}
            _ => return false,
        }
    }
}

/// Iterates over encoded properties.
pub struct Iter<'a> {
    reader: PropertyReader<'a>,
}

impl<'a> Iterator for Iter<'a> {
    type Item = Property<'a>;

    fn next(&mut self) -> Option<Property<'a>> {
        Property::of(&self.reader.next().ok().flatten()?)
    }
}

impl<'a> Property<'a> {
    /// `None` for properties that stay with the packet.
    fn of(found: &Found<'a>) -> Option<Self> {
        Some(match (found.id, found.value) {
            (PropertyId::PayloadFormatIndicator, value) => Self::PayloadFormat(value.flag()),
            (PropertyId::ContentType, Value::Text(text)) => Self::ContentType(text),
            (PropertyId::ResponseTopic, Value::Text(text)) => Self::ResponseTopic(text),
            (PropertyId::CorrelationData, Value::Bytes(data)) => Self::CorrelationData(data),
            (PropertyId::UserProperty, Value::Pair(name, value)) => Self::User(name, value),
            _ => return None,
        })
    }
}

fn is_acceptable(found: &Found<'_>) -> bool {
    match Property::of(found) {
        Some(Property::ResponseTopic(topic)) => check_response_topic(topic).is_ok(),
        property => property.is_some(),
    }
}

/// A value that does not fit the two bytes of its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("property of {0} bytes exceeds 65535")]
pub struct TooLong(pub usize);

/// Encodes properties in the order they are added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Builder {
    raw: Vec<u8>,
}

impl Builder {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one property. All but user properties may be added once only.
    pub fn add(&mut self, property: Property<'_>) -> Result<&mut Self, TooLong> {
        match property {
            Property::PayloadFormat(text) => {
                self.raw.extend([PropertyId::PayloadFormatIndicator as u8, u8::from(text)]);
            }
            Property::ContentType(text) => self.text(PropertyId::ContentType, text)?,
            Property::ResponseTopic(text) => self.text(PropertyId::ResponseTopic, text)?,
            Property::CorrelationData(data) => {
                fits(data)?;
                self.raw.push(PropertyId::CorrelationData as u8);
                put_u16(&mut self.raw, data.len() as u16);
                self.raw.extend_from_slice(data);
            }
            Property::User(name, value) => {
                fits(value.as_bytes())?;
                self.text(PropertyId::UserProperty, name)?;
                put_string(&mut self.raw, value);
            }
        }
        Ok(self)
    }

    /// The encoded properties.
    pub fn finish(self) -> Vec<u8> {
        self.raw
    }

    fn text(&mut self, id: PropertyId, text: &str) -> Result<(), TooLong> {
        fits(text.as_bytes())?;
        self.raw.push(id as u8);
        put_string(&mut self.raw, text);
        Ok(())
    }
}

fn fits(bytes: &[u8]) -> Result<(), TooLong> {
    if bytes.len() > usize::from(u16::MAX) { Err(TooLong(bytes.len())) } else { Ok(()) }
}
