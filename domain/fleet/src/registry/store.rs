//! The registry as stored pairs: one key per thing, type, group, membership, certificate, policy,
//! attachment, revocation list, template, role alias, authorizer, event that waits, and node.
//!
//! A key is a letter for its kind and the names it is about, separated by NUL, which no name can
//! contain. A value is a version byte and JSON.

use std::collections::BTreeMap;

use thiserror::Error;
use uuid::Uuid;

use super::Registry;
use super::authorities::Authority;
use super::authorizers::Authorizer;
use super::command::{FORMAT, encode};
use super::events::Event;
use super::members::Member;
use super::model::{
    BillingGroup, Certificate, Policy, Thing, ThingGroup, ThingPrincipalType, ThingType,
};
use super::names::{
    AuthorizerName, BillingGroupName, CertificateId, NameError, PolicyName, Principal,
    RegistrationTaskId, RoleAliasName, TemplateName, ThingGroupName, ThingName, ThingTypeName,
};
use super::registration_tasks::RegistrationTask;
use super::revocations::{RevocationList, Signer};
use super::role_aliases::RoleAlias;
use super::templates::ProvisioningTemplate;

/// What one stored pair is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Thing(ThingName),
    ThingType(ThingTypeName),
    Certificate(CertificateId),
    Policy(PolicyName),
    PolicyAttachment(Principal, PolicyName),
    ThingAttachment(Principal, ThingName),
    ThingGroup(ThingGroupName),
    Membership(ThingName, ThingGroupName),
    BillingGroup(BillingGroupName),
    Authority(CertificateId),
    FormerAuthority(CertificateId),
    RevocationList(Signer),
    RegistrationCode,
    Template(TemplateName),
    EventConfigurations,
    EventCount,
    Event(u64),
    Authorizer(AuthorizerName),
    DefaultAuthorizer,
    RoleAlias(RoleAliasName),
    SessionKeys,
    RegistrationTask(RegistrationTaskId),
    Member(u64),
    PreferredLeader(u32),
}

/// Why a stored pair could not be taken back.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The key is not one the registry writes.
    #[error("the registry has no key {0:?}")]
    Key(String),
    /// A name in a key is not valid.
    #[error("a stored key is damaged: {0}")]
    Name(#[from] NameError),
    /// The value was written by a later version of Skein, or is empty.
    #[error("the value of {0:?} has a format this node does not understand")]
    Format(String),
    /// The value is not what the registry writes.
    #[error("the value of {key:?} is damaged: {error}")]
    Value {
        /// Whose value.
        key: String,
        /// What is wrong with it.
        error: serde_json::Error,
    },
    /// The default version of a template is missing.
    #[error("provisioning template {0} has no default version")]
    Template(TemplateName),
    /// The default version of a policy is missing or does not parse.
    #[error("policy {policy} has no default version that can be used: {reason}")]
    Policy {
        /// Its name.
        policy: PolicyName,
        /// What is wrong.
        reason: String,
    },
}

/// Takes the nodes of the cluster that they are from out of stored pairs: another cluster has others.
pub fn forget_members(pairs: &mut BTreeMap<Vec<u8>, Vec<u8>>) {
    let is_of_cluster =
        |key: &[u8]| matches!(Key::decode(key), Ok(Key::Member(_) | Key::PreferredLeader(_)));
    pairs.retain(|key, _| !is_of_cluster(key));
}

impl Key {
    fn encode(&self) -> Vec<u8> {
        match self {
            Self::Thing(name) => format!("t{name}"),
            Self::ThingType(name) => format!("y{name}"),
            Self::Certificate(id) => format!("c{id}"),
            Self::Policy(name) => format!("p{name}"),
            Self::PolicyAttachment(principal, policy) => {
                format!("a{}\0{policy}", principal.key())
            }
            Self::ThingAttachment(principal, thing) => format!("m{}\0{thing}", principal.key()),
            Self::ThingGroup(name) => format!("g{name}"),
            Self::Membership(thing, group) => format!("h{thing}\0{group}"),
            Self::BillingGroup(name) => format!("b{name}"),
            Self::Authority(id) => format!("s{id}"),
            Self::FormerAuthority(id) => format!("f{id}"),
            Self::RevocationList(Signer { subject, key }) => format!("x{subject}\0{key}"),
            Self::RegistrationCode => "r".to_owned(),
            Self::Template(name) => format!("e{name}"),
            Self::EventConfigurations => "v".to_owned(),
            Self::EventCount => "vc".to_owned(),
            Self::Event(number) => format!("v{number}"),
            Self::Authorizer(name) => format!("u{name}"),
            Self::DefaultAuthorizer => "u".to_owned(),
            Self::RoleAlias(name) => format!("k{name}"),
            Self::SessionKeys => "k".to_owned(),
            Self::RegistrationTask(id) => format!("j{id}"),
            Self::Member(node) => format!("n{node}"),
            Self::PreferredLeader(group) => format!("l{group}"),
        }
        .into_bytes()
    }

