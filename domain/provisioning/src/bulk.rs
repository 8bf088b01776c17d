//! The input of a registration in bulk: an object of lines, each with the parameters of one device.
//!
//! The object is taken bit by bit: no more than one line of it is held.

use serde_json::Value;
use strict_json::Strict;
use thiserror::Error;

use crate::template::{Parameters, Template, check_given};

/// Bytes of a line without its end, as with AWS.
pub const MAX_LINE_BYTES: usize = 256 * 1024;
/// Characters of an object's key.
const MAX_KEY_CHARS: usize = 1024;
/// What some editors put before text in UTF-8.
const MARK: &[u8] = "\u{feff}".as_bytes();
/// Characters of a name that an error repeats.
const SHOWN_CHARS: usize = 64;

/// A line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The first one is 1.
    pub number: u64,
    /// Where it begins, in bytes.
    pub offset: u64,
    /// Where the next one does.
    pub end: u64,
    /// What it says, without its end; none when it is too long.
    text: Option<Vec<u8>>,
}

/// Why a line does not give the parameters of a device.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum LineError {
    /// It is longer than [`MAX_LINE_BYTES`].
    #[error("the line has more than {MAX_LINE_BYTES} bytes")]
    TooLong,
    /// It is not one JSON value.
    #[error("column {column}: {problem}")]
    Json {
        /// Where, in bytes; the first is 1.
        column: usize,
        /// What is wrong there.
        problem: String,
    },
    /// It is JSON of another kind.
    #[error("the line is not an object of parameters")]
    NotAnObject,
    /// A value is not a text.
    #[error("parameter {0:?} is not a text")]
    NotAText(String),
    /// The template has no such parameter.
    #[error("the template has no parameter {0:?}")]
    Unknown(String),
    /// Only the node may give it.
    #[error("{0}")]
    NotGiven(String),
}

/// Cuts an object into lines.
#[derive(Debug)]
pub struct Lines {
    /// Lines that were given.
    given: u64,
    /// Where the next one begins.
    start: u64,
    /// Bytes that were taken of it, those included that are not held.
    taken: u64,
    held: Vec<u8>,
}

impl Lines {
    /// The lines behind so many, which end at this byte.
    pub fn after(lines: u64, offset: u64) -> Self {
        Self { given: lines, start: offset, taken: 0, held: Vec::new() }
    }

    /// Takes bytes up to the end of a line; none when there is no end in them, and all are taken.
    pub fn next(&mut self, bytes: &mut &[u8]) -> Option<Line> {
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let (of_line, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
        self.taken += of_line.len() as u64;
        // One byte more than may be is enough to know.
        let room = (MAX_LINE_BYTES + 1).saturating_sub(self.held.len());
        self.held.extend_from_slice(&of_line[..of_line.len().min(room)]);
        *bytes = rest.get(1..).unwrap_or_default();
        end.map(|_| self.ended(1))
    }

    /// What is behind the last end of a line.
    pub fn last(mut self) -> Option<Line> {
        (self.taken > 0).then(|| self.ended(0))
    }

    fn ended(&mut self, end_bytes: u64) -> Line {
        let mut text = std::mem::take(&mut self.held);
        if self.given == 0 && text.starts_with(MARK) {
            text.drain(..MARK.len());
        }
        if text.last() == Some(&b'\r') {
            text.pop();
        }
        let offset = self.start;
        self.given += 1;
        self.start += self.taken + end_bytes;
        self.taken = 0;
        let text = Some(text).filter(|text| text.len() <= MAX_LINE_BYTES);
        Line { number: self.given, offset, end: self.start, text }
    }
}

impl Line {
    /// Whether there is nothing on it.
    pub fn is_blank(&self) -> bool {
        self.text.as_ref().is_some_and(|text| text.trim_ascii().is_empty())
    }

