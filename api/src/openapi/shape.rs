//! The members of an object, in the notation of this crate's tables.
//!
//! Members are separated by spaces. `?` behind a name: it may be missing. What comes then is its
//! kind: nothing for a string, `:int`, `:number`, `:bool`, `:any`, `:A|B` for one of some words, `{}`
//! for a map of strings, `[]` for a list of strings, `{ … }` for an object, `[ … ]` for a list of
//! objects and `{* … }` for a map of objects with these members.

use std::str::SplitWhitespace;

use serde_json::{Map, Value, json};

/// What a value may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Any,
    Text,
    Word(Vec<&'static str>),
    Integer,
    Number,
    Flag,
    Object(Vec<Member>),
    Map(Box<Shape>),
    List(Box<Shape>),
    /// As the types say that a body is read into, or a style of lists.
    Schema(Value),
}

/// A member of an object, or a parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) name: &'static str,
    pub(super) is_optional: bool,
    shape: Shape,
}

impl Member {
    /// One that may be missing.
    pub(super) fn optional(name: &'static str, shape: Shape) -> Self {
        Self { name, is_optional: true, shape }
    }

    pub(super) fn schema(&self) -> Value {
        self.shape.schema()
    }
}

/// Reads members up to the end, or to the bracket that closes them.
pub(super) fn members(notation: &'static str) -> Vec<Member> {
    read(&mut notation.split_whitespace())
}

fn read(words: &mut SplitWhitespace<'static>) -> Vec<Member> {
    let mut members = Vec::new();
    while let Some(word) = words.next() {
        if matches!(word, "]" | "}") {
            break;
        }
        let end = word.find(['?', ':', '{', '[']).unwrap_or(word.len());
        let (name, kind) = word.split_at(end);
        let is_optional = kind.starts_with('?');
        let shape = match kind.trim_start_matches('?') {
            "" => Shape::Text,
            ":any" => Shape::Any,
            ":int" => Shape::Integer,
            ":number" => Shape::Number,
            ":bool" => Shape::Flag,
            "{}" => Shape::Map(Box::new(Shape::Text)),
            "[]" => Shape::List(Box::new(Shape::Text)),
            "{" => Shape::Object(read(words)),
            "{*" => Shape::Map(Box::new(Shape::Object(read(words)))),
            "[" => Shape::List(Box::new(Shape::Object(read(words)))),
            choice => Shape::Word(choice.trim_start_matches(':').split('|').collect()),
        };
        members.push(Member { name, is_optional, shape });
    }
    members
}

impl Shape {
    /// As JSON Schema.
    pub(super) fn schema(&self) -> Value {
        match self {
            Self::Any => json!({}),
            Self::Text => json!({ "type": "string" }),
            Self::Word(words) => json!({ "type": "string", "enum": words }),
            Self::Integer => json!({ "type": "integer", "minimum": 0 }),
            Self::Number => json!({ "type": "number" }),
            Self::Flag => json!({ "type": "boolean" }),
            Self::Map(values) => {
                json!({ "type": "object", "additionalProperties": values.schema() })
            }
            Self::List(items) => json!({ "type": "array", "items": items.schema() }),
            Self::Object(members) => {
                let required = members.iter().filter(|member| !member.is_optional);
                let required: Vec<_> = required.map(|member| member.name).collect();
                let properties = members.iter().map(|it| (it.name.to_owned(), it.schema()));
                let properties: Map<_, _> = properties.collect();
                json!({ "type": "object", "required": required, "properties": properties })
            }
            Self::Schema(schema) => schema.clone(),
        }
    }

    /// What a value has that this does not say: where, and what.
    pub(super) fn surprise(&self, value: &Value) -> Option<String> {
        let is_right = match (self, value) {
            (Self::Object(members), Value::Object(found)) => return of_object(members, found),
            (Self::Map(values), Value::Object(found)) => {
                return found.iter().find_map(|(name, value)| inside(name, values, value));
            }
            (Self::List(items), Value::Array(found)) => {
                return found.iter().find_map(|value| inside("[]", items, value));
            }
            (Self::Word(words), Value::String(word)) => words.contains(&word.as_str()),
            (Self::Integer, value) => value.is_u64(),
            (Self::Text, value) => value.is_string(),
            (Self::Number, value) => value.is_number(),
            (Self::Flag, value) => value.is_boolean(),
            (Self::Any | Self::Schema(_), _) => true,
            (Self::Object(_) | Self::Map(_) | Self::List(_) | Self::Word(_), _) => false,
        };
        (!is_right).then(|| format!("{value} is not of the kind {}", self.schema()))
    }
}

fn of_object(members: &[Member], found: &Map<String, Value>) -> Option<String> {
    let missing = members.iter().find(|it| !it.is_optional && !found.contains_key(it.name));
    if let Some(member) = missing {
        return Some(format!("{} is missing", member.name));
    }
    found.iter().find_map(|(name, value)| match members.iter().find(|it| it.name == name) {
        Some(member) => inside(name, &member.shape, value),
        None => Some(format!("{name} is not described")),
    })
}

fn inside(name: &str, shape: &Shape, value: &Value) -> Option<String> {
    shape.surprise(value).map(|surprise| format!("{name}: {surprise}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_notation_is_read() {
        let shape = Shape::Object(members("a b?:int c[] d?{ e:bool f:X|Y } g[ h{} ] i{* j:any }"));
        let text = json!({ "type": "string" });
        let list = |items: Value| json!({ "type": "array", "items": items });
        let map = |values: Value| json!({ "type": "object", "additionalProperties": values });
        let object = |required: &[&str], properties: Value| json!({ "type": "object", "required": required, "properties": properties });
        let expected = object(
            &["a", "c", "g", "i"],
            json!({
                "a": text,
                "b": { "type": "integer", "minimum": 0 },
                "c": list(text.clone()),
                "d": object(&["e", "f"], json!({
                    "e": { "type": "boolean" },
                    "f": { "type": "string", "enum": ["X", "Y"] },
                })),
                "g": list(object(&["h"], json!({ "h": map(text) }))),
                "i": map(object(&["j"], json!({ "j": {} }))),
            }),
        );
        assert_eq!(shape.schema(), expected);
    }

    #[test]
    fn what_differs_is_said() {
        let shape = Shape::Object(members("a?:int b?[] c?{* d:X|Y } e?{}"));
        for (value, surprise) in [
            (json!({}), None),
            (json!({ "a": 1, "b": ["x"], "c": { "k": { "d": "X" } }, "e": { "k": "v" } }), None),
            (json!({ "a": -1 }), Some("a: -1 is not of the kind")),
            (json!({ "b": [1] }), Some("b: []: 1 is not of the kind")),
            (json!({ "c": { "k": {} } }), Some("c: k: d is missing")),
            (json!({ "c": { "k": { "d": "Z" } } }), Some("c: k: d: \"Z\" is not of the kind")),
            (json!({ "e": [] }), Some("e: [] is not of the kind")),
            (json!({ "f": 1 }), Some("f is not described")),
            (json!([]), Some("[] is not of the kind")),
        ] {
            let found = shape.surprise(&value);
            match surprise {
                Some(start) => {
                    assert!(found.as_ref().is_some_and(|it| it.starts_with(start)), "{found:?}")
                }
                None => assert_eq!(found, None, "{value}"),
            }
        }
    }
}
