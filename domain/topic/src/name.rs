//! Topic names: what a publication carries.

use thiserror::Error;

use crate::MAX_BYTES;

/// Why a text is not a topic name.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum NameError {
    /// A name has at least one character [v5 MQTT-4.7.3-1].
    #[error("topic name is empty")]
    Empty,
    /// An MQTT string cannot carry it [v5 MQTT-4.7.3-3].
    #[error("topic name of {bytes} bytes exceeds {MAX_BYTES}")]
    TooLong {
        /// Its size.
        bytes: usize,
    },
    /// It contains U+0000 [v5 MQTT-4.7.3-2].
    #[error("topic name contains a null character")]
    Null,
    /// It contains `+` or `#`, which only filters may [v5 MQTT-4.7.0-1].
    #[error("topic name contains a wildcard")]
    Wildcard,
}

/// Checks that a publication may carry this name.
pub fn validate_name(name: &str) -> Result<(), NameError> {
    let bytes = name.as_bytes();
    match bytes.len() {
        0 => return Err(NameError::Empty),
        1..=MAX_BYTES => {}
        bytes => return Err(NameError::TooLong { bytes }),
    }
    // Without early exits the compiler checks many bytes at once; every PUBLISH comes through here.
    let (null, wildcard) = bytes.iter().fold((false, false), |(null, wildcard), &byte| {
        (null | (byte == 0), wildcard | (byte == b'+') | (byte == b'#'))
    });
    match (null, wildcard) {
        (false, false) => Ok(()),
        (true, _) => Err(NameError::Null),
        (_, true) => Err(NameError::Wildcard),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        let longest = "a".repeat(MAX_BYTES);
        let longer = "a".repeat(MAX_BYTES + 1);
        for (name, expected) in [
            ("a", Ok(())),
            ("/", Ok(())),
            ("a//b/", Ok(())),
            ("$SYS/uptime", Ok(())),
            ("with space/\u{1F4A1}/\u{feff}", Ok(())),
            (longest.as_str(), Ok(())),
            ("", Err(NameError::Empty)),
            ("a\0b", Err(NameError::Null)),
            ("+", Err(NameError::Wildcard)),
            ("a/#", Err(NameError::Wildcard)),
            ("a+b", Err(NameError::Wildcard)),
            (longer.as_str(), Err(NameError::TooLong { bytes: MAX_BYTES + 1 })),
        ] {
            assert_eq!(validate_name(name), expected, "{:.40}", name);
        }
    }
}
