//! The credentials provider: a device exchanges its certificate for credentials that it can sign
//! requests of the data plane with.
//!
//! The answers to what is refused, and their order, are those of AWS: a thing that the certificate is
//! not attached to, policies that do not allow it, a role alias that does not exist.

use std::sync::Arc;

use fleet::registry::{
    Command, RoleAliasCommand, RoleAliasName, RoleSession, SessionKey, SessionSecret, ThingName,
    Timestamp,
};
use policy::Action;
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::backend::CertificateCaller;
use crate::request::{Call, Caller};
use crate::service::{Api, Reply};
use crate::sessions::{Session, seal};
use crate::{Backend, Error};

/// Names the thing that the device is.
const THING: &str = "x-amzn-iot-thingname";

/// What somebody without a certificate that may be used is told.
pub(crate) fn not_a_device() -> Error {
    Error::AccessDenied("Certificate is invalid on this endpoint".into())
}

fn no_such_thing() -> Error {
    Error::AccessDenied("Invalid thing name passed".into())
}

pub(crate) async fn provide<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let Caller::Certificate(caller) = &call.caller else { return Err(not_a_device()) };
    let name = RoleAliasName::new(call.label(0))?;
    let thing = call.header(THING)?.map(ThingName::new).transpose();
    let thing = thing.map_err(|_| no_such_thing())?;
    let (session, key) = prospect(api, caller, &name, thing, call.now).await?;
    // By the policies as they are for this session, and only while it stands.
    let session = session.map(Arc::new);
    let asking = CertificateCaller { session: session.clone(), ..caller.clone() };
    let resource = Action::AssumeRoleWithCertificate.resource(name.as_str());
    let action = Action::AssumeRoleWithCertificate;
    if !api.backend.authorize(&asking, action, resource).await.is_allowed() {
        return Err(Error::AccessDenied("Access Denied".into()));
    }
    let not_found = || Error::NotFound("Role alias does not exist".into());
    let session = session.ok_or_else(not_found)?;
    let key = match key {
        Some(key) => key,
        None => make_key(api, call.now).await?,
    };
    let made = seal(&Session::Device(Arc::clone(&session)), &key, rand::random())
        .ok_or(Error::Internal)?;
    Ok(Reply::Json(json!({ "credentials": {
        "accessKeyId": made.access_key_id,
        "secretAccessKey": made.secret_access_key,
        "sessionToken": made.session_token,
        "expiration": written(session.expires)?,
    } })))
}

/// What the credentials would stand for, if there is such a role alias, and the key for their token,
/// if there is one.
async fn prospect<B: Backend>(
    api: &Api<B>,
    caller: &CertificateCaller,
    alias: &RoleAliasName,
    thing: Option<ThingName>,
    now: Timestamp,
) -> Result<(Option<RoleSession>, Option<SessionKey>), Error> {
    let (certificate, name) = (caller.certificate.clone(), alias.clone());
    let looked = api.read(move |registry| {
        if thing.as_ref().is_some_and(|thing| !registry.is_attached(&certificate, thing)) {
            return Err(no_such_thing());
        }
        let session = registry.role_alias(name.as_str()).map(|alias| RoleSession {
            certificate,
            alias: name.clone(),
            generation: alias.generation,
            thing,
            // In whole seconds, as it is told.
            expires: Timestamp((now.0 / 1000 + u64::from(alias.duration_secs)) * 1000),
        });
        Ok((session, registry.sealing_key(now).cloned()))
    });
    looked.await
}

/// The key that seals tokens now.
pub(crate) async fn sealing_key<B: Backend>(
    api: &Api<B>,
    now: Timestamp,
) -> Result<SessionKey, Error> {
    match api.read(move |registry| Ok(registry.sealing_key(now).cloned())).await? {
        Some(key) => Ok(key),
        None => make_key(api, now).await,
    }
}

/// The key that another node may have made meanwhile, or the one that is made here.
async fn make_key<B: Backend>(api: &Api<B>, now: Timestamp) -> Result<SessionKey, Error> {
    let key = SessionKey { secret: SessionSecret(rand::random()), created: now };
    api.propose(Command::RoleAlias(RoleAliasCommand::MakeKey { key })).await?;
    let sealing = api.read(move |registry| Ok(registry.sealing_key(now).cloned())).await?;
    sealing.ok_or(Error::Internal)
}

/// A time as credentials tell it.
pub(crate) fn written(at: Timestamp) -> Result<String, Error> {
    let seconds = i64::try_from(at.0 / 1000).map_err(|_| Error::Internal)?;
    let date = OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| Error::Internal)?;
    date.format(&Rfc3339).map_err(|_| Error::Internal)
}
