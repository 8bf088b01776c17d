//! The OpenID Connect providers that people log in with, and their keys.

use std::sync::Arc;

use api::people::{PersonSession, Provider, Unidentified};
use authorizer::jwt::{Claimed, Claims};

use crate::config::OidcProvider;
use crate::jwks::{KeySource, Unverified};

/// Characters of an issuer that is not known, in an answer.
const ISSUER_CHARS: usize = 128;

/// The providers of the configuration.
pub struct People(Vec<Served>);

struct Served {
    provider: Arc<Provider>,
    keys: Arc<KeySource>,
}

impl People {
    /// With the providers of a configuration, by their names.
    pub fn new<'a>(config: impl IntoIterator<Item = (&'a String, &'a OidcProvider)>) -> Self {
        let served = config.into_iter().map(|(name, it)| Served {
            provider: Arc::new(it.provider(name)),
            keys: KeySource::new(name.clone(), it.place(), it.ca.clone()),
        });
        Self(served.collect())
    }

    /// Checks the signature of a token with the keys of the provider that it claims to be of.
    ///
    /// # Errors
    /// When there is no such provider, or it has not signed it.
    pub async fn identify(&self, token: &str) -> Result<(Arc<Provider>, Claims), Unidentified> {
        let claimed = Claimed::read(token)?;
        let issuer = claimed.text("iss").unwrap_or_default();
        let of_issuer = || self.0.iter().filter(|it| it.provider.issuer == issuer);
        // Which of two clients of one issuer is meant says the audience; that is checked afterwards.
        let meant = of_issuer().find(|it| claimed.is_for(&it.provider.audience));
        let served = meant.or_else(|| of_issuer().next()).ok_or_else(|| {
            let issuer: String = issuer.chars().take(ISSUER_CHARS).collect();
            Unidentified::NoProvider(format!("{issuer:?}"))
        })?;
        let claims = served.keys.verify(token).await.map_err(|error| match error {
            Unverified::Token(error) => Unidentified::Token(error),
            Unverified::NoKeys => Unidentified::NoKeys,
        })?;
        Ok((Arc::clone(&served.provider), claims))
    }

    /// Whether what a session was given for is still in the configuration.
    pub fn stands(&self, session: &PersonSession) -> bool {
        session.stands(self.0.iter().map(|it| &*it.provider))
    }
}
