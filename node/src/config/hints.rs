//! What somebody may have meant by a key or a value that cannot be.

/// What would help against an error of the TOML reader, to be put behind it.
pub(super) fn hint(error: &str) -> String {
    if let Some(meant) = unknown_field(error) {
        return format!("; did you mean `{meant}`?");
    }
    let hint = if error.contains("invalid type: map, expected a sequence") {
        "each of a list has two brackets, like [[access_keys]]"
    } else if error.contains("expected a sequence") {
        r#"a list is like ["10.0.0.0/8"]"#
    } else if UNQUOTED.iter().any(|unquoted| error.contains(unquoted)) {
        "text stands in quotes"
    } else if error.contains("expected u16") {
        "it is a number from 0 to 65535"
    } else if error.contains("expected u32") {
        "it is a number from 0 to 4294967295"
    } else {
        return String::new();
    };
    format!("; {hint}")
}

/// What the TOML reader says of text without quotes, which it takes for a number or a date.
const UNQUOTED: [&str; 8] = [
    "expected a string",
    "must be quoted",
    "invalid float",
    "invalid integer",
    "invalid datetime",
    "invalid date",
    "invalid time",
    "leading zero",
];

/// An error in the words of configuration files, not of Rust.
pub(super) fn plain(error: &str) -> String {
    let mut words = error.replace("expected a sequence", "expected a list");
    words = words.replace("invalid type: sequence", "invalid type: list");
    words = words.replace("invalid type: map", "invalid type: table");
    let Some((before, name)) = words.split_once("expected struct ") else { return words };
    let rest = name.trim_start_matches(|it: char| it.is_ascii_alphanumeric());
    format!("{before}expected a table{rest}")
}

/// An error without the value that it is about.
pub(super) fn without_value(error: &str) -> String {
    let (Some(value), Some(expected)) = (error.find(['`', '"']), error.rfind(", expected")) else {
        return plain(error);
    };
    match error.starts_with("invalid ") && value < expected {
        true => plain(&format!("{}{}", error[..value].trim_end(), &error[expected..])),
        false => plain(error),
    }
}

/// The known key that is nearest to the unknown one.
fn unknown_field(error: &str) -> Option<&str> {
    let mut quoted = error[error.find("unknown field `")?..].split('`').skip(1).step_by(2);
    let unknown = quoted.next()?;
    let nearest = quoted.min_by_key(|known| distance(unknown, known))?;
    // Further away it is only another word.
    (distance(unknown, nearest) <= 1 + unknown.len() / 4).then_some(nearest)
}

/// Characters to insert, remove or replace (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_plain_words_and_no_secrets() {
        for (error, said, secretly) in [
            (
                "invalid type: string \"a, expected b\", expected a sequence",
                "invalid type: string \"a, expected b\", expected a list",
                "invalid type: string, expected a list",
            ),
            (
                "invalid type: integer `4`, expected struct Listeners",
                "invalid type: integer `4`, expected a table",
                "invalid type: integer, expected a table",
            ),
            ("missing field `id`", "missing field `id`", "missing field `id`"),
        ] {
            assert_eq!(plain(error), said);
            assert_eq!(without_value(error), secretly);
        }
    }

    #[test]
    fn the_nearest_key_is_meant() {
        for (error, expected) in [
            ("unknown field `shard`, expected one of `data`, `cores`, `shards`", "`shards`?"),
            ("unknown field `adress`, expected one of `address`, `proxy_from`", "`address`?"),
            ("unknown field `x`, expected `id` or `secret`", ""),
            ("unknown field `port`, expected one of `address`, `anonymous_policy`", ""),
            ("invalid type: map, expected a sequence", "[[access_keys]]"),
            ("invalid type: integer `123456789012`, expected a string", "quotes"),
            ("invalid type: string \"10\", expected a sequence", "a list is like"),
            ("invalid value: integer `100000`, expected u16", "65535"),
            ("missing field `id`", ""),
        ] {
            let hint = hint(error);
            assert!(hint.contains(expected), "{error}: {hint}");
            assert_eq!(hint.is_empty(), expected.is_empty(), "{error}: {hint}");
        }
    }
}
