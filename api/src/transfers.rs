//! Certificates between accounts. There is one account here, so that nothing is ever on its way.

use fleet::registry::CertificateStatus;
use serde_json::json;

use crate::certificates::{certificate_id, not_found};
use crate::paging::MARKER;
use crate::request::Call;
use crate::service::{Api, Reply};
use crate::{Backend, Error};

pub(crate) async fn transfer<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let id = certificate_id(call.label(0))?;
    let target = call.required_query("targetAwsAccount")?;
    let status = api.read(move |registry| {
        let certificate = registry.certificate(id.as_str()).ok_or_else(|| not_found(&id))?;
        Ok(certificate.status)
    });
    if status.await? == CertificateStatus::Active {
        return Err(Error::CertificateState(
            "Certificate must be deactivated (not ACTIVE) before it is transferred".into(),
        ));
    }
    if target == api.arns.account() {
        return Err(Error::TransferConflict("The certificate is in that account already".into()));
    }
    Err(Error::Invalid(format!("there is no account '{target}' here")))
}

/// Accepts, rejects or cancels a transfer.
pub(crate) async fn end<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let id = certificate_id(call.label(0))?;
    let is_known = api.read(move |registry| {
        registry.certificate(id.as_str()).map(|_| ()).ok_or_else(|| not_found(&id))
    });
    is_known.await?;
    Err(Error::TransferAlreadyCompleted("The certificate is not being transferred".into()))
}

pub(crate) async fn outgoing<B: Backend>(_api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    MARKER.read(call)?;
    Ok(Reply::Json(json!({ "outgoingCertificates": [] })))
}
