//! Policy documents: from JSON to statements, with errors that say where.

use crate::action::ActionSet;
use crate::condition::{Condition, Operator};
use crate::json::Json;
use crate::template::Template;

/// Characters of a document, white space not counted.
pub const MAX_DOCUMENT_CHARS: usize = 2048;

/// Why a text is not a policy document: what is wrong and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{location}: {problem}")]
pub struct MalformedPolicy {
    /// Such as `Statement[1].Effect`.
    pub location: String,
    /// Such as `expected Allow or Deny, found "Alow"`.
    pub problem: String,
}

/// A parsed policy document.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    pub(crate) statements: Vec<Statement>,
}

/// One statement of a document.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Statement {
    /// What its author calls it.
    pub(crate) sid: Option<Box<str>>,
    pub(crate) effect: Effect,
    pub(crate) actions: ActionSet,
    pub(crate) resources: Resources,
    pub(crate) conditions: Vec<Condition>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Effect {
    Allow,
    Deny,
}

/// What a statement speaks of: one of these, or anything but these.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Resources {
    These(Vec<Template>),
    Except(Vec<Template>),
}

/// Refuses documents of more than [`MAX_DOCUMENT_CHARS`], whatever is in them.
pub fn check_length(json: &str) -> Result<(), MalformedPolicy> {
    let chars = json.chars().filter(|it| !it.is_whitespace()).count();
    if chars <= MAX_DOCUMENT_CHARS {
        return Ok(());
    }
    let problem =
        format!("{chars} characters without white space, at most {MAX_DOCUMENT_CHARS} are allowed");
    Err(malformed("document", problem))
}

impl Document {
    /// Parses a document of at most [`MAX_DOCUMENT_CHARS`].
    pub fn parse(json: &str) -> Result<Document, MalformedPolicy> {
        check_length(json)?;
        let json =
            serde_json::from_str(json).map_err(|it| malformed("document", it.to_string()))?;
        document(json)
    }

    /// Whether decisions depend on [`Variables`](crate::Variables). When no document of a principal
    /// does, one [`Compiled`](crate::Compiled) serves all its connections.
    pub fn uses_variables(&self) -> bool {
        self.statements.iter().any(|statement| {
            let (Resources::These(templates) | Resources::Except(templates)) = &statement.resources;
            templates.iter().any(Template::uses_variables)
                || statement.conditions.iter().any(Condition::uses_variables)
        })
    }
}

fn malformed(location: &str, problem: impl Into<String>) -> MalformedPolicy {
    MalformedPolicy { location: location.to_owned(), problem: problem.into() }
}

fn expected(location: &str, what: &str, found: &Json) -> MalformedPolicy {
    malformed(location, format!("expected {what}, found {}", found.describe()))
}

/// The entries of an object with keys that are known, each at most once.
fn entries(
    location: &str,
    json: Json,
    known: &[&str],
) -> Result<Vec<(String, Json)>, MalformedPolicy> {
    let Json::Object(entries) = json else { return Err(expected(location, "an object", &json)) };
    for (index, (key, _)) in entries.iter().enumerate() {
        if entries[..index].iter().any(|(earlier, _)| earlier == key) {
            return Err(malformed(location, format!("key {key:?} is there twice")));
        }
        if !known.is_empty() && !known.contains(&key.as_str()) {
            return Err(malformed(location, format!("unknown key {key:?}")));
        }
    }
    Ok(entries)
}

fn document(json: Json) -> Result<Document, MalformedPolicy> {
    let mut statements = None;
    for (key, value) in entries("document", json, &["Version", "Id", "Statement"])? {
        match (key.as_str(), value) {
            ("Version", Json::String(it)) if it == "2012-10-17" || it == "2008-10-17" => {}
            ("Version", other) => return Err(expected("Version", "\"2012-10-17\"", &other)),
            ("Id", Json::String(_)) => {}
            ("Id", other) => return Err(expected("Id", "a string", &other)),
            (_, Json::Array(items)) => {
                let indexed = items.into_iter().enumerate();
                let parsed = indexed.map(|(i, item)| statement(&format!("Statement[{i}]"), item));
                statements = Some(parsed.collect::<Result<Vec<_>, _>>()?);
            }
            (_, single) => statements = Some(vec![statement("Statement", single)?]),
        }
    }
    match statements {
        Some(statements) if !statements.is_empty() => Ok(Document { statements }),
        Some(_) => Err(malformed("Statement", "expected at least one statement")),
        None => Err(malformed("document", "key \"Statement\" is missing")),
    }
}