    fn decode(bytes: &[u8]) -> Result<Self, LoadError> {
        let unknown = || LoadError::Key(String::from_utf8_lossy(bytes).into_owned());
        let text = std::str::from_utf8(bytes).map_err(|_| unknown())?;
        let (kind, names) = text.split_at_checked(1).ok_or_else(unknown)?;
        let pair = || names.split_once('\0').ok_or_else(unknown);
        Ok(match kind {
            "t" => Self::Thing(ThingName::new(names)?),
            "y" => Self::ThingType(ThingTypeName::new(names)?),
            "c" => Self::Certificate(CertificateId::new(names)?),
            "p" => Self::Policy(PolicyName::new(names)?),
            "a" => {
                let (principal, policy) = pair()?;
                Self::PolicyAttachment(
                    Principal::from_key(principal).ok_or_else(unknown)?,
                    PolicyName::new(policy)?,
                )
            }
            "m" => {
                let (principal, thing) = pair()?;
                Self::ThingAttachment(
                    Principal::from_key(principal).ok_or_else(unknown)?,
                    ThingName::new(thing)?,
                )
            }
            "g" => Self::ThingGroup(ThingGroupName::new(names)?),
            "h" => {
                let (thing, group) = pair()?;
                Self::Membership(ThingName::new(thing)?, ThingGroupName::new(group)?)
            }
            "b" => Self::BillingGroup(BillingGroupName::new(names)?),
            "s" => Self::Authority(CertificateId::new(names)?),
            "f" => Self::FormerAuthority(CertificateId::new(names)?),
            "x" => {
                let (subject, key) = pair()?;
                Self::RevocationList(Signer { subject: subject.into(), key: key.into() })
            }
            "r" if names.is_empty() => Self::RegistrationCode,
            "e" => Self::Template(TemplateName::new(names)?),
            "v" if names.is_empty() => Self::EventConfigurations,
            "v" if names == "c" => Self::EventCount,
            "v" => Self::Event(names.parse().map_err(|_| unknown())?),
            "u" if names.is_empty() => Self::DefaultAuthorizer,
            "u" => Self::Authorizer(AuthorizerName::new(names)?),
            "k" if names.is_empty() => Self::SessionKeys,
            "k" => Self::RoleAlias(RoleAliasName::new(names)?),
            "j" => Self::RegistrationTask(RegistrationTaskId::new(names)?),
            "n" => Self::Member(names.parse().map_err(|_| unknown())?),
            "l" => Self::PreferredLeader(names.parse().map_err(|_| unknown())?),
            _ => return Err(unknown()),
        })
    }
}

