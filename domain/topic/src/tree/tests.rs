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
