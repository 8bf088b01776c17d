//! The configuration of a node: one struct per part, composed in [`Config`].
//!
//! A file names only what it changes; unknown keys are refused. The environment overrides the file:
//! `SKEIN__LISTENERS__MQTTS__ADDRESS=0.0.0.0:8883` is `address` in `[listeners.mqtts]`.
//! [`Config::check`] judges the values; what the machine makes of them is for [`crate::preflight`].

mod audit;
mod backup;
mod check;
mod cluster;
mod environment;
mod hints;
mod jwt;
mod oidc;
mod registration;
mod values;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::Role;
use fleet::registry::DEPRECATED_FOR_MS;
use ipnet::IpNet;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use thiserror::Error;

pub use audit::{Audit, OnFailure};
pub use backup::{Backup, S3, S3_SCHEME, bucket};
pub use check::{Finding, Findings};
pub use cluster::{Cluster, Peer, is_address};
pub use jwt::JwtIssuer;
pub use oidc::{OidcProvider, RoleRule};
pub use registration::Registration;
pub(crate) use registration::is_url;

/// Everything a node is told at its start.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the node keeps its state.
    pub data: PathBuf,
    /// Cores that serve connections; all that the process may use when absent.
    pub cores: Option<u16>,
    /// Groups that sessions, retained messages and shadows are spread over. Fixed when the data
    /// directory is made; a power of two.
    pub shards: u16,
    /// Opens a damaged log by dropping everything from the damage on. Loses acknowledged data.
    pub accept_log_loss: bool,
    /// `host` or `host:port` where devices reach this cluster, for DescribeEndpoint.
    pub public_host: Option<String>,
    /// Whether those who subscribe to `$aws/events/presence/…` and `$aws/events/subscriptions/…` hear of
    /// connections and subscriptions.
    pub lifecycle_events: bool,
    /// The account that ARNs name.
    pub account: Account,
    /// The cluster that the node is part of; a node that is alone has none.
    pub cluster: Option<Cluster>,
    /// Backups.
    pub backup: Backup,
    /// Who has changed what.
    pub audit: Audit,
    /// Where things are registered from in bulk.
    pub registration: Registration,
    /// Where the node listens. A listener without an address is not opened.
    pub listeners: Listeners,
    /// Certificates of the node.
    pub tls: Tls,
    /// Who may use the REST APIs with SigV4.
    pub access_keys: Vec<AccessKey>,
    /// Whose JSON Web Tokens custom authorizers may accept.
    pub jwt_issuers: Vec<JwtIssuer>,
    /// With whom people log in who use the REST APIs, by name.
    pub oidc: BTreeMap<String, OidcProvider>,
    /// Limits of sessions, packets and connections.
    pub limits: Limits,
    /// Logs.
    pub log: Log,
    /// Traces.
    pub traces: Traces,
    /// What looked wrong already when it was read.
    #[serde(skip)]
    pub(crate) suspicions: Vec<Finding>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data: "/var/lib/skein".into(),
            cores: None,
            shards: 16,
            accept_log_loss: false,
            public_host: None,
            lifecycle_events: true,
            account: Account::default(),
            cluster: None,
            backup: Backup::default(),
            audit: Audit::default(),
            registration: Registration::default(),
            listeners: Listeners::default(),
            tls: Tls::default(),
            access_keys: Vec::new(),
            jwt_issuers: Vec::new(),
            oidc: BTreeMap::new(),
            limits: Limits::default(),
            log: Log::default(),
            traces: Traces::default(),
            suspicions: Vec::new(),
        }
    }
}

/// The names in `arn:<partition>:iot:<region>:<id>:…`.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Account {
    /// Twelve digits.
    pub id: String,
    /// As in AWS.
    pub region: String,
    /// `aws`, `aws-cn` or `aws-us-gov`.
    pub partition: String,
    /// Accept requests that are signed for another region.
    pub any_region: bool,
}

impl Default for Account {
    fn default() -> Self {
        Self {
            id: "000000000000".into(),
            region: "us-east-1".into(),
            partition: "aws".into(),
            any_region: false,
        }
    }
}

