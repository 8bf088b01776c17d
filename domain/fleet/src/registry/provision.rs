//! Provisioning: a device gets its certificate, its thing, its groups and its policies at once, or
//! nothing of it; and certificates that last only until that is done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::command::AttributePatch;
use super::model::{
    Attributes, Certificate, CertificateStatus, Thing, ThingPrincipalType, Timestamp,
};
use super::names::{
    BillingGroupName, CertificateId, PolicyName, Principal, TemplateName, ThingGroupName,
    ThingName, ThingTypeName,
};
use super::policies::{POLICIES_PER_PRINCIPAL, parse};
use super::registration_tasks::TaskLine;
use super::store::Key;
use super::templates::ProvisioningTemplate;
use super::things::patched;
use super::{Outcome, Registry, Rejection};

/// Certificates that wait for their devices and were made with one claim: one that has leaked hinders
/// no others.
const UNCLAIMED_OF_CLAIM: usize = 1_000;
/// Certificates that wait for their devices, and claims, at the same time.
const UNCLAIMED: usize = 20_000;
/// How many certificates one command deletes.
const SWEPT: usize = 1_000;

/// What is done about a property of what is there already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Disposition {
    /// It stays.
    #[default]
    DoNothing,
    /// It becomes what the template says.
    Replace,
    /// What the template says is added.
    Merge,
    /// Nothing is provisioned if it differs.
    Fail,
}

/// A thing that shall be there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThingPlan {
    /// Its name.
    pub name: ThingName,
    /// Its attributes; none changes none.
    #[serde(default)]
    pub attributes: Attributes,
    /// Its type.
    #[serde(default)]
    pub thing_type: Option<ThingTypeName>,
    /// The groups that it is in directly; none changes none.
    #[serde(default)]
    pub groups: BTreeSet<ThingGroupName>,
    /// The billing group of a new thing, or of one that has none.
    #[serde(default)]
    pub billing_group: Option<BillingGroupName>,
    /// What is done about the attributes of a thing that is there.
    #[serde(default)]
    pub on_attributes: Disposition,
    /// The same about its type.
    #[serde(default)]
    pub on_type: Disposition,
    /// The same about its groups.
    #[serde(default)]
    pub on_groups: Disposition,
}

/// A policy that the certificate shall have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachedPolicy {
    /// Its name.
    pub name: PolicyName,
    /// What it says if it has to be created; without it, it has to be there.
    #[serde(default)]
    pub document: Option<String>,
}

/// A device to provision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Provision {
    /// Its certificate.
    pub certificate: CertificateId,
    /// What is registered if the registry does not know the certificate.
    #[serde(default)]
    pub registers: Option<Box<Certificate>>,
    /// The status of the certificate. One that waits for activation always gets it.
    pub status: CertificateStatus,
    /// What is done about the status of another certificate that is there.
    #[serde(default)]
    pub on_status: Disposition,
    /// Its thing.
    #[serde(default)]
    pub thing: Option<ThingPlan>,
    /// Its policies.
    #[serde(default)]
    pub policies: Vec<AttachedPolicy>,
    /// What has to be so still.
    #[serde(default)]
    pub check: Check,
    /// Names the thing, the memberships and the policies that this creates.
    pub id: Uuid,
    /// When.
    pub at: Timestamp,
}

/// What has to be so when a device is provisioned: whoever proposes it has looked earlier.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Check {
    /// What a device that provisions itself shows; none when somebody else does it.
    pub shown: Option<Ownership>,
    /// The template by a name that is carried out.
    pub template: Option<TemplateInUse>,
    /// The certificate still waits for activation: nobody has decided about it.
    pub only_pending: bool,
    /// The line of a task that this carries out: each does it once.
    pub line: Option<TaskLine>,
}

/// A template as it was when it was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateInUse {
    name: TemplateName,
    generation: Uuid,
    modified: Timestamp,
}

impl TemplateInUse {
    /// As it is now.
    pub fn of(template: &ProvisioningTemplate) -> Self {
        let ProvisioningTemplate { name, generation, modified, .. } = template;
        Self { name: name.clone(), generation: *generation, modified: *modified }
    }
}

/// Who may provision a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ownership {
    /// The SHA-256 of the ownership token, in hex.
    pub token: String,
    /// With whose right the certificate was made: only with the same it is provisioned.
    pub claimed_by: Principal,
}

/// A certificate that goes at a moment if nobody keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provisional {
    /// What it is for.
    pub role: ProvisionalRole,
    /// When it goes.
    pub expires: Timestamp,
}

