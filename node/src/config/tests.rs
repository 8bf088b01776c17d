use super::*;

fn read(text: &str, environment: &[(&str, &str)]) -> Result<Config, String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("skein.toml");
    std::fs::write(&path, text).unwrap();
    let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    let read = Config::read(&path, environment)
        .and_then(|config| config.check().refuse_problems().map(|_| config));
    read.map_err(|error| error.to_string().replace(&*path.to_string_lossy(), "FILE"))
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
fn text_of_the_environment_that_looks_like_a_number_fits_a_string() {
    let environment = [
        ("SKEIN__ACCOUNT__ID", "123456789012"),
        ("SKEIN__PUBLIC_HOST", "true"),
        ("SKEIN__LOG__FILTER", "2"),
        ("SKEIN__SHARDS", "4"),
    ];
    let config = read("", &environment).unwrap();
    assert_eq!(config.account.id, "123456789012");
    assert_eq!(config.public_host.as_deref(), Some("true"));
    assert_eq!((&*config.log.filter, config.shards), ("2", 4));
}

#[test]
fn relative_paths_are_taken_from_the_folder_of_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("skein.toml");
    std::fs::write(
        &path,
        "data = 'state'\n[tls]\ncertificate = '/etc/server.pem'\n[backup]\nfolder = 'b'\n\
         [registration]\nreports = 's3://r/x'\nbuckets = { devices = 'd' }\n\
         [oidc.staff]\nissuer = 'https://id'\naudience = 'a'\nca = 'id-ca.pem'",
    )
    .unwrap();
    let variable = ("SKEIN__TLS__PRIVATE_KEY".to_owned(), "keys/server.key".to_owned());
    let config = Config::read(&path, [variable].into_iter()).unwrap();
    assert_eq!(config.data, directory.path().join("state"));
    assert_eq!(config.backup.folder, Some(directory.path().join("b")));
    assert_eq!(config.registration.reports, Some("s3://r/x".into()));
    assert_eq!(config.registration.buckets["devices"], directory.path().join("d"));
    assert_eq!(config.tls.certificate, Some("/etc/server.pem".into()));
    assert_eq!(config.oidc["staff"].ca, Some(directory.path().join("id-ca.pem")));
    assert_eq!(config.tls.private_key, Some(directory.path().join("keys/server.key")));
}

#[test]
fn a_proxy_is_a_network_or_a_host() {
    let config = read("[listeners.mqtt]\nproxy_from = ['10.0.0.1', '::1', '10.1.0.0/16']", &[]);
    let networks = config.unwrap().listeners.mqtt.proxy_from;
    let texts: Vec<_> = networks.iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["10.0.0.1/32", "::1/128", "10.1.0.0/16"]);
}

