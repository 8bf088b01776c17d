//! The parameters of a request.

use std::ops::RangeInclusive;

use percent_encoding::percent_decode_str;

use super::{Failure, VERSION};

/// More parameters than any operation has.
const PARAMETERS: usize = 64;

/// What a form says, each name once.
pub(super) struct Form(Vec<(String, String)>);

impl Form {
    /// Reads the body of a request.
    pub(super) fn read(body: &[u8]) -> Result<Self, Failure> {
        let text =
            std::str::from_utf8(body).map_err(|_| Failure::invalid("the body is no text"))?;
        let mut fields: Vec<(String, String)> = Vec::new();
        for field in text.trim_ascii_end().split('&').filter(|field| !field.is_empty()) {
            let (name, value) = field.split_once('=').unwrap_or((field, ""));
            let (name, value) = (decoded(name)?, decoded(value)?);
            if fields.iter().any(|(known, _)| *known == name) {
                return Err(Failure::invalid("a parameter is there twice"));
            }
            if fields.len() == PARAMETERS {
                return Err(Failure::invalid("there are too many parameters"));
            }
            fields.push((name, value));
        }
        Ok(Self(fields))
    }

    /// The names that are there.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// A parameter.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// The operation that is meant, of the version that is offered.
    pub(super) fn operation(&self) -> Result<&str, Failure> {
        let missing = || Failure::new(400, "MissingAction", "Action is missing");
        let action = self.get("Action").ok_or_else(missing)?;
        match self.get("Version") {
            None | Some(VERSION) => Ok(action),
            Some(_) => {
                let text = format!("the version of the API is {VERSION}");
                Err(Failure::new(400, "InvalidAction", text))
            }
        }
    }

    /// A parameter that has to be there, of so many characters.
    pub(super) fn text(&self, name: &str, length: RangeInclusive<usize>) -> Result<&str, Failure> {
        let value = self.get(name).unwrap_or_default();
        if length.contains(&value.chars().count()) {
            return Ok(value);
        }
        let (least, most) = length.into_inner();
        Err(Failure::invalid(match value {
            "" => format!("{name} is missing"),
            _ => format!("{name} must have {least} to {most} characters"),
        }))
    }
}

/// A plus is a space in a form.
fn decoded(text: &str) -> Result<String, Failure> {
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8();
    decoded.map(Into::into).map_err(|_| Failure::invalid("a parameter is not UTF-8"))
}
