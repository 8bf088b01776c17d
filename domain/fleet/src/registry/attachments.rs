//! What is attached to what: policies to principals, things to principals.

use super::model::ThingPrincipalType;
use super::names::{PolicyName, Principal, ThingName};
use super::policies::POLICIES_PER_PRINCIPAL;
use super::store::Key;
use super::thing_groups::POLICIES_PER_GROUP;
use super::{Outcome, Registry, Rejection};

impl Registry {
    pub(super) fn attach_policy(
        &mut self,
        policy: PolicyName,
        target: Principal,
    ) -> Result<Outcome, Rejection> {
        if !self.policies.contains_key(&policy) {
            return Err(Rejection::PolicyNotFound(policy));
        }
        self.check_principal(&target)?;
        if let Some(attached) = self.policies_of.get(&target) {
            if attached.contains(&policy) {
                return Ok(Outcome::Done);
            }
            let limit = match target {
                Principal::ThingGroup(_) => POLICIES_PER_GROUP,
                Principal::Certificate(_) | Principal::Cognito(_) => POLICIES_PER_PRINCIPAL,
            };
            if attached.len() >= limit {
                return Err(Rejection::PolicyLimit { principal: target, limit });
            }
        }
        self.link_policy(policy.clone(), target.clone());
        self.changed_principal(&target);
        self.dirty.insert(Key::PolicyAttachment(target, policy));
        Ok(Outcome::Done)
    }

    /// Detaching what is not attached succeeds; what never existed is said not to exist.
    pub(super) fn detach_policy(
        &mut self,
        policy: &PolicyName,
        target: &Principal,
    ) -> Result<Outcome, Rejection> {
        if !self.policies.contains_key(policy) {
            return Err(Rejection::PolicyNotFound(policy.clone()));
        }
        self.unlink_policy(policy, target);
        Ok(Outcome::Done)
    }

    pub(super) fn attach_thing_principal(
        &mut self,
        thing: ThingName,
        principal: Principal,
        kind: ThingPrincipalType,
    ) -> Result<Outcome, Rejection> {
        if !self.things.contains_key(&thing) {
            return Err(Rejection::ThingNotFound(thing));
        }
        self.check_principal(&principal)?;
        if let Principal::ThingGroup(group) = principal {
            return Err(Rejection::GroupIsNoPrincipal(group));
        }
        let attached = self.things_of.get(&principal).and_then(|things| things.get(&thing));
        if attached == Some(&kind) {
            return Ok(Outcome::Done);
        }
        self.check_thing_attachment(&thing, &principal, kind)?;
        self.link_thing(thing.clone(), principal.clone(), kind);
        self.changed_thing(&thing);
        self.dirty.insert(Key::ThingAttachment(principal, thing));
        Ok(Outcome::Done)
    }

    /// Who is attached to one thing exclusively is attached to no other, nor otherwise.
    pub(super) fn check_thing_attachment(
        &self,
        thing: &ThingName,
        principal: &Principal,
        kind: ThingPrincipalType,
    ) -> Result<(), Rejection> {
        for (attached, as_kind) in self.things_of.get(principal).into_iter().flatten() {
            let (thing_of, principal) = (attached.clone(), principal.clone());
            match (as_kind, kind) {
                _ if attached == thing && *as_kind == kind => return Ok(()),
                (ThingPrincipalType::ExclusiveThing, _) => {
                    return Err(Rejection::AttachedExclusively { thing: thing_of, principal });
                }
                (_, ThingPrincipalType::ExclusiveThing) => {
                    return Err(Rejection::AttachedElsewhere { thing: thing_of, principal });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Detaching what is not attached succeeds, as long as the thing exists.
    pub(super) fn detach_thing_principal(
        &mut self,
        thing: &ThingName,
        principal: &Principal,
    ) -> Result<Outcome, Rejection> {
        if !self.things.contains_key(thing) {
            return Err(Rejection::ThingNotFound(thing.clone()));
        }
        self.check_principal(principal)?;
        // Told before the link is gone: the principal is still among those of the thing.
        self.changed_thing(thing);
        self.unlink_thing(thing, principal);
        Ok(Outcome::Done)
    }

    fn check_principal(&self, principal: &Principal) -> Result<(), Rejection> {
        match principal {
            Principal::Certificate(id) if !self.certificates.contains_key(id) => {
                Err(Rejection::CertificateNotFound(id.clone()))
            }
            Principal::ThingGroup(group) if !self.thing_groups.contains_key(group) => {
                Err(Rejection::ThingGroupNotFound(group.clone()))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn link_policy(&mut self, policy: PolicyName, target: Principal) {
        self.indexes.targets_of.entry(policy.clone()).or_default().insert(target.clone());
        self.policies_of.entry(target).or_default().insert(policy);
    }

    /// Ends an attachment, if there is one, and tells whom it affects.
    pub(super) fn unlink_policy(&mut self, policy: &PolicyName, target: &Principal) {
        let Some(attached) = self.policies_of.get_mut(target) else {
            return;
        };
        if !attached.remove(policy) {
            return;
        }
        if attached.is_empty() {
            self.policies_of.remove(target);
        }
        if let Some(targets) = self.indexes.targets_of.get_mut(policy) {
            targets.remove(target);
            if targets.is_empty() {
                self.indexes.targets_of.remove(policy);
            }
        }
        self.dirty.insert(Key::PolicyAttachment(target.clone(), policy.clone()));
        self.changed_principal(target);
    }

    pub(super) fn link_thing(
        &mut self,
        thing: ThingName,
        principal: Principal,
        kind: ThingPrincipalType,
    ) {
        let principals = self.indexes.principals_of.entry(thing.clone()).or_default();
        principals.insert(principal.clone(), kind);
        self.things_of.entry(principal).or_default().insert(thing, kind);
    }

    pub(super) fn unlink_thing(&mut self, thing: &ThingName, principal: &Principal) {
        let Some(attached) = self.things_of.get_mut(principal) else {
            return;
        };
        if attached.remove(thing).is_none() {
            return;
        }
        if attached.is_empty() {
            self.things_of.remove(principal);
        }
        if let Some(principals) = self.indexes.principals_of.get_mut(thing) {
            principals.remove(principal);
            if principals.is_empty() {
                self.indexes.principals_of.remove(thing);
            }
        }
        self.dirty.insert(Key::ThingAttachment(principal.clone(), thing.clone()));
    }
}
