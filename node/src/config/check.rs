//! Which values cannot be, and which are suspicious. Looks at nothing but the configuration.

use std::collections::HashSet;
use std::fmt;
use std::net::SocketAddr;

use fleet::registry::ThingName;
use socket2::Type;

use super::{Config, ConfigError, Listener};

/// The least that a secret may have, in characters.
const SECRET_LENGTH: usize = 16;

/// The most cores that a node uses: each needs a few files and a thread.
const MOST_CORES: u16 = 512;

/// One thing that is wrong with a configuration, or looks wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The key, like `listeners.mqtts.address`.
    pub key: String,
    /// What is wrong with it, in words.
    pub text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.text)
    }
}

/// Everything that was found, in the order of the keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// A node does not start with these.
    pub problems: Vec<Finding>,
    /// It starts, and something does not work or is not what was meant.
    pub warnings: Vec<Finding>,
}

impl Findings {
    /// Notes something with which a node does not start.
    pub fn problem(&mut self, key: impl Into<String>, text: impl Into<String>) {
        self.problems.push(Finding { key: key.into(), text: text.into() });
    }

    /// Notes something with which it does.
    pub fn warning(&mut self, key: impl Into<String>, text: impl Into<String>) {
        self.warnings.push(Finding { key: key.into(), text: text.into() });
    }

    /// The warnings, when there is no problem.
    pub fn refuse_problems(self) -> Result<Vec<Finding>, ConfigError> {
        if self.problems.is_empty() {
            return Ok(self.warnings);
        }
        Err(ConfigError::Values(self.problems))
    }
}

/// One in a line; several in a line each.
pub(super) fn listed(findings: &[Finding]) -> String {
    match findings {
        [one] => one.to_string(),
        many => many.iter().fold(format!("{} problems", many.len()), |text, finding| {
            format!("{text}\n  {finding}")
        }),
    }
}

impl Config {
    /// Finds values that cannot be or are suspicious.
    pub fn check(&self) -> Findings {
        let mut found = Findings { warnings: self.suspicions.clone(), ..Findings::default() };
        self.check_node(&mut found);
        self.check_account(&mut found);
        self.check_cluster(&mut found);
        self.backup.check(&mut found);
        self.audit.check(&mut found);
        self.registration.check(&mut found);
        self.check_listeners(&mut found);
        self.check_access_keys(&mut found);
        super::jwt::check(&self.jwt_issuers, &mut found);
        super::oidc::check(&self.oidc, &self.jwt_issuers, &mut found);
        self.check_limits(&mut found);
        self.check_telemetry(&mut found);
        found
    }

    fn check_node(&self, found: &mut Findings) {
        if self.data.as_os_str().is_empty() {
            found.problem("data", "names no folder");
        }
        if let Some(cores) = self.cores.filter(|cores| !(1..=MOST_CORES).contains(cores)) {
            found.problem("cores", format!("{cores} is not in 1..={MOST_CORES}"));
        }
        if !self.shards.is_power_of_two() || self.shards > 1024 {
            found.problem("shards", format!("{} is not a power of two up to 1024", self.shards));
        }
        if let Some(host) = self.public_host.as_deref().filter(|host| !is_host(host)) {
            let text = format!("{host:?} is not `host` or `host:port`, like \"iot.example.com\"");
            found.problem("public_host", text);
        }
    }

