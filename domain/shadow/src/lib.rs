//! Device shadow documents: merge, delta, version.
//!
//! Everything here is a function of its arguments: the caller brings the stored [`Record`], the
//! request's payload and the time, and gets back what to store and what to publish. Who may ask,
//! how often, and where the bytes live is decided elsewhere.
//!
//! Invariant: a document holds no `null`, no object that deletions have emptied, and each of its leaves
//! knows when it was last mentioned by an update.

mod document;
mod record;
mod rejected;
mod request;
pub mod topic;
mod tree;

#[cfg(test)]
mod tests;

pub use document::Document;
pub use record::{
    Change, DecodeError, Deletion, REMEMBERED_SECS, Record, Tombstone, delete, get, update,
};
pub use rejected::Rejected;
pub use request::{Update, check_size, parse_request, parse_update};

/// How large a shadow may be, and what an update may ask for.
///
/// The limits take part in merging, so replicas that apply the same command must use the same ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The state as compact JSON, without metadata.
    pub document_bytes: usize,
    /// Levels of nesting in `desired` and `reported`; a key of the section itself is on level 1, and
    /// an array counts as a level. More than [`Limits::MAX_DEPTH`] is taken as that.
    pub depth: usize,
    /// Bytes of a client token.
    pub client_token_bytes: usize,
    /// Whether an update may have nothing in it: an object that comes empty is kept, and a `null` as
    /// state empties the shadow. Else such objects are dropped, and such updates refused.
    pub takes_empty: bool,
}

impl Limits {
    /// Deeper documents could not be read back: the JSON parser stops at 128 levels.
    pub const MAX_DEPTH: usize = 100;
}

impl Default for Limits {
    fn default() -> Self {
        Self { document_bytes: 8192, depth: 8, client_token_bytes: 64, takes_empty: true }
    }
}

/// Bytes of a request, white space included; AWS IoT takes no larger publication. A request becomes many
/// times its size while it is read.
pub const MAX_REQUEST_BYTES: usize = 128 * 1024;

/// Bytes of a shadow's name.
pub const MAX_NAME_BYTES: usize = 64;

/// Whether this can be the name of a named shadow: `[$a-zA-Z0-9:_-]+`, at most [`MAX_NAME_BYTES`].
pub fn is_valid_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"$:_-".contains(&byte);
    (1..=MAX_NAME_BYTES).contains(&name.len()) && name.bytes().all(allowed)
}