    /// The parameters that it gives to a template. One that the template does not know is refused: it
    /// would be a default that is used in silence because of a misspelt name.
    pub fn parameters(&self, template: &Template) -> Result<Parameters, LineError> {
        let text = self.text.as_ref().ok_or(LineError::TooLong)?;
        let Strict(json) = serde_json::from_slice(text).map_err(|error| {
            let problem = error.to_string();
            // It is always the first line, as far as the reader knows.
            let problem = problem.split(" at line ").next().unwrap_or_default().to_owned();
            LineError::Json { column: error.column(), problem }
        })?;
        let Value::Object(entries) = json else { return Err(LineError::NotAnObject) };
        let shown = |name: &str| name.chars().take(SHOWN_CHARS).collect::<String>();
        let mut parameters = Parameters::new();
        for (name, value) in entries {
            match value {
                _ if !template.has_parameter(&name) => {
                    return Err(LineError::Unknown(shown(&name)));
                }
                Value::String(value) => drop(parameters.insert(name, value)),
                _ => return Err(LineError::NotAText(shown(&name))),
            }
        }
        check_given(&parameters).map_err(|error| LineError::NotGiven(error.to_string()))?;
        Ok(parameters)
    }
}

/// Refuses keys of objects that are none, or would lead out of their folder.
pub fn check_object_key(key: &str) -> Result<(), String> {
    let is_plain = |it: u8| it.is_ascii_alphanumeric() || b"!_.*'()-/".contains(&it);
    if key.is_empty() || key.len() > MAX_KEY_CHARS || !key.bytes().all(is_plain) {
        return Err(format!(
            "must satisfy the pattern [a-zA-Z0-9!_.*'()-/]+ and have 1 to {MAX_KEY_CHARS} characters"
        ));
    }
    match key.split('/').find(|part| matches!(*part, "" | "." | "..")) {
        Some(part) => Err(format!("must not have {part:?} between its slashes")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Purpose;

    /// The lines of an object that comes in pieces of this size.
    fn cut(object: &[u8], piece: usize, mut lines: Lines) -> Vec<Line> {
        let mut found = Vec::new();
        for mut bytes in object.chunks(piece) {
            while !bytes.is_empty() {
                found.extend(lines.next(&mut bytes));
            }
        }
        found.extend(lines.last());
        found
    }

    #[test]
    fn an_object_is_cut_into_lines_wherever_its_pieces_end() {
        let line = |number, offset, end, text: &str| {
            let text = Some(text.as_bytes().to_vec());
            Line { number, offset, end, text }
        };
        for (object, expected) in [
            ("", vec![]),
            ("a", vec![line(1, 0, 1, "a")]),
            ("a\n", vec![line(1, 0, 2, "a")]),
            ("a\r\nbc\n", vec![line(1, 0, 3, "a"), line(2, 3, 6, "bc")]),
            ("\u{feff}a\n\u{feff}b", vec![line(1, 0, 5, "a"), line(2, 5, 9, "\u{feff}b")]),
            ("\u{feff}", vec![line(1, 0, 3, "")]),
            ("\n\nd", vec![line(1, 0, 1, ""), line(2, 1, 2, ""), line(3, 2, 3, "d")]),
        ] {
            for piece in 1..=object.len().max(1) {
                let found = cut(object.as_bytes(), piece, Lines::after(0, 0));
                assert_eq!(found, expected, "{object:?} in {piece}s");
            }
        }
        assert_eq!(cut(b"x\n", 1, Lines::after(7, 70)), [line(8, 70, 72, "x")]);
    }

    #[test]
    fn a_line_that_is_too_long_is_not_held() {
        for (length, is_too_long) in [(MAX_LINE_BYTES, false), (MAX_LINE_BYTES + 1, true)] {
            let object = [vec![b'x'; length], b"\n{}\n".to_vec()].concat();
            let found = cut(&object, 1000, Lines::after(0, 0));
            assert_eq!(found.len(), 2);
            assert_eq!(found[0].text.is_none(), is_too_long);
            assert_eq!((found[1].offset, found[1].end), (length as u64 + 1, length as u64 + 4));
        }
        let mut lines = Lines::after(0, 0);
        for _ in 0..10 {
            assert_eq!(lines.next(&mut &[b'x'; 100_000][..]), None);
        }
        assert_eq!(lines.held.len(), MAX_LINE_BYTES + 1);
    }

    #[test]
    fn a_line_gives_the_parameters_that_its_template_knows() {
        let body = r#"{"Parameters": {"Serial": {"Type": "String"}, "Loc": {"Type": "String", "Default": "x"}},
            "Resources": {"certificate": {"Type": "AWS::IoT::Certificate",
                "Properties": {"CertificateId": {"Ref": "Serial"}}}}}"#;
        let template = Template::parse(body, Purpose::Registration).unwrap();
        let deep = "[".repeat(1000);
        for (text, expected) in [
            (r#"{"Serial": "1"}"#, Ok(1)),
            (r#"  {"Serial": "1", "Loc": ""} "#, Ok(2)),
            ("{}", Ok(0)),
            (r#"{"Serial": "1""#, Err("column 14: EOF")),
            (r#"{"Serial": "1"} {}"#, Err("column 17: trailing")),
            (r#"{"Serial": "1", "Serial": "2"}"#, Err("there twice")),
            (r#"{"Serial": 1}"#, Err(r#""Serial" is not a text"#)),
            (r#"{"Serial": null}"#, Err(r#""Serial" is not a text"#)),
            (r#"{"Seral": "1"}"#, Err(r#"no parameter "Seral""#)),
            (r#"{"AWS::IoT::Certificate::Id": "1"}"#, Err("no parameter")),
            ("[]", Err("not an object")),
            ("\"Serial\"", Err("not an object")),
            (&deep, Err("recursion limit")),
        ] {
            let found = cut(text.as_bytes(), 7, Lines::after(0, 0)).remove(0).parameters(&template);
            match (found, expected) {
                (Ok(found), Ok(count)) => assert_eq!(found.len(), count, "{text}"),
                (Err(error), Err(part)) => {
                    let error = error.to_string();
                    assert!(error.contains(part), "{text}: {error}, not {part}");
                }
                (found, _) => panic!("{text}: {found:?}"),
            }
        }
        let not_utf8 = cut(b"{\"Serial\": \"\xff\"}", 7, Lines::after(0, 0)).remove(0);
        assert!(matches!(not_utf8.parameters(&template), Err(LineError::Json { .. })));
        for (text, is_blank) in [("", true), (" \t\r", true), ("{}", false)] {
            let line = Line { number: 1, offset: 0, end: 1, text: Some(text.into()) };
            assert_eq!(line.is_blank(), is_blank, "{text:?}");
        }
    }

    #[test]
    fn keys_that_lead_elsewhere_are_refused() {
        let long = "k".repeat(MAX_KEY_CHARS + 1);
        for (key, is_key) in [
            ("devices.json", true),
            ("2026/11/lamps (1).json", false),
            ("2026/11/lamps-(1).json", true),
            ("a..b/.hidden", true),
            (&long[1..], true),
            ("", false),
            (&long, false),
            ("..", false),
            ("../x", false),
            ("a/../../x", false),
            ("a/./b", false),
            ("/etc/passwd", false),
            ("a//b", false),
            ("a/", false),
            ("a\\..\\b", false),
            ("%2e%2e/x", false),
            ("a\0b", false),
            ("ä", false),
        ] {
            assert_eq!(check_object_key(key).is_ok(), is_key, "{key:?}");
        }
    }
}
