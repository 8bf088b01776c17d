//! The functions of templates: `Ref` and `Fn::…`.
//!
//! Invariant: an expression that was parsed refers only to parameters and resources that the template
//! has. What an evaluation may produce is bounded by its [`Scope`].

use std::collections::BTreeMap;

use fleet::registry::{CertificateId, CertificateNames};
use serde_json::Value;

use crate::Parameters;
use crate::error::{TemplateError, expected, wrong};
use crate::scope::Scope;

/// What stands for a text or a list of texts.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Expression {
    Text(String),
    List(Vec<Expression>),
    Ref(Name),
    Join(Box<[Expression; 2]>),
    Select(Box<[Expression; 2]>),
    Split(Box<[Expression; 2]>),
    FindInMap(Box<[Expression; 3]>),
    Sub(Vec<Piece>, BTreeMap<String, Expression>),
}

/// What a name means.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Name {
    Parameter(String),
    Resource(String),
}

/// What begins so is known to the node, and not taken from a device or a caller.
pub(crate) const IMPLICIT_PREFIX: &str = "AWS::";
const CERTIFICATE_PREFIX: &str = "AWS::IoT::Certificate::";
const CERTIFICATE_ID: &str = "AWS::IoT::Certificate::Id";

impl Name {
    /// The id of the certificate, which the node knows.
    pub(crate) fn certificate_id() -> Self {
        Self::Parameter(CERTIFICATE_ID.to_owned())
    }

    /// Whether this is a parameter that the node takes from the certificate.
    pub(crate) fn is_of_certificate(name: &str) -> bool {
        name.strip_prefix(CERTIFICATE_PREFIX).is_some_and(|name| {
            name == "Id" || SUBJECT_PARAMETERS.iter().any(|(parameter, _)| *parameter == name)
        })
    }
}

/// Parameters, behind `AWS::IoT::Certificate::`, and the attributes of the certificate's subject that
/// they stand for.
const SUBJECT_PARAMETERS: &[(&str, &str)] = &[
    ("Country", "Country"),
    ("Organization", "Organization"),
    ("OrganizationalUnit", "OrganizationalUnit"),
    ("DistinguishedNameQualifier", "DistinguishedNameQualifier"),
    ("StateName", "State"),
    ("CommonName", "CommonName"),
    ("SerialNumber", "SerialNumber"),
];

/// What the node knows of a certificate: its id, and its subject's first attribute of each kind.
pub fn certificate_parameters(id: &CertificateId, names: &CertificateNames) -> Parameters {
    let subject = SUBJECT_PARAMETERS.iter().filter_map(|(parameter, attribute)| {
        let value = names.subject.get(*attribute)?.first()?;
        Some((format!("{CERTIFICATE_PREFIX}{parameter}"), value.clone()))
    });
    subject.chain([(CERTIFICATE_ID.to_owned(), id.to_string())]).collect()
}

/// A part of the text of `Fn::Sub`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Piece {
    Literal(String),
    /// One that `Fn::Sub` brings itself.
    Variable(String),
    Ref(Name),
}

/// What an expression stands for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Evaluated {
    Text(String),
    List(Vec<String>),
}

/// Finds out what a name means; none if nothing has it.
pub(crate) type Names<'a> = &'a dyn Fn(&str) -> Option<Name>;

/// The one function that an object calls, if it does.
fn call(json: &Value) -> Option<(&str, &Value)> {
    let mut entries = json.as_object()?.iter();
    let (name, argument) = entries.next()?;
    (entries.next().is_none() && (name == "Ref" || name.starts_with("Fn::")))
        .then_some((name, argument))
}

/// Whether an object calls a function, and is not a part of a document.
pub(crate) fn is_call(json: &Value) -> bool {
    call(json).is_some()
}

impl Expression {
    pub(crate) fn parse(at: &str, json: &Value, names: Names<'_>) -> Result<Self, TemplateError> {
        match json {
            Value::String(text) => Ok(Self::Text(text.clone())),
            Value::Number(number) => Ok(Self::Text(number.to_string())),
            Value::Bool(value) => Ok(Self::Text(value.to_string())),
            Value::Array(items) => {
                let items = items.iter().enumerate();
                let parsed = items.map(|(i, it)| Self::parse(&format!("{at}[{i}]"), it, names));
                Ok(Self::List(parsed.collect::<Result<_, _>>()?))
            }
            Value::Null => Err(expected(at, "a text or a function", json)),
            Value::Object(_) => {
                let (function, argument) = call(json)
                    .ok_or_else(|| expected(at, "a text, a Ref or a Fn::… alone", json))?;
                Self::parse_call(&format!("{at}.{function}"), function, argument, names)
            }
        }
    }

    fn parse_call(
        at: &str,
        function: &str,
        argument: &Value,
        names: Names<'_>,
    ) -> Result<Self, TemplateError> {
        match function {
            "Ref" => {
                let name = argument.as_str().ok_or_else(|| expected(at, "a name", argument))?;
                Ok(Self::Ref(find(at, name, names)?))
            }
            "Fn::Join" => Ok(Self::Join(arguments(at, argument, names)?)),
            "Fn::Select" => Ok(Self::Select(arguments(at, argument, names)?)),
            "Fn::Split" => Ok(Self::Split(arguments(at, argument, names)?)),
            "Fn::FindInMap" => Ok(Self::FindInMap(arguments(at, argument, names)?)),
            "Fn::Sub" => Self::parse_sub(at, argument, names),
            _ => Err(wrong(at, "there is no such function")),
        }
    }

