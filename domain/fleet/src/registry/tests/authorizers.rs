//! Custom authorizers: which there can be, and which of them is asked.

use super::*;

fn authorizer(name: &str) -> AuthorizerName {
    AuthorizerName::new(name).unwrap()
}

fn plain(name: &str, is_active: bool) -> Authorizer {
    Authorizer {
        name: authorizer(name),
        function: "https://auth.example/".into(),
        token_key: None,
        signing_keys: BTreeMap::new(),
        signing_disabled: true,
        caching_for_http: false,
        status: if is_active { AuthorizerStatus::Active } else { AuthorizerStatus::Inactive },
        tags: BTreeMap::new(),
        created: DAY,
        modified: DAY,
        generation: uuid(1),
    }
}

fn create_it(authorizer: Authorizer) -> Command {
    Command::Authorizer(AuthorizerCommand::Create { authorizer: Box::new(authorizer) })
}

pub(super) fn create_authorizer(name: &str, is_active: bool) -> Command {
    create_it(plain(name, is_active))
}

pub(super) fn update_authorizer(name: &str, is_active: bool) -> Command {
    Command::Authorizer(AuthorizerCommand::Update {
        authorizer: authorizer(name),
        function: None,
        token_key: None,
        signing_keys: None,
        status: Some(if is_active { AuthorizerStatus::Active } else { AuthorizerStatus::Inactive }),
        caching_for_http: None,
        at: Timestamp(DAY.0 + 1),
    })
}

pub(super) fn delete_authorizer(name: &str) -> Command {
    Command::Authorizer(AuthorizerCommand::Delete { authorizer: authorizer(name) })
}

pub(super) fn set_default(name: &str) -> Command {
    Command::Authorizer(AuthorizerCommand::SetDefault { authorizer: authorizer(name) })
}

#[test]
fn an_authorizer_is_there_once_and_goes_when_it_is_not_asked() {
    let mut registry = after([create_authorizer("a", true)]);
    let exists = Rejection::AuthorizerExists(authorizer("a"));
    assert_eq!(refuse(&mut registry, create_authorizer("a", false)), exists);
    let active = Rejection::AuthorizerActive(authorizer("a"));
    assert_eq!(refuse(&mut registry, delete_authorizer("a")), active);
    assert!(registry.authorizer_stands(&authorizer("a"), uuid(1)));
    assert!(!registry.authorizer_stands(&authorizer("a"), uuid(2)));
    assert!(registry.take_changes().is_empty());
    registry.apply(update_authorizer("a", false)).unwrap();
    assert_eq!(registry.take_changes().authorizers, [authorizer("a")].into());
    assert!(!registry.authorizer_stands(&authorizer("a"), uuid(1)));
    let found = registry.authorizer("a").unwrap();
    assert_eq!((found.created, found.modified.0), (DAY, DAY.0 + 1));
    assert_eq!(found.function, "https://auth.example/");
    registry.apply(delete_authorizer("a")).unwrap();
    for command in [delete_authorizer("a"), update_authorizer("a", true), set_default("a")] {
        let missing = Rejection::AuthorizerNotFound(authorizer("a"));
        assert_eq!(refuse(&mut registry, command), missing);
    }
    assert_eq!(create_authorizer("a", true).since(), 2);
}

#[test]
fn the_default_is_set_once_and_stays_while_it_is_that() {
    let mut registry = after([create_authorizer("a", false), create_authorizer("b", true)]);
    let clear = || Command::Authorizer(AuthorizerCommand::ClearDefault);
    assert_eq!(refuse(&mut registry, clear()), Rejection::DefaultAuthorizerNotFound);
    assert_eq!(registry.default_authorizer(), None);
    registry.apply(set_default("a")).unwrap();
    registry.apply(set_default("a")).unwrap();
    let exists = Rejection::DefaultAuthorizerExists(authorizer("a"));
    assert_eq!(refuse(&mut registry, set_default("b")), exists);
    let is_default = Rejection::AuthorizerIsDefault(authorizer("a"));
    assert_eq!(refuse(&mut registry, delete_authorizer("a")), is_default);
    assert_eq!(registry.default_authorizer().unwrap().name, authorizer("a"));
    registry.apply(clear()).unwrap();
    registry.apply(delete_authorizer("a")).unwrap();
    registry.apply(set_default("b")).unwrap();
}

#[test]
fn who_checks_signatures_has_keys() {
    let signed = |token_key: Option<&str>, keys: &[(&str, &str)]| Authorizer {
        signing_disabled: false,
        token_key: token_key.map(ToOwned::to_owned),
        signing_keys: attributes(keys),
        ..plain("a", false)
    };
    for (token_key, keys, valid) in [
        (None, &[][..], false),
        (Some("token"), &[], false),
        (None, &[("k", "pem")], false),
        (Some("token"), &[("k", "pem")], true),
    ] {
        let mut registry = Registry::default();
        let created = registry.apply(create_it(signed(token_key, keys)));
        assert_eq!(created.is_ok(), valid, "{token_key:?} {keys:?}");
        if valid {
            let takes_keys = Command::Authorizer(AuthorizerCommand::Update {
                authorizer: authorizer("a"),
                function: None,
                token_key: None,
                signing_keys: Some(BTreeMap::new()),
                status: None,
                caching_for_http: None,
                at: DAY,
            });
            let refused = Rejection::AuthorizerCannotVerify(authorizer("a"));
            assert_eq!(refuse(&mut registry, takes_keys), refused);
        }
    }
}

#[test]
fn there_are_a_hundred_authorizers_and_32_active_ones_at_most() {
    let mut registry =
        after((0..100).map(|number| create_authorizer(&format!("a{number}"), number < 32)));
    let many = Rejection::TooManyAuthorizers { limit: 100 };
    assert_eq!(refuse(&mut registry, create_authorizer("one-more", false)), many);
    let many = Rejection::TooManyActiveAuthorizers { limit: 32 };
    assert_eq!(refuse(&mut registry, update_authorizer("a32", true)), many);
    // Of the active ones itself does not count.
    registry.apply(update_authorizer("a0", true)).unwrap();
    registry.apply(update_authorizer("a0", false)).unwrap();
    registry.apply(update_authorizer("a32", true)).unwrap();
    let paging = Paging { after: None, limit: 60, order: Order::Descending };
    let first = registry.authorizers(None, &paging);
    let rest = registry.authorizers(None, &Paging { after: first.next, ..paging });
    assert_eq!((first.items.len(), rest.items.len(), rest.next), (60, 40, None));
    let all = Paging { after: None, limit: 250, order: Order::Ascending };
    let active = registry.authorizers(Some(AuthorizerStatus::Active), &all);
    assert_eq!(active.items.len(), 32);
}