/// The listeners of a node.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Listeners {
    /// MQTT without TLS.
    pub mqtt: Listener,
    /// MQTT over TLS with client certificates.
    pub mqtts: Listener,
    /// MQTT over QUIC, by UDP: TLS 1.3, with client certificates or other proofs.
    pub quic: Listener,
    /// MQTT over WebSocket without TLS, path `/mqtt`.
    pub ws: Listener,
    /// TLS: MQTT over WebSocket, HTTPS publish and the REST data plane.
    pub https: Listener,
    /// HTTP: the AWS-compatible REST APIs.
    pub http: Listener,
    /// Metrics, health, the log filter, backups and the nodes of a cluster. It has no passwords: never
    /// public.
    pub admin: Listener,
}

/// One listener.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Listener {
    /// Where to listen; not opened when absent.
    #[serde(deserialize_with = "values::address")]
    pub address: Option<SocketAddr>,
    /// What clients without a certificate may do: an IoT policy document. Without it they are
    /// refused.
    pub anonymous_policy: Option<String>,
    /// Peers whose PROXY header (version 1 or 2) is required and believed. Empty: none is read.
    #[serde(deserialize_with = "values::networks")]
    pub proxy_from: Vec<IpNet>,
    /// From the accepted socket to a complete CONNECT or request head.
    #[serde(deserialize_with = "values::duration")]
    pub connect_timeout: Duration,
    /// Connections at once; the next one is closed at once.
    pub max_connections: u32,
    /// Of QUIC: whether clients that come back may send before the handshake is done (0-RTT). It is read
    /// when the handshake is done, so a replay of it does nothing.
    pub early_data: bool,
}

impl Default for Listener {
    fn default() -> Self {
        Self {
            address: None,
            anonymous_policy: None,
            proxy_from: Vec::new(),
            connect_timeout: Duration::from_secs(10),
            max_connections: 1_000_000,
            early_data: false,
        }
    }
}

/// Files in PEM.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// The node's certificate chain.
    pub certificate: Option<PathBuf>,
    /// Its private key.
    pub private_key: Option<PathBuf>,
    /// What a responder says of the node's certificate, in DER: handshakes show it.
    pub ocsp_response: Option<PathBuf>,
    /// The CA that signs device certificates which the API issues.
    pub issuer_certificate: Option<PathBuf>,
    /// Its private key.
    pub issuer_private_key: Option<PathBuf>,
    /// What keeps its private key, instead.
    pub issuer_hsm: Option<Hsm>,
}

/// A private key in a device that never gives it away, behind PKCS #11.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Hsm {
    /// The maker's library.
    pub module: PathBuf,
    /// The label of the token.
    pub token: String,
    /// The label of the private key there.
    pub key: String,
    /// A file with the PIN of the token's user.
    pub pin_file: PathBuf,
}

/// A pair of keys for SigV4.
#[derive(Clone, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct AccessKey {
    /// The public half.
    pub id: String,
    /// The secret half.
    pub secret: String,
    /// How much its holder may do: `admin`, `operator` or `read-only`.
    #[serde(default)]
    pub role: Role,
    /// With which things: names, or `start*`. Everything, when it is left out.
    #[serde(default, deserialize_with = "some_things")]
    pub things: Vec<String>,
}

/// An empty list would be taken for nothing, and mean everything.
fn some_things<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let things = Vec::deserialize(from)?;
    match things.is_empty() {
        true => Err(D::Error::custom("no things: leave `things` out for all, or name some")),
        false => Ok(things),
    }
}

