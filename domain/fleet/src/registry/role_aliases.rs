//! Role aliases, under which devices exchange their certificates for temporary credentials, and the
//! keys that seal the session tokens of those.
//!
//! Of credentials that were given nothing is kept here: a [`RoleSession`] travels in its token. What it
//! was given for decides, at each use, whether it still stands.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::model::{Tags, Timestamp};
use super::names::{CertificateId, Principal, RoleAliasName, ThingName};
use super::store::Key;
use super::{Outcome, Registry, Rejection};

/// How many role aliases there can be.
const ROLE_ALIASES: usize = 100;
/// The longest life of credentials, in seconds.
pub const LONGEST_SESSION_SECS: u32 = 43_200;
/// How long a key seals tokens.
const SEALS_MS: u64 = 24 * 60 * 60 * 1000;
/// How long it opens them: until the last one that it has sealed is over.
const OPENS_MS: u64 = SEALS_MS + LONGEST_SESSION_SECS as u64 * 1000;
/// How far the clocks of nodes may be apart.
const SKEW_MS: u64 = 5 * 60 * 1000;
/// Older keys open nothing.
const KEYS: usize = 2;

/// The name under which devices ask for credentials.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleAlias {
    /// Its name.
    pub name: RoleAliasName,
    /// Kept for tools; rights are not taken from it.
    pub role_arn: String,
    /// How long credentials are good for, in seconds.
    pub duration_secs: u32,
    /// For people.
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    pub tags: Tags,
    /// When it was created.
    pub created: Timestamp,
    /// When it changed last.
    pub modified: Timestamp,
    /// Differs between an alias and another created later under the same name.
    pub generation: Uuid,
}

/// A change to role aliases, or to the keys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the vocabulary of the AWS operations")]
pub enum RoleAliasCommand {
    Create {
        alias: Box<RoleAlias>,
    },
    /// What is absent stays.
    Update {
        alias: RoleAliasName,
        #[serde(default)]
        role_arn: Option<String>,
        #[serde(default)]
        duration_secs: Option<u32>,
        at: Timestamp,
    },
    Delete {
        alias: RoleAliasName,
    },
    /// Gives the account this key, if none that it has seals at the time when this one was made.
    MakeKey {
        key: SessionKey,
    },
}

/// Seals session tokens, for a day, and opens them until they are over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionKey {
    /// 32 random bytes.
    pub secret: SessionSecret,
    /// When it was made.
    pub created: Timestamp,
}

/// What nobody may know who is not to make credentials; not shown by `Debug`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionSecret(pub [u8; 32]);

impl fmt::Debug for SessionSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionSecret")
    }
}

impl SessionKey {
    fn seals(&self, now: Timestamp) -> bool {
        self.is_younger(SEALS_MS, now)
    }

    fn opens(&self, now: Timestamp) -> bool {
        self.is_younger(OPENS_MS, now)
    }

    /// One that a node has made whose clock was far ahead counts for nothing.
    fn is_younger(&self, age_ms: u64, now: Timestamp) -> bool {
        self.created.0 <= now.0.saturating_add(SKEW_MS)
            && now.0.saturating_sub(self.created.0) < age_ms
    }
}

/// Who temporary credentials are of, and what they were given for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleSession {
    /// The certificate whose policies decide.
    pub certificate: CertificateId,
    /// The role alias that they were asked for under.
    pub alias: RoleAliasName,
    /// Its [`RoleAlias::generation`] then.
    pub generation: Uuid,
    /// The thing that was named, which the certificate was attached to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thing: Option<ThingName>,
    /// From when on they are good for nothing.
    pub expires: Timestamp,
}

