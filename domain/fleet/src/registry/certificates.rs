//! Registering, updating and deleting certificates.

use super::model::{Certificate, CertificateStatus, Timestamp};
use super::names::{CertificateId, Principal};
use super::store::Key;
use super::{Outcome, Registry, Rejection};

impl Registry {
    pub(super) fn register_certificate(
        &mut self,
        certificate: Certificate,
    ) -> Result<Outcome, Rejection> {
        let id = certificate.id.clone();
        if self.certificates.contains_key(&id) {
            return Err(Rejection::CertificateExists(id));
        }
        if matches!(
            certificate.status,
            CertificateStatus::PendingTransfer | CertificateStatus::Revoked
        ) {
            return Err(not_settable(certificate.status));
        }
        if let Some(authority) = &certificate.authority {
            self.check_authority(authority)?;
            let signed = self.indexes.certificates_of_authority.entry(authority.clone());
            signed.or_default().insert((certificate.created, id.clone()));
        }
        self.indexes.certificates_by_age.insert((certificate.created, id.clone()));
        self.certificates.insert(id.clone(), certificate);
        self.dirty.insert(Key::Certificate(id.clone()));
        self.changed_certificate(&id);
        Ok(Outcome::Done)
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
        let certificate = self
            .certificates
            .get_mut(id)
            .ok_or_else(|| Rejection::CertificateNotFound(id.clone()))?;
        if certificate.status == CertificateStatus::PendingTransfer {
            return Err(Rejection::CertificateInTransfer(id.clone()));
        }
        // The operation is idempotent: setting the status it has is not a change.
        if certificate.status == status {
            return Ok(Outcome::Done);
        }
        certificate.status = status;
        certificate.modified = at;
        certificate.customer_version += 1;
        self.dirty.insert(Key::Certificate(id.clone()));
        self.changed_certificate(id);
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
        for policy in self.policies_of.get(&principal).cloned().unwrap_or_default() {
            self.unlink_policy(&policy, &principal);
        }
        if let Some(certificate) = self.certificates.remove(id) {
            let key = (certificate.created, id.clone());
            self.indexes.certificates_by_age.remove(&key);
            if let Some(authority) = &certificate.authority
                && let Some(signed) = self.indexes.certificates_of_authority.get_mut(authority)
            {
                signed.remove(&key);
                if signed.is_empty() {
                    self.indexes.certificates_of_authority.remove(authority);
                }
            }
        }
        self.dirty.insert(Key::Certificate(id.clone()));
        self.changed_certificate(id);
        Ok(Outcome::Done)
    }
}

fn not_settable(status: CertificateStatus) -> Rejection {
    Rejection::CertificateStatusNotSettable(status.as_str().into())
}