impl std::fmt::Debug for AccessKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccessKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Limits. The defaults allow what MQTT allows; `reference` values of AWS are smaller.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bytes of a packet; at most 268,435,460.
    pub maximum_packet_size: u32,
    /// Bytes of a CONNECT, before anybody is authenticated.
    pub connect_packet_size: u32,
    /// Unacknowledged QoS 1 and 2 publications from one client.
    pub receive_maximum: u16,
    /// Topic aliases a client may use.
    pub topic_alias_maximum: u16,
    /// Topic filters of one connection.
    pub subscriptions_per_connection: usize,
    /// Levels of a topic filter with wildcards; each costs memory in every index it is in.
    pub filter_levels: usize,
    /// Seconds; a longer keep alive is shortened, and none becomes this. 0 leaves it to the client.
    pub maximum_keep_alive_secs: u16,
    /// The longest a session may outlive its connection; not limited when absent.
    #[serde(deserialize_with = "values::optional_duration")]
    pub maximum_session_expiry: Option<Duration>,
    /// How long a 3.1.1 session with clean session 0 outlives its connection.
    #[serde(deserialize_with = "values::optional_duration")]
    pub v311_session_expiry: Option<Duration>,
    /// Bytes of client ids.
    pub client_id_bytes: usize,
    /// Bytes that the queue of one session may hold.
    pub session_queue_bytes: u64,
    /// Messages that the queue of one session may hold.
    pub session_queue_messages: u32,
    /// Bytes that the queues of all sessions may hold together, each message counted once per group.
    /// Beyond that, what would be queued is refused.
    pub queues_bytes: u64,
    /// Bytes that may wait for one slow connection.
    pub outbox_bytes: usize,
    /// Bytes of QoS 1 and 2 publications that may wait for the acknowledgements of one connection
    /// whose session is not persistent.
    pub pending_bytes: usize,
    /// Bytes that may wait in all connections of one core together, in either direction.
    pub core_bytes: usize,
    /// How long publishers wait for a subscriber that does not keep up before it loses messages.
    #[serde(deserialize_with = "values::duration")]
    pub slow_consumer_patience: Duration,
    /// How long a thing type has to have been deprecated before it is deleted.
    #[serde(deserialize_with = "values::duration")]
    pub thing_types_deprecated_for: Duration,
    /// PUBLISH packets per second that one connection may send; not limited when absent.
    pub publish_rate: Option<u32>,
    /// REST requests per second of one caller, for the control plane; not limited when 0.
    pub control_plane_rate: u32,
    /// REST requests per second of one caller, for the data plane and the credentials provider; not
    /// limited when 0.
    pub data_plane_rate: u32,
    /// Connections that are in their TLS handshake or CONNECT at once, per core.
    pub handshakes_per_core: usize,
    /// How many of these one source may hold: an IPv4 address or an IPv6 /64.
    pub handshakes_per_source: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            maximum_packet_size: 268_435_460,
            connect_packet_size: 512 * 1024,
            receive_maximum: 1024,
            topic_alias_maximum: 64,
            subscriptions_per_connection: 1_000_000,
            filter_levels: 256,
            maximum_keep_alive_secs: 0,
            maximum_session_expiry: None,
            v311_session_expiry: None,
            client_id_bytes: 65_535,
            session_queue_bytes: 256 << 20,
            session_queue_messages: 1_000_000,
            queues_bytes: 4 << 30,
            outbox_bytes: 4 << 20,
            pending_bytes: 16 << 20,
            core_bytes: 1 << 30,
            slow_consumer_patience: Duration::from_secs(2),
            thing_types_deprecated_for: Duration::from_millis(DEPRECATED_FOR_MS),
            publish_rate: None,
            control_plane_rate: 0,
            data_plane_rate: 0,
            handshakes_per_core: 256,
            handshakes_per_source: 64,
        }
    }
}

impl Limits {
    /// The longest session expiry in seconds; `u32::MAX` when sessions may stay for ever.
    pub fn maximum_session_expiry_secs(&self) -> u32 {
        seconds(self.maximum_session_expiry)
    }

    /// The expiry of a 3.1.1 session with clean session 0, in seconds.
    pub fn v311_session_expiry_secs(&self) -> u32 {
        seconds(self.v311_session_expiry).min(self.maximum_session_expiry_secs())
    }
}

fn seconds(duration: Option<Duration>) -> u32 {
    duration.map_or(u32::MAX, |d| u32::try_from(d.as_secs()).unwrap_or(u32::MAX))
}

/// How the node logs.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// `human` or `json`.
    pub format: LogFormat,
    /// A filter like `info` or `info,node=debug`.
    pub filter: String,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Json, filter: "info".into() }
    }
}

/// The shape of a log line.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object per line.
    Json,
}

/// Traces over OTLP.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Traces {
    /// The collector's gRPC endpoint, like `http://localhost:4317`; no traces when absent.
    pub endpoint: Option<String>,
    /// The share of publications that start a trace, 0 to 1. One that carries a sampled
    /// `traceparent` is always continued.
    pub ratio: f64,
}

impl Default for Traces {
    fn default() -> Self {
        Self { endpoint: None, ratio: 0.001 }
    }
}

/// Why a configuration cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {error}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// It is not TOML, has an unknown key or a value of the wrong kind.
    #[error("{path}: {problem}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        problem: String,
    },
    /// A variable of the environment fits no key.
    #[error("{variable}: {problem}")]
    Variable {
        /// Its name.
        variable: String,
        /// Why.
        problem: String,
    },
    /// Values that cannot be.
    #[error("{}", check::listed(.0))]
    Values(Vec<Finding>),
}

