//! The members of an object, each taken once; what is left over is not known.

use serde_json::{Map, Value};

use crate::error::{TemplateError, expected, wrong};

pub(crate) struct Fields<'a> {
    at: String,
    entries: &'a Map<String, Value>,
    taken: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    pub(crate) fn of(at: &str, json: &'a Value) -> Result<Self, TemplateError> {
        let entries = json.as_object().ok_or_else(|| expected(at, "an object", json))?;
        Ok(Self { at: at.to_owned(), entries, taken: Vec::new() })
    }

    pub(crate) fn take(&mut self, name: &'static str) -> Option<&'a Value> {
        self.taken.push(name);
        self.entries.get(name)
    }

    pub(crate) fn require(&mut self, name: &'static str) -> Result<&'a Value, TemplateError> {
        let missing = wrong(&self.at, format!("{name} is missing"));
        self.take(name).ok_or(missing)
    }

    /// Complains of a member that nobody has asked for.
    pub(crate) fn end(self) -> Result<(), TemplateError> {
        match self.entries.keys().find(|name| !self.taken.contains(&name.as_str())) {
            Some(unknown) => {
                let known = self.taken.join(", ");
                Err(wrong(&self.at, format!("unknown key {unknown:?}; it can have {known}")))
            }
            None => Ok(()),
        }
    }
}