#[test]
fn bad_configurations_say_what_and_where() {
    let key =
        |id: &str, secret: &str| format!("[[access_keys]]\nid = '{id}'\nsecret = '{secret}'\n");
    let good = key("AKIA-EXAMPLE_1", "0123456789abcdef");
    let no_things = format!("{good}things = []\n");
    let odd_things = format!("{good}things = ['lamp-*', '*', 'a*b']\n");
    let odd_role = format!("{good}role = 'root'\n");
    let twice = format!("{good}{good}");
    let (no_id, short_id, odd_id) = (
        key("", "0123456789abcdef"),
        key("abc", "0123456789abcdef"),
        key("a b/c", "0123456789abcdef"),
    );
    let by_name = |dns: &str, founders: &str| {
        format!("[cluster]\nid = 'c'\nnode = 1\ndns = {dns}\nfounders = {founders}\n")
    };
    let (no_secret, short_secret) = (key("AKIA", ""), key("AKIA", "0123456789abcde"));
    for (text, environment, expected) in [
        ("shard = 4", &[][..], "unknown field `shard`"),
        ("shard = 4", &[], "did you mean `shards`?"),
        ("[access_keys]\nid = 'AKIA'", &[], "two brackets, like [[access_keys]]"),
        ("[limits]\ncontrol_plane_rate = -1", &[], "it is a number from 0 to"),
        ("[limits]\nreceive_maximum = 100000", &[], "it is a number from 0 to 65535"),
        ("[account]\nid = 123456789012", &[], "text stands in quotes"),
        ("data = ''", &[], "data: names no folder"),
        ("[listeners.mqtts]\nport = 1", &[], "unknown field `port`"),
        ("shards = 3", &[], "shards: 3 is not a power of two"),
        ("[account]\nid = \"12\"", &[], "account.id: \"12\" is not twelve digits"),
        ("[account]\nid = \"\"", &[], "account.id: \"\" is not twelve digits"),
        ("[account]\nregion = \"\"", &[], "account.region: \"\" is not a region like"),
        ("[account]\nregion = \"eu central\"", &[], "account.region: \"eu central\" is not"),
        ("[account]\npartition = \"azure\"", &[], "account.partition: \"azure\" is not"),
        ("public_host = \"\"", &[], "public_host: \"\" is not `host` or `host:port`"),
        ("public_host = \"https://iot\"", &[], "public_host: \"https://iot\" is not `host`"),
        ("public_host = \"iot:0\"", &[], "public_host: \"iot:0\" is not `host` or `host:port`"),
        (
            "[listeners.mqtts]\naddress = \"0.0.0.0:8883\"",
            &[],
            "tls.private_key: is missing, and listeners.mqtts needs it",
        ),
        ("[tls]\nissuer_certificate = \"a\"", &[], "tls.issuer_private_key: is missing, though"),
        ("[tls.issuer_hsm]\nmodule = \"m\"", &[], "tls.issuer_certificate: is missing, though"),
        (
            "[tls]\nissuer_private_key = \"a\"\n[tls.issuer_hsm]\nmodule = \"m\"",
            &[],
            "tls.issuer_hsm: there is tls.issuer_private_key, too",
        ),
        ("[tls.issuer_hsm]\npin = \"1234\"", &[], "unknown field `pin`"),
        (
            "[listeners.mqtt]\naddress = \"here\"",
            &[],
            "address \"here\" is not IP:port like \"0.0.0.0:8883\" or \"[::]:8883\": there is no port",
        ),
        ("[listeners.mqtt]\naddress = \":1883\"", &[], "the IP is missing"),
        ("[listeners.mqtt]\naddress = \"1883\"", &[], "the IP is missing"),
        ("[listeners.mqtt]\naddress = \"10.0.0.1\"", &[], "the port is missing"),
        ("[listeners.mqtt]\naddress = \"::1\"", &[], "the port is missing"),
        ("[listeners.mqtt]\naddress = \"localhost:1883\"", &[], "\"localhost\" is not an IP"),
        ("[listeners.mqtt]\naddress = \"[::]:70000\"", &[], "\"70000\" is not a port"),
        ("[listeners.mqtt]\naddress = \"[::]:0\"", &[], "listeners.mqtt.address: port 0"),
        (
            "[listeners.mqtt]\nconnect_timeout = 10",
            &[],
            "\"10\" is not a duration: it needs a number and a unit, like \"10s\"",
        ),
        ("[listeners.mqtt]\nconnect_timeout = \"ten\"", &[], "\"ten\" is not a duration"),
        ("[limits]\nmaximum_session_expiry = true", &[], "a duration is text like \"10s\""),
        (
            "[listeners.mqtt]\nproxy_from = [\"10.0.0\"]",
            &[],
            "\"10.0.0\" is neither a network like",
        ),
        (
            "[listeners.mqtt]\nanonymous_policy = \"{}\"",
            &[],
            "listeners.mqtt.anonymous_policy: it is not an IoT",
        ),
        ("[listeners.mqtt]\nanonymous_policy = \"{\"", &[], "it is not JSON, see line 1, column 1"),
        (
            "[listeners.http]\nanonymous_policy = \"{}\"",
            &[],
            "listeners.http.anonymous_policy: it is",
        ),
        ("[listeners.admin]\nproxy_from = [\"::/0\"]", &[], "listeners.admin.proxy_from: no"),
        (
            "[listeners.mqtt]\nmax_connections = 0",
            &[],
            "listeners.mqtt.max_connections: 0 would let nobody in",
        ),
        (
            "[listeners.mqtt]\nconnect_timeout = '0s'",
            &[],
            "listeners.mqtt.connect_timeout: 0s would let nobody in",
        ),
        ("[limits]\nhandshakes_per_core = 0", &[], "limits.handshakes_per_core: 0 lets nobody in"),
        ("[limits]\nconnect_packet_size = 0", &[], "limits.connect_packet_size: 0 lets nobody in"),
        ("[limits]\nclient_id_bytes = 22", &[], "it is at least 23"),
        ("[limits]\nfilter_levels = 0", &[], "limits.filter_levels: 0 refuses every wildcard"),
        ("[limits]\noutbox_bytes = 0", &[], "limits.outbox_bytes: 0 has no room for an answer"),
        ("cores = 5000", &[], "cores: 5000 is not in 1..=512"),
        ("[log]\nfilter = \"inof\"", &[], "log.filter: \"inof\" is not a filter like"),
        (
            "[traces]\nendpoint = \"localhost:4317\"",
            &[],
            "traces.endpoint: \"localhost:4317\" is not a URL",
        ),
        (
            "[traces]\nendpoint = \"https://localhost\"",
            &[],
            "traces.endpoint: \"https://localhost\" is not",
        ),
        (
            "[backup]\nfolder = 'b'\nurl = 's3://b'",
            &[],
            "backup.url: backups go to one place, and there is backup.folder",
        ),
        ("[backup]\nurl = 'b'", &[], "backup.url: \"b\" is not `s3://bucket` or `s3://bucket/pre"),
        ("[backup]\nurl = 's3:///b'", &[], "backup.url: \"s3:///b\" is not `s3://bucket`"),
        ("[backup]\nurl = 's3://B/b'", &[], "backup.url: \"s3://B/b\" is not `s3://bucket`"),
        (
            "[backup.s3]\nendpoint = 'minio:9000'",
            &[],
            "backup.s3.endpoint: \"minio:9000\" is not a",
        ),
        (
            "[backup.s3]\nendpoint = 'http://s3'",
            &[],
            "backup.s3.endpoint: \"http://s3\" has no TLS",
        ),
        ("[backup.s3]\nsecret = 'x'", &[], "unknown field `secret`"),
        (
            "[registration]\nbuckets = { devices = 's3://B' }\nreports = 'r'",
            &[],
            "registration.buckets.devices: \"s3://B\" is not `s3://bucket`",
        ),
        (
            "[registration.buckets]\ndevices = 'd'",
            &[],
            "registration.reports: is needed where there are buckets",
        ),
        (
            "[registration]\nbuckets = { 'a/b' = 'd' }\nreports = 'r'",
            &[],
            "registration.buckets: \"a/b\" is not 3 to 256",
        ),
        (
            "[registration]\nbuckets = { devices = '' }\nreports = 'r'",
            &[],
            "registration.buckets.devices: names no folder",
        ),
        (
            "[registration.s3]\nendpoint = 'http://s3'",
            &[],
            "registration.s3.endpoint: \"http://s3\" has no TLS",
        ),
        ("[registration]\nbucket = 'x'", &[], "unknown field `bucket`"),
        (
            "[cluster]\nsnapshot_bytes_per_second = 4096",
            &[],
            "cluster.snapshot_bytes_per_second: 4096 is less than 1048576",
        ),
        (&by_name("'skein'", "3"), &[], "cluster.dns: \"skein\" is not a name and a port, like"),
        (&by_name("'a b:7400'", "3"), &[], "cluster.dns: \"a b:7400\" is not a name and a port"),
        (&by_name("':7400'", "3"), &[], "cluster.dns: \":7400\" is not a name and a port"),
        (
            &by_name("'s-{id}:7400'", "3"),
            &[],
            "cluster.dns: \"s-{id}:7400\" is not a name and a port",
        ),
        (
            &by_name("'s:7400'", "0"),
            &[],
            "cluster.founders: is missing: how many nodes the cluster",
        ),
        (
            &by_name("'s:7400'", "[]"),
            &[],
            "cluster.founders: is missing: how many nodes the cluster",
        ),
        (
            &by_name("'s:7400'", "[0, 1]"),
            &[],
            "cluster.founders: 0 is not a number from 1 to 65535",
        ),
        (
            &by_name("'s:7400'", "70000"),
            &[],
            "founders are how many, like 3, or their numbers, like",
        ),
        (&by_name("'s:7400'", "'3'"), &[], "founders are how many, like 3, or their numbers, like"),
        (
            &(by_name("'s:7400'", "3") + "[[cluster.peers]]\nnode = 1\naddress = 'a:1'\n"),
            &[],
            "cluster.dns: nodes are found in one way, and there are cluster.peers",
        ),
        (&no_id, &[], "access_keys[0].id: \"\" is not at least 4"),
        (&short_id, &[], "access_keys[0].id: \"abc\" is not at least 4"),
        (&odd_id, &[], "access_keys[0].id: \"a b/c\" is not at least 4"),
        (&no_secret, &[], "access_keys[0].secret: 0 characters; it needs at least 16"),
        (&short_secret, &[], "access_keys[0].secret: 15 characters; it needs at least 16"),
        (&twice, &[], "access_keys[1].id: \"AKIA-EXAMPLE_1\" is there twice"),
        (
            &odd_things,
            &[],
            "access_keys[0].things: \"a*b\" is neither the name of a thing nor START*",
        ),
        (&no_things, &[], "no things: leave `things` out for all, or name some"),
        (
            &odd_role,
            &[],
            "unknown variant `root`, expected one of `read-only`, `operator`, `admin`",
        ),
        ("[listeners.mqtts]\naddress = 0.0.0.0:8883", &[], "text stands in quotes"),
        ("[listeners.mqtts]\naddress = localhost:1", &[], "text stands in quotes"),
        ("[account]\nid = 000000000000", &[], "text stands in quotes"),
        ("[limits]\nmaximum_session_expiry = 7days", &[], "text stands in quotes"),
        ("data = /var/lib/skein", &[], "text stands in quotes"),
        ("", &[("SKEIN__SHARDS", "many")], "SKEIN__SHARDS: invalid type"),
        (
            "",
            &[("SKEIN__LISTENERS__MQTT__PROXY_FROM", "10.0.0.0/8")],
            "expected a list; a list is like [\"10.0.0.0/8\"]",
        ),
        ("", &[("SKEIN__LISTENERS__MQTT__PROXY_FROM", "[10.0.0.0/8]")], "text stands in quotes"),
        (
            "",
            &[("SKEIN__LISTENERS", "4")],
            "SKEIN__LISTENERS: invalid type: integer `4`, expected a table",
        ),
        ("", &[("SKEIN__ACCOUNT", "4")], "SKEIN__ACCOUNT: invalid type"),
        ("", &[("SKEIN__SHARDZ", "4")], "SKEIN__SHARDZ: unknown field"),
        ("", &[("SKEIN__SHARDZ", "4")], "did you mean `shards`?"),
        ("shards = 4", &[("SKEIN__SHARDS__X", "4")], "shards is a value, not a table"),
        ("", &[("SKEIN__LOG__", "4")], "SKEIN__LOG__: names no key"),
    ] {
        let error = read(text, environment).unwrap_err();
        assert!(error.contains(expected), "{text:?} {environment:?}: {error}");
    }
    assert!(read(&good, &[]).is_ok());
}