    fn check_account(&self, found: &mut Findings) {
        let account = &self.account;
        if account.id.len() != 12 || !account.id.bytes().all(|byte| byte.is_ascii_digit()) {
            found.problem("account.id", format!("{:?} is not twelve digits", account.id));
        }
        let is_name = |text: &str| {
            text.starts_with(|first: char| first.is_ascii_lowercase())
                && text
                    .bytes()
                    .all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'-')
        };
        if !is_name(&account.region) {
            let text = format!("{:?} is not a region like \"eu-central-1\"", account.region);
            found.problem("account.region", text);
        }
        if !is_name(&account.partition) || !account.partition.starts_with("aws") {
            let text = format!(
                "{:?} is not a partition like \"aws\", \"aws-cn\" or \"aws-us-gov\"",
                account.partition
            );
            found.problem("account.partition", text);
        }
    }

    fn check_cluster(&self, found: &mut Findings) {
        let Some(cluster) = &self.cluster else { return };
        cluster.check(found);
        if self.accept_log_loss && !cluster.known().is_empty() {
            let text = "would lose what other nodes were told: empty its data folder and let it join \
                        anew with `skein cluster replace`";
            found.problem("accept_log_loss", text);
        }
    }

    fn check_listeners(&self, found: &mut Findings) {
        let listeners = &self.listeners;
        for (key, listener) in listeners.all() {
            check_listener(key, listener, found);
        }
        for (first, second) in self.collisions() {
            found.problem(second, format!("the address is also that of {first}"));
        }
        let is_open = |listener: &Listener| listener.address.is_some();
        if listeners.all().iter().all(|(key, it)| *key == "listeners.admin" || !is_open(it)) {
            found.warning("listeners", "none has an address: nobody can connect");
        }
        let lets_nobody_in = |it: &Listener| is_open(it) && it.anonymous_policy.is_none();
        if lets_nobody_in(&listeners.mqtt) {
            let text = "there is no TLS to prove anything with, and without anonymous_policy every \
                        client is refused";
            found.warning("listeners.mqtt", text);
        }
        let is_for_nobody = self.access_keys.is_empty() && self.oidc.is_empty();
        if lets_nobody_in(&listeners.ws) && is_for_nobody {
            let text = "without anonymous_policy and access_keys every client is refused";
            found.warning("listeners.ws", text);
        }
        if is_open(&listeners.mqtts) && listeners.mqtts.anonymous_policy.is_some() {
            let text = "every client has a certificate here, so it decides for nobody";
            found.warning("listeners.mqtts.anonymous_policy", text);
        }
        if is_open(&listeners.http) && is_for_nobody {
            let text = "without access_keys and oidc every request is refused";
            found.warning("listeners.http", text);
        }
        let serves_rest = is_open(&listeners.http)
            || is_open(&listeners.https) && self.tls.issuer_certificate.is_some();
        if !self.oidc.is_empty() && !serves_rest {
            found
                .warning("oidc", "neither listeners.http nor https serves REST: nobody can log in");
        }
        if is_open(&listeners.https) && self.tls.issuer_certificate.is_none() {
            let text = "without tls.issuer_certificate only WebSockets and MQTT are served here, \
                        no HTTPS requests";
            found.warning("listeners.https", text);
        }
        self.check_tls(found);
    }

    /// Whether the files that the listeners need are named; whether they can be used is not seen
    /// here.
    fn check_tls(&self, found: &mut Findings) {
        let (listeners, tls) = (&self.listeners, &self.tls);
        let uses_tls = [
            ("listeners.mqtts", &listeners.mqtts),
            ("listeners.quic", &listeners.quic),
            ("listeners.https", &listeners.https),
        ]
        .into_iter()
        .find(|(_, listener)| listener.address.is_some());
        let uses_issuer = Some("listeners.http").filter(|_| listeners.http.address.is_some());
        let in_hsm = tls.issuer_hsm.as_ref().map(|hsm| hsm.module.clone());
        if in_hsm.is_some() && tls.issuer_private_key.is_some() {
            let text = "there is tls.issuer_private_key, too: only one of them can sign";
            found.problem("tls.issuer_hsm", text);
        }
        let issuer_key = tls.issuer_private_key.clone().or(in_hsm);
        for (needed_by, first, second) in [
            (
                uses_tls.map(|(key, _)| key),
                ("tls.certificate", &tls.certificate),
                ("tls.private_key", &tls.private_key),
            ),
            (
                uses_issuer,
                ("tls.issuer_certificate", &tls.issuer_certificate),
                ("tls.issuer_private_key", &issuer_key),
            ),
        ] {
            for ((key, file), (other, other_file)) in [(first, second), (second, first)] {
                match (file, needed_by) {
                    (None, Some(needed_by)) => {
                        found.problem(key, format!("is missing, and {needed_by} needs it"));
                    }
                    (None, None) if other_file.is_some() => {
                        found.problem(key, format!("is missing, though there is {other}"));
                    }
                    _ => {}
                }
            }
        }
    }

    fn check_access_keys(&self, found: &mut Findings) {
        let mut ids = HashSet::new();
        for (number, key) in self.access_keys.iter().enumerate() {
            let place = |field: &str| format!("access_keys[{number}].{field}");
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
            if key.id.len() < 4 || !key.id.bytes().all(is_plain) {
                let text = format!("{:?} is not at least 4 of A-Z, a-z, 0-9, _ and -", key.id);
                found.problem(place("id"), text);
            } else if !ids.insert(&key.id) {
                found.problem(place("id"), format!("{:?} is there twice", key.id));
            }
            let length = key.secret.chars().count();
            if length < SECRET_LENGTH {
                let text = format!("{length} characters; it needs at least {SECRET_LENGTH}");
                found.problem(place("secret"), text);
            }
            check_things(&key.things, &place("things"), found);
        }
    }

    fn check_limits(&self, found: &mut Findings) {
        let limits = &self.limits;
        if !(1024..=268_435_460).contains(&limits.maximum_packet_size) {
            let text = format!("{} is not in 1024..=268435460", limits.maximum_packet_size);
            found.problem("limits.maximum_packet_size", text);
        }
        for (key, value, least, fewer) in [
            ("receive_maximum", limits.receive_maximum.into(), 1, "refuses QoS 1 and 2"),
            ("connect_packet_size", limits.connect_packet_size as usize, 256, "lets nobody in"),
            // [v5 MQTT-3.1.3-5]
            (
                "client_id_bytes",
                limits.client_id_bytes,
                23,
                "refuses client ids that must be taken",
            ),
            ("subscriptions_per_connection", limits.subscriptions_per_connection, 1, "grants none"),
            ("filter_levels", limits.filter_levels, 1, "refuses every wildcard"),
            ("outbox_bytes", limits.outbox_bytes, 1024, "has no room for an answer"),
            ("pending_bytes", limits.pending_bytes, 1024, "has no room for a publication"),
            ("core_bytes", limits.core_bytes, 1 << 20, "has no room for connections"),
            ("handshakes_per_core", limits.handshakes_per_core, 1, "lets nobody in"),
            ("handshakes_per_source", limits.handshakes_per_source, 1, "lets nobody in"),
        ] {
            if value < least {
                let text = format!("{value} {fewer}; it is at least {least}");
                found.problem(format!("limits.{key}"), text);
            }
        }
        for (key, value) in [
            ("session_queue_bytes", limits.session_queue_bytes),
            ("session_queue_messages", limits.session_queue_messages.into()),
            ("queues_bytes", limits.queues_bytes),
        ] {
            if value == 0 {
                let text = "0 keeps nothing: QoS 1 and 2 do not reach persistent sessions";
                found.warning(format!("limits.{key}"), text);
            }
        }
    }

    fn check_telemetry(&self, found: &mut Findings) {
        if let Err(problem) = crate::telemetry::parse_filter(&self.log.filter) {
            found.problem("log.filter", problem);
        }
        if let Some(endpoint) = self.traces.endpoint.as_deref().filter(|it| !is_http_url(it)) {
            let text = format!(
                "{endpoint:?} is not a URL like \"http://localhost:4317\"; TLS is not spoken to \
                 the collector"
            );
            found.problem("traces.endpoint", text);
        }
        if !(0.0..=1.0).contains(&self.traces.ratio) {
            found.problem("traces.ratio", format!("{} is not in 0..=1", self.traces.ratio));
        }
    }
}

