//! What the API is told at its start.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fleet::registry::Timestamp;

use crate::audit::Ledger;
use crate::provisioning::Issuing;
use crate::sigv4::{AccessKey, Verifier};
use crate::throttle::Rates;

/// What the API is told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// The account in every ARN.
    pub account: String,
    /// The region in every ARN, and of the signatures that are accepted.
    pub region: String,
    /// Accept signatures for every region: for development.
    pub any_region: bool,
    /// What DescribeEndpoint answers.
    pub endpoints: Endpoints,
    /// The keys that requests can be signed with.
    pub access_keys: Vec<AccessKey>,
    /// How long a thing type has to have been deprecated for DeleteThingType.
    pub thing_types_deprecated_for: Duration,
    /// Makes certificates.
    pub issuing: Issuing,
    /// Where changes are recorded, if they are.
    pub ledger: Option<Ledger>,
    /// How often each caller may ask for something.
    pub rates: Rates,
    /// Tells the time.
    pub clock: Clock,
}

impl Config {
    /// Checks signatures with these keys, also for the WebSocket handshake.
    pub fn verifier(&self) -> Verifier {
        let region = (!self.any_region).then(|| self.region.clone());
        Verifier::new(self.access_keys.iter().cloned(), region)
    }
}

/// Where clients find each service: `host` or `host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// MQTT and the data plane: `iot:Data`, `iot:Data-ATS`.
    pub data: String,
    /// `iot:Jobs`.
    pub jobs: String,
    /// `iot:CredentialProvider`.
    pub credentials: String,
}

/// Tells the time; tests pass their own.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> SystemTime + Send + Sync>);

impl Clock {
    /// A clock that asks the function.
    pub fn new(now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        let since_epoch = (self.0)().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Timestamp(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new(SystemTime::now)
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}
