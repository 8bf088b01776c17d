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
            // Serde would take one for the members in their order.
            _ if self.is_list(payload) => Err("it is a list, not an object".into()),
            Self::Json => serde_json::from_slice(payload).map_err(|error| error.to_string()),
            Self::Cbor => ciborium::from_reader(payload).map_err(|error| error.to_string()),
        }
    }

    /// Whether it begins as a list does.
    fn is_list(self, payload: &[u8]) -> bool {
        match (self, payload) {
            (Self::Json, _) => payload.trim_ascii_start().starts_with(b"["),
            // Major type 4 (RFC 8949, 3.1).
            (Self::Cbor, [first, ..]) => first >> 5 == 4,
            (Self::Cbor, []) => false,
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
    fn a_list_is_no_request() {
        for (format, list) in [(Format::Json, &b" [1]"[..]), (Format::Cbor, b"\x81\x01")] {
            let said = format.decode::<Value>(list);
            assert_eq!(said, Err("it is a list, not an object".into()));
        }
    }

    #[test]
    fn nesting_has_an_end() {
        let deep = [&b"{\"a\":"[..], &b"[".repeat(100_000), &b"]".repeat(100_000), b"}"].concat();
        assert!(Format::Json.decode::<Value>(&deep).is_err());
        let deep = [b"\xa1\x61a".to_vec(), b"\x81".repeat(100_000)].concat();
        assert!(Format::Cbor.decode::<Value>(&deep).is_err());
    }
}
