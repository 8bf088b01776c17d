//! What is proposed for an attempt, and what that changes.

use std::sync::PoisonError;

use fleet::registry::{CertificateId, Command, Outcome};

use super::subject::{self, Subject};
use super::{Change, Changes, Ledger};
use crate::backend::{Backend, ProposeError, Unavailable};

/// What a command may change, and where that is noted.
#[derive(Debug, Default)]
pub struct Seen {
    subjects: Vec<Subject>,
    start: usize,
}

/// Notes what is proposed: how that stood before, and how afterwards. What somebody else changes in
/// between is seen, too. One of nothing notes nothing.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    of: Option<(Ledger, Changes)>,
}

impl Watch {
    pub(super) fn new(ledger: &Ledger, changes: &Changes) -> Self {
        Self { of: Some((ledger.clone(), Changes::clone(changes))) }
    }

    /// Has the registry change.
    pub async fn propose<B: Backend>(
        &self,
        backend: &B,
        command: Command,
    ) -> Result<Outcome, ProposeError> {
        self.propose_touching(backend, command, &[]).await
    }

    /// As [`Watch::propose`] a command that also changes the status of these certificates, which it does
    /// not name.
    pub async fn propose_touching<B: Backend>(
        &self,
        backend: &B,
        command: Command,
        certificates: &[CertificateId],
    ) -> Result<Outcome, ProposeError> {
        let mut subjects = subject::subjects(&command);
        subjects.extend(certificates.iter().cloned().map(Subject::Status));
        let seen = self.look_before(backend, subjects).await?;
        let proposed = backend.registry_propose(command).await;
        match &proposed {
            Ok(_) => self.after(backend, seen).await,
            Err(ProposeError::Rejected(_)) => self.nothing(&seen),
            Err(ProposeError::Unavailable(_)) => {}
        }
        proposed
    }

    /// Notes how what a command may change stands before it is proposed.
    pub async fn before<B: Backend>(
        &self,
        backend: &B,
        command: &Command,
    ) -> Result<Seen, Unavailable> {
        self.look_before(backend, subject::subjects(command)).await
    }

    async fn look_before<B: Backend>(
        &self,
        backend: &B,
        subjects: Vec<Subject>,
    ) -> Result<Seen, Unavailable> {
        let Some((ledger, changes)) = &self.of else { return Ok(Seen::default()) };
        if subjects.is_empty() {
            return Ok(Seen::default());
        }
        let before = look(backend, ledger, &subjects).await?;
        let mut changes = changes.lock().unwrap_or_else(PoisonError::into_inner);
        let start = changes.len();
        changes.extend(before);
        Ok(Seen { subjects, start })
    }

    /// Notes how that stands now that the command is done.
    pub async fn after<B: Backend>(&self, backend: &B, seen: Seen) {
        let Some((ledger, changes)) = self.of.as_ref().filter(|_| !seen.subjects.is_empty()) else {
            return;
        };
        // It is done, whether or not this can be read.
        let after = look(backend, ledger, &seen.subjects).await.unwrap_or_default();
        let mut changes = changes.lock().unwrap_or_else(PoisonError::into_inner);
        for (change, after) in changes[seen.start..].iter_mut().zip(after) {
            change.after = Some(after.before);
        }
    }

    /// Notes that the command has changed nothing.
    fn nothing(&self, seen: &Seen) {
        let Some((_, changes)) = &self.of else { return };
        let mut changes = changes.lock().unwrap_or_else(PoisonError::into_inner);
        for change in changes.iter_mut().skip(seen.start).take(seen.subjects.len()) {
            change.after = Some(change.before.clone());
        }
    }
}

/// How something stands now, as if it had been so before.
async fn look<B: Backend>(
    backend: &B,
    ledger: &Ledger,
    subjects: &[Subject],
) -> Result<Vec<Change>, Unavailable> {
    let (ledger, subjects) = (ledger.clone(), subjects.to_vec());
    backend.registry_read(move |registry| ledger.described(registry, &subjects)).await
}
