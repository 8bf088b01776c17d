//! JSON in which no key stands twice: which of the two was meant, nobody can know.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// A value, or an error that names the key for an object with a repeated one, however deep. The key may
/// be secret: who reads what strangers send says it in other words. No other error of it
/// [is one of data](serde_json::Error::is_data).
pub struct Strict(pub Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(Strict(item)) = seq.next_element()? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Map::new();
        while let Some((key, Strict(value))) = map.next_entry::<String, _>()? {
            if entries.contains_key(&key) {
                return Err(A::Error::custom(format_args!("key {key:?} is there twice")));
            }
            entries.insert(key, value);
        }
        Ok(Value::Object(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_repeated_key_is_an_error_of_data() {
        let deep = "[".repeat(200);
        for (text, is_data) in [
            (&br#"{"a": 1, "a": 1}"#[..], true),
            (br#"[{"b": {"a": 1, "\u0061": 1}}]"#, true),
            (b"", false),
            (b"{", false),
            (b"1e999", false),
            (b"-", false),
            (b"nul", false),
            (b"1 2", false),
            (b"{1: 2}", false),
            (b"\"\xff\"", false),
            (br#""\ud800""#, false),
            (b"\"\n\"", false),
            (deep.as_bytes(), false),
        ] {
            let error = serde_json::from_slice::<Strict>(text).map(drop).unwrap_err();
            assert_eq!(error.is_data(), is_data, "{error}");
        }
    }
}