/// What a provisional certificate is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProvisionalRole {
    /// A device may connect and provision itself with this template, and nothing else. Lists do not
    /// show it.
    Claim(TemplateName),
    /// It waits for the device that it was made for.
    Unclaimed(Ownership),
}

/// A change that has to do with provisioning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "each says what it does")]
pub enum ProvisioningCommand {
    /// Registers a certificate that is provisional.
    Offer { certificate: Box<Certificate> },
    /// Provisions a device.
    Provision(Box<Provision>),
    /// Deletes provisional certificates whose time is over, a bounded number of them.
    Sweep { at: Timestamp },
}

/// What becomes of a thing.
struct PlannedThing {
    thing: Thing,
    is_changed: bool,
    leave: BTreeSet<ThingGroupName>,
    join: BTreeSet<ThingGroupName>,
}

impl Registry {
    pub(super) fn apply_to_provisioning(
        &mut self,
        command: ProvisioningCommand,
    ) -> Result<Outcome, Rejection> {
        match command {
            ProvisioningCommand::Offer { certificate } => self.offer(*certificate),
            ProvisioningCommand::Provision(provision) => self.provision(*provision),
            ProvisioningCommand::Sweep { at } => Ok(self.sweep(at)),
        }
    }

    fn offer(&mut self, certificate: Certificate) -> Result<Outcome, Rejection> {
        match certificate.provisional.as_ref().map(|provisional| &provisional.role) {
            Some(ProvisionalRole::Claim(template)) => drop(self.find_template(template)?),
            Some(ProvisionalRole::Unclaimed(owner)) => self.check_unclaimed(&owner.claimed_by)?,
            None => {}
        }
        if self.indexes.provisional.len() >= UNCLAIMED {
            return Err(Rejection::ManyUnclaimedCertificates { limit: UNCLAIMED });
        }
        self.register_certificate(certificate)
    }

    /// All is checked before anything is changed.
    fn provision(&mut self, provision: Provision) -> Result<Outcome, Rejection> {
        let Provision { certificate, registers, status, on_status, at, id, .. } = provision;
        let principal = Principal::Certificate(certificate.clone());
        self.check_still(&certificate, &provision.check, at)?;
        let known = self.certificates.get(&certificate);
        let is_new = known.is_none();
        let status = match (known, &registers) {
            (Some(known), _) if known.is_claim() => {
                return Err(Rejection::CertificateNotFound(certificate));
            }
            (Some(known), _) => {
                let planned = planned_status(known, status, on_status)?;
                if planned == Some(CertificateStatus::Active) {
                    let authority = known.authority.as_ref();
                    self.check_not_revoked(&certificate, authority, &known.summary)?;
                }
                planned
            }
            (None, Some(registers)) => {
                self.check_registration(registers)?;
                Some(status)
            }
            (None, None) => return Err(Rejection::CertificateNotFound(certificate)),
        };
        let thing = provision.thing.map(|plan| self.planned_thing(plan, id, at)).transpose()?;
        let attached = self.things_of.get(&principal);
        let is_attached = |thing: &ThingName| attached.is_some_and(|it| it.contains_key(thing));
        if let Some(PlannedThing { thing, .. }) = &thing
            && !is_attached(&thing.name)
        {
            self.check_thing_attachment(
                &thing.name,
                &principal,
                ThingPrincipalType::NonExclusiveThing,
            )?;
        }
        self.check_policies(&principal, &provision.policies)?;

        if let Some(registers) = registers.filter(|_| is_new) {
            self.put_certificate(*registers);
        }
        if let Some(status) = status {
            self.settle(&certificate, status, at);
        }
        for policy in provision.policies {
            if let Some(document) = policy.document
                && !self.policies.contains_key(&policy.name)
            {
                self.create_policy(policy.name.clone(), document, BTreeMap::new(), id, at)?;
            }
            self.attach_policy(policy.name, principal.clone())?;
        }
        if let Some(PlannedThing { thing, is_changed, leave, join }) = thing {
            let name = thing.name.clone();
            if is_changed {
                self.put_thing(thing);
            }
            self.leave_and_join(&name, &leave, join, id);
            if self.things_of.get(&principal).is_none_or(|things| !things.contains_key(&name)) {
                let kind = ThingPrincipalType::NonExclusiveThing;
                self.attach_thing_principal(name.clone(), principal, kind)?;
            }
            self.changed_thing(&name);
        }
        self.changed_certificate(&certificate);
        if let Some(line) = provision.check.line {
            self.note_task_line(line, certificate);
        }
        Ok(Outcome::Done)
    }