/// The listener that is none of TCP.
const QUIC: &str = "listeners.quic";

fn check_listener(key: &str, listener: &Listener, found: &mut Findings) {
    let is_http = key == "listeners.http" || key == "listeners.admin";
    if (is_http || key == QUIC) && !listener.proxy_from.is_empty() {
        found.problem(format!("{key}.proxy_from"), "no PROXY header is read here");
    }
    if key != QUIC && listener.early_data {
        found.problem(format!("{key}.early_data"), "it is for QUIC and does not apply here");
    }
    if is_http {
        if listener.anonymous_policy.is_some() {
            let text = "it is for MQTT and does not apply here";
            found.problem(format!("{key}.anonymous_policy"), text);
        }
    } else if let Some(policy) = &listener.anonymous_policy
        && let Err(text) = check_policy(policy)
    {
        found.problem(format!("{key}.anonymous_policy"), text);
    }
    if listener.max_connections == 0 {
        found.problem(format!("{key}.max_connections"), "0 would let nobody in");
    }
    if listener.connect_timeout.is_zero() {
        found.problem(format!("{key}.connect_timeout"), "0s would let nobody in");
    }
    if listener.address.is_some_and(|address| address.port() == 0) {
        let text = "port 0 is a different one at every start and on every core";
        found.problem(format!("{key}.address"), text);
    }
}