#[test]
fn every_problem_is_said() {
    let error = read("shards = 3\n[account]\nid = '1'\n[limits]\nreceive_maximum = 0", &[]);
    let error = error.unwrap_err();
    let keys: Vec<_> = error.lines().filter_map(|line| line.trim().split_once(':')).collect();
    let keys: Vec<_> = keys.into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["shards", "account.id", "limits.receive_maximum"], "{error}");
}

#[test]
fn what_is_of_quic_stays_there() {
    for (text, expected) in [
        ("mqtts]\nearly_data = true", Some("listeners.mqtts.early_data: it is for QUIC")),
        ("quic]\nproxy_from = ['10.0.0.1']", Some("listeners.quic.proxy_from: no PROXY header")),
        ("quic]\naddress = '127.0.0.1:1'", Some("tls.certificate: is missing, and listeners.quic")),
        ("quic]\nearly_data = true", None),
        // UDP and TCP have ports of their own.
        ("quic]\naddress = '127.0.0.1:2'\n[listeners.mqtts]\naddress = '127.0.0.1:2'", None),
    ] {
        let said = read(&format!("[listeners.{text}"), &[]).err().unwrap_or_default();
        match expected {
            Some(expected) => assert!(said.contains(expected), "{text}: {said}"),
            None => assert!(!said.contains("early_data") && !said.contains("is also"), "{said}"),
        }
    }
}