fn statement(at: &str, json: Json) -> Result<Statement, MalformedPolicy> {
    const KEYS: [&str; 7] =
        ["Sid", "Effect", "Action", "NotAction", "Resource", "NotResource", "Condition"];
    let (mut sid, mut effect, mut actions, mut resources) = (None, None, None, None);
    let mut conditions = Vec::new();
    for (key, value) in entries(at, json, &KEYS)? {
        let at_key = format!("{at}.{key}");
        match key.as_str() {
            "Sid" => match value {
                Json::String(text) => sid = Some(text.into()),
                other => return Err(expected(&at_key, "a string", &other)),
            },
            "Effect" => effect = Some(parse_effect(&at_key, &value)?),
            "Action" | "NotAction" if actions.is_some() => {
                return Err(malformed(at, "has both Action and NotAction"));
            }
            "Action" => actions = Some(parse_actions(&at_key, value)?),
            "NotAction" => actions = Some(parse_actions(&at_key, value)?.complement()),
            "Resource" | "NotResource" if resources.is_some() => {
                return Err(malformed(at, "has both Resource and NotResource"));
            }
            "Resource" => resources = Some(Resources::These(parse_resources(&at_key, value)?)),
            "NotResource" => resources = Some(Resources::Except(parse_resources(&at_key, value)?)),
            _ => conditions = parse_conditions(&at_key, value)?,
        }
    }
    let missing = |key: &str| malformed(at, format!("key {key:?} is missing"));
    Ok(Statement {
        sid,
        effect: effect.ok_or_else(|| missing("Effect"))?,
        actions: actions.ok_or_else(|| missing("Action"))?,
        resources: resources.ok_or_else(|| missing("Resource"))?,
        conditions,
    })
}

fn parse_effect(at: &str, json: &Json) -> Result<Effect, MalformedPolicy> {
    match json {
        Json::String(text) if text == "Allow" => Ok(Effect::Allow),
        Json::String(text) if text == "Deny" => Ok(Effect::Deny),
        other => Err(expected(at, "Allow or Deny", other)),
    }
}

fn parse_actions(at: &str, json: Json) -> Result<ActionSet, MalformedPolicy> {
    let mut set = ActionSet::default();
    for (at, text) in strings(at, json)? {
        let is_name = |part: &str| {
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-*?".contains(&byte);
            !part.is_empty() && part.bytes().all(allowed)
        };
        let is_valid = text == "*"
            || text.split_once(':').is_some_and(|(vendor, name)| is_name(vendor) && is_name(name));
        if !is_valid {
            let problem = format!("expected an action such as iot:Publish, found {text:?}");
            return Err(malformed(&at, problem));
        }
        set = set.union(ActionSet::matching(&text));
    }
    Ok(set)
}

fn parse_resources(at: &str, json: Json) -> Result<Vec<Template>, MalformedPolicy> {
    let mut resources = Vec::new();
    for (at, text) in strings(at, json)? {
        // A wildcard may stand for as much of the front as it likes.
        let front = text.find(['*', '?']).map_or(text.as_str(), |end| &text[..end]);
        let is_arn = match front.len() == text.len() {
            true => text.starts_with("arn:"),
            false => front.starts_with("arn:") || "arn:".starts_with(front),
        };
        if !is_arn {
            return Err(malformed(&at, format!("expected an ARN or \"*\", found {text:?}")));
        }
        resources.push(Template::parse(&text).map_err(|problem| malformed(&at, problem))?);
    }
    Ok(resources)
}

fn parse_conditions(at: &str, json: Json) -> Result<Vec<Condition>, MalformedPolicy> {
    let mut conditions = Vec::new();
    for (name, keys) in entries(at, json, &[])? {
        let Some(operator) = Operator::parse(&name) else {
            return Err(malformed(at, format!("unknown operator {name:?}")));
        };
        let at = format!("{at}.{name}");
        for (key, values) in entries(&at, keys, &[])? {
            let mut locations = Vec::new();
            let mut templates = Vec::new();
            for (at, text) in scalars(&format!("{at}.{key}"), values)? {
                templates.push(Template::parse(&text).map_err(|problem| malformed(&at, problem))?);
                locations.push(at);
            }
            let condition = Condition::new(operator, &key, templates);
            conditions.push(condition.map_err(|(index, it)| malformed(&locations[index], it))?);
        }
    }
    Ok(conditions)
}

/// A string or several, each with its place.
fn strings(at: &str, json: Json) -> Result<Vec<(String, String)>, MalformedPolicy> {
    several(at, json, |at, json| match json {
        Json::String(text) => Ok(text),
        other => Err(expected(at, "a string", &other)),
    })
}

/// As [`strings`], where numbers and booleans need no quotes.
fn scalars(at: &str, json: Json) -> Result<Vec<(String, String)>, MalformedPolicy> {
    several(at, json, |at, json| match json {
        Json::String(text) | Json::Number(text) => Ok(text),
        Json::Bool(value) => Ok(value.to_string()),
        other => Err(expected(at, "a string", &other)),
    })
}

fn several(
    at: &str,
    json: Json,
    text: impl Fn(&str, Json) -> Result<String, MalformedPolicy>,
) -> Result<Vec<(String, String)>, MalformedPolicy> {
    match json {
        Json::Array(items) if items.is_empty() => Err(malformed(at, "expected at least one value")),
        Json::Array(items) => {
            let located = items.into_iter().enumerate().map(|(i, it)| (format!("{at}[{i}]"), it));
            located.map(|(at, item)| text(&at, item).map(|text| (at, text))).collect()
        }
        single => text(at, single).map(|text| vec![(at.to_owned(), text)]),
    }
}
