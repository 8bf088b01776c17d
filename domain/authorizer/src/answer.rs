//! What an authorizer says, read strictly.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use serde_json::{Map, Value};
use strict_json::Strict;
use thiserror::Error;

/// What `disconnectAfterInSeconds` and `refreshAfterInSeconds` may be.
pub const TIMES_SECS: RangeInclusive<u64> = 300..=86_400;
const PRINCIPAL_ID_CHARS: RangeInclusive<usize> = 1..=128;
const DOCUMENTS: usize = 10;

/// Why an answer is not one: where, and what is wrong. Says nothing of what it is about.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{at}: {problem}")]
pub struct InvalidAnswer {
    /// Such as `policyDocuments[1]`.
    pub at: String,
    /// Such as `expected a text`.
    pub problem: String,
}

/// What an authorizer has decided.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// The client is not let in.
    NotAuthenticated,
    /// It is let in.
    Granted(Grant),
}

/// What a client that is let in may do, and for how long.
#[derive(Clone, PartialEq)]
pub struct Grant {
    /// Who the client is.
    pub principal_id: String,
    /// Its policies, to be compiled.
    pub documents: Vec<Arc<policy::Document>>,
    /// The same as they came.
    pub texts: Vec<String>,
    /// Policy variables beside those of the connection.
    pub variables: BTreeMap<String, Vec<String>>,
    /// How long a connection may last, in seconds.
    pub disconnect_after_secs: u64,
    /// After how many seconds the authorizer is asked again; never, when absent.
    pub refresh_after_secs: Option<u64>,
}

/// Without who the client is, and what else may be secret.
impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grant").finish_non_exhaustive()
    }
}

impl Answer {
    /// Reads the body of an answer.
    pub fn parse(body: &[u8]) -> Result<Self, InvalidAnswer> {
        let Strict(body) = serde_json::from_slice(body).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            let problem = if error.is_data() { "a member is there twice" } else { "no JSON" };
            invalid("the answer", format!("{problem} at line {line}, column {column}"))
        })?;
        let Value::Object(body) = body else {
            return Err(invalid("the answer", "expected an object"));
        };
        match body.get("isAuthenticated") {
            Some(Value::Bool(true)) => {}
            Some(Value::Bool(false)) => return Ok(Self::NotAuthenticated),
            _ => return Err(invalid("isAuthenticated", "expected true or false")),
        }
        let (texts, documents) = documents(body.get("policyDocuments"))?.into_iter().unzip();
        Ok(Self::Granted(Grant {
            principal_id: principal_id(body.get("principalId"))?,
            documents,
            texts,
            variables: BTreeMap::new(),
            disconnect_after_secs: seconds(&body, "disconnectAfterInSeconds")?,
            refresh_after_secs: Some(seconds(&body, "refreshAfterInSeconds")?),
        }))
    }
}

fn invalid(at: impl Into<String>, problem: impl Into<String>) -> InvalidAnswer {
    InvalidAnswer { at: at.into(), problem: problem.into() }
}

fn principal_id(value: Option<&Value>) -> Result<String, InvalidAnswer> {
    let id = value.and_then(Value::as_str).unwrap_or_default();
    let is_valid =
        PRINCIPAL_ID_CHARS.contains(&id.len()) && id.bytes().all(|it| it.is_ascii_alphanumeric());
    let expected = || invalid("principalId", "expected 1 to 128 characters of [a-zA-Z0-9]");
    if is_valid { Ok(id.to_owned()) } else { Err(expected()) }
}

fn seconds(body: &Map<String, Value>, name: &str) -> Result<u64, InvalidAnswer> {
    let seconds = body.get(name).and_then(Value::as_u64).filter(|it| TIMES_SECS.contains(it));
    seconds.ok_or_else(|| {
        let (min, max) = (TIMES_SECS.start(), TIMES_SECS.end());
        invalid(name, format!("expected a whole number from {min} to {max}"))
    })
}

