use super::*;

fn tree(names: &[&str]) -> TopicTree<usize> {
    let mut tree = TopicTree::new();
    for (n, name) in names.iter().enumerate() {
        assert_eq!(tree.insert(name, n), None);
    }
    tree
}

/// Rows of a filter and what it finds, in order. Which pairs match is told in the trie's table.
#[test]
fn filters_find_names_in_order() {
    // `!` sorts before the separator and `0` right behind it: neighbours that leaps could lose.
    let tree = tree(&[
        "a", "a!", "a!/b", "a/", "a//b", "a/b", "a/b!", "a/b!/c", "a/b/c", "a/b0", "a/c/b", "a0",
        "a0/b", "b/b", "/b", "$a/b", "$a", "$",
    ]);
    for (filter, expected) in [
        ("a", &["a"][..]),
        ("a/b", &["a/b"]),
        ("x", &[]),
        ("+", &["a", "a!", "a0"]),
        ("+/b", &["/b", "a!/b", "a/b", "a0/b", "b/b"]),
        ("+/+", &["/b", "a!/b", "a/", "a/b", "a/b!", "a/b0", "a0/b", "b/b"]),
        ("a/#", &["a", "a/", "a//b", "a/b", "a/b!", "a/b!/c", "a/b/c", "a/b0", "a/c/b"]),
        ("a/+/b", &["a//b", "a/c/b"]),
        ("+/+/c", &["a/b!/c", "a/b/c"]),
        ("+/b/#", &["/b", "a!/b", "a/b", "a/b/c", "a0/b", "b/b"]),
        ("$a/#", &["$a", "$a/b"]),
        ("$a/+", &["$a/b"]),
        ("/#", &["/b"]),
    ] {
        let found: Vec<_> = tree.matching(filter).map(|(name, _)| name).collect();
        assert_eq!(found, expected, "{filter}");
    }
}

#[test]
fn names_are_changed_and_removed() {
    let mut tree = tree(&["a", "b"]);
    assert_eq!(tree.insert("a", 7), Some(0));
    assert_eq!(tree.insert("c", 9), None);
    *tree.get_mut("b").unwrap() += 10;
    assert_eq!((tree.get("a"), tree.get("b"), tree.get("d")), (Some(&7), Some(&11), None));
    assert_eq!(tree.iter().collect::<Vec<_>>(), [("a", &7), ("b", &11), ("c", &9)]);
    assert_eq!(tree.iter_after("a").collect::<Vec<_>>(), [("b", &11), ("c", &9)]);
    assert_eq!(tree.iter_after("bb").collect::<Vec<_>>(), [("c", &9)]);
    assert_eq!((tree.remove("b"), tree.remove("b"), tree.len()), (Some(11), None, 2));
    assert!(!tree.is_empty());
}

#[test]
fn an_exhausted_search_stays_exhausted() {
    let tree = tree(&["a/b", "c", "d"]);
    let mut found = tree.matching("a/+");
    assert_eq!(found.next(), Some(("a/b", &0)));
    assert_eq!((found.next(), found.next()), (None, None));
}

/// However many names there are, and whether they match or not.
#[test]
fn a_search_stops_after_as_many_names_as_it_may_visit() {
    let names: Vec<_> = (0..1000).map(|n| format!("{n}/a")).collect();
    let tree = tree(&names.iter().map(String::as_str).collect::<Vec<_>>());
    for (filter, found) in [("+/a", 10), ("#", 10), ("+/b", 0), ("+/+/+", 0)] {
        let mut look = tree.matching_within(filter, None, 10);
        assert_eq!(look.by_ref().count(), found, "{filter}");
        assert_eq!((look.visits_left(), look.next()), (0, None), "{filter}");
        let place = look.stopped_at().unwrap();
        let behind = names.iter().filter(|name| ***name > *place).count();
        assert!(behind > 900, "{filter} stopped at {place}");
    }
    let mut look = tree.matching_within("x/#", None, 10);
    assert_eq!((look.next(), look.stopped_at(), look.visits_left()), (None, None, 10));
}
