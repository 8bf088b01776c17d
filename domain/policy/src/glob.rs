//! Patterns with wildcards, as bytes: UTF-8 in which two bytes that UTF-8 never uses stand for
//! "any characters" and "one character". So a literal `*` needs no escape, and literal parts compare
//! as they are.
//!
//! Matching takes one pass for each literal part and never goes back before the wildcard that
//! precedes it: the leftmost place for a part leaves the most room for those that follow.

use memchr::memmem;

/// Any characters, also none.
pub(crate) const ANY: u8 = 0xff;
/// Exactly one character.
pub(crate) const ONE: u8 = 0xfe;

/// A pattern from text in which `*` and `?` are wildcards.
pub(crate) fn from_wildcards(text: &str) -> Vec<u8> {
    text.bytes()
        .map(|byte| match byte {
            b'*' => ANY,
            b'?' => ONE,
            byte => byte,
        })
        .collect()
}

/// Whether the pattern covers the whole text.
pub(crate) fn matches(pattern: &[u8], text: &str) -> bool {
    let text = text.as_bytes();
    let Some(first) = memchr::memchr(ANY, pattern) else {
        return match_start(pattern, text) == Some(text.len());
    };
    let last = memchr::memrchr(ANY, pattern).unwrap_or(first);
    let Some(begin) = match_start(&pattern[..first], text) else { return false };
    let Some(end) = match_end(&pattern[last + 1..], &text[begin..]) else { return false };
    let mut room = &text[begin..begin + end];
    for part in pattern[first..last].split(|byte| *byte == ANY) {
        match find(part, room) {
            Some(end) => room = &room[end..],
            None => return false,
        }
    }
    true
}

/// How many bytes of the text's start a part without [`ANY`] covers.
fn match_start(part: &[u8], text: &[u8]) -> Option<usize> {
    let mut at = 0;
    for byte in part {
        match (*byte, text.get(at)) {
            (ONE, Some(lead)) => at += width(*lead),
            (byte, Some(same)) if byte == *same => at += 1,
            _ => return None,
        }
    }
    Some(at)
}

/// Where in the text a part without [`ANY`] begins that covers its end.
fn match_end(part: &[u8], text: &[u8]) -> Option<usize> {
    let mut at = text.len();
    for byte in part.iter().rev() {
        at = at.checked_sub(1)?;
        match *byte {
            ONE => {
                while is_continuation(text[at]) {
                    at = at.checked_sub(1)?;
                }
            }
            byte if byte == text[at] => {}
            _ => return None,
        }
    }
    Some(at)
}

/// Where the leftmost occurrence of a part without [`ANY`] ends.
fn find(part: &[u8], text: &[u8]) -> Option<usize> {
    let is_literal = memchr::memchr(ONE, part).is_none();
    match part {
        [] => Some(0),
        // Short parts are not worth preparing a search that is never slow.
        _ if is_literal && part.len() > 16 => memmem::find(text, part).map(|at| at + part.len()),
        [ONE, ..] => {
            let mut at = 0;
            while at < text.len() {
                if let Some(covered) = match_start(part, &text[at..]) {
                    return Some(at + covered);
                }
                at += width(text[at]);
            }
            None
        }
        [first, ..] => memchr::memchr_iter(*first, text)
            .find_map(|at| match_start(part, &text[at..]).map(|covered| at + covered)),
    }
}

/// As `text.starts_with(start)`; the ends of patterns differ more often than their beginnings.
pub(crate) fn starts_with(text: &[u8], start: &[u8]) -> bool {
    let Some(head) = text.get(..start.len()) else { return false };
    match (head.last_chunk::<8>(), start.last_chunk::<8>()) {
        (Some(head), Some(start)) if head != start => false,
        _ => head == start,
    }
}

fn is_continuation(byte: u8) -> bool {
    byte & 0b1100_0000 == 0b1000_0000
}

/// How many bytes the character has that begins with `lead`.
fn width(lead: u8) -> usize {
    match lead {
        0x00..=0xbf => 1,
        0xc0..=0xdf => 2,
        0xe0..=0xef => 3,
        _ => 4,
    }
}

