//! Variables of the environment over a configuration file.

use toml::{Table, Value};

use super::{Config, ConfigError, Finding, hints};

const PREFIX: &str = "SKEIN__";

/// What somebody writes who does not know that it takes two.
const NEARLY: &str = "SKEIN_";

/// What makes a value a line of TOML.
const BEFORE: &str = "value = ";

/// How the one value is written that is never shown.
const KEYS_HINT: &str = r#"it is TOML: [{ id = "…", secret = "…" }]"#;

/// Underscores of a name that may have been meant as two.
const UNDERSCORES: usize = 5;

/// Puts every `SKEIN__A__B=value` over `a.b` of a table that is a valid configuration. A value is
/// read as TOML where that works (`10`, `true`, `["a"]`) and fits the key, and is the text itself
/// where it does not: `123456789012` is a number for one key and a string for another.
pub(super) fn put_over(
    mut table: Table,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<Config, ConfigError> {
    let mut suspicions = Vec::new();
    for (variable, text) in environment {
        let Some(path) = variable.strip_prefix(PREFIX) else {
            suspicions.extend(meant(&variable));
            continue;
        };
        let path = path.to_ascii_lowercase();
        let keys: Vec<&str> = path.split("__").collect();
        let wrong = |problem: String| ConfigError::Variable { variable: variable.clone(), problem };
        let is_secret = keys[0] == "access_keys";
        let said = |error: &toml::de::Error| match is_secret {
            true => format!("{}; {KEYS_HINT}", hints::without_value(error.message())),
            false => said(error),
        };
        let parsed = read(&text);
        if is_secret && let Err(complaint) = parsed {
            return Err(wrong(format!("{complaint}; {KEYS_HINT}")));
        }
        let is_text = parsed.as_ref().map_or(true, Value::is_str);
        // What looks like a list or a table was meant as one.
        let complaint = parsed.as_ref().err().filter(|_| text.trim_start().starts_with(['[', '{']));
        let complaint = complaint.cloned();
        *place(&mut table, &keys).map_err(&wrong)? =
            parsed.unwrap_or_else(|_| Value::String(text.clone()));
        let Err(error) = config(&table) else { continue };
        if is_text {
            return Err(wrong(complaint.unwrap_or_else(|| said(&error))));
        }
        if !is_secret {
            *place(&mut table, &keys).map_err(&wrong)? = Value::String(text);
        }
        // The error about what it looks like says more than the one about a string.
        config(&table).map_err(|_| wrong(said(&error)))?;
    }
    let config = config(&table).map_err(|error| ConfigError::Variable {
        variable: "the environment".into(),
        problem: said(&error),
    })?;
    Ok(Config { suspicions, ..config })
}

/// The value that a text is in TOML, or where and why it is none.
fn read(text: &str) -> Result<Value, String> {
    match format!("{BEFORE}{text}").parse::<Table>() {
        Ok(mut parsed) => parsed.remove("value").ok_or_else(|| "it is no value".into()),
        Err(error) => {
            let at = error.span().map_or(0, |span| span.start.saturating_sub(BEFORE.len()));
            Err(format!("character {}: {}", at + 1, said(&error)))
        }
    }
}

/// A variable that has no effect, though with more underscores it would name a key.
fn meant(variable: &str) -> Option<Finding> {
    let words: Vec<&str> =
        variable.strip_prefix(NEARLY)?.split('_').filter(|it| !it.is_empty()).collect();
    if words.is_empty() || words.len() > UNDERSCORES + 1 {
        return None;
    }
    let named = (0..1_u32 << (words.len() - 1)).find_map(|doubled| {
        let mut name = words[0].to_owned();
        for (number, word) in words[1..].iter().enumerate() {
            name.push_str(if doubled >> number & 1 == 1 { "__" } else { "_" });
            name.push_str(word);
        }
        is_key(&name.to_ascii_lowercase()).then_some(name)
    })?;
    let text = format!("has no effect; did you mean {PREFIX}{named}?");
    Some(Finding { key: variable.into(), text })
}

/// Whether a configuration has this key, whatever values it takes.
fn is_key(name: &str) -> bool {
    let keys: Vec<&str> = name.split("__").collect();
    let mut table = Table::new();
    let placed = place(&mut table, &keys).map(|place| *place = Value::Boolean(true));
    placed.is_ok()
        && config(&table).map_or_else(|error| !error.message().contains("unknown field"), |_| true)
}

/// Where a value belongs; tables on the way are made.
fn place<'a>(table: &'a mut Table, keys: &[&str]) -> Result<&'a mut Value, String> {
    let Some((last, tables)) = keys.split_last().filter(|(last, _)| !last.is_empty()) else {
        return Err("names no key".into());
    };
    let mut place = table;
    for key in tables {
        let next = place.entry(*key).or_insert_with(|| Table::new().into());
        place = next.as_table_mut().ok_or_else(|| format!("{key} is a value, not a table"))?;
    }
    Ok(place.entry(*last).or_insert_with(|| Table::new().into()))
}

/// An error in one line.
fn said(error: &toml::de::Error) -> String {
    format!("{}{}", hints::plain(error.message()), hints::hint(error.message()))
}

fn config(table: &Table) -> Result<Config, toml::de::Error> {
    table.clone().try_into()
}