impl Config {
    /// Reads a file and puts the environment over it. Relative paths are taken from the file's
    /// folder. Whether the values can be is for [`Config::check`] to say.
    pub fn read(
        path: &Path,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::Read { path: path.into(), error })?;
        let parse =
            |error| ConfigError::Parse { path: path.into(), problem: unparsed(&text, &error) };
        // Once for errors that name line and column, once more with the environment over it.
        let _: Config = toml::from_str(&text).map_err(parse)?;
        let table: toml::Table = text.parse().map_err(parse)?;
        let mut config = environment::put_over(table.clone(), environment)?;
        config.suspicions.extend(open_to_others(path, &table));
        if let Some(folder) = path.parent() {
            config.resolve_paths(folder);
        }
        Ok(config)
    }

    fn resolve_paths(&mut self, folder: &Path) {
        let tls = &mut self.tls;
        let files = [
            &mut tls.certificate,
            &mut tls.private_key,
            &mut tls.ocsp_response,
            &mut tls.issuer_certificate,
            &mut tls.issuer_private_key,
        ];
        // An absolute path replaces the folder.
        let of_cluster = self.cluster.iter_mut().flat_map(Cluster::files);
        let of_hsm = tls.issuer_hsm.iter_mut().flat_map(|hsm| [&mut hsm.module, &mut hsm.pin_file]);
        let others = of_cluster
            .chain(of_hsm)
            .chain(self.backup.files())
            .chain(self.registration.files())
            .chain(self.audit.file.as_mut())
            .chain([&mut self.data]);
        let of_issuers = self.jwt_issuers.iter_mut().map(|it| (Some(&mut it.jwks), &mut it.ca));
        let of_providers = self.oidc.values_mut().map(|it| (it.jwks.as_mut(), &mut it.ca));
        for (jwks, ca) in of_issuers.chain(of_providers) {
            if let Some(jwks) = jwks
                && let Some(file) = jwt::file_of(jwks)
            {
                *jwks = folder.join(file).display().to_string();
            }
            if let Some(ca) = ca.as_mut().filter(|ca| !ca.as_os_str().is_empty()) {
                *ca = folder.join(&*ca);
            }
        }
        for path in files.into_iter().flatten().chain(others) {
            // An empty one would be the folder itself.
            if !path.as_os_str().is_empty() {
                *path = folder.join(&path);
            }
        }
    }
}

/// What the TOML reader says of a file, with the line it is about, where that can hold no secret.
fn unparsed(text: &str, error: &toml::de::Error) -> String {
    let hint = hints::hint(error.message());
    let start = error.span().map_or(0, |span| span.start).min(text.len());
    let end = text[start..].find('\n').map_or(text.len(), |length| start + length);
    let is_secret = |line: &str| {
        let line = line.trim_start();
        !line.starts_with('#') && (line.contains("access_key") || line.contains("secret"))
    };
    if !text[..end].lines().any(is_secret) {
        return format!("{}{hint}", hints::plain(error.to_string().trim_end()));
    }
    let line = text[..start].matches('\n').count() + 1;
    format!("line {line}: {}{hint}", hints::without_value(error.message()))
}

/// Whether a file with secrets can be read by everybody on the machine.
fn open_to_others(path: &Path, table: &toml::Table) -> Option<Finding> {
    let mode = std::fs::metadata(path).ok()?.permissions().mode() & 0o777;
    let has_secrets = table.get("access_keys")?.as_array().is_some_and(|keys| !keys.is_empty());
    (has_secrets && mode & 0o004 != 0).then(|| Finding {
        key: "access_keys".into(),
        text: format!(
            "{} holds secrets and has mode {mode:04o}: everybody on this machine can read it; chmod \
             it to 0600, or put them into SKEIN__ACCESS_KEYS",
            path.display()
        ),
    })
}

impl Listeners {
    /// Every listener with its key.
    pub fn all(&self) -> [(&'static str, &Listener); 7] {
        [
            ("listeners.mqtt", &self.mqtt),
            ("listeners.mqtts", &self.mqtts),
            ("listeners.quic", &self.quic),
            ("listeners.ws", &self.ws),
            ("listeners.https", &self.https),
            ("listeners.http", &self.http),
            ("listeners.admin", &self.admin),
        ]
    }
}

#[cfg(test)]
mod tests;
