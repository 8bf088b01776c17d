//! Whose decisions have changed: the gateway decides again for them, within a second.

use std::collections::BTreeSet;

use super::Registry;
use super::names::{
    AuthorizerName, CertificateId, PolicyName, Principal, RoleAliasName, ThingGroupName, ThingName,
    ThingTypeName,
};

/// Naming more principals than this one by one costs more than deciding for everybody again.
const NAMED: usize = 10_000;

/// Who is affected by the commands that were applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Everybody, and the sets below are empty.
    pub all: bool,
    /// Certificates whose status, policies or attached things changed.
    pub certificates: BTreeSet<CertificateId>,
    /// Cognito identities and whatever else carries policies without being a certificate.
    pub others: BTreeSet<Principal>,
    /// Things that came, changed or went, themselves or in what their type adds to publications: a
    /// connection whose client id is the name of one of them has other policy variables now, also when
    /// its certificate is not attached to the thing.
    pub things: BTreeSet<ThingName>,
    /// Role aliases that went: temporary credentials that were given for them are over.
    pub role_aliases: BTreeSet<RoleAliasName>,
    /// Authorizers that are not asked any more: whom they have let in may stay no longer.
    pub authorizers: BTreeSet<AuthorizerName>,
}

impl Changes {
    /// Whether nobody is affected.
    pub fn is_empty(&self) -> bool {
        !self.all
            && self.certificates.is_empty()
            && self.others.is_empty()
            && self.things.is_empty()
            && self.role_aliases.is_empty()
            && self.authorizers.is_empty()
    }

    fn principal(&mut self, principal: &Principal) {
        match principal {
            Principal::Certificate(id) => self.certificates.insert(id.clone()),
            Principal::Cognito(_) | Principal::ThingGroup(_) => {
                self.others.insert(principal.clone())
            }
        };
        self.give_up_when_many();
    }

    fn give_up_when_many(&mut self) {
        let named = self.certificates.len() + self.others.len() + self.things.len();
        if named + self.role_aliases.len() + self.authorizers.len() > NAMED {
            *self = Self { all: true, ..Self::default() };
        }
    }
}

impl Registry {
    pub(super) fn changed_principal(&mut self, principal: &Principal) {
        self.change(|registry, changes| registry.add_principal(changes, principal));
    }

    pub(super) fn changed_certificate(&mut self, id: &CertificateId) {
        self.changed_principal(&Principal::Certificate(id.clone()));
    }

    /// A thing changed, and with it everybody it is attached to.
    pub(super) fn changed_thing(&mut self, thing: &ThingName) {
        self.change(|registry, changes| registry.add_thing(changes, thing));
    }

    /// What the things of a type add to their publications changed.
    pub(super) fn changed_thing_type(&mut self, thing_type: &ThingTypeName) {
        self.change(|registry, changes| {
            for thing in registry.indexes.things_of_type.get(thing_type).into_iter().flatten() {
                registry.add_thing(changes, thing);
                if changes.all {
                    return;
                }
            }
        });
    }

    /// What decides for the things of a group changed, and for those of the groups below it.
    pub(super) fn changed_group(&mut self, group: &ThingGroupName) {
        self.change(|registry, changes| registry.add_group(changes, group));
    }

    /// A policy changed, and with it everybody who has it.
    pub(super) fn changed_policy(&mut self, policy: &PolicyName) {
        self.change(|registry, changes| {
            for principal in registry.indexes.targets_of.get(policy).into_iter().flatten() {
                registry.add_principal(changes, principal);
                if changes.all {
                    return;
                }
            }
        });
    }

    pub(super) fn changed_role_alias(&mut self, name: &RoleAliasName) {
        self.change(|_, changes| {
            changes.role_aliases.insert(name.clone());
            changes.give_up_when_many();
        });
    }

    pub(super) fn changed_authorizer(&mut self, name: &AuthorizerName) {
        self.change(|_, changes| {
            changes.authorizers.insert(name.clone());
            changes.give_up_when_many();
        });
    }

    fn change(&mut self, add: impl FnOnce(&Self, &mut Changes)) {
        if !self.changes.all {
            let mut changes = std::mem::take(&mut self.changes);
            add(self, &mut changes);
            self.changes = changes;
        }
    }

    fn add_principal(&self, changes: &mut Changes, principal: &Principal) {
        match principal {
            Principal::ThingGroup(group) => self.add_group(changes, group),
            _ => changes.principal(principal),
        }
    }

    fn add_group(&self, changes: &mut Changes, group: &ThingGroupName) {
        for group in self.thing_group_tree(group) {
            for thing in self.indexes.things_of_group.get(group).into_iter().flatten() {
                self.add_thing(changes, thing);
                if changes.all {
                    return;
                }
            }
        }
    }

    fn add_thing(&self, changes: &mut Changes, thing: &ThingName) {
        changes.things.insert(thing.clone());
        for principal in self.indexes.principals_of.get(thing).into_iter().flat_map(|m| m.keys()) {
            changes.principal(principal);
        }
        changes.give_up_when_many();
    }
}
