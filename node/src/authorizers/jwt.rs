//! The authorizer that is built in: JSON Web Tokens of issuers that the configuration names.

use std::sync::Arc;

use authorizer::jwt::{InvalidToken, Issuer};
use authorizer::{Grant, Refusal};

use super::Failed;
use crate::config::JwtIssuer;
use crate::jwks::{KeySource, Unverified};

/// The issuers of the configuration.
#[derive(Default)]
pub(super) struct Issuers(Vec<Served>);

struct Served {
    name: String,
    issuer: Issuer,
    keys: Arc<KeySource>,
}

impl Issuers {
    /// The issuers whose policy is one, as the check of the configuration has made sure.
    pub(super) fn new(config: &[JwtIssuer]) -> Self {
        let served = config.iter().filter_map(|it| {
            let document = policy::Document::parse(&it.policy).ok()?;
            Some(Served {
                name: it.name.clone(),
                issuer: Issuer {
                    issuer: it.issuer.clone(),
                    audience: it.audience.clone(),
                    principal_claim: it.principal_claim.clone(),
                    document: Arc::new(document),
                    text: it.policy.clone(),
                },
                keys: KeySource::new(it.name.clone(), it.place(), it.ca.clone()),
            })
        });
        Self(served.collect())
    }

    /// What a token gives now, by the issuer with this name.
    pub(super) async fn grant(
        &self,
        name: &str,
        token: Option<&str>,
        now_secs: u64,
    ) -> Result<Grant, Failed> {
        let served = self.0.iter().find(|it| it.name == name).ok_or(Refusal::NotConfigured)?;
        let token = token.ok_or(Refusal::NoToken)?;
        let claims = served.keys.verify(token).await.map_err(|error| match error {
            Unverified::Token(error) => invalid(error),
            Unverified::NoKeys => Refusal::NoKeys.into(),
        })?;
        claims.grant(&served.issuer, now_secs).map_err(invalid)
    }
}

fn invalid(error: InvalidToken) -> Failed {
    Failed { refusal: Refusal::InvalidToken, detail: error.to_string() }
}