    /// `"…${Name}…"`, or that and an object of further names; `${!Name}` is `${Name}` literally.
    fn parse_sub(at: &str, argument: &Value, names: Names<'_>) -> Result<Self, TemplateError> {
        let what = "a text, or a list of a text and an object";
        let (text, given) = match argument {
            Value::String(text) => (text, None),
            Value::Array(items) => match &items[..] {
                [Value::String(text), Value::Object(given)] => (text, Some(given)),
                _ => return Err(expected(at, what, argument)),
            },
            _ => return Err(expected(at, what, argument)),
        };
        let given = given.into_iter().flatten().map(|(name, value)| {
            Ok((name.clone(), Self::parse(&format!("{at}.{name}"), value, names)?))
        });
        let given = given.collect::<Result<BTreeMap<_, _>, TemplateError>>()?;
        let mut pieces = Vec::new();
        let mut rest = text.as_str();
        while let Some((before, variable)) = rest.split_once("${") {
            pieces.push(Piece::Literal(before.to_owned()));
            let Some((name, behind)) = variable.split_once('}') else {
                return Err(wrong(at, "a ${ has no } behind it"));
            };
            rest = behind;
            pieces.push(match name.strip_prefix('!') {
                Some(literal) => Piece::Literal(format!("${{{literal}}}")),
                None if given.contains_key(name) => Piece::Variable(name.to_owned()),
                None => Piece::Ref(find(at, name, names)?),
            });
        }
        pieces.push(Piece::Literal(rest.to_owned()));
        Ok(Self::Sub(pieces, given))
    }

    pub(crate) fn text(&self, at: &str, scope: &Scope<'_>) -> Result<String, TemplateError> {
        match self.evaluate(at, scope)? {
            Evaluated::Text(text) => Ok(text),
            Evaluated::List(_) => Err(wrong(at, "expected a text, found a list")),
        }
    }

    /// A text counts as a list of one.
    pub(crate) fn list(&self, at: &str, scope: &Scope<'_>) -> Result<Vec<String>, TemplateError> {
        match self.evaluate(at, scope)? {
            Evaluated::Text(text) => Ok(vec![text]),
            Evaluated::List(items) => Ok(items),
        }
    }

    pub(crate) fn evaluate(&self, at: &str, scope: &Scope<'_>) -> Result<Evaluated, TemplateError> {
        let evaluated = match self {
            Self::Text(text) => Evaluated::Text(text.clone()),
            Self::List(items) => {
                let items = items.iter().map(|item| item.text(at, scope));
                Evaluated::List(items.collect::<Result<_, _>>()?)
            }
            Self::Ref(name) => Evaluated::Text(scope.value_of(at, name)?),
            Self::Join(arguments) => {
                let [delimiter, items] = &**arguments;
                let (delimiter, items) = (delimiter.text(at, scope)?, items.list(at, scope)?);
                scope.spend(at, delimiter.len() * items.len())?;
                Evaluated::Text(items.join(&delimiter))
            }
            Self::Select(arguments) => {
                let [index, items] = &**arguments;
                let (index, items) = (index.text(at, scope)?, items.list(at, scope)?);
                let item = index.parse::<usize>().ok().and_then(|index| items.get(index));
                Evaluated::Text(item.cloned().ok_or_else(|| {
                    let problem = format!("a list of {} has no item {index:?}", items.len());
                    wrong(at, problem)
                })?)
            }
            Self::Split(arguments) => {
                let [delimiter, text] = &**arguments;
                let (delimiter, text) = (delimiter.text(at, scope)?, text.text(at, scope)?);
                if delimiter.is_empty() {
                    return Err(wrong(at, "the delimiter is empty"));
                }
                Evaluated::List(text.split(&delimiter).map(ToOwned::to_owned).collect())
            }
            Self::FindInMap(arguments) => {
                let [map, first, second] = &**arguments;
                let keys = [map.text(at, scope)?, first.text(at, scope)?, second.text(at, scope)?];
                Evaluated::Text(scope.mapped(at, &keys)?)
            }
            Self::Sub(pieces, given) => {
                let mut text = String::new();
                for piece in pieces {
                    let before = text.len();
                    match piece {
                        Piece::Literal(literal) => text.push_str(literal),
                        Piece::Variable(name) => text.push_str(&given[name].text(at, scope)?),
                        Piece::Ref(name) => text.push_str(&scope.value_of(at, name)?),
                    }
                    scope.spend(at, text.len() - before)?;
                }
                Evaluated::Text(text)
            }
        };
        let bytes = match &evaluated {
            Evaluated::Text(text) => text.len(),
            Evaluated::List(items) => items.iter().map(|item| item.len() + 1).sum(),
        };
        scope.spend(at, bytes)?;
        Ok(evaluated)
    }
}

fn find(at: &str, name: &str, names: Names<'_>) -> Result<Name, TemplateError> {
    names(name).ok_or_else(|| wrong(at, format!("no parameter or resource is called {name:?}")))
}

fn arguments<const N: usize>(
    at: &str,
    argument: &Value,
    names: Names<'_>,
) -> Result<Box<[Expression; N]>, TemplateError> {
    let what = || expected(at, &format!("a list of {N} arguments"), argument);
    let items = argument.as_array().filter(|items| items.len() == N).ok_or_else(what)?;
    let parsed = items.iter().map(|item| Expression::parse(at, item, names));
    let parsed: Vec<_> = parsed.collect::<Result<_, _>>()?;
    parsed.try_into().map(Box::new).map_err(|_| what())
}
