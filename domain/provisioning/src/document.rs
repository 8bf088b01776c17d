//! Policy documents in templates: JSON with functions in it, or a text that is JSON once the
//! functions are carried out.

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use strict_json::Strict;

use crate::error::{TemplateError, wrong};
use crate::expression::{Evaluated, Expression, Names, is_call};
use crate::json::canonical;
use crate::scope::Scope;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Document {
    Text(Expression),
    Tree(Node),
}

/// A part of a document.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Node {
    Scalar(Value),
    Call(Expression),
    List(Vec<Node>),
    Object(Vec<(String, Node)>),
}

impl Document {
    pub(crate) fn parse(at: &str, json: &Value, names: Names<'_>) -> Result<Self, TemplateError> {
        if json.is_string() || is_call(json) {
            return Ok(Self::Text(Expression::parse(at, json, names)?));
        }
        Ok(Self::Tree(Node::parse(at, json, names)?))
    }

    /// The document: keys in order, no white space, so that equal ones are the same text.
    pub(crate) fn evaluate(&self, at: &str, scope: &Scope<'_>) -> Result<String, TemplateError> {
        let json = scope.in_document(|| match self {
            Self::Text(text) => {
                let text = text.text(at, scope)?;
                let parsed = serde_json::from_str(&text).map(|Strict(json)| json);
                parsed.map_err(|error| wrong(at, error.to_string()))
            }
            Self::Tree(tree) => tree.evaluate(at, scope),
        });
        Ok(canonical(&json?))
    }

    /// The name of a policy that is not given one.
    pub(crate) fn name_of(document: &str) -> String {
        hex::encode(Sha256::digest(document))
    }
}

impl Node {
    fn parse(at: &str, json: &Value, names: Names<'_>) -> Result<Self, TemplateError> {
        Ok(match json {
            _ if is_call(json) => Self::Call(Expression::parse(at, json, names)?),
            Value::Array(items) => {
                let items = items.iter().enumerate();
                let parsed = items.map(|(i, it)| Self::parse(&format!("{at}[{i}]"), it, names));
                Self::List(parsed.collect::<Result<_, _>>()?)
            }
            Value::Object(entries) => {
                let parsed = entries.iter().map(|(key, it)| {
                    Ok((key.clone(), Self::parse(&format!("{at}.{key}"), it, names)?))
                });
                Self::Object(parsed.collect::<Result<_, TemplateError>>()?)
            }
            scalar => Self::Scalar(scalar.clone()),
        })
    }

    fn evaluate(&self, at: &str, scope: &Scope<'_>) -> Result<Value, TemplateError> {
        Ok(match self {
            Self::Scalar(value) => value.clone(),
            Self::Call(expression) => match expression.evaluate(at, scope)? {
                Evaluated::Text(text) => text.into(),
                Evaluated::List(items) => items.into(),
            },
            Self::List(items) => {
                let items = items.iter().map(|item| item.evaluate(at, scope));
                Value::Array(items.collect::<Result<_, _>>()?)
            }
            Self::Object(entries) => {
                let entries = entries.iter().map(|(key, it)| {
                    Ok((key.clone(), it.evaluate(&format!("{at}.{key}"), scope)?))
                });
                Value::Object(entries.collect::<Result<Map<_, _>, TemplateError>>()?)
            }
        })
    }
}