#[test]
fn nodes_are_told_apart() {
    for (address, collides) in [("10.0.0.1:7400", true), ("[::1]:7400", true), ("name:7400", false)]
    {
        let peer = |node| format!("[[cluster.peers]]\nnode = {node}\naddress = '{address}'\n");
        let text = format!("[cluster]\nnode = 1\n{}{}", peer(1), peer(2));
        let error = read(&text, &[]).unwrap_err();
        let said = format!("cluster.peers[1].address: {address} is the address of node 1");
        assert_eq!(error.contains(&said), collides, "{error}");
    }
}

#[test]
fn two_listeners_do_not_share_an_address() {
    for (first, second, collide) in [
        ("127.0.0.1:1883", "127.0.0.1:1883", true),
        ("0.0.0.0:1883", "127.0.0.1:1883", true),
        ("127.0.0.1:1883", "0.0.0.0:1883", true),
        ("[::]:1883", "127.0.0.1:1883", true),
        ("[::]:1883", "[::1]:1883", true),
        ("[::ffff:127.0.0.1]:1883", "127.0.0.1:1883", true),
        ("0.0.0.0:1883", "[::1]:1883", false),
        ("127.0.0.1:1883", "127.0.0.2:1883", false),
        ("0.0.0.0:1883", "0.0.0.0:1884", false),
    ] {
        let text = format!(
            "[listeners.mqtt]\naddress = '{first}'\n[listeners.admin]\naddress = '{second}'"
        );
        let read = read(&text, &[]).map(drop);
        let said = "listeners.admin.address: the address is also that of listeners.mqtt.address";
        let expected = if collide { Err(said.to_owned()) } else { Ok(()) };
        assert_eq!(read, expected, "{first} {second}");
    }
    let text = "[listeners.admin]\naddress = '127.0.0.1:7400'\n[cluster]\nlisten = '0.0.0.0:7400'";
    let error = read(text, &[]).unwrap_err();
    let said = "cluster.listen: the address is also that of listeners.admin.address";
    assert!(error.contains(said), "{error}");
}