    fn check_still(
        &self,
        certificate: &CertificateId,
        check: &Check,
        at: Timestamp,
    ) -> Result<(), Rejection> {
        if let Some(line) = &check.line {
            self.check_task_line(line)?;
        }
        if let Some(shown) = &check.shown {
            self.check_ownership(certificate, shown, at)?;
        }
        if let Some(template) = &check.template {
            let found = self.find_template(&template.name)?;
            if !found.enabled || TemplateInUse::of(found) != *template {
                return Err(Rejection::TemplateChanged(template.name.clone()));
            }
        }
        let status = self.certificates.get(certificate).map(|it| it.status);
        if check.only_pending && status != Some(CertificateStatus::PendingActivation) {
            return Err(Rejection::NotTheOwner);
        }
        Ok(())
    }

    /// Only the certificate that it was made for provisions it, as long as that one may connect.
    fn check_ownership(
        &self,
        certificate: &CertificateId,
        shown: &Ownership,
        at: Timestamp,
    ) -> Result<(), Rejection> {
        let claim = shown.claimed_by.certificate().and_then(|id| self.certificates.get(id));
        if claim.is_none_or(|claim| claim.status != CertificateStatus::Active) {
            return Err(Rejection::NotTheOwner);
        }
        let provisional = self.certificates.get(certificate).and_then(|it| it.provisional.as_ref());
        match provisional {
            Some(Provisional { role: ProvisionalRole::Unclaimed(owner), expires })
                if owner == shown && at < *expires =>
            {
                Ok(())
            }
            _ => Err(Rejection::NotTheOwner),
        }
    }

    /// The policies have to be there, or to be such that they can be, and not to be too many.
    fn check_policies(
        &self,
        principal: &Principal,
        policies: &[AttachedPolicy],
    ) -> Result<(), Rejection> {
        for AttachedPolicy { name, document } in policies {
            match document {
                _ if self.policies.contains_key(name) => {}
                Some(document) => drop(parse(document)?),
                None => return Err(Rejection::PolicyNotFound(name.clone())),
            }
        }
        let attached = self.policies_of.get(principal).into_iter().flatten();
        let all: BTreeSet<_> = attached.chain(policies.iter().map(|policy| &policy.name)).collect();
        if all.len() > POLICIES_PER_PRINCIPAL {
            let limit = POLICIES_PER_PRINCIPAL;
            return Err(Rejection::PolicyLimit { principal: principal.clone(), limit });
        }
        Ok(())
    }

    fn planned_thing(
        &self,
        plan: ThingPlan,
        id: Uuid,
        at: Timestamp,
    ) -> Result<PlannedThing, Rejection> {
        let (leave, join) = self.planned_groups(&plan)?;
        self.check_move(&plan.name, &leave, &join)?;
        if let Some(group) = &plan.billing_group {
            self.check_billing_group(group)?;
        }
        let Some(present) = self.things.get(&plan.name) else {
            let mut thing = Thing {
                name: plan.name,
                id,
                thing_type: plan.thing_type,
                attributes: Arc::new(plan.attributes),
                billing_group: plan.billing_group,
                version: 1,
                created: at,
            };
            self.check_new_thing(&mut thing)?;
            return Ok(PlannedThing { thing, is_changed: true, leave, join });
        };
        let mut thing = present.clone();
        if !plan.attributes.is_empty() {
            let merge = plan.on_attributes == Disposition::Merge;
            let patch = AttributePatch { attributes: plan.attributes, merge };
            let wanted = patched(&present.attributes, patch);
            match plan.on_attributes {
                Disposition::DoNothing => {}
                Disposition::Fail if wanted != *present.attributes => {
                    return Err(conflict(&plan.name, "attributes"));
                }
                _ => thing.attributes = Arc::new(wanted),
            }
        }
        if plan.thing_type.is_some() && plan.thing_type != present.thing_type {
            match plan.on_type {
                Disposition::DoNothing => {}
                Disposition::Fail => return Err(conflict(&plan.name, "thing type")),
                Disposition::Replace | Disposition::Merge => thing.thing_type = plan.thing_type,
            }
        }
        thing.billing_group = thing.billing_group.or(plan.billing_group);
        let is_changed = thing != *present;
        if is_changed {
            self.check_changed_thing(present, &thing)?;
            thing.version += 1;
        }
        Ok(PlannedThing { thing, is_changed, leave, join })
    }

