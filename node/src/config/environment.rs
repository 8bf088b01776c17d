//! Variables of the environment over a configuration file.

use super::ConfigError;

const PREFIX: &str = "SKEIN__";

/// Puts every `SKEIN__A__B=value` over `a.b` and gives back the names that were used. A value is read
/// as TOML where that works (`10`, `true`, `["a"]`) and is a string where it does not.
pub(super) fn put_over(
    table: &mut toml::Table,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<Vec<String>, ConfigError> {
    let mut used = Vec::new();
    for (variable, value) in environment {
        let Some(path) = variable.strip_prefix(PREFIX) else { continue };
        let path = path.to_ascii_lowercase();
        let mut keys: Vec<&str> = path.split("__").collect();
        let Some(last) = keys.pop().filter(|key| !key.is_empty()) else {
            return Err(ConfigError::Variable { variable, problem: "names no key".into() });
        };
        let mut place = &mut *table;
        for key in keys {
            let next = place.entry(key).or_insert_with(|| toml::Table::new().into());
            let Some(inner) = next.as_table_mut() else {
                let problem = format!("{key} is a value, not a table");
                return Err(ConfigError::Variable { variable, problem });
            };
            place = inner;
        }
        let parsed = format!("value = {value}").parse::<toml::Table>().ok();
        let value = parsed
            .and_then(|mut parsed| parsed.remove("value"))
            .unwrap_or(toml::Value::String(value));
        place.insert(last.to_owned(), value);
        used.push(variable);
    }
    Ok(used)
}
