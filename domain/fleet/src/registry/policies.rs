//! Creating and deleting policies and their versions.

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;

use super::model::{Policy, PolicyVersion, Timestamp};
use super::names::PolicyName;
use super::store::Key;
use super::{Outcome, Registry, Rejection};

/// How many policies a certificate or an identity can have.
pub const POLICIES_PER_PRINCIPAL: usize = 10;
const VERSIONS: usize = 5;

impl Registry {
    pub(super) fn create_policy(
        &mut self,
        name: PolicyName,
        document: String,
        tags: BTreeMap<String, String>,
        generation: Uuid,
        at: Timestamp,
    ) -> Result<Outcome, Rejection> {
        let parsed = parse(&document)?;
        if self.policies.contains_key(&name) {
            return Err(Rejection::PolicyExists(name));
        }
        let version = PolicyVersion { document: document.into(), created: at };
        let policy = Policy {
            name: name.clone(),
            versions: BTreeMap::from([(1, version)]),
            default_version: 1,
            next_version: 2,
            tags,
            created: at,
            modified: at,
            generation,
        };
        self.policies.insert(name.clone(), policy);
        self.indexes.policies_by_age.insert((at, name.clone()));
        self.indexes.documents.insert(name.clone(), Arc::new(parsed));
        self.dirty.insert(Key::Policy(name));
        Ok(Outcome::PolicyVersion { version: 1, is_default: true })
    }

    pub(super) fn create_policy_version(
        &mut self,
        name: &PolicyName,
        document: String,
        set_as_default: bool,
        at: Timestamp,
    ) -> Result<Outcome, Rejection> {
        let policy = find(&mut self.policies, name)?;
        let parsed = parse(&document)?;
        if policy.versions.len() >= VERSIONS {
            return Err(Rejection::PolicyVersionLimit { policy: name.clone(), limit: VERSIONS });
        }
        let version = policy.next_version;
        policy.next_version += 1;
        policy.modified = at;
        policy.versions.insert(version, PolicyVersion { document: document.into(), created: at });
        if set_as_default {
            policy.default_version = version;
            self.indexes.documents.insert(name.clone(), Arc::new(parsed));
            self.changed_policy(name);
        }
        self.dirty.insert(Key::Policy(name.clone()));
        Ok(Outcome::PolicyVersion { version, is_default: set_as_default })
    }

    pub(super) fn set_default_policy_version(
        &mut self,
        name: &PolicyName,
        version: u64,
        at: Timestamp,
    ) -> Result<Outcome, Rejection> {
        let policy = find(&mut self.policies, name)?;
        let Some(found) = policy.versions.get(&version) else {
            return Err(Rejection::PolicyVersionNotFound { policy: name.clone(), version });
        };
        if policy.default_version == version {
            return Ok(Outcome::Done);
        }
        let parsed = parse(&found.document)?;
        policy.default_version = version;
        policy.modified = at;
        self.indexes.documents.insert(name.clone(), Arc::new(parsed));
        self.dirty.insert(Key::Policy(name.clone()));
        self.changed_policy(name);
        Ok(Outcome::Done)
    }

    pub(super) fn delete_policy_version(
        &mut self,
        name: &PolicyName,
        version: u64,
        at: Timestamp,
    ) -> Result<Outcome, Rejection> {
        let policy = find(&mut self.policies, name)?;
        if !policy.versions.contains_key(&version) {
            return Err(Rejection::PolicyVersionNotFound { policy: name.clone(), version });
        }
        if policy.default_version == version {
            return Err(Rejection::PolicyVersionIsDefault(name.clone()));
        }
        policy.versions.remove(&version);
        policy.modified = at;
        self.dirty.insert(Key::Policy(name.clone()));
        Ok(Outcome::Done)
    }

    pub(super) fn delete_policy(&mut self, name: &PolicyName) -> Result<Outcome, Rejection> {
        let policy = find(&mut self.policies, name)?;
        if self.indexes.targets_of.contains_key(name) {
            return Err(Rejection::PolicyAttached(name.clone()));
        }
        if policy.versions.len() > 1 {
            return Err(Rejection::PolicyHasVersions(name.clone()));
        }
        self.indexes.policies_by_age.remove(&(policy.created, name.clone()));
        self.indexes.documents.remove(name);
        self.policies.remove(name);
        self.dirty.insert(Key::Policy(name.clone()));
        Ok(Outcome::Done)
    }
}

fn find<'a>(
    policies: &'a mut BTreeMap<PolicyName, Policy>,
    name: &PolicyName,
) -> Result<&'a mut Policy, Rejection> {
    policies.get_mut(name).ok_or_else(|| Rejection::PolicyNotFound(name.clone()))
}

pub(super) fn parse(document: &str) -> Result<policy::Document, Rejection> {
    policy::Document::parse(document).map_err(|error| Rejection::PolicyMalformed(error.to_string()))
}
