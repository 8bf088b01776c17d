//! Mutational fuzzing: filters and names as clients might send them, however broken.

#[path = "../../fuzz.rs"]
mod fuzz;

use topic::{
    FilterTrie, Subscription, TopicTree, matches, parse_subscription, validate_filter,
    validate_name,
};

/// The corpus of a target.
macro_rules! corpus {
    ($target:literal) => {
        concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/", $target)
    };
}

/// The input is lines: those that are valid filters subscribe, those that are valid names publish.
#[test]
fn matching() {
    let seeds: [&[u8]; 4] = [
        b"a/b\na/+\n+/b\n#\na/#\n+/+\n$SYS/#\n$SYS/a\n/\n//\n+",
        b"things/+/shadow/#\nthings/lamp/shadow/update\nthings/lamp\n+/lamp/#",
        b"+/+/+/+/+\na/a/a/a/a\na/+/a/+/a\n+/a/+/a/+\na/a/a/a/#\n+/+/+/+/a",
        b"a!/b\na/b\na0/b\na/b!\na/b0\na/\n/a\n$/a\n$",
    ];
    fuzz::run("matching", corpus!("matching"), &seeds, |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        let filters: Vec<&str> =
            text.lines().filter(|line| validate_filter(line).is_ok()).collect();
        let names: Vec<&str> = text.lines().filter(|line| validate_name(line).is_ok()).collect();
        let (mut trie, mut tree) = (FilterTrie::<String>::new(), TopicTree::new());
        filters.iter().for_each(|filter| *trie.entry(*filter) = filter.to_string());
        names.iter().for_each(|name| drop(tree.insert(name, name.to_string())));

        for name in names.iter().take(20) {
            let mut found = Vec::new();
            trie.for_each_match(name, |filter| found.push(filter.as_str()));
            found.sort_unstable();
            let matching = filters.iter().copied().filter(|filter| matches(filter, name));
            let mut expected: Vec<_> = matching.collect();
            expected.sort_unstable();
            expected.dedup();
            assert_eq!(found, expected, "{name}");
        }
        for filter in filters.iter().take(20) {
            let found: Vec<_> = tree.matching(filter).map(|(name, _)| name).collect();
            let expected = tree.iter().map(|(name, _)| name).filter(|name| matches(filter, name));
            assert_eq!(found, expected.collect::<Vec<_>>(), "{filter}");
        }
        for filter in &filters {
            assert!(trie.remove(filter).is_none_or(|value| value == *filter));
        }
        assert!(trie.is_empty());
    });
}

#[test]
fn subscription() {
    let seeds: [&[u8]; 5] = [b"$share/g/a/+", b"$share//a", b"$share/g/", b"a/#", b"$share/g/#"];
    fuzz::run("subscription", corpus!("subscription"), &seeds, |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        match parse_subscription(text) {
            Ok(Subscription::Plain(filter)) => assert_eq!(filter, text),
            Ok(Subscription::Shared(share)) => {
                assert_eq!(format!("$share/{}/{}", share.name, share.filter), text);
                assert_eq!(validate_filter(share.filter), Ok(()));
            }
            Err(error) => {
                assert!(text.starts_with("$share/") || validate_filter(text) == Err(error))
            }
        }
    });
}
