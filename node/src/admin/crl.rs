//! Certificate revocation lists, which an operator imports: what registered authorities have taken back is
//! refused from then on.

use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use api::audit::Watch;
use api::backend::ProposeError;
use api::x509::{self, InspectedList, LONGEST_LIST, ListError};
use api::{Backend as _, Source};
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use bytes::Bytes;
use fleet::registry::{
    Authority, AuthorityCommand, CertificateId, Command, Outcome, Registry, Rejection, Timestamp,
};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::{Asked, Refused, attempt, ended, send};
use crate::backend::Backend;
use crate::clock::now_ms;
use crate::shared::Shared;

/// Lists are large: so many may be on their way here at a time, and one is read.
static ARRIVING: Semaphore = Semaphore::const_new(8);
static READING: Semaphore = Semaphore::const_new(1);
/// How many of the certificates that a list revokes are named: in the answer, the log and the audit record.
const NAMED: usize = 250;
/// How long whoever asks waits for the answer.
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);

/// What came of it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Imported {
    /// The id of the CA certificate.
    pub authority: String,
    /// The name of the CA.
    pub issuer: String,
    /// The CRL number in hex, if the list has one.
    pub number: Option<String>,
    /// When it was issued.
    pub issued: String,
    /// When there is a newer one at the latest, if it says so.
    pub next_update: Option<String>,
    /// How many serial numbers are on it.
    pub serials: usize,
    /// How many certificates it has revoked that were registered and not revoked before.
    pub revoked: u64,
    /// The ids of the first of them, 250 at most.
    pub certificates: Vec<String>,
}

/// `POST /admin/crl`.
pub(super) async fn import(
    State(shared): State<Arc<Shared>>,
    source: Option<Extension<Source>>,
    file: Body,
) -> Result<Json<Imported>, Refused> {
    let attempt = attempt(&shared, source, "ImportRevocationList", "revocation-list")?;
    let imported = take(&shared, file, &attempt.watch()).await;
    ended(attempt, imported.map(Json)).await
}

async fn take(shared: &Arc<Shared>, file: Body, watch: &Watch) -> Result<Imported, Refused> {
    let file = {
        let Ok(_arriving) = ARRIVING.try_acquire() else {
            let why = "other lists are on their way here: try again\n";
            return Err((StatusCode::CONFLICT, why.into()));
        };
        read(file).await?
    };
    // Not before it has come: who sends slowly holds up no other list.
    let Ok(_reading) = READING.try_acquire() else {
        return Err((StatusCode::CONFLICT, "another list is being imported: try again\n".into()));
    };
    let now = Timestamp(now_ms());
    let found = aside(move || x509::inspect_list(&file, now)).await?;
    let backend = Backend::new(Arc::clone(shared));
    let issuer = found.issuer.clone();
    let candidates = move |registry: &Registry| {
        registry.authorities_of_subject(&issuer).cloned().collect::<Vec<_>>()
    };
    let candidates = backend.registry_read(candidates).await.map_err(|_| unavailable())?;
    if candidates.is_empty() {
        let name = &found.issuer_name;
        let why =
            format!("no CA with the subject {name:?} is registered, so its list means nothing\n");
        return Err((StatusCode::NOT_FOUND, why));
    }
    let (authority, found) = aside(move || signer(found, &candidates)).await?;
    let InspectedList { issuer_name: issuer, list, .. } = found;
    let Some(authority) = authority else {
        let why = format!("the list names {issuer:?} as its issuer and is not signed by that CA\n");
        return Err((StatusCode::BAD_REQUEST, why));
    };
    let mut imported = Imported {
        authority: authority.to_string(),
        issuer,
        number: list.number.as_deref().map(numbered),
        issued: x509::utc(list.issued),
        next_update: list.next_update.map(x509::utc),
        serials: list.serials.len(),
        revoked: 0,
        certificates: Vec::new(),
    };
    let (signer, wanted) = (authority.clone(), list.clone());
    let named = move |registry: &Registry| {
        registry.revoked_by(&signer, &wanted).take(NAMED).cloned().collect::<Vec<_>>()
    };
    let named = backend.registry_read(named).await.map_err(|_| unavailable())?;
    let revoke = AuthorityCommand::Revoke { authority, list: Box::new(list) };
    match watch.propose_touching(&backend, Command::Authority(revoke), &named).await {
        Ok(Outcome::Revoked { certificates }) => imported.revoked = certificates,
        Err(ProposeError::Rejected(rejection)) => {
            return Err((StatusCode::CONFLICT, format!("{}\n", refusal(&rejection))));
        }
        Ok(_) | Err(ProposeError::Unavailable(_)) => return Err(unavailable()),
    }
    tracing::info!(
        authority = imported.authority,
        serials = imported.serials,
        revoked = imported.revoked,
        "a revocation list was imported"
    );
    for certificate in &named {
        tracing::info!(%certificate, "a revocation list has revoked a certificate");
    }
    imported.certificates = named.iter().map(ToString::to_string).collect();
    Ok(imported)
}

