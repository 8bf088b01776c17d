use std::collections::BTreeMap;

use proptest::prelude::*;

use super::wildcards::Node;
use super::*;
use crate::{MAX_BYTES, TopicTree, matches, validate_filter, validate_name};

/// Values that find themselves among the matches.
fn trie(filters: &[&str]) -> FilterTrie<String> {
    let mut trie = FilterTrie::new();
    filters.iter().for_each(|filter| *trie.entry(*filter) = filter.to_string());
    trie
}

fn matching<'a, V: Ord>(trie: &'a FilterTrie<V>, name: &str) -> Vec<&'a V> {
    let mut found = Vec::new();
    trie.for_each_match(name, |value| found.push(value));
    found.sort();
    found
}

/// Rows of filter, name and whether they match. The three ways to ask must agree on each.
#[test]
fn filters_match_names() {
    for (filter, name, expected) in [
        ("a", "a", true),
        ("a", "b", false),
        ("a", "A", false),
        ("a", "a/", false),
        ("a", "/a", false),
        ("a/b", "a/b", true),
        ("a/b", "a/bc", false),
        ("+", "a", true),
        ("+", "a/b", false),
        ("+", "/a", false),
        ("+/+", "/a", true),
        ("/+", "/a", true),
        ("+", "/", false),
        ("+/+", "/", true),
        ("/", "/", true),
        ("+/a", "/a", true),
        ("a/+", "a", false),
        ("a/+", "a/", true),
        ("a/+", "a/b", true),
        ("a/+", "a/b/c", false),
        ("a/+/c", "a/b/c", true),
        ("a/+/c", "a//c", true),
        ("a/+/c", "a/b/d", false),
        ("+/b/+", "a/b/c", true),
        ("+/b/+", "a/c/c", false),
        ("#", "a", true),
        ("#", "/", true),
        ("#", "a/b/c", true),
        ("a/#", "a", true),
        ("a/#", "a/", true),
        ("a/#", "a/b/c", true),
        ("a/#", "ab", false),
        ("a/#", "b", false),
        ("/#", "/", true),
        ("/#", "/a", true),
        ("/#", "a", false),
        ("+/#", "a", true),
        ("+/#", "a/b", true),
        ("a/+/#", "a", false),
        ("a/+/#", "a/b", true),
        ("a/+/#", "a/b/c/d", true),
        ("a//#", "a", false),
        ("a//#", "a/", true),
        ("a//#", "a//b", true),
        ("#", "$SYS", false),
        ("#", "$SYS/x", false),
        ("+", "$SYS", false),
        ("+/x", "$SYS/x", false),
        ("+/#", "$SYS/x", false),
        ("$SYS/#", "$SYS", true),
        ("$SYS/#", "$SYS/x/y", true),
        ("$SYS/+", "$SYS/x", true),
        ("$SYS/x", "$SYS/x", true),
        ("$+", "$SYS", false),
        ("a/+", "a/$b", true),
        ("a/#", "a/$b", true),
        ("$aws/things/+/shadow/update", "$aws/things/lamp/shadow/update", true),
        ("$aws/things/+/shadow/update", "$aws/things/lamp/shadow/get", false),
        ("\u{e4}/+", "\u{e4}/\u{1F4A1}", true),
    ] {
        assert_eq!(matches(filter, name), expected, "matches: {filter} {name}");
        let trie = trie(&[filter]);
        assert_eq!(!matching(&trie, name).is_empty(), expected, "trie: {filter} {name}");
        let mut tree = TopicTree::new();
        tree.insert(name, ());
        assert_eq!(tree.matching(filter).next().is_some(), expected, "tree: {filter} {name}");
    }
}

#[test]
fn every_matching_filter_is_found_once() {
    let trie = trie(&["#", "a/#", "a/b", "a/+", "+/b", "+/+", "a/b/#", "+", "b/+", "/#", "a/b/+"]);
    for (name, expected) in [
        ("a/b", &["#", "+/+", "+/b", "a/#", "a/+", "a/b", "a/b/#"][..]),
        ("a", &["#", "+", "a/#"]),
        ("/", &["#", "+/+", "/#"]),
        ("b/c", &["#", "+/+", "b/+"]),
        ("a/b/c", &["#", "a/#", "a/b/#", "a/b/+"]),
        ("$a/b", &[]),
    ] {
        assert_eq!(matching(&trie, name), expected, "{name}");
    }
}

