//! What is stored for a shadow, and the three operations on it.

use serde::{Deserialize, Serialize};

use crate::tree::write_json;
use crate::{Document, Limits, Rejected, Update};

/// How long the version of a deleted shadow is remembered.
pub const REMEMBERED_SECS: u64 = 48 * 3600;

/// What remains of a deleted shadow, so that a new one under its name goes on counting versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tombstone {
    /// The version of the document when it was deleted.
    pub version: u64,
    /// Unix seconds.
    pub deleted_at: u64,
}

/// What the replicated state keeps under one shadow's name.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// The shadow exists.
    Present(Document),
    /// It was deleted.
    Deleted(Tombstone),
}

/// An accepted update.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// What to keep as [`Record::Present`].
    pub document: Document,
    /// Payload of `update/accepted` and of the REST response.
    pub accepted: Vec<u8>,
    /// Payload of `update/delta`, when desired and reported differ.
    pub delta: Option<Vec<u8>>,
    /// Payload of `update/documents`.
    pub documents: Vec<u8>,
}

/// An accepted deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deletion {
    /// What to keep as [`Record::Deleted`].
    pub tombstone: Tombstone,
    /// Payload of `delete/accepted` and of the REST response.
    pub accepted: Vec<u8>,
}

/// Merges an update into what is there.
pub fn update(
    record: Option<&Record>,
    update: &Update,
    now_secs: u64,
    limits: &Limits,
) -> Result<Change, Rejected> {
    let token = update.client_token.as_deref();
    let created;
    let (previous, version) = match record {
        Some(Record::Present(document)) => (document, document.version()),
        // To the requester a deleted shadow is a missing one, whatever number comes next.
        _ => {
            created = Document::empty(remembered_version(record, now_secs));
            (&created, 0)
        }
    };
    if update.version.is_some_and(|expected| expected != version) {
        return Err(Rejected::version_conflict().with_token(token));
    }
    let document = previous.merged(update, now_secs, limits);
    let (documents, state_bytes) = document.to_documents_json(previous, token, now_secs);
    debug_assert_eq!(state_bytes, document.state_bytes());
    if state_bytes > limits.document_bytes {
        return Err(Rejected::too_large().with_token(token));
    }
    Ok(Change {
        accepted: document.to_accepted_json(update, now_secs),
        delta: document.to_delta_json(token, now_secs),
        documents,
        document,
    })
}

/// The payload of `get/accepted` and of the REST response. `label` is the shadow's name, or the
/// thing's for the classic shadow.
pub fn get(
    record: Option<&Record>,
    label: &str,
    client_token: Option<&str>,
    now_secs: u64,
) -> Result<Vec<u8>, Rejected> {
    match record {
        Some(Record::Present(document)) => Ok(document.to_get_json(client_token, now_secs)),
        _ => Err(Rejected::no_shadow(label).with_token(client_token)),
    }
}

/// Deletes the document. `label` is as for [`get`].
pub fn delete(
    record: Option<&Record>,
    label: &str,
    client_token: Option<&str>,
    now_secs: u64,
) -> Result<Deletion, Rejected> {
    let Some(Record::Present(document)) = record else {
        return Err(Rejected::no_shadow(label).with_token(client_token));
    };
    let tombstone = Tombstone { version: document.version(), deleted_at: now_secs };
    let accepted = document.to_deleted_json(client_token, now_secs);
    Ok(Deletion { tombstone, accepted })
}

fn remembered_version(record: Option<&Record>, now_secs: u64) -> u64 {
    match record {
        Some(Record::Deleted(tombstone)) if !tombstone.is_forgotten(now_secs) => tombstone.version,
        _ => 0,
    }
}

impl Tombstone {
    /// After [`REMEMBERED_SECS`] it says nothing any more and may be dropped.
    pub fn is_forgotten(&self, now_secs: u64) -> bool {
        now_secs.saturating_sub(self.deleted_at) > REMEMBERED_SECS
    }
}

/// Bytes that are no [`Record`]: written by a later version, or damaged.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The first byte names a format that is not known here.
    #[error("shadow record in format {0:?}, expected {FORMAT}")]
    Format(Option<u8>),
    /// The second byte says neither document nor tombstone.
    #[error("shadow record of kind {0:?}")]
    Kind(Option<u8>),
    /// The rest is not what the first two bytes announce.
    #[error("shadow record: {0}")]
    Json(#[from] serde_json::Error),
}

/// Grows when the stored form changes.
const FORMAT: u8 = 1;
const DOCUMENT: u8 = b'D';
const TOMBSTONE: u8 = b'T';

impl Record {
    /// The bytes to store: format, kind, JSON.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        out.push(FORMAT);
        match self {
            Self::Present(document) => {
                out.push(DOCUMENT);
                write_json(&mut out, document);
            }
            Self::Deleted(tombstone) => {
                out.push(TOMBSTONE);
                write_json(&mut out, tombstone);
            }
        }
        out
    }

    /// Reads what [`Record::to_bytes`] wrote.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        match bytes {
            [FORMAT, DOCUMENT, json @ ..] => Ok(Self::Present(serde_json::from_slice(json)?)),
            [FORMAT, TOMBSTONE, json @ ..] => Ok(Self::Deleted(serde_json::from_slice(json)?)),
            [FORMAT, rest @ ..] => Err(DecodeError::Kind(rest.first().copied())),
            _ => Err(DecodeError::Format(bytes.first().copied())),
        }
    }

    /// Whether it says nothing any more, as a tombstone after [`REMEMBERED_SECS`], and may be dropped.
    pub fn is_forgotten(&self, now_secs: u64) -> bool {
        matches!(self, Self::Deleted(tombstone) if tombstone.is_forgotten(now_secs))
    }

    /// The document, unless it was deleted.
    pub fn document(&self) -> Option<&Document> {
        match self {
            Self::Present(document) => Some(document),
            Self::Deleted(_) => None,
        }
    }
}
