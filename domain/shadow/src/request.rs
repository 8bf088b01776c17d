//! Requests to the shadow service, read and checked before anything is replicated.

use serde_json::{Map, Value};

use crate::{Limits, MAX_REQUEST_BYTES, Rejected};

/// A well-formed update request.
#[derive(Clone, Debug, PartialEq)]
pub struct Update {
    /// The version that the requester believes current.
    pub version: Option<u64>,
    /// Echoed in everything published about this request.
    pub client_token: Option<String>,
    /// `desired` and `reported`, each an object or `null`, neither necessarily there; or `null` in
    /// place of both.
    pub(crate) state: Value,
}

/// Refuses what is larger than [`MAX_REQUEST_BYTES`], whatever is in it.
pub fn check_size(payload: &[u8]) -> Result<(), Rejected> {
    if payload.len() <= MAX_REQUEST_BYTES { Ok(()) } else { Err(Rejected::too_large()) }
}

/// Reads an update request: UTF-8, JSON, shape, depth and size. Only its `version` remains to be
/// compared with what is stored.
pub fn parse_update(payload: &[u8], limits: &Limits) -> Result<Update, Rejected> {
    check_size(payload)?;
    let mut request = object(payload, limits)?;
    let client_token = client_token(&request, limits)?;
    let checked = state_and_version(&mut request, limits).and_then(|(state, version)| {
        // White space does not count, so it takes a second look.
        let fits = payload.len() <= limits.document_bytes
            || state.to_string().len() <= limits.document_bytes;
        if fits { Ok((state, version)) } else { Err(Rejected::too_large()) }
    });
    match checked {
        Ok((state, version)) => Ok(Update { version, client_token, state }),
        Err(rejected) => Err(rejected.with_token(client_token.as_deref())),
    }
}

/// Reads the payload of a get or delete, which is empty or an object, for its client token.
pub fn parse_request(payload: &[u8], limits: &Limits) -> Result<Option<String>, Rejected> {
    check_size(payload)?;
    if payload.trim_ascii().is_empty() {
        return Ok(None);
    }
    client_token(&object(payload, limits)?, limits)
}

fn object(payload: &[u8], limits: &Limits) -> Result<Map<String, Value>, Rejected> {
    let text = std::str::from_utf8(payload).map_err(|_| {
        Rejected::new(415, "Unsupported documented encoding; supported encoding is UTF-8")
    })?;
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        // The parser gives up long after any depth that is allowed.
        Err(error) if error.to_string().starts_with("recursion limit") => Err(too_deep(limits)),
        _ => Err(Rejected::new(400, "Invalid JSON")),
    }
}

fn client_token(request: &Map<String, Value>, limits: &Limits) -> Result<Option<String>, Rejected> {
    match request.get("clientToken") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(token)) if token.len() <= limits.client_token_bytes => {
            Ok(Some(token.clone()))
        }
        Some(_) => Err(Rejected::new(400, "Invalid clientToken")),
    }
}

fn state_and_version(
    request: &mut Map<String, Value>,
    limits: &Limits,
) -> Result<(Value, Option<u64>), Rejected> {
    let bad_request = |message: &str| Rejected::new(400, message);
    let state = match request.get_mut("state").map(Value::take) {
        Some(Value::Null) if limits.takes_empty => None,
        None | Some(Value::Null) => return Err(bad_request("Missing required node: state")),
        Some(Value::Object(state)) => Some(state),
        Some(_) => return Err(bad_request("State node must be an object")),
    };
    let version = match request.get("version") {
        None | Some(Value::Null) => None,
        Some(version) => Some(version.as_u64().ok_or_else(|| bad_request("Invalid version"))?),
    };
    for (section, patch) in state.iter().flatten() {
        match (section.as_str(), patch) {
            ("desired" | "reported", Value::Null) => {}
            ("desired" | "reported", Value::Object(patch)) => {
                let depth = limits.depth.min(Limits::MAX_DEPTH);
                for (key, value) in patch {
                    check(key, value, Within::Object, depth, limits)?;
                }
            }
            ("desired", _) => return Err(bad_request("Desired node must be an object")),
            ("reported", _) => return Err(bad_request("Reported node must be an object")),
            _ => return Err(invalid_node(section)),
        }
    }
    Ok((state.map_or(Value::Null, Value::Object), version))
}

#[derive(Clone, Copy, PartialEq)]
enum Within {
    Object,
    Array,
}

/// A `null` deletes a key, so it has no meaning once it is within an array. `levels` counts those
/// that are left, the one of `key` included.
fn check(
    key: &str,
    value: &Value,
    within: Within,
    levels: usize,
    limits: &Limits,
) -> Result<(), Rejected> {
    if levels == 0 {
        return Err(too_deep(limits));
    }
    match value {
        Value::Null if within == Within::Array => Err(invalid_node(key)),
        Value::Object(entries) => entries
            .iter()
            .try_for_each(|(key, value)| check(key, value, within, levels - 1, limits)),
        Value::Array(items) => {
            items.iter().try_for_each(|item| check(key, item, Within::Array, levels - 1, limits))
        }
        _ => Ok(()),
    }
}

fn invalid_node(key: &str) -> Rejected {
    Rejected::new(400, format!("State contains an invalid node: '{key}'"))
}

/// AWS's text kept the 6 when the limit grew to 8, and clients compare texts; a stricter limit is named.
fn too_deep(limits: &Limits) -> Rejected {
    let maximum = limits.depth.min(6);
    let text = format!("JSON contains too many levels of nesting; maximum is {maximum}");
    Rejected::new(400, text)
}
