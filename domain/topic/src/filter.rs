//! Topic filters: what a subscription asks for, alone or shared with others.

use thiserror::Error;

use crate::{MAX_BYTES, is_reserved};

/// Why a text is not a topic filter.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum FilterError {
    /// A filter has at least one character [v5 MQTT-4.7.3-1].
    #[error("topic filter is empty")]
    Empty,
    /// An MQTT string cannot carry it [v5 MQTT-4.7.3-3].
    #[error("topic filter of {bytes} bytes exceeds {MAX_BYTES}")]
    TooLong {
        /// Its size.
        bytes: usize,
    },
    /// It contains U+0000 [v5 MQTT-4.7.3-2].
    #[error("topic filter contains a null character")]
    Null,
    /// `+` shares its level, or `#` shares its level or is not last [v5 MQTT-4.7.1-1, MQTT-4.7.1-2].
    #[error("wildcard does not stand alone in its level, or # is not the last level")]
    Wildcard,
    /// The name of a share is missing or contains a wildcard [v5 MQTT-4.8.2-1, MQTT-4.8.2-2].
    #[error("share name is empty or contains a wildcard")]
    ShareName,
    /// `$share/name` without a filter behind it [v5 MQTT-4.8.2-2].
    #[error("shared subscription has no topic filter")]
    ShareFilter,
}

/// The two parts of a shared subscription: `$share/{name}/{filter}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share<'a> {
    /// Who shares.
    pub name: &'a str,
    /// What they share.
    pub filter: &'a str,
}

/// What a SUBSCRIBE asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subscription<'a> {
    /// Every matching publication.
    Plain(&'a str),
    /// Each matching publication goes to one of those who share.
    Shared(Share<'a>),
}

impl<'a> Subscription<'a> {
    /// The filter that publications are matched against.
    pub fn filter(&self) -> &'a str {
        match *self {
            Self::Plain(filter) | Self::Shared(Share { filter, .. }) => filter,
        }
    }
}

/// Checks that a subscription may ask for this filter. `$share/…` is an ordinary filter here.
pub fn validate_filter(filter: &str) -> Result<(), FilterError> {
    match filter.len() {
        0 => return Err(FilterError::Empty),
        1..=MAX_BYTES => {}
        bytes => return Err(FilterError::TooLong { bytes }),
    }
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        let last = levels.peek().is_none();
        match level {
            "+" => {}
            "#" if last => {}
            _ if has_wildcard(level) => return Err(FilterError::Wildcard),
            _ if level.contains('\0') => return Err(FilterError::Null),
            _ => {}
        }
    }
    Ok(())
}

/// Takes `$share/name/filter` apart, or finds a plain filter; validates both.
pub fn parse_subscription(filter: &str) -> Result<Subscription<'_>, FilterError> {
    let Some(shared) = filter.strip_prefix("$share/") else {
        return validate_filter(filter).map(|()| Subscription::Plain(filter));
    };
    if filter.len() > MAX_BYTES {
        return Err(FilterError::TooLong { bytes: filter.len() });
    }
    let (name, filter) = match shared.split_once('/') {
        Some(parts) => parts,
        None => (shared, ""),
    };
    match name {
        "" => return Err(FilterError::ShareName),
        _ if has_wildcard(name) => return Err(FilterError::ShareName),
        _ if name.contains('\0') => return Err(FilterError::Null),
        _ => {}
    }
    match validate_filter(filter) {
        Ok(()) => Ok(Subscription::Shared(Share { name, filter })),
        Err(FilterError::Empty) => Err(FilterError::ShareFilter),
        Err(error) => Err(error),
    }
}

/// Says whether a valid filter matches a valid name. `a/#` matches `a` too, and a wildcard in the
/// first level matches no name that begins with `$` [v5 MQTT-4.7.1-2, MQTT-4.7.2-1].
pub fn matches(filter: &str, name: &str) -> bool {
    if is_reserved(name) && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut levels = name.split('/');
    for wanted in filter.split('/') {
        match (wanted, levels.next()) {
            ("#", _) => return true,
            (_, None) => return false,
            ("+", Some(_)) => {}
            (_, Some(level)) if wanted != level => return false,
            _ => {}
        }
    }
    levels.next().is_none()
}

/// Says whether a valid filter can match more than the one name it spells.
pub fn is_wildcard(filter: &str) -> bool {
    has_wildcard(filter)
}

fn has_wildcard(text: &str) -> bool {
    text.contains(['+', '#'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_checked() {
        let longer = "+/".repeat(MAX_BYTES);
        for (filter, expected) in [
            ("a", Ok(())),
            ("/", Ok(())),
            ("#", Ok(())),
            ("+", Ok(())),
            ("+/+/#", Ok(())),
            ("/+//#", Ok(())),
            ("$SYS/#", Ok(())),
            ("$share/g/a", Ok(())),
            ("", Err(FilterError::Empty)),
            ("a\0", Err(FilterError::Null)),
            ("a+", Err(FilterError::Wildcard)),
            ("+a/b", Err(FilterError::Wildcard)),
            ("++", Err(FilterError::Wildcard)),
            ("a#", Err(FilterError::Wildcard)),
            ("a/#/b", Err(FilterError::Wildcard)),
            ("#/", Err(FilterError::Wildcard)),
            ("a/##", Err(FilterError::Wildcard)),
            (longer.as_str(), Err(FilterError::TooLong { bytes: 2 * MAX_BYTES })),
        ] {
            assert_eq!(validate_filter(filter), expected, "{filter:.40}");
        }
    }

    #[test]
    fn shared_subscriptions_are_taken_apart() {
        let shared = |name, filter| Ok(Subscription::Shared(Share { name, filter }));
        for (filter, expected) in [
            ("a/b", Ok(Subscription::Plain("a/b"))),
            ("$share", Ok(Subscription::Plain("$share"))),
            ("$shared/g/a", Ok(Subscription::Plain("$shared/g/a"))),
            ("$share/g/a", shared("g", "a")),
            ("$share/g/+/#", shared("g", "+/#")),
            ("$share/g//", shared("g", "/")),
            ("$share/g//a", shared("g", "/a")),
            ("$share/g/$SYS/a", shared("g", "$SYS/a")),
            ("$share/", Err(FilterError::ShareName)),
            ("$share//a", Err(FilterError::ShareName)),
            ("$share/+/a", Err(FilterError::ShareName)),
            ("$share/#", Err(FilterError::ShareName)),
            ("$share/g#/a", Err(FilterError::ShareName)),
            ("$share/g\0/a", Err(FilterError::Null)),
            ("$share/g", Err(FilterError::ShareFilter)),
            ("$share/g/", Err(FilterError::ShareFilter)),
            ("$share/g/a#", Err(FilterError::Wildcard)),
            ("$share/g/a\0", Err(FilterError::Null)),
            ("", Err(FilterError::Empty)),
        ] {
            assert_eq!(parse_subscription(filter), expected, "{filter}");
        }
    }
}