/// Each document as text and parsed. It comes as a text, or as the object itself.
fn documents(value: Option<&Value>) -> Result<Vec<(String, Arc<policy::Document>)>, InvalidAnswer> {
    let Some(Value::Array(documents)) = value else {
        return Err(invalid("policyDocuments", "expected a list"));
    };
    if documents.len() > DOCUMENTS {
        let problem = format!("{} documents, at most {DOCUMENTS} are allowed", documents.len());
        return Err(invalid("policyDocuments", problem));
    }
    let parsed = documents.iter().enumerate().map(|(index, document)| {
        let at = || format!("policyDocuments[{index}]");
        let text = match document {
            Value::String(text) => text.clone(),
            Value::Object(_) => document.to_string(),
            _ => return Err(invalid(at(), "expected a text or an object")),
        };
        policy::check_length(&text).map_err(|error| invalid(at(), error.problem))?;
        // Its problem quotes the document.
        let parsed = policy::Document::parse(&text);
        let parsed = parsed.map_err(|error| invalid(at(), error.location))?;
        Ok((text, Arc::new(parsed)))
    });
    parsed.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn document() -> Value {
        json!({ "Version": "2012-10-17", "Statement": [
            { "Effect": "Allow", "Action": "iot:*", "Resource": "*" }
        ]})
    }

    fn granted() -> Value {
        json!({
            "isAuthenticated": true,
            "principalId": "abc123",
            "disconnectAfterInSeconds": 86_400,
            "refreshAfterInSeconds": 300,
            "policyDocuments": [document().to_string(), document()],
            "something": "else",
        })
    }

    fn with(name: &str, value: Value) -> Value {
        let mut answer = granted();
        answer[name] = value;
        answer
    }

    fn without(name: &str) -> Value {
        let mut answer = granted();
        answer.as_object_mut().unwrap().shift_remove(name);
        answer
    }

    #[test]
    fn an_answer_that_is_whole_is_read() {
        let read = |answer: Value| Answer::parse(answer.to_string().as_bytes()).unwrap();
        let Answer::Granted(grant) = read(granted()) else { panic!("not granted") };
        assert_eq!(grant.principal_id, "abc123");
        assert_eq!(grant.documents[0], grant.documents[1]);
        assert_eq!(grant.texts[0], document().to_string());
        assert_eq!((grant.disconnect_after_secs, grant.refresh_after_secs), (86_400, Some(300)));
        assert!(!format!("{grant:?}").contains("abc123"));
        for answer in [
            json!({ "isAuthenticated": false }),
            with("isAuthenticated", false.into()),
            json!({ "isAuthenticated": false, "principalId": 7 }),
        ] {
            assert_eq!(read(answer), Answer::NotAuthenticated);
        }
        for answer in [
            with("principalId", "x".repeat(128).into()),
            with("disconnectAfterInSeconds", 300.into()),
            with("policyDocuments", json!([])),
            with("policyDocuments", json!(vec![document(); 10])),
        ] {
            assert!(matches!(read(answer.clone()), Answer::Granted(_)), "{answer}");
        }
    }

    #[test]
    fn an_answer_with_a_member_twice_lets_nobody_in() {
        let whole = with("policyDocuments", json!([document()])).to_string();
        assert!(matches!(Answer::parse(whole.as_bytes()), Ok(Answer::Granted(_))));
        for (once, twice) in [
            (r#""isAuthenticated":true"#, r#""isAuthenticated":false,"isAuthenticated":true"#),
            (r#""isAuthenticated":true"#, r#""isAuthenticated":true,"isAuthenticated":true"#),
            (r#""isAuthenticated":true"#, r#""isAuthenticated":true,"\u0069sAuthenticated":true"#),
            (r#""something":"else""#, r#""something":"else","principalId":"other""#),
            (r#""something":"else""#, r#""something":[{"a":1,"a":1}]"#),
            (r#""Effect":"Allow""#, r#""Effect":"Deny","Effect":"Allow""#),
        ] {
            assert!(whole.contains(once), "{once}");
            let answer = whole.replacen(once, twice, 1);
            let error = Answer::parse(answer.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with("the answer: a member is there twice at line 1"), "{error}");
        }
    }

    #[test]
    fn an_answer_that_is_not_whole_says_where() {
        for (answer, at) in [
            (json!([]), "the answer"),
            (json!({}), "isAuthenticated"),
            (with("isAuthenticated", "true".into()), "isAuthenticated"),
            (with("isAuthenticated", 1.into()), "isAuthenticated"),
            (without("principalId"), "principalId"),
            (with("principalId", "".into()), "principalId"),
            (with("principalId", "a-b".into()), "principalId"),
            (with("principalId", "ä".into()), "principalId"),
            (with("principalId", "x".repeat(129).into()), "principalId"),
            (without("disconnectAfterInSeconds"), "disconnectAfterInSeconds"),
            (with("disconnectAfterInSeconds", 299.into()), "disconnectAfterInSeconds"),
            (with("disconnectAfterInSeconds", 86_401.into()), "disconnectAfterInSeconds"),
            (with("disconnectAfterInSeconds", "300".into()), "disconnectAfterInSeconds"),
            (with("disconnectAfterInSeconds", 300.5.into()), "disconnectAfterInSeconds"),
            (with("refreshAfterInSeconds", (-300).into()), "refreshAfterInSeconds"),
            (without("policyDocuments"), "policyDocuments"),
            (with("policyDocuments", document()), "policyDocuments"),
            (with("policyDocuments", json!(vec![document(); 11])), "policyDocuments"),
            (with("policyDocuments", json!([document(), 1])), "policyDocuments[1]"),
            (with("policyDocuments", json!(["{}"])), "policyDocuments[0]"),
            (with("policyDocuments", json!(["x".repeat(2049)])), "policyDocuments[0]"),
        ] {
            let error = Answer::parse(answer.to_string().as_bytes()).unwrap_err();
            assert_eq!(error.at, at, "{answer}");
        }
        let answer = with("policyDocuments", json!([" x".repeat(2049)]));
        let error = Answer::parse(answer.to_string().as_bytes()).unwrap_err();
        let expected =
            "policyDocuments[0]: 2049 characters without white space, at most 2048 are allowed";
        assert_eq!(error.to_string(), expected);
        for body in [&b""[..], b"{", b"\xff", &b"[".repeat(100_000)] {
            assert_eq!(Answer::parse(body).unwrap_err().at, "the answer");
        }
    }
}