impl Registry {
    /// What has changed since the last call: key to value, or to nothing when it is gone.
    pub fn checkpoint(&mut self) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        let dirty = std::mem::take(&mut self.dirty);
        dirty.iter().map(|key| (key.encode(), self.value(key))).collect()
    }

    fn value(&self, key: &Key) -> Option<Vec<u8>> {
        match key {
            Key::Thing(name) => self.things.get(name).map(encode),
            Key::ThingType(name) => self.thing_types.get(name).map(encode),
            Key::Certificate(id) => self.certificates.get(id).map(encode),
            Key::Policy(name) => self.policies.get(name).map(encode),
            Key::PolicyAttachment(principal, policy) => {
                let attached = self.policies_of.get(principal)?.contains(policy);
                attached.then(|| encode(&()))
            }
            Key::ThingAttachment(principal, thing) => {
                self.things_of.get(principal)?.get(thing).map(encode)
            }
            Key::ThingGroup(name) => self.thing_groups.get(name).map(encode),
            Key::Membership(thing, group) => self.groups_of.get(thing)?.get(group).map(encode),
            Key::BillingGroup(name) => self.billing_groups.get(name).map(encode),
            Key::Authority(id) => self.authorities.get(id).map(encode),
            Key::FormerAuthority(id) => self.former_authorities.get(id).map(encode),
            Key::RevocationList(signer) => self.revocation_lists.get(signer).map(encode),
            Key::RegistrationCode => self.registration_code.as_ref().map(encode),
            Key::Template(name) => self.templates.get(name).map(encode),
            Key::EventConfigurations => Some(encode(&self.event_configurations)),
            Key::EventCount => Some(encode(&self.events.count)),
            Key::Event(number) => self.events.get(*number).map(encode),
            Key::Authorizer(name) => self.authorizers.get(name).map(encode),
            Key::DefaultAuthorizer => self.default_authorizer.as_ref().map(encode),
            Key::RoleAlias(name) => self.role_aliases.get(name).map(encode),
            Key::SessionKeys => Some(encode(&self.session_keys)),
            Key::RegistrationTask(id) => self.registration_tasks.get(id).map(encode),
            Key::Member(node) => self.members.get(node).map(encode),
            Key::PreferredLeader(group) => self.preferred_leaders.get(group).map(encode),
        }
    }

    /// Takes back one stored pair, before any command is applied.
    pub fn load(&mut self, key: &[u8], value: &[u8]) -> Result<(), LoadError> {
        let of = || String::from_utf8_lossy(key).into_owned();
        let Some((&FORMAT, json)) = value.split_first() else {
            return Err(LoadError::Format(of()));
        };
        let damaged = |error| LoadError::Value { key: of(), error };
        match Key::decode(key)? {
            Key::Thing(name) => {
                let thing: Thing = serde_json::from_slice(json).map_err(damaged)?;
                self.things.insert(name, thing);
            }
            Key::ThingType(name) => {
                let thing_type: ThingType = serde_json::from_slice(json).map_err(damaged)?;
                self.thing_types.insert(name, thing_type);
            }
            Key::Certificate(id) => {
                let certificate: Certificate = serde_json::from_slice(json).map_err(damaged)?;
                self.certificates.insert(id, certificate);
            }
            Key::Policy(name) => {
                let policy: Policy = serde_json::from_slice(json).map_err(damaged)?;
                self.policies.insert(name, policy);
            }
            Key::PolicyAttachment(principal, policy) => {
                self.policies_of.entry(principal).or_default().insert(policy);
            }
            Key::ThingAttachment(principal, thing) => {
                let kind: ThingPrincipalType = serde_json::from_slice(json).map_err(damaged)?;
                self.things_of.entry(principal).or_default().insert(thing, kind);
            }
            Key::ThingGroup(name) => {
                let group: ThingGroup = serde_json::from_slice(json).map_err(damaged)?;
                self.thing_groups.insert(name, group);
            }
            Key::Membership(thing, group) => {
                let membership: Uuid = serde_json::from_slice(json).map_err(damaged)?;
                self.groups_of.entry(thing).or_default().insert(group, membership);
            }
            Key::BillingGroup(name) => {
                let group: BillingGroup = serde_json::from_slice(json).map_err(damaged)?;
                self.billing_groups.insert(name, group);
            }
            Key::Authority(id) => {
                let authority: Authority = serde_json::from_slice(json).map_err(damaged)?;
                self.authorities.insert(id, authority);
            }
            Key::FormerAuthority(id) => {
                let signer = serde_json::from_slice(json).map_err(damaged)?;
                self.former_authorities.insert(id, signer);
            }
            Key::RevocationList(signer) => {
                let list: RevocationList = serde_json::from_slice(json).map_err(damaged)?;
                self.revocation_lists.insert(signer, list);
            }
            Key::RegistrationCode => {
                self.registration_code = Some(serde_json::from_slice(json).map_err(damaged)?);
            }
            Key::EventConfigurations => {
                self.event_configurations = serde_json::from_slice(json).map_err(damaged)?;
            }
            Key::EventCount => {
                self.events.count = serde_json::from_slice(json).map_err(damaged)?;
            }
            Key::Event(number) => {
                let event: Event = serde_json::from_slice(json).map_err(damaged)?;
                self.events.put(number, event);
            }
            Key::Template(name) => {
                let template: ProvisioningTemplate =
                    serde_json::from_slice(json).map_err(damaged)?;
                if !template.versions.contains_key(&template.default_version) {
                    return Err(LoadError::Template(name));
                }
                self.templates.insert(name, template);
            }
            Key::Authorizer(name) => {
                let authorizer: Authorizer = serde_json::from_slice(json).map_err(damaged)?;
                self.authorizers.insert(name, authorizer);
            }
            Key::DefaultAuthorizer => {
                self.default_authorizer = Some(serde_json::from_slice(json).map_err(damaged)?);
            }
            Key::RoleAlias(name) => {
                let alias: RoleAlias = serde_json::from_slice(json).map_err(damaged)?;
                self.role_aliases.insert(name, alias);
            }
            Key::SessionKeys => {
                self.session_keys = serde_json::from_slice(json).map_err(damaged)?;
            }
            Key::RegistrationTask(id) => {
                let task: RegistrationTask = serde_json::from_slice(json).map_err(damaged)?;
                self.registration_tasks.insert(id, task);
            }
            Key::Member(node) => {
                let member: Member = serde_json::from_slice(json).map_err(damaged)?;
                self.members.insert(node, member);
            }
            Key::PreferredLeader(group) => {
                let node: u64 = serde_json::from_slice(json).map_err(damaged)?;
                self.preferred_leaders.insert(group, node);
            }
        }
        Ok(())
    }

    /// After the last pair: rebuilds what follows from them.
    pub fn loaded(&mut self) -> Result<(), LoadError> {
        let mut indexes = super::Indexes::default();
        for thing in self.things.values() {
            if let Some(thing_type) = &thing.thing_type {
                let things = indexes.things_of_type.entry(thing_type.clone()).or_default();
                things.insert(thing.name.clone());
            }
            if let Some(group) = &thing.billing_group {
                let things = indexes.things_of_billing_group.entry(group.clone()).or_default();
                things.insert(thing.name.clone());
            }
        }
        for group in self.thing_groups.values() {
            if let Some(parent) = &group.parent {
                let children = indexes.children_of.entry(parent.clone()).or_default();
                children.insert(group.name.clone());
            }
        }
        for (thing, groups) in &self.groups_of {
            for group in groups.keys() {
                let things = indexes.things_of_group.entry(group.clone()).or_default();
                things.insert(thing.clone());
            }
        }
        for certificate in self.certificates.values() {
            indexes.add_certificate(certificate);
        }
        for authority in self.authorities.values() {
            indexes.authorities_by_age.insert((authority.created, authority.id.clone()));
            let same = indexes.authorities_of_subject.entry(authority.subject.clone());
            same.or_default().insert(authority.id.clone());
        }
        for authorizer in self.authorizers.values() {
            let key = (authorizer.created, authorizer.name.clone());
            indexes.authorizers_by_age.insert(key);
        }
        for alias in self.role_aliases.values() {
            indexes.role_aliases_by_age.insert((alias.created, alias.name.clone()));
        }
        for task in self.registration_tasks.values() {
            indexes.add_registration_task(task);
        }
        for policy in self.policies.values() {
            let unusable =
                |reason: String| LoadError::Policy { policy: policy.name.clone(), reason };
            let version = policy
                .versions
                .get(&policy.default_version)
                .ok_or_else(|| unusable("it is missing".into()))?;
            let document = policy::Document::parse(&version.document)
                .map_err(|error| unusable(error.to_string()))?;
            indexes.documents.insert(policy.name.clone(), document.into());
            indexes.policies_by_age.insert((policy.created, policy.name.clone()));
        }
        for (principal, policies) in &self.policies_of {
            for policy in policies {
                indexes.targets_of.entry(policy.clone()).or_default().insert(principal.clone());
            }
        }
        for (principal, things) in &self.things_of {
            for (thing, kind) in things {
                let principals = indexes.principals_of.entry(thing.clone()).or_default();
                principals.insert(principal.clone(), *kind);
            }
        }
        self.indexes = indexes;
        self.changes.all = true;
        Ok(())
    }
}
