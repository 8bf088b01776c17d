use super::*;

fn read(text: &str, environment: &[(&str, &str)]) -> Result<Config, String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("skein.toml");
    std::fs::write(&path, text).unwrap();
    let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    Config::read(&path, environment)
        .map_err(|error| error.to_string().replace(&*path.to_string_lossy(), "FILE"))
}

#[test]
fn an_empty_file_is_the_default() {
    assert_eq!(read("", &[]), Ok(Config::default()));
}

#[test]
fn the_environment_wins_over_the_file() {
    let text = "shards = 4\n[limits]\nreceive_maximum = 10\n";
    let environment = [
        ("SKEIN__LISTENERS__ADMIN__ADDRESS", "127.0.0.1:9464"),
        ("SKEIN__LIMITS__RECEIVE_MAXIMUM", "20"),
        ("SKEIN__LIMITS__SLOW_CONSUMER_PATIENCE", "3s"),
        ("HOME", "/nowhere"),
    ];
    let config = read(text, &environment).unwrap();
    assert_eq!(config.shards, 4);
    assert_eq!(config.limits.receive_maximum, 20);
    assert_eq!(config.limits.slow_consumer_patience, Duration::from_secs(3));
    assert_eq!(config.listeners.admin.address, Some("127.0.0.1:9464".parse().unwrap()));
}

#[test]
fn bad_configurations_say_what_and_where() {
    for (text, environment, expected) in [
        ("shard = 4", &[][..], "unknown field `shard`"),
        ("[listeners.mqtts]\nport = 1", &[], "unknown field `port`"),
        ("shards = 3", &[], "shards: 3 is not a power of two"),
        ("[account]\nid = \"12\"", &[], "account.id: \"12\" is not twelve digits"),
        ("[listeners.mqtts]\naddress = \"0.0.0.0:8883\"", &[], "tls: a TLS listener needs"),
        ("[listeners.mqtt]\naddress = \"here\"", &[], "invalid socket address"),
        ("[listeners.mqtt]\nanonymous_policy = \"{}\"", &[], "listeners.mqtt: anonymous_policy"),
        ("[listeners.http]\nanonymous_policy = \"{}\"", &[], "listeners.http: anonymous_policy is"),
        ("[listeners.admin]\nproxy_from = [\"::/0\"]", &[], "listeners.admin: proxy_from: no"),
        ("[limits]\nhandshakes_per_core = 0", &[], "limits.handshakes_per_core: 0 would"),
        ("[limits]\nhandshakes_per_source = 0", &[], "limits.handshakes_per_source: 0 would"),
        ("", &[("SKEIN__SHARDS", "many")], "SKEIN__SHARDS: invalid type"),
        ("", &[("SKEIN__SHARDZ", "4")], "SKEIN__SHARDZ: unknown field"),
        ("shards = 4", &[("SKEIN__SHARDS__X", "4")], "shards is a value, not a table"),
    ] {
        let error = read(text, environment).unwrap_err();
        assert!(error.contains(expected), "{text:?} {environment:?}: {error}");
    }
}

#[test]
fn secrets_are_not_shown() {
    let key = AccessKey { id: "id".into(), secret: "hidden".into() };
    assert!(!format!("{key:?}").contains("hidden"));
}
