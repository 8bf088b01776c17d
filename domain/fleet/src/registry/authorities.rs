//! Certificate authorities, and the code that proves who has an authority's key.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::model::{CertificateMode, Tags, Timestamp};
use super::names::CertificateId;
use super::revocations::RevocationList;
use super::store::Key;
use super::{Outcome, Registry, Rejection};

/// How many authorities may have the same subject and key.
const SAME_SUBJECT_AND_KEY: usize = 10;

/// An authority whose device certificates may be registered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authority {
    /// The SHA-256 of its DER form.
    pub id: CertificateId,
    /// As it was registered.
    pub pem: Box<str>,
    /// Whether certificates that it signed may be registered.
    pub active: bool,
    /// Whether they register themselves when a device connects with one.
    pub auto_registration: bool,
    /// Whether its owner has proved to have its key.
    pub mode: CertificateMode,
    /// What is done with certificates that register themselves.
    #[serde(default, skip_serializing_if = "RegistrationConfig::is_empty")]
    pub registration: RegistrationConfig,
    /// First moment of its validity.
    pub not_before: Timestamp,
    /// Last moment of its validity.
    pub not_after: Timestamp,
    /// The SHA-256 of its subject, in hex: that of the issuer of what it signed.
    pub subject: Box<str>,
    /// The SHA-256 of its public key, in hex.
    pub key: Box<str>,
    /// For people.
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    pub tags: Tags,
    /// When it was registered.
    pub created: Timestamp,
    /// When it changed last.
    pub modified: Timestamp,
    /// Starts at 1, one more for each change.
    pub customer_version: u64,
    /// Differs between an authority and the same one registered again.
    pub generation: Uuid,
}

/// What is done with certificates that register themselves; with neither a body nor a name of a
/// template, somebody hears of them and decides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RegistrationConfig {
    /// A provisioning template.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template_body: Option<String>,
    /// Kept for tools; rights are not taken from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role_arn: Option<String>,
    /// The name of a provisioning template.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template_name: Option<String>,
}

impl RegistrationConfig {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a template decides.
    pub fn has_template(&self) -> bool {
        self.template_body.is_some() || self.template_name.is_some()
    }
}

/// A change to authorities.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the vocabulary of the AWS operations")]
pub enum AuthorityCommand {
    /// Gives the account this registration code, if it has none.
    MakeCode {
        code: String,
    },
    /// Takes it away.
    DeleteCode,
    Register {
        authority: Box<Authority>,
        /// The registration code that its owner has signed with its key; none in the mode that needs
        /// no proof.
        #[serde(default)]
        proof: Option<String>,
    },
    Update {
        authority: CertificateId,
        #[serde(default)]
        active: Option<bool>,
        #[serde(default)]
        auto_registration: Option<bool>,
        /// Replaces the one there is.
        #[serde(default)]
        registration: Option<RegistrationConfig>,
        at: Timestamp,
    },
    Delete {
        authority: CertificateId,
    },
    /// Imports the revocation list that it has signed.
    Revoke {
        authority: CertificateId,
        list: Box<RevocationList>,
    },
}

impl Registry {
    pub(super) fn apply_to_authorities(
        &mut self,
        command: AuthorityCommand,
    ) -> Result<Outcome, Rejection> {
        use AuthorityCommand as C;
        match command {
            C::MakeCode { code } => {
                let code = self.registration_code.get_or_insert(code).clone();
                self.dirty.insert(Key::RegistrationCode);
                Ok(Outcome::RegistrationCode(code))
            }
            C::DeleteCode => {
                self.registration_code.take().ok_or(Rejection::RegistrationCodeNotFound)?;
                self.dirty.insert(Key::RegistrationCode);
                Ok(Outcome::Done)
            }
            C::Register { authority, proof } => self.register_authority(*authority, proof),
            C::Update { authority, active, auto_registration, registration, at } => {
                let not_found = || Rejection::AuthorityNotFound(authority.clone());
                let found = self.authorities.get_mut(&authority).ok_or_else(not_found)?;
                found.active = active.unwrap_or(found.active);
                found.auto_registration = auto_registration.unwrap_or(found.auto_registration);
                if let Some(registration) = registration {
                    found.registration = registration;
                }
                found.modified = at;
                found.customer_version += 1;
                self.dirty.insert(Key::Authority(authority));
                Ok(Outcome::Done)
            }
            C::Delete { authority } => self.delete_authority(&authority),
            C::Revoke { authority, list } => self.import_revocations(&authority, *list),
        }
    }

    fn register_authority(
        &mut self,
        authority: Authority,
        proof: Option<String>,
    ) -> Result<Outcome, Rejection> {
        if self.authorities.contains_key(&authority.id) {
            return Err(Rejection::AuthorityExists(authority.id));
        }
        let is_proved = proof.is_some() && proof == self.registration_code;
        if authority.mode == CertificateMode::Default && !is_proved {
            return Err(Rejection::RegistrationCodeIsAnother);
        }
        let same = self.authorities_of_subject(&authority.subject);
        if same.filter(|other| other.key == authority.key).count() >= SAME_SUBJECT_AND_KEY {
            return Err(Rejection::TooManyAuthorities { limit: SAME_SUBJECT_AND_KEY });
        }
        let id = authority.id.clone();
        self.forget_former_authority(&id);
        let subjects = self.indexes.authorities_of_subject.entry(authority.subject.clone());
        subjects.or_default().insert(id.clone());
        self.indexes.authorities_by_age.insert((authority.created, id.clone()));
        self.authorities.insert(id.clone(), authority);
        self.dirty.insert(Key::Authority(id));
        Ok(Outcome::Done)
    }

    fn delete_authority(&mut self, id: &CertificateId) -> Result<Outcome, Rejection> {
        match self.authorities.get(id) {
            None => return Err(Rejection::AuthorityNotFound(id.clone())),
            Some(Authority { active: true, .. }) => {
                return Err(Rejection::AuthorityActive(id.clone()));
            }
            Some(_) => {}
        }
        if let Some(authority) = self.authorities.remove(id) {
            self.indexes.authorities_by_age.remove(&(authority.created, id.clone()));
            if let Some(same) = self.indexes.authorities_of_subject.get_mut(&authority.subject) {
                same.remove(id);
                if same.is_empty() {
                    self.indexes.authorities_of_subject.remove(&authority.subject);
                }
            }
            self.forget_revocations_of(&authority);
        }
        self.dirty.insert(Key::Authority(id.clone()));
        Ok(Outcome::Done)
    }

    /// A certificate is registered under an authority only if that is there and active.
    pub(super) fn check_authority(&self, id: &CertificateId) -> Result<(), Rejection> {
        match self.authorities.get(id) {
            None => Err(Rejection::AuthorityNotFound(id.clone())),
            Some(authority) if !authority.active => Err(Rejection::AuthorityInactive(id.clone())),
            Some(_) => Ok(()),
        }
    }

    /// The registration code, while there is one.
    pub fn registration_code(&self) -> Option<&str> {
        self.registration_code.as_deref()
    }

    /// An authority by its id.
    pub fn authority(&self, id: &str) -> Option<&Authority> {
        self.authorities.get(id)
    }

    /// The authorities with a subject, which is given by its SHA-256 in hex.
    pub fn authorities_of_subject(&self, subject: &str) -> impl Iterator<Item = &Authority> {
        let ids = self.indexes.authorities_of_subject.get(subject).into_iter().flatten();
        ids.filter_map(|id| self.authorities.get(id))
    }
}
