//! What is proposed for an attempt, and what that changes.

use std::sync::PoisonError;

use fleet::registry::{Command, Outcome};

use super::subject::{self, Subject};
use super::{Change, Changes, Ledger};
use crate::backend::{Backend, ProposeError, Unavailable};

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
        let Some((ledger, changes)) = &self.of else {
            return backend.registry_propose(command).await;
        };
        let subjects = subject::subjects(&command);
        if subjects.is_empty() {
            return backend.registry_propose(command).await;
        }
        let before = look(backend, ledger, &subjects).await?;
        let start = {
            let mut changes = changes.lock().unwrap_or_else(PoisonError::into_inner);
            changes.extend(before);
            changes.len() - subjects.len()
        };
        let proposed = backend.registry_propose(command).await;
        let after = match &proposed {
            // It is done, whether or not this can be read.
            Ok(_) => look(backend, ledger, &subjects).await.unwrap_or_default(),
            Err(_) => return proposed,
        };
        let mut changes = changes.lock().unwrap_or_else(PoisonError::into_inner);
        for (change, after) in changes[start..].iter_mut().zip(after) {
            change.after = after.before;
        }
        drop(changes);
        proposed
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