/// What is left of a pattern once it has covered `prefix`: patterns of which one has to cover the
/// rest. Usually one; more when a wildcard may or may not have eaten into what follows it.
pub(crate) fn remainders(pattern: &[u8], prefix: &str) -> Vec<Vec<u8>> {
    let mut positions = vec![0];
    for character in prefix.chars() {
        let mut buffer = [0; 4];
        let character = character.encode_utf8(&mut buffer).as_bytes();
        let mut next = Vec::new();
        for mut at in positions {
            while pattern.get(at) == Some(&ANY) {
                next.push(at);
                at += 1;
            }
            if pattern.get(at) == Some(&ONE) {
                next.push(at + 1);
            } else if pattern[at..].starts_with(character) {
                next.push(at + character.len());
            }
        }
        next.sort_unstable();
        next.dedup();
        // A later wildcard covers all that an earlier one does.
        let last = next.iter().rposition(|at| pattern.get(*at) == Some(&ANY)).unwrap_or(0);
        positions = next.split_off(last);
    }
    positions.into_iter().map(|at| pattern[at..].to_vec()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, by recursion.
    fn matches_naively(pattern: &[u8], text: &str) -> bool {
        match pattern {
            [] => text.is_empty(),
            [ANY, rest @ ..] => {
                let mut ends = text.char_indices().map(|(at, _)| at).chain([text.len()]);
                ends.any(|at| matches_naively(rest, &text[at..]))
            }
            [ONE, rest @ ..] => {
                let mut characters = text.chars();
                characters.next().is_some() && matches_naively(rest, characters.as_str())
            }
            [byte, rest @ ..] => {
                // Literal parts are whole characters.
                let more = rest.iter().take_while(|byte| is_continuation(**byte)).count();
                let (head, rest) = (&pattern[..=more], &rest[more..]);
                debug_assert_eq!(width(*byte), more + 1);
                text.as_bytes().starts_with(head) && matches_naively(rest, &text[head.len()..])
            }
        }
    }

    #[test]
    fn wildcards_cover_characters() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("*", "a/b", true),
            ("a/*/b", "a/x/y/b", true),
            ("a/*/b", "a//b", true),
            ("a/*/b", "a/b", false),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("*ab*ba*", "aba", false),
            ("*ab*ba*", "abba", true),
            ("?", "", false),
            ("?", "/", true),
            ("?", "é", true),
            ("??", "é", false),
            ("*??", "€", false),
            ("*??", "a€", true),
            ("??*", "€a", true),
            ("*?b?*", "€b€", true),
            ("*?b?*", "b€", false),
            ("a?", "a😀", true),
            ("**", "x", true),
            ("a**b", "ab", true),
        ] {
            assert_eq!(matches(&from_wildcards(pattern), text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn beginnings_are_compared() {
        for (text, start, expected) in [
            ("", "", true),
            ("a", "", true),
            ("", "a", false),
            ("fleet/truck-1/x", "fleet/truck-1/", true),
            ("fleet/truck-1/x", "fleet/truck-2/", false),
            ("fleet/truck-1/x", "gleet/truck-1/", false),
            ("fleet/1", "fleet/1", true),
            ("fleet/1", "fleet/12", false),
        ] {
            assert_eq!(starts_with(text.as_bytes(), start.as_bytes()), expected, "{text} {start}");
        }
    }

    #[test]
    fn a_long_text_of_near_misses_is_no_trouble() {
        let text = "a".repeat(65_535);
        for pattern in ["*aaaaaaaaab*", "*a*a*a*a*a*a*a*a*a*b", "*a?a?a?b*a*", "a*a*a*a*c*"] {
            assert!(!matches(&from_wildcards(pattern), &text), "{pattern}");
        }
    }

    #[test]
    fn prefixes_are_taken_off() {
        for (pattern, prefix, expected) in [
            ("abc", "ab", &["c"][..]),
            ("abc", "abc", &[""]),
            ("abc", "abcd", &[]),
            ("abc", "x", &[]),
            ("*", "ab", &["*"]),
            ("a?c", "ab", &["c"]),
            ("ab*", "ab", &["*"]),
            ("a:*:*:t/x", "a:b:c:t/", &["*:t/x", "x"]),
            ("*/a", "t/", &["*/a", "a"]),
            ("*aab", "aa", &["*aab", "ab", "b"]),
        ] {
            let rests = remainders(&from_wildcards(pattern), prefix);
            let mut expected: Vec<_> = expected.iter().map(|rest| from_wildcards(rest)).collect();
            expected.sort();
            let mut actual = rests.clone();
            actual.sort();
            assert_eq!(actual, expected, "{pattern} after {prefix}");
        }
    }

    proptest! {
        #[test]
        fn matching_agrees_with_the_definition(pattern in "[ab/é*?]{0,10}", text in "[ab/é]{0,12}") {
            let pattern = from_wildcards(&pattern);
            prop_assert_eq!(matches(&pattern, &text), matches_naively(&pattern, &text));
        }

        #[test]
        fn remainders_match_what_the_whole_does(
            pattern in "[ab:é*?]{0,8}",
            prefix in "[ab:é]{0,4}",
            rest in "[ab:é]{0,6}",
        ) {
            let pattern = from_wildcards(&pattern);
            let whole = matches(&pattern, &format!("{prefix}{rest}"));
            let split = remainders(&pattern, &prefix).iter().any(|it| matches(it, &rest));
            prop_assert_eq!(split, whole);
        }
    }
}