#[test]
fn what_cannot_work_is_warned_of() {
    for (text, expected) in [
        ("", &["listeners: none has"][..]),
        ("[listeners.admin]\naddress = '127.0.0.1:1'", &["listeners: none has"]),
        ("[listeners.mqtt]\naddress = '127.0.0.1:1'", &["listeners.mqtt: there is no TLS"]),
        ("[listeners.ws]\naddress = '127.0.0.1:1'", &["listeners.ws: without anonymous_policy"]),
        ("[listeners.http]\naddress = '127.0.0.1:1'", &["listeners.http: without access_keys"]),
        ("[listeners.https]\naddress = '127.0.0.1:1'", &["listeners.https: without tls.issuer"]),
        (
            "[cluster]\nnode = 1\nfounders = [1, 2, 9]\n[[cluster.peers]]\nnode = 2\naddress = 'h:1'",
            &["cluster.founders: node 9 is none of the peers", "listeners: none has"],
        ),
        (
            "[cluster]\nnode = 4\nfounders = [2]\n[[cluster.peers]]\nnode = 2\naddress = 'h:1'",
            &["cluster.founders: node 4 is none of them", "listeners: none has"],
        ),
    ] {
        let config: Config = toml::from_str(text).unwrap();
        let warnings = config.check().warnings;
        assert_eq!(warnings.len(), expected.len(), "{text:?}: {warnings:?}");
        for (warning, expected) in warnings.iter().zip(expected) {
            assert!(warning.to_string().starts_with(expected), "{text:?}: {warning}");
        }
    }
}

