//! A shadow document and the messages that show it.

use serde::{Deserialize, Serialize};

use serde_json::Value;

use crate::tree::{Tree, write_json, write_timestamps};
use crate::{Limits, Update};

/// A shadow document: what is desired, what is reported, when each was said, and the version.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Document {
    version: u64,
    #[serde(default, skip_serializing_if = "Tree::is_empty")]
    desired: Tree,
    #[serde(default, skip_serializing_if = "Tree::is_empty")]
    reported: Tree,
}

impl Document {
    /// A document without content, as it is before the first update.
    pub(crate) fn empty(version: u64) -> Self {
        Self { version, ..Self::default() }
    }

    /// Grows by one with every accepted update.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The `desired` section as JSON.
    pub fn desired(&self) -> Vec<u8> {
        written(|out| self.desired.write_state(out))
    }

    /// The `reported` section as JSON.
    pub fn reported(&self) -> Vec<u8> {
        written(|out| self.reported.write_state(out))
    }

    /// The size that is limited: the state as compact JSON.
    pub fn state_bytes(&self) -> usize {
        written(|out| self.write_sections(out, Tree::write_state)).len() + "{}".len()
    }

    /// The document after an update.
    pub(crate) fn merged(&self, update: &Update, now_secs: u64, limits: &Limits) -> Self {
        let mut document = self.clone();
        document.version += 1;
        for (name, section) in
            [("desired", &mut document.desired), ("reported", &mut document.reported)]
        {
            match update.state.get(name) {
                None if update.state.is_null() => *section = Tree::default(),
                None => {}
                Some(Value::Object(patch)) => section.merge(patch, now_secs, limits.takes_empty),
                Some(_) => *section = Tree::default(),
            }
        }
        document
    }

    /// Payload of `get/accepted`.
    pub(crate) fn to_get_json(&self, client_token: Option<&str>, now_secs: u64) -> Vec<u8> {
        let delta = self.desired.delta(&self.reported);
        let mut out = Vec::with_capacity(1024);
        out.extend_from_slice(b"{\"state\":{");
        self.write_sections(&mut out, Tree::write_state);
        if !delta.is_empty() {
            out.extend_from_slice(b",\"delta\":");
            delta.write_state(&mut out);
        }
        out.extend_from_slice(b"},\"metadata\":{");
        self.write_sections(&mut out, Tree::write_metadata);
        if !delta.is_empty() {
            out.extend_from_slice(b",\"delta\":");
            delta.write_metadata(&mut out);
        }
        out.extend_from_slice(b"},\"version\":");
        write_json(&mut out, &self.version);
        end(&mut out, client_token, now_secs);
        out
    }

    /// Payload of `update/accepted` for the update that led here: what the request said, and when.
    pub(crate) fn to_accepted_json(&self, update: &Update, now_secs: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(512);
        out.extend_from_slice(b"{\"state\":");
        write_json(&mut out, &update.state);
        // Every leaf is stamped, deletions too: the requester sees what was understood.
        out.extend_from_slice(b",\"metadata\":");
        write_timestamps(&mut out, &update.state, now_secs);
        out.extend_from_slice(b",\"version\":");
        write_json(&mut out, &self.version);
        end(&mut out, update.client_token.as_deref(), now_secs);
        out
    }

    /// Payload of `update/delta`, if anything differs.
    pub(crate) fn to_delta_json(
        &self,
        client_token: Option<&str>,
        now_secs: u64,
    ) -> Option<Vec<u8>> {
        let delta = self.desired.delta(&self.reported);
        if delta.is_empty() {
            return None;
        }
        let mut out = Vec::with_capacity(256);
        out.extend_from_slice(b"{\"version\":");
        write_json(&mut out, &self.version);
        out.extend_from_slice(b",\"timestamp\":");
        write_json(&mut out, &now_secs);
        out.extend_from_slice(b",\"state\":");
        delta.write_state(&mut out);
        out.extend_from_slice(b",\"metadata\":");
        delta.write_metadata(&mut out);
        write_token(&mut out, client_token);
        out.push(b'}');
        Some(out)
    }

    /// Payload of `update/documents`, and on the way the [`Document::state_bytes`].
    pub(crate) fn to_documents_json(
        &self,
        previous: &Document,
        client_token: Option<&str>,
        now_secs: u64,
    ) -> (Vec<u8>, usize) {
        let mut out = Vec::with_capacity(4096);
        out.extend_from_slice(b"{\"previous\":");
        previous.write_whole(&mut out);
        out.extend_from_slice(b",\"current\":");
        let state_bytes = self.write_whole(&mut out);
        end(&mut out, client_token, now_secs);
        (out, state_bytes)
    }

    /// Payload of `delete/accepted`.
    pub(crate) fn to_deleted_json(&self, client_token: Option<&str>, now_secs: u64) -> Vec<u8> {
        let mut out = b"{\"version\":".to_vec();
        write_json(&mut out, &self.version);
        end(&mut out, client_token, now_secs);
        out
    }

    /// The sections that are not empty, separated by a comma.
    fn write_sections(&self, out: &mut Vec<u8>, write: fn(&Tree, &mut Vec<u8>)) {
        if !self.desired.is_empty() {
            out.extend_from_slice(b"\"desired\":");
            write(&self.desired, out);
        }
        if !self.desired.is_empty() && !self.reported.is_empty() {
            out.push(b',');
        }
        if !self.reported.is_empty() {
            out.extend_from_slice(b"\"reported\":");
            write(&self.reported, out);
        }
    }

    /// Both sections, be they empty. Returns what [`Document::state_bytes`] does.
    fn write_whole(&self, out: &mut Vec<u8>) -> usize {
        out.extend_from_slice(b"{\"state\":");
        let start = out.len();
        self.write_both(out, Tree::write_state);
        let mut state_bytes = out.len() - start;
        // Empty sections do not count: without them, the comma is not needed either.
        for (name, section) in [("desired", &self.desired), ("reported", &self.reported)] {
            if section.is_empty() {
                state_bytes -= name.len() + "\"\":{}".len();
            }
        }
        if self.desired.is_empty() || self.reported.is_empty() {
            state_bytes -= ",".len();
        }
        out.extend_from_slice(b",\"metadata\":");
        self.write_both(out, Tree::write_metadata);
        out.extend_from_slice(b",\"version\":");
        write_json(out, &self.version);
        out.push(b'}');
        state_bytes
    }

    fn write_both(&self, out: &mut Vec<u8>, write: fn(&Tree, &mut Vec<u8>)) {
        out.extend_from_slice(b"{\"desired\":");
        write(&self.desired, out);
        out.extend_from_slice(b",\"reported\":");
        write(&self.reported, out);
        out.push(b'}');
    }
}

/// The members that all but the delta end with, and the brace.
fn end(out: &mut Vec<u8>, client_token: Option<&str>, now_secs: u64) {
    out.extend_from_slice(b",\"timestamp\":");
    write_json(out, &now_secs);
    write_token(out, client_token);
    out.push(b'}');
}

fn write_token(out: &mut Vec<u8>, client_token: Option<&str>) {
    if let Some(token) = client_token {
        out.extend_from_slice(b",\"clientToken\":");
        write_json(out, token);
    }
}

fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    write(&mut out);
    out
}