impl Registry {
    pub(super) fn apply_to_role_aliases(
        &mut self,
        command: RoleAliasCommand,
    ) -> Result<Outcome, Rejection> {
        use RoleAliasCommand as C;
        match command {
            C::Create { alias } => self.create_role_alias(*alias),
            C::Update { alias, role_arn, duration_secs, at } => {
                let not_found = || Rejection::RoleAliasNotFound(alias.clone());
                let found = self.role_aliases.get_mut(&alias).ok_or_else(not_found)?;
                if let Some(role_arn) = role_arn {
                    found.role_arn = role_arn;
                }
                found.duration_secs = duration_secs.unwrap_or(found.duration_secs);
                found.modified = at;
                self.dirty.insert(Key::RoleAlias(alias));
                Ok(Outcome::Done)
            }
            C::Delete { alias } => self.delete_role_alias(&alias),
            C::MakeKey { key } => {
                // Of two that make one at the same time the first has made it.
                if self.sealing_key(key.created).is_none() {
                    self.session_keys.insert(0, key);
                    self.session_keys.truncate(KEYS);
                    self.dirty.insert(Key::SessionKeys);
                }
                Ok(Outcome::Done)
            }
        }
    }

    fn create_role_alias(&mut self, alias: RoleAlias) -> Result<Outcome, Rejection> {
        let name = alias.name.clone();
        if self.role_aliases.contains_key(&name) {
            return Err(Rejection::RoleAliasExists(name));
        }
        if self.role_aliases.len() >= ROLE_ALIASES {
            return Err(Rejection::TooManyRoleAliases { limit: ROLE_ALIASES });
        }
        self.indexes.role_aliases_by_age.insert((alias.created, name.clone()));
        self.role_aliases.insert(name.clone(), alias);
        self.dirty.insert(Key::RoleAlias(name));
        Ok(Outcome::Done)
    }

    fn delete_role_alias(&mut self, name: &RoleAliasName) -> Result<Outcome, Rejection> {
        let not_found = || Rejection::RoleAliasNotFound(name.clone());
        let alias = self.role_aliases.remove(name).ok_or_else(not_found)?;
        self.indexes.role_aliases_by_age.remove(&(alias.created, name.clone()));
        self.dirty.insert(Key::RoleAlias(name.clone()));
        self.changed_role_alias(name);
        Ok(Outcome::Done)
    }

    /// A role alias by its name.
    pub fn role_alias(&self, name: &str) -> Option<&RoleAlias> {
        self.role_aliases.get(name)
    }

    /// The key that seals tokens now; none when it is time to make one.
    pub fn sealing_key(&self, now: Timestamp) -> Option<&SessionKey> {
        self.session_keys.first().filter(|key| key.seals(now))
    }

    /// The keys that may have sealed a token that is not over yet.
    pub fn opening_keys(&self, now: Timestamp) -> impl Iterator<Item = &SessionKey> {
        self.session_keys.iter().filter(move |key| key.opens(now))
    }

    /// Whether a certificate is attached to a thing that is there.
    pub fn is_attached(&self, certificate: &CertificateId, thing: &ThingName) -> bool {
        let things = self.things_of.get(&Principal::Certificate(certificate.clone()));
        things.is_some_and(|things| things.contains_key(thing))
    }

    /// The variables that policies have beside those of the certificate while a session decides by
    /// them. None when it is over: its time is up, its role alias has gone, or its certificate is not
    /// attached to its thing any more. Whether the certificate may be used is not asked here.
    pub fn session_variables(
        &self,
        session: &RoleSession,
        now: Timestamp,
    ) -> Option<BTreeMap<String, Vec<String>>> {
        let alias = self.role_aliases.get(&session.alias)?;
        if now >= session.expires || alias.generation != session.generation {
            return None;
        }
        let certificate = session.certificate.to_string();
        let mut variables = vec![("AwsCertificateId", certificate)];
        if let Some(name) = &session.thing {
            let thing = self.things.get(name)?;
            if !self.is_attached(&session.certificate, name) {
                return None;
            }
            variables.push(("ThingName", name.to_string()));
            variables.extend(thing.thing_type.as_ref().map(|it| ("ThingTypeName", it.to_string())));
        }
        let named = |(name, value)| (format!("credentials-iot:{name}"), vec![value]);
        Some(variables.into_iter().map(named).collect())
    }
}
