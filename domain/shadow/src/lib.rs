//! Device shadow documents: merge, delta, version.

/// Topic names of the shadow service.
pub mod topic {
    /// What a client asks of the shadow service by publishing to a topic name.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Operation {
        /// Read the document.
        Get,
        /// Merge into the document.
        Update,
        /// Remove the document.
        Delete,
    }

    /// A request topic, taken apart. Names are not validated beyond being one non-empty level.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Target<'a> {
        /// The thing whose shadow is meant.
        pub thing: &'a str,
        /// The shadow's name; `None` is the classic shadow.
        pub name: Option<&'a str>,
        /// What is asked.
        pub operation: Operation,
    }

    /// What the service publishes about a shadow.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Reply {
        /// `…/get|update|delete/accepted`
        Accepted(Operation),
        /// `…/get|update|delete/rejected`
        Rejected(Operation),
        /// `…/update/delta`
        Delta,
        /// `…/update/documents`
        Documents,
    }

    /// Takes `$aws/things/{thing}/shadow[/name/{name}]/{get|update|delete}` apart; `None` for any other topic name.
    pub fn parse(_name: &str) -> Option<Target<'_>> {
        unimplemented!()
    }

    /// The topic name on which `reply` is published.
    pub fn reply(_thing: &str, _name: Option<&str>, _reply: Reply) -> String {
        unimplemented!()
    }
}

/// How large a shadow may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The state as compact JSON, without metadata.
    pub document_bytes: usize,
    /// Levels of keys below `desired` and `reported`; the first key is level 1.
    pub depth: usize,
    /// Bytes of a client token.
    pub client_token_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { document_bytes: 8192, depth: 8, client_token_bytes: 64 }
    }
}

/// An update request that is well formed.
#[derive(Clone, Debug, PartialEq)]
pub struct Update {
    /// The version that the requester believes current.
    pub version: Option<u64>,
    /// Echoed in everything published about this request.
    pub client_token: Option<String>,
}

/// Why a shadow request was refused: the `rejected` message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// An HTTP status.
    pub code: u16,
    /// AWS's text for it.
    pub message: String,
    /// The request's token, if it could be read.
    pub client_token: Option<String>,
}

impl Rejected {
    /// The payload for the `rejected` topic. REST bodies are `code` and `message` only: see [`Rejected::to_rest_json`].
    pub fn to_json(&self, _now_secs: u64) -> Vec<u8> {
        unimplemented!()
    }

    /// The body of a REST error.
    pub fn to_rest_json(&self) -> Vec<u8> {
        unimplemented!()
    }
}

/// Reads an update request.
pub fn parse_update(_payload: &[u8], _limits: &Limits) -> Result<Update, Rejected> {
    unimplemented!()
}

/// Reads the payload of a get or delete (empty, or an object): its client token.
pub fn parse_request(_payload: &[u8], _limits: &Limits) -> Result<Option<String>, Rejected> {
    unimplemented!()
}

/// A shadow document: state, timestamps, version.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {}

/// What remains of a deleted shadow: a re-creation within 48 h goes on counting versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// It was deleted a while ago.
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

/// The record does not read back: it was written by something else or damaged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("shadow record: {0}")]
pub struct DecodeError(pub String);

impl Record {
    /// The bytes to store; the first is the version of the format.
    pub fn to_bytes(&self) -> Vec<u8> {
        unimplemented!()
    }

    /// Reads what [`Record::to_bytes`] wrote.
    pub fn from_bytes(_bytes: &[u8]) -> Result<Self, DecodeError> {
        unimplemented!()
    }

    /// A tombstone that no longer says anything may be dropped.
    pub fn is_forgotten(&self, _now_secs: u64) -> bool {
        unimplemented!()
    }
}

/// Merges an update into what is there. Replicas must use the same `limits` for the same command.
pub fn update(
    _record: Option<&Record>,
    _update: &Update,
    _now_secs: u64,
    _limits: &Limits,
) -> Result<Change, Rejected> {
    unimplemented!()
}

/// The payload of `get/accepted`. `label` is the shadow's name, or the thing's for the classic shadow.
pub fn get(
    _record: Option<&Record>,
    _label: &str,
    _client_token: Option<&str>,
    _now_secs: u64,
) -> Result<Vec<u8>, Rejected> {
    unimplemented!()
}

/// Deletes the document. `label` is as for [`get`].
pub fn delete(
    _record: Option<&Record>,
    _label: &str,
    _client_token: Option<&str>,
    _now_secs: u64,
) -> Result<Deletion, Rejected> {
    unimplemented!()
}

/// `[$a-zA-Z0-9:_-]+`, at most 64 bytes.
pub fn is_valid_name(_name: &str) -> bool {
    unimplemented!()
}