async fn read(file: Body) -> Result<Bytes, Refused> {
    let file = super::whole(file, LONGEST_LIST).await?;
    if file.is_empty() {
        let why = "the body is empty; it is a revocation list in PEM or DER\n";
        return Err((StatusCode::BAD_REQUEST, why.to_owned()));
    }
    Ok(file)
}

/// The control runtime has one thread.
async fn aside<T: Send + 'static>(
    judge: impl FnOnce() -> Result<T, ListError> + Send + 'static,
) -> Result<T, Refused> {
    let judged = tokio::task::spawn_blocking(judge).await.map_err(|_| unavailable())?;
    judged.map_err(|error| (StatusCode::BAD_REQUEST, format!("{error}\n")))
}

/// Which of the authorities with its issuer's name has signed a list. One that may not does not hinder
/// another of the same key.
fn signer(
    found: InspectedList,
    candidates: &[Authority],
) -> Result<(Option<CertificateId>, InspectedList), ListError> {
    let mut refused = None;
    for authority in candidates {
        match x509::is_list_signed_by(&found.der, &authority.pem) {
            Ok(true) => return Ok((Some(authority.id.clone()), found)),
            Ok(false) => {}
            Err(error) => refused = Some(error),
        }
    }
    refused.map_or(Ok((None, found)), Err)
}

fn refusal(rejection: &Rejection) -> String {
    match rejection {
        Rejection::RevocationListOlder { issued, number } => {
            let number = number.as_deref().map_or(String::new(), |it| format!(" {}", numbered(it)));
            let issued = x509::utc(*issued);
            format!("a newer list of this CA is there already: list{number}, issued {issued}")
        }
        other => other.to_string(),
    }
}

fn numbered(number: &str) -> String {
    format!("0x{number}")
}

fn unavailable() -> Refused {
    let why = "no quorum has answered in time, or a node of the cluster is of an earlier version: see the \
               node's log; to import the list once more does no harm\n";
    (StatusCode::SERVICE_UNAVAILABLE, why.into())
}

impl Imported {
    /// Has a node import the list of a file.
    pub fn order(admin: &str, file: &Path) -> anyhow::Result<Self> {
        let place = || file.display().to_string();
        let list = fs::read(file).with_context(place)?;
        if list.len() > LONGEST_LIST {
            bail!("{}: {} bytes are too many for a revocation list", place(), list.len());
        }
        let asked = Asked {
            method: "POST",
            path: "/admin/crl",
            content_type: "application/pkix-crl",
            body: &list,
            patience: ANSWERED_WITHIN,
        };
        Ok(serde_json::from_str(&send(admin, &asked).with_context(place)?)?)
    }
}

impl fmt::Display for Imported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { authority, issuer, number, issued, next_update, serials, .. } = self;
        writeln!(f, "CA {authority} ({issuer})")?;
        let number = number.as_ref().map_or(String::new(), |number| format!(" {number}"));
        write!(f, "list{number} with {serials} serial numbers, issued {issued}")?;
        match next_update {
            Some(next) => writeln!(f, ", next update {next}")?,
            None => writeln!(f, ", which does not say when there is a newer one")?,
        }
        writeln!(f, "{} registered certificates revoked by it", self.revoked)?;
        for certificate in &self.certificates {
            writeln!(f, "  {certificate}")?;
        }
        match self.revoked.saturating_sub(self.certificates.len() as u64) {
            0 => Ok(()),
            more => writeln!(f, "  and {more} more"),
        }
    }
}
