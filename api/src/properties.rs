//! The MQTT 5 properties of a publication that travel with it, from and to HTTP.

use serde_json::{Map, Value};
use thiserror::Error;

const PAYLOAD_FORMAT: u8 = 0x01;
const CONTENT_TYPE: u8 = 0x03;
const RESPONSE_TOPIC: u8 = 0x08;
const CORRELATION_DATA: u8 = 0x09;
const USER_PROPERTY: u8 = 0x26;

/// The properties of a publication that subscribers see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Properties {
    /// The payload is UTF-8 text.
    pub is_utf8: Option<bool>,
    /// What the payload is.
    pub content_type: Option<String>,
    /// Where an answer is expected.
    pub response_topic: Option<String>,
    /// What an answer carries back.
    pub correlation_data: Option<Vec<u8>>,
    /// Names and values in their order.
    pub user_properties: Vec<(String, String)>,
}

/// Why properties cannot be written or read.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[allow(missing_docs, reason = "the messages say what each variant and value means")]
pub enum PropertyError {
    #[error("a property of {0} bytes is too long; 65535 are possible")]
    TooLong(usize),
    #[error("a property contains the null character")]
    Null,
    #[error("the encoded properties are damaged")]
    Damaged,
    #[error(
        "user properties must be an array of objects with string values, such as [{{\"k\":\"v\"}}]"
    )]
    UserProperties,
}

impl Properties {
    /// In the encoding of MQTT 5, without the length in front.
    pub fn encode(&self) -> Result<Vec<u8>, PropertyError> {
        let mut encoded = Vec::new();
        if let Some(is_utf8) = self.is_utf8 {
            encoded.extend([PAYLOAD_FORMAT, is_utf8.into()]);
        }
        if let Some(content_type) = &self.content_type {
            encoded.push(CONTENT_TYPE);
            put_text(&mut encoded, content_type)?;
        }
        if let Some(topic) = &self.response_topic {
            encoded.push(RESPONSE_TOPIC);
            put_text(&mut encoded, topic)?;
        }
        if let Some(data) = &self.correlation_data {
            encoded.push(CORRELATION_DATA);
            put(&mut encoded, data)?;
        }
        for (name, value) in &self.user_properties {
            encoded.push(USER_PROPERTY);
            put_text(&mut encoded, name)?;
            put_text(&mut encoded, value)?;
        }
        Ok(encoded)
    }

    /// Reads what [`encode`](Self::encode) wrote, or an MQTT 5 client sent.
    pub fn decode(mut encoded: &[u8]) -> Result<Self, PropertyError> {
        let mut properties = Self::default();
        while let Some((&identifier, rest)) = encoded.split_first() {
            encoded = rest;
            match identifier {
                PAYLOAD_FORMAT => {
                    let (&flag, rest) = encoded.split_first().ok_or(PropertyError::Damaged)?;
                    properties.is_utf8 = Some(flag == 1);
                    encoded = rest;
                }
                CONTENT_TYPE => properties.content_type = Some(take_text(&mut encoded)?),
                RESPONSE_TOPIC => properties.response_topic = Some(take_text(&mut encoded)?),
                CORRELATION_DATA => {
                    properties.correlation_data = Some(take(&mut encoded)?.to_vec());
                }
                USER_PROPERTY => {
                    let name = take_text(&mut encoded)?;
                    properties.user_properties.push((name, take_text(&mut encoded)?));
                }
                _ => return Err(PropertyError::Damaged),
            }
        }
        Ok(properties)
    }

    /// User properties as the data plane writes them: `[{"name":"value"}]`.
    pub fn user_properties_json(&self) -> Value {
        let pair = |(name, value): &(String, String)| {
            Value::Object(Map::from_iter([(name.clone(), Value::from(value.as_str()))]))
        };
        Value::Array(self.user_properties.iter().map(pair).collect())
    }

    /// Reads what [`user_properties_json`](Self::user_properties_json) wrote.
    pub fn parse_user_properties(json: &[u8]) -> Result<Vec<(String, String)>, PropertyError> {
        let items: Vec<Map<String, Value>> =
            serde_json::from_slice(json).map_err(|_| PropertyError::UserProperties)?;
        items
            .into_iter()
            .flatten()
            .map(|(name, value)| match value {
                Value::String(value) => Ok((name, value)),
                _ => Err(PropertyError::UserProperties),
            })
            .collect()
    }
}

fn put(encoded: &mut Vec<u8>, bytes: &[u8]) -> Result<(), PropertyError> {
    let length = u16::try_from(bytes.len()).map_err(|_| PropertyError::TooLong(bytes.len()))?;
    encoded.extend(length.to_be_bytes());
    encoded.extend_from_slice(bytes);
    Ok(())
}

fn put_text(encoded: &mut Vec<u8>, text: &str) -> Result<(), PropertyError> {
    if text.contains('\0') {
        return Err(PropertyError::Null);
    }
    put(encoded, text.as_bytes())
}

fn take<'a>(encoded: &mut &'a [u8]) -> Result<&'a [u8], PropertyError> {
    let (length, rest) = encoded.split_first_chunk().ok_or(PropertyError::Damaged)?;
    let length = usize::from(u16::from_be_bytes(*length));
    let (bytes, rest) = rest.split_at_checked(length).ok_or(PropertyError::Damaged)?;
    *encoded = rest;
    Ok(bytes)
}

fn take_text(encoded: &mut &[u8]) -> Result<String, PropertyError> {
    let bytes = take(encoded)?;
    String::from_utf8(bytes.to_vec()).map_err(|_| PropertyError::Damaged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_survive_their_encoding() {
        let properties = Properties {
            is_utf8: Some(true),
            content_type: Some("text/plain".into()),
            response_topic: Some("a/b".into()),
            correlation_data: Some(vec![0, 1, 255]),
            user_properties: vec![("k".into(), "v".into()), ("k".into(), "ü".into())],
        };
        let encoded = properties.encode().unwrap();
        assert_eq!(encoded[..4], [1, 1, 3, 0]);
        assert_eq!(Properties::decode(&encoded), Ok(properties));
        assert_eq!(Properties::decode(b""), Ok(Properties::default()));
    }

    #[test]
    fn what_mqtt_cannot_carry_is_refused() {
        for (text, error) in [
            ("x".repeat(65_536), PropertyError::TooLong(65_536)),
            ("a\0b".into(), PropertyError::Null),
        ] {
            let properties = Properties { content_type: Some(text), ..Properties::default() };
            assert_eq!(properties.encode(), Err(error));
        }
        for damaged in [&[9, 0][..], &[9, 0, 5, 1], &[99], &[1], &[3, 0, 1, 255]] {
            assert_eq!(Properties::decode(damaged), Err(PropertyError::Damaged), "{damaged:?}");
        }
    }
}
