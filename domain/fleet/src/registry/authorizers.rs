//! Custom authorizers: who is asked about clients that show no certificate and sign nothing.
//!
//! What an address or a key looks like is checked before it comes here.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::model::{Tags, Timestamp};
use super::names::AuthorizerName;
use super::store::Key;
use super::{Outcome, Registry, Rejection};

/// How many authorizers there can be.
const AUTHORIZERS: usize = 100;
/// How many of them can be active.
const ACTIVE: usize = 32;

/// Whether an authorizer is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum AuthorizerStatus {
    /// It is asked.
    Active,
    /// It lets nobody in.
    #[default]
    Inactive,
}

impl AuthorizerStatus {
    /// The name AWS gives the status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "ACTIVE",
            Self::Inactive => "INACTIVE",
        }
    }
}

/// A custom authorizer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authorizer {
    /// Its name.
    pub name: AuthorizerName,
    /// Who decides: an `http` or `https` address, or `jwt:` and a name of the configuration.
    pub function: String,
    /// Under which name clients present their token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_key: Option<String>,
    /// Public keys in PEM by name; one of them has signed the token.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub signing_keys: BTreeMap<String, String>,
    /// Whether tokens need no signature; fixed at creation.
    #[serde(default)]
    pub signing_disabled: bool,
    /// Whether an answer serves later HTTP requests that are the same.
    #[serde(default)]
    pub caching_for_http: bool,
    /// Whether it is asked.
    pub status: AuthorizerStatus,
    /// For people.
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    pub tags: Tags,
    /// When it was created.
    pub created: Timestamp,
    /// When it changed last.
    pub modified: Timestamp,
    /// Differs between an authorizer and another created later under the same name.
    pub generation: Uuid,
}

impl Authorizer {
    /// Whether it can tell whose token it is shown, if it has to.
    fn can_verify(&self) -> bool {
        self.signing_disabled || (self.token_key.is_some() && !self.signing_keys.is_empty())
    }
}

/// A change to authorizers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the vocabulary of the AWS operations")]
pub enum AuthorizerCommand {
    Create {
        authorizer: Box<Authorizer>,
    },
    /// What is absent stays.
    Update {
        authorizer: AuthorizerName,
        #[serde(default)]
        function: Option<String>,
        #[serde(default)]
        token_key: Option<String>,
        /// Replaces all keys.
        #[serde(default)]
        signing_keys: Option<BTreeMap<String, String>>,
        #[serde(default)]
        status: Option<AuthorizerStatus>,
        #[serde(default)]
        caching_for_http: Option<bool>,
        at: Timestamp,
    },
    /// Only of one that is not active and not the default.
    Delete {
        authorizer: AuthorizerName,
    },
    SetDefault {
        authorizer: AuthorizerName,
    },
    ClearDefault,
}

impl Registry {
    pub(super) fn apply_to_authorizers(
        &mut self,
        command: AuthorizerCommand,
    ) -> Result<Outcome, Rejection> {
        use AuthorizerCommand as C;
        match command {
            C::Create { authorizer } => self.create_authorizer(*authorizer),
            C::Update {
                authorizer,
                function,
                token_key,
                signing_keys,
                status,
                caching_for_http,
                at,
            } => {
                let mut changed = self.find_authorizer(&authorizer)?.clone();
                changed.function = function.unwrap_or(changed.function);
                changed.token_key = token_key.or(changed.token_key);
                changed.signing_keys = signing_keys.unwrap_or(changed.signing_keys);
                changed.status = status.unwrap_or(changed.status);
                changed.caching_for_http = caching_for_http.unwrap_or(changed.caching_for_http);
                changed.modified = at;
                self.change_authorizer(changed)
            }
            C::Delete { authorizer } => self.delete_authorizer(&authorizer),
            C::SetDefault { authorizer } => {
                self.find_authorizer(&authorizer)?;
                match &self.default_authorizer {
                    Some(other) if *other != authorizer => {
                        Err(Rejection::DefaultAuthorizerExists(other.clone()))
                    }
                    _ => {
                        self.default_authorizer = Some(authorizer);
                        self.dirty.insert(Key::DefaultAuthorizer);
                        Ok(Outcome::Done)
                    }
                }
            }
            C::ClearDefault => {
                self.default_authorizer.take().ok_or(Rejection::DefaultAuthorizerNotFound)?;
                self.dirty.insert(Key::DefaultAuthorizer);
                Ok(Outcome::Done)
            }
        }
    }