#[test]
fn a_variable_that_nearly_names_a_key_is_warned_of() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("skein.toml");
    std::fs::write(&path, "").unwrap();
    for (variable, meant) in [
        ("SKEIN_DATA", Some("SKEIN__DATA")),
        ("SKEIN_ACCOUNT_ID", Some("SKEIN__ACCOUNT__ID")),
        ("SKEIN_LISTENERS__MQTTS__ADDRESS", Some("SKEIN__LISTENERS__MQTTS__ADDRESS")),
        ("SKEIN_ACCESS_KEYS", Some("SKEIN__ACCESS_KEYS")),
        ("SKEIN_LIMITS_RECEIVE_MAXIMUM", Some("SKEIN__LIMITS__RECEIVE_MAXIMUM")),
        ("SKEIN_BIN", None),
        ("SKEIN_API_SERVICE_HOST", None),
        ("SKEIN_", None),
        ("HOME", None),
    ] {
        let environment = [(variable.to_owned(), "4".to_owned())].into_iter();
        let suspicions = Config::read(&path, environment).unwrap().suspicions;
        let said: Vec<_> = suspicions.iter().map(|it| it.text.as_str()).collect();
        match meant {
            Some(meant) => assert_eq!(said, [format!("has no effect; did you mean {meant}?")]),
            None => assert!(said.is_empty(), "{variable}: {said:?}"),
        }
    }
}

#[test]
fn a_file_with_secrets_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("skein.toml");
    let keys = "[[access_keys]]\nid = 'AKIA'\nsecret = '0123456789abcdef'";
    for (text, mode, warned) in
        [(keys, 0o644, true), (keys, 0o640, false), (keys, 0o600, false), ("", 0o644, false)]
    {
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let config = Config::read(&path, std::iter::empty()).unwrap();
        let warnings = config.check().warnings;
        let said = warnings.iter().any(|it| it.text.contains("holds secrets and has mode 0644"));
        assert_eq!(said, warned, "{mode:o} {text:?}: {warnings:?}");
    }
}

#[test]
fn a_mistyped_secret_is_not_shown() {
    let hint = "it is TOML: [{ id = \"…\", secret = \"…\" }]";
    for value in [
        r#"[{ id = "AKIA1234", secret = "hidden-hidden-hidden" }"#,
        r#"[{"id": "AKIA1234", "secret": "hidden-hidden-hidden"}]"#,
        r#"[{ id = "AKIA1234", secret = 'hidden-hidden-hidden }]"#,
        r#"[{ id = "AKIA1234", secret = hidden-hidden-hidden }]"#,
        r#"[{ id = "AKIA1234", secert = "hidden-hidden-hidden" }]"#,
        r#"'[{ id = "AKIA1234", secret = "hidden-hidden-hidden" }]'"#,
        r#"AKIA1234:hidden-hidden-hidden"#,
        r#""hidden-hidden-hidden""#,
        r#"["hidden-hidden-hidden"]"#,
        r#"{ id = "AKIA1234", secret = "hidden-hidden-hidden" }"#,
    ] {
        let error = read("", &[("SKEIN__ACCESS_KEYS", value)]).unwrap_err();
        assert!(!error.contains("hidden"), "{value}: {error}");
        assert!(error.contains(hint), "{value}: {error}");
    }
    let error = read("", &[("SKEIN__ACCESS_KEYS", r#"[{ id = "AKIA", secret = 4711471147 }]"#)]);
    assert!(!error.as_ref().unwrap_err().contains("4711"), "{error:?}");
    for secret in [
        "secret = \"hidden",
        "secert = \"hidden\"",
        "secret = hidden",
        "secret = 'hidden'\nsecret = 'hidden'",
        "secret = 4711471147",
        "secret: \"hidden\"",
    ] {
        for before in ["[[access_keys]]\nid = 'AKIA'\n", "[[access_key]]\nid = 'AKIA'\n"] {
            let error = read(&format!("# A secret.\n{before}{secret}"), &[]).unwrap_err();
            let is_shown = error.contains("hidden") || error.contains("4711");
            assert!(!is_shown && error.starts_with("FILE: "), "{secret}: {error}");
        }
    }
    let inline = "access_keys = [{ id = 'AKIA', secret = 'hidden' }";
    let error = read(inline, &[]).unwrap_err();
    assert!(error.contains("line 1: ") && !error.contains("hidden"), "{error}");
    // Anything else is shown where it stands.
    let error = read("# A secret.\nshards = many", &[]).unwrap_err();
    assert!(error.contains("2 | shards = many"), "{error}");
}

#[test]
fn secrets_are_not_shown() {
    let key = AccessKey { id: "id".into(), secret: "hidden".into(), ..AccessKey::default() };
    assert!(!format!("{key:?}").contains("hidden"));
}