#[test]
fn filters_are_changed_and_removed() {
    let mut trie = FilterTrie::<u32>::new();
    for filter in ["a/b", "a/+", "a/+/#", "#"] {
        assert_eq!(trie.get(filter), None);
        assert_eq!(trie.remove(filter), None);
        *trie.entry(filter) += 1;
        *trie.entry(filter) += 1;
        *trie.get_mut(filter).unwrap() += 1;
        assert_eq!(trie.get(filter), Some(&3));
    }
    assert_eq!(trie.len(), 4);
    assert_eq!(trie.get("a"), None, "a node on the way has no value");
    assert_eq!(trie.get("+/b"), None);
    assert_eq!(trie.remove("a/+"), Some(3));
    assert_eq!(trie.get("a/+/#"), Some(&3), "what lies behind a removed filter stays");
    for filter in ["a/b", "a/+/#", "#"] {
        assert_eq!(trie.remove(filter), Some(3));
    }
    assert!(trie.is_empty());
    assert_eq!(trie.iter().count(), 0);
}

#[test]
fn removed_filters_leave_their_room_to_others() {
    let mut trie = FilterTrie::<u32>::new();
    trie.entry("keep/+");
    let fill = |trie: &mut FilterTrie<u32>, from: u32| {
        (from..from + 1000).for_each(|n| *trie.entry(format!("fleet/{n}/+/state")) = n);
    };
    fill(&mut trie, 0);
    let full = trie.wildcards.slots();
    for round in 1..5 {
        for n in (round - 1) * 1000..round * 1000 {
            assert_eq!(trie.remove(&format!("fleet/{n}/+/state")), Some(n));
        }
        assert_eq!(trie.wildcards.edges(), 1, "only the edge of `keep` is left");
        fill(&mut trie, round * 1000);
        assert_eq!(trie.wildcards.slots(), full);
    }
}

/// Chains are split and joined, and entries move into the places of others, at all lengths.
#[test]
fn names_come_and_go_by_thousands() {
    let mut trie = FilterTrie::<u32>::new();
    let name = |n: u32| format!("things/lamp-{n}/commands");
    let check = |trie: &FilterTrie<u32>, there: &dyn Fn(u32) -> bool| {
        for n in 0..3000 {
            assert_eq!(trie.get(&name(n)), there(n).then_some(&n), "{n}");
        }
        assert_eq!(trie.len(), (0..3000).filter(|n| there(*n)).count());
        assert_eq!(trie.iter().count(), trie.len());
    };
    for _ in 0..2 {
        (0..3000).for_each(|n| *trie.entry(name(n)) = n);
        check(&trie, &|_| true);
        for n in (0..3000).filter(|n| n % 3 != 0) {
            assert_eq!(trie.remove(&name(n)), Some(n));
            assert_eq!(trie.remove(&name(n)), None);
        }
        check(&trie, &|n| n % 3 == 0);
        (0..3000).rev().filter(|n| n % 2 == 0).for_each(|n| *trie.entry(name(n)) = n);
        check(&trie, &|n| n % 3 == 0 || n % 2 == 0);
        for n in 0..3000 {
            trie.remove(&name(n));
            if [10, 500, 2488, 2990].contains(&n) {
                check(&trie, &|other| other > n && (other % 3 == 0 || other % 2 == 0));
            }
        }
        check(&trie, &|_| false);
    }
}

/// The deepest filters and names there can be: neither a walk nor a drop may use the stack for them.
#[test]
fn depth_costs_no_stack() {
    let levels = MAX_BYTES / 2 + 1;
    let plus = vec!["+"; levels].join("/");
    let mixed = (0..levels).map(|n| ["+", "a"][n % 2]).collect::<Vec<_>>().join("/");
    let rest = format!("{}#", "/".repeat(MAX_BYTES - 1));
    let mut trie = trie(&[&plus, &mixed, &rest]);
    for (name, expected) in [
        (vec!["a"; levels].join("/"), vec![&plus, &mixed]),
        (vec!["b"; levels].join("/"), vec![&plus]),
        ("/".repeat(MAX_BYTES), vec![&rest]),
        ("/".repeat(MAX_BYTES - 1), vec![&rest]),
        ("/".repeat(levels - 1), vec![&plus]),
        ("a/".repeat(levels - 1), vec![&plus]),
    ] {
        assert!(matching(&trie, &name) == expected, "{name:.20}");
        let mut tree = TopicTree::new();
        tree.insert(&name, ());
        for filter in [&plus, &mixed, &rest] {
            let found = tree.matching(filter).next().is_some();
            assert_eq!(found, expected.contains(&filter), "{name:.20} {filter:.20}");
        }
    }
    assert_eq!(trie.iter().count(), 3);
    assert!(trie.remove(&plus).is_some());
    drop(trie.clone());
}