    fn create_authorizer(&mut self, authorizer: Authorizer) -> Result<Outcome, Rejection> {
        let name = authorizer.name.clone();
        if self.authorizers.contains_key(&name) {
            return Err(Rejection::AuthorizerExists(name));
        }
        if self.authorizers.len() >= AUTHORIZERS {
            return Err(Rejection::TooManyAuthorizers { limit: AUTHORIZERS });
        }
        self.check_authorizer(&authorizer)?;
        self.indexes.authorizers_by_age.insert((authorizer.created, name.clone()));
        self.authorizers.insert(name.clone(), authorizer);
        self.dirty.insert(Key::Authorizer(name));
        Ok(Outcome::Done)
    }

    fn change_authorizer(&mut self, changed: Authorizer) -> Result<Outcome, Rejection> {
        self.check_authorizer(&changed)?;
        let name = changed.name.clone();
        if changed.status == AuthorizerStatus::Inactive {
            self.changed_authorizer(&name);
        }
        self.authorizers.insert(name.clone(), changed);
        self.dirty.insert(Key::Authorizer(name));
        Ok(Outcome::Done)
    }

    /// Whether an authorizer may become this.
    fn check_authorizer(&self, authorizer: &Authorizer) -> Result<(), Rejection> {
        if !authorizer.can_verify() {
            return Err(Rejection::AuthorizerCannotVerify(authorizer.name.clone()));
        }
        let is_active = |it: &&Authorizer| it.status == AuthorizerStatus::Active;
        let others = self.authorizers.values().filter(|it| it.name != authorizer.name);
        if is_active(&authorizer) && others.filter(is_active).count() >= ACTIVE {
            return Err(Rejection::TooManyActiveAuthorizers { limit: ACTIVE });
        }
        Ok(())
    }

    fn delete_authorizer(&mut self, name: &AuthorizerName) -> Result<Outcome, Rejection> {
        let found = self.find_authorizer(name)?;
        if found.status == AuthorizerStatus::Active {
            return Err(Rejection::AuthorizerActive(name.clone()));
        }
        if self.default_authorizer.as_ref() == Some(name) {
            return Err(Rejection::AuthorizerIsDefault(name.clone()));
        }
        let created = found.created;
        self.authorizers.remove(name);
        self.indexes.authorizers_by_age.remove(&(created, name.clone()));
        self.dirty.insert(Key::Authorizer(name.clone()));
        Ok(Outcome::Done)
    }

    fn find_authorizer(&self, name: &AuthorizerName) -> Result<&Authorizer, Rejection> {
        self.authorizers.get(name).ok_or_else(|| Rejection::AuthorizerNotFound(name.clone()))
    }

    /// An authorizer by its name.
    pub fn authorizer(&self, name: &str) -> Option<&Authorizer> {
        self.authorizers.get(name)
    }

    /// The one that is asked when a client names none.
    pub fn default_authorizer(&self) -> Option<&Authorizer> {
        self.authorizers.get(self.default_authorizer.as_ref()?)
    }

    /// Whether what an authorizer has answered still counts: it is there, the same, and active.
    pub fn authorizer_stands(&self, name: &AuthorizerName, generation: Uuid) -> bool {
        let found = self.authorizers.get(name);
        found.is_some_and(|it| it.generation == generation && it.status == AuthorizerStatus::Active)
    }
}