    /// Which groups a thing leaves and joins.
    fn planned_groups(
        &self,
        plan: &ThingPlan,
    ) -> Result<(BTreeSet<ThingGroupName>, BTreeSet<ThingGroupName>), Rejection> {
        let nothing = || Ok((BTreeSet::new(), BTreeSet::new()));
        let join = plan.groups.clone();
        if join.is_empty() || !self.things.contains_key(&plan.name) {
            return Ok((BTreeSet::new(), join));
        }
        let present = self.groups_of.get(&plan.name);
        let present: BTreeSet<_> =
            present.into_iter().flat_map(|groups| groups.keys().cloned()).collect();
        match plan.on_groups {
            Disposition::DoNothing => nothing(),
            Disposition::Merge => Ok((BTreeSet::new(), join)),
            Disposition::Replace => Ok((present.difference(&join).cloned().collect(), join)),
            Disposition::Fail if present == join => nothing(),
            Disposition::Fail => Err(conflict(&plan.name, "thing groups")),
        }
    }

    /// Gives a certificate its status; it stays from now on, unless it is a claim.
    pub(super) fn settle(&mut self, id: &CertificateId, status: CertificateStatus, at: Timestamp) {
        let Some(certificate) = self.certificates.get_mut(id) else { return };
        let provisional =
            if certificate.is_claim() { None } else { certificate.provisional.take() };
        if certificate.status != status {
            certificate.status = status;
            certificate.modified = at;
            certificate.customer_version += 1;
        }
        if let Some(was) = provisional {
            self.indexes.remove_provisional(id, &was);
        }
        if status != CertificateStatus::Active {
            self.forget_unclaimed_of(id);
        }
        self.dirty.insert(Key::Certificate(id.clone()));
        self.changed_certificate(id);
    }

    /// The certificates that a sweep at this time deletes.
    pub fn swept_at(&self, at: Timestamp) -> Vec<CertificateId> {
        let over = self.indexes.provisional.iter().take_while(|(expires, _)| *expires <= at);
        over.take(SWEPT).map(|(_, id)| id.clone()).collect()
    }

    fn sweep(&mut self, at: Timestamp) -> Outcome {
        for id in self.swept_at(at) {
            self.delete_with_attachments(&id);
        }
        Outcome::Done
    }

    /// Whether one more certificate may be made with a claim that waits for its device.
    pub fn check_unclaimed(&self, claimed_by: &Principal) -> Result<(), Rejection> {
        let of_claim = self.indexes.unclaimed_of.get(claimed_by).map_or(0, BTreeSet::len);
        if of_claim >= UNCLAIMED_OF_CLAIM {
            let limit = UNCLAIMED_OF_CLAIM;
            return Err(Rejection::ManyUnclaimedCertificates { limit });
        }
        if self.indexes.provisional.len() >= UNCLAIMED {
            return Err(Rejection::ManyUnclaimedCertificates { limit: UNCLAIMED });
        }
        Ok(())
    }

    /// What was made with a claim that may not be used any more goes with it.
    fn forget_unclaimed_of(&mut self, claim: &CertificateId) {
        let claim = Principal::Certificate(claim.clone());
        for id in self.indexes.unclaimed_of.get(&claim).cloned().unwrap_or_default() {
            self.delete_with_attachments(&id);
        }
    }

    fn delete_with_attachments(&mut self, id: &CertificateId) {
        let principal = Principal::Certificate(id.clone());
        for thing in self.things_of.get(&principal).cloned().unwrap_or_default().into_keys() {
            self.unlink_thing(&thing, &principal);
        }
        self.remove_certificate(id);
    }

    /// When the first provisional certificate goes.
    pub fn next_sweep(&self) -> Option<Timestamp> {
        self.indexes.provisional.first().map(|(expires, _)| *expires)
    }
}

/// The status that a certificate gets that is there; none if it keeps its own.
fn planned_status(
    known: &Certificate,
    status: CertificateStatus,
    disposition: Disposition,
) -> Result<Option<CertificateStatus>, Rejection> {
    match (known.status, disposition) {
        (CertificateStatus::PendingTransfer, _) => {
            Err(Rejection::CertificateInTransfer(known.id.clone()))
        }
        (CertificateStatus::PendingActivation, _) => Ok(Some(status)),
        (current, _) if current == status => Ok(None),
        (_, Disposition::DoNothing) => Ok(None),
        (_, Disposition::Fail) => Err(Rejection::ResourceConflict {
            resource: format!("cert/{}", known.id),
            what: "status".to_owned(),
        }),
        (_, Disposition::Replace | Disposition::Merge) => Ok(Some(status)),
    }
}

fn conflict(thing: &ThingName, what: &str) -> Rejection {
    Rejection::ResourceConflict { resource: format!("thing/{thing}"), what: what.to_owned() }
}