/// Finds what names no things.
pub(super) fn check_things(things: &[String], place: &str, found: &mut Findings) {
    for pattern in things {
        let name = pattern.strip_suffix('*').unwrap_or(pattern);
        let is_all = pattern == "*";
        if !is_all && ThingName::new(name).is_err() {
            let text = format!("{pattern:?} is neither the name of a thing nor START*");
            found.problem(place, text);
        }
    }
}

/// Says what is wrong with a policy document without the words of a parser.
fn check_policy(policy: &str) -> Result<(), String> {
    if let Err(error) = serde_json::from_str::<serde_json::Value>(policy) {
        let (line, column) = (error.line(), error.column());
        return Err(format!(
            "it is not JSON, see line {line}, column {column} of its text; an IoT policy document \
             is like {{\"Version\":\"2012-10-17\",\"Statement\":[…]}}"
        ));
    }
    policy::Document::parse(policy)
        .map(drop)
        .map_err(|error| format!("it is not an IoT policy document: {error}"))
}

impl Config {
    /// Every address that is listened on, with its key.
    pub fn addresses(&self) -> Vec<(String, Type, SocketAddr)> {
        let kind = |key: &str| if key == QUIC { Type::DGRAM } else { Type::STREAM };
        let listeners = self.listeners.all().into_iter();
        let open = listeners.filter_map(|(key, it)| Some((key, kind(key), it.address?)));
        let open = open.map(|(key, kind, address)| (format!("{key}.address"), kind, address));
        let links =
            self.cluster.iter().map(|it| ("cluster.listen".to_owned(), Type::STREAM, it.listen));
        open.chain(links).collect()
    }

    /// Keys of addresses that would take each other's connections, the earlier one first.
    fn collisions(&self) -> Vec<(String, String)> {
        let all = self.addresses();
        let mut found = Vec::new();
        for (number, (second, kind, address)) in all.iter().enumerate() {
            let before = all[..number].iter().filter(|(_, other, _)| other == kind);
            let mut same = before.filter(|(_, _, other)| overlap(*other, *address));
            if let Some((first, _, _)) = same.next() {
                found.push((first.clone(), second.clone()));
            }
        }
        found
    }
}

/// Whether two addresses share a port of an interface. `[::]` takes IPv4, too.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let (a_ip, b_ip) = (a.ip().to_canonical(), b.ip().to_canonical());
    let covers = |wide: std::net::IpAddr, ip: std::net::IpAddr| {
        wide.is_unspecified() && (wide.is_ipv6() || ip.is_ipv4())
    };
    a.port() == b.port() && (a_ip == b_ip || covers(a_ip, b_ip) || covers(b_ip, a_ip))
}

/// `host` or `host:port`; an IPv6 address in brackets.
fn is_host(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let name = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    let host_is_good = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(name),
    };
    host_is_good && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

/// `http://host` with what may follow.
fn is_http_url(text: &str) -> bool {
    let Ok(url) = text.parse::<axum::http::Uri>() else { return false };
    url.scheme_str() == Some("http") && url.host().is_some_and(|host| !host.is_empty())
}
