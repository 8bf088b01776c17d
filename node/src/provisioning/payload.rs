//! The two encodings of requests and answers.

use serde::de::DeserializeOwned;
use serde_json::Value;

/// How a request is encoded, and its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `…/json`
    Json,
    /// `…/cbor`
    Cbor,
}

impl Format {
    /// The format that the end of a topic names.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "json" => Some(Self::Json),
            "cbor" => Some(Self::Cbor),
            _ => None,
        }
    }

    /// Reads a request; an empty one has no members.
    pub(super) fn decode<T: DeserializeOwned>(self, payload: &[u8]) -> Result<T, String> {
        match self {
            _ if payload.trim_ascii().is_empty() => {
                serde_json::from_str("{}").map_err(|error| error.to_string())
            }
            Self::Json => serde_json::from_slice(payload).map_err(|error| error.to_string()),
            Self::Cbor => ciborium::from_reader(payload).map_err(|error| error.to_string()),
        }
    }

    /// Writes an answer.
    pub(super) fn encode(self, answer: &Value) -> Vec<u8> {
        match self {
            Self::Json => answer.to_string().into_bytes(),
            Self::Cbor => {
                let mut bytes = Vec::new();
                ciborium::into_writer(answer, &mut bytes)
                    .expect("JSON is written as CBOR to memory");
                bytes
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn both_formats_read_what_they_write() {
        let value = json!({ "a": "text", "b": { "c": "d" } });
        for format in [Format::Json, Format::Cbor] {
            assert_eq!(format.decode::<Value>(&format.encode(&value)), Ok(value.clone()));
            assert_eq!(format.decode::<Value>(b""), Ok(json!({})));
            for damaged in [&b"\xff"[..], b"{", b"\xa1"] {
                assert!(format.decode::<Value>(damaged).is_err(), "{format:?} {damaged:?}");
            }
        }
    }

    #[test]
    fn nesting_has_an_end() {
        let deep = [b"[".repeat(100_000), b"]".repeat(100_000)].concat();
        assert!(Format::Json.decode::<Value>(&deep).is_err());
        assert!(Format::Cbor.decode::<Value>(&b"\x81".repeat(100_000)).is_err());
    }
}