/// All 2^12 filters of `a` and `+` match: each branch is walked once, not once per way to reach it.
/// The long last level is what would be scanned and hashed by every branch.
#[test]
fn many_branches_and_long_levels_stay_affordable() {
    let long = "x".repeat(60_000);
    let mut trie = FilterTrie::<u32>::new();
    for bits in 1..1u32 << 12 {
        let levels = (0..12).map(|bit| if bits >> bit & 1 == 1 { "+" } else { "a" });
        let filter = levels.collect::<Vec<_>>().join("/");
        trie.entry(format!("{filter}/b"));
        trie.entry(format!("{filter}/+/+"));
    }
    let mut found = 0;
    trie.for_each_match(&format!("{}{long}/b", "a/".repeat(12)), |_| found += 1);
    assert_eq!(found, (1 << 12) - 1);
}

#[test]
fn a_node_is_as_large_as_a_cache_line() {
    assert_eq!(size_of::<Node<Vec<u8>>>(), 64);
}

/// Few levels, so that filters and names meet; some long, so that labels of both kinds are met.
fn levels(wildcards: &'static [&'static str]) -> impl Strategy<Value = Vec<&'static str>> {
    let literals = ["", "a", "b", "a!", "a0", "$a", "a level of more than twenty-two bytes"];
    let any = [&literals[..], wildcards].concat();
    prop::collection::vec(prop::sample::select(any), 1..6)
}

fn names() -> impl Strategy<Value = String> {
    levels(&[])
        .prop_map(|levels| levels.join("/"))
        .prop_filter("valid", |n| validate_name(n).is_ok())
}

fn filters() -> impl Strategy<Value = String> {
    (levels(&["+", "+", "+"]), any::<bool>())
        .prop_map(|(levels, rest)| levels.join("/") + if rest { "/#" } else { "" })
        .prop_map(|filter| if filter == "+/#" { "#".to_owned() } else { filter })
        .prop_filter("valid", |filter| validate_filter(filter).is_ok())
}

proptest! {
    #[test]
    fn the_trie_agrees_with_matches(
        steps in prop::collection::vec((filters(), any::<u8>()), 1..60),
        names in prop::collection::vec(names(), 1..10),
    ) {
        let (mut trie, mut model) = (FilterTrie::<u8>::new(), BTreeMap::new());
        for (filter, value) in &steps {
            if value % 3 == 0 {
                prop_assert_eq!(trie.remove(filter), model.remove(filter));
            } else {
                *trie.entry(filter.as_str()) = *value;
                model.insert(filter.clone(), *value);
            }
            prop_assert_eq!(trie.len(), model.len());
        }
        let all: BTreeMap<_, _> = trie.iter().map(|(filter, value)| (filter, *value)).collect();
        prop_assert_eq!(&all, &model);
        for name in names {
            let expected = model.iter().filter(|(filter, _)| matches(filter, &name));
            let mut expected: Vec<_> = expected.map(|(_, value)| value).collect();
            expected.sort();
            prop_assert_eq!(matching(&trie, &name), expected, "{}", name);
        }
        model.keys().for_each(|filter| assert!(trie.remove(filter).is_some()));
        prop_assert!(trie.is_empty());
        prop_assert_eq!(trie.wildcards.edges(), 0);
    }

    #[test]
    fn the_tree_agrees_with_matches(
        names in prop::collection::btree_set(names(), 1..60),
        filters in prop::collection::vec(filters(), 1..10),
        page in 1usize..4,
    ) {
        let mut tree = TopicTree::new();
        names.iter().for_each(|name| drop(tree.insert(name, name.clone())));
        for filter in filters {
            let expected: Vec<_> = names.iter().filter(|name| matches(&filter, name)).collect();
            let mut found = Vec::new();
            tree.for_each_match(&filter, |name, value| {
                assert_eq!(name, value);
                found.push(value);
            });
            prop_assert_eq!(&found, &expected, "{}", filter);

            let (mut paged, mut place) = (Vec::new(), None);
            for _ in 0..=names.len() {
                let mut look = tree.matching_within(&filter, place, page);
                paged.extend(look.by_ref().map(|it| it.1));
                place = look.stopped_at();
                if place.is_none() {
                    break;
                }
            }
            prop_assert_eq!(place, None, "every look gets on");
            prop_assert_eq!(&paged, &expected, "{} by pages", filter);
        }
    }
}
