//! Registering, updating and deleting certificates.

use super::model::{Certificate, CertificateStatus, Timestamp};
use super::names::{CertificateId, Principal};
use super::provision::{Provisional, ProvisionalRole};
use super::store::Key;
use super::{Indexes, Outcome, Registry, Rejection};

impl Registry {
    pub(super) fn register_certificate(
        &mut self,
        certificate: Certificate,
    ) -> Result<Outcome, Rejection> {
        self.check_registration(&certificate)?;
        self.put_certificate(certificate);
        Ok(Outcome::Done)
    }

    /// Checks a certificate that is not there yet.
    pub(super) fn check_registration(&self, certificate: &Certificate) -> Result<(), Rejection> {
        if self.certificates.contains_key(&certificate.id) {
            return Err(Rejection::CertificateExists(certificate.id.clone()));
        }
        if matches!(
            certificate.status,
            CertificateStatus::PendingTransfer | CertificateStatus::Revoked
        ) {
            return Err(not_settable(certificate.status));
        }
        if let Some(authority) = &certificate.authority {
            self.check_authority(authority)?;
        }
        self.check_not_revoked(
            &certificate.id,
            certificate.authority.as_ref(),
            &certificate.summary,
        )
    }

    pub(super) fn put_certificate(&mut self, certificate: Certificate) {
        let id = certificate.id.clone();
        self.indexes.add_certificate(&certificate);
        self.certificates.insert(id.clone(), certificate);
        self.dirty.insert(Key::Certificate(id.clone()));
        self.changed_certificate(&id);
    }

    pub(super) fn update_certificate(
        &mut self,
        id: &CertificateId,
        status: CertificateStatus,
        at: Timestamp,
    ) -> Result<Outcome, Rejection> {
        if matches!(
            status,
            CertificateStatus::PendingTransfer | CertificateStatus::PendingActivation
        ) {
            return Err(not_settable(status));
        }
        let certificate =
            self.certificates.get(id).ok_or_else(|| Rejection::CertificateNotFound(id.clone()))?;
        if certificate.status == CertificateStatus::PendingTransfer {
            return Err(Rejection::CertificateInTransfer(id.clone()));
        }
        // The operation is idempotent: setting the status it has is not a change.
        if certificate.status == status {
            return Ok(Outcome::Done);
        }
        if status == CertificateStatus::Active {
            self.check_not_revoked(id, certificate.authority.as_ref(), &certificate.summary)?;
        }
        self.settle(id, status, at);
        Ok(Outcome::Done)
    }

    pub(super) fn delete_certificate(
        &mut self,
        id: &CertificateId,
        force: bool,
    ) -> Result<Outcome, Rejection> {
        let certificate =
            self.certificates.get(id).ok_or_else(|| Rejection::CertificateNotFound(id.clone()))?;
        match certificate.status {
            CertificateStatus::Active => return Err(Rejection::CertificateActive(id.clone())),
            CertificateStatus::PendingTransfer => {
                return Err(Rejection::CertificateInTransfer(id.clone()));
            }
            _ => {}
        }
        let principal = Principal::Certificate(id.clone());
        if self.things_of.contains_key(&principal) {
            return Err(Rejection::CertificateHasThings(id.clone()));
        }
        if !force && self.policies_of.contains_key(&principal) {
            return Err(Rejection::CertificateHasPolicies(id.clone()));
        }
        self.remove_certificate(id);
        Ok(Outcome::Done)
    }

    /// With its policies; it has no things any more.
    pub(super) fn remove_certificate(&mut self, id: &CertificateId) {
        let principal = Principal::Certificate(id.clone());
        for policy in self.policies_of.get(&principal).cloned().unwrap_or_default() {
            self.unlink_policy(&policy, &principal);
        }
        if let Some(certificate) = self.certificates.remove(id) {
            self.indexes.remove_certificate(&certificate);
            if let Some(authority) = &certificate.authority
                && !self.indexes.certificates_of_authority.contains_key(authority)
            {
                self.forget_former_authority(authority);
            }
        }
        self.dirty.insert(Key::Certificate(id.clone()));
        self.changed_certificate(id);
    }
}

impl Indexes {
    /// What a device provisions itself with is in no list.
    pub(super) fn add_certificate(&mut self, certificate: &Certificate) {
        let key = (certificate.created, certificate.id.clone());
        if let Some(authority) = &certificate.authority {
            let signed = self.certificates_of_authority.entry(authority.clone());
            signed.or_default().insert(key.clone());
        }
        if !certificate.is_claim() {
            self.certificates_by_age.insert(key);
        }
        self.add_provisional(certificate);
    }

    fn add_provisional(&mut self, certificate: &Certificate) {
        let Some(Provisional { role, expires }) = &certificate.provisional else { return };
        self.provisional.insert((*expires, certificate.id.clone()));
        if let ProvisionalRole::Unclaimed(owner) = role {
            let made = self.unclaimed_of.entry(owner.claimed_by.clone()).or_default();
            made.insert(certificate.id.clone());
        }
    }

    /// It stays from now on, or it is gone.
    pub(super) fn remove_provisional(&mut self, id: &CertificateId, was: &Provisional) {
        self.provisional.remove(&(was.expires, id.clone()));
        if let ProvisionalRole::Unclaimed(owner) = &was.role
            && let Some(made) = self.unclaimed_of.get_mut(&owner.claimed_by)
        {
            made.remove(id);
            if made.is_empty() {
                self.unclaimed_of.remove(&owner.claimed_by);
            }
        }
    }

    fn remove_certificate(&mut self, certificate: &Certificate) {
        let key = (certificate.created, certificate.id.clone());
        self.certificates_by_age.remove(&key);
        if let Some(authority) = &certificate.authority
            && let Some(signed) = self.certificates_of_authority.get_mut(authority)
        {
            signed.remove(&key);
            if signed.is_empty() {
                self.certificates_of_authority.remove(authority);
            }
        }
        if let Some(was) = &certificate.provisional {
            self.remove_provisional(&certificate.id, was);
        }
    }
}

fn not_settable(status: CertificateStatus) -> Rejection {
    Rejection::CertificateStatusNotSettable(status.as_str().into())
}
