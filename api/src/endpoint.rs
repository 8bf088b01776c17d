//! Where clients find the services.

use serde_json::json;

use crate::request::Call;
use crate::service::{Api, Reply};
use crate::{Backend, Error};

pub(crate) fn describe<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let address = match call.query("endpointType").unwrap_or("iot:Data") {
        "iot:Data" | "iot:Data-ATS" => &api.endpoints.data,
        "iot:Jobs" => &api.endpoints.jobs,
        "iot:CredentialProvider" => &api.endpoints.credentials,
        other => {
            return Err(Error::Invalid(format!(
                "endpointType must be iot:Data, iot:Data-ATS, iot:Jobs or \
                 iot:CredentialProvider, not '{other}'"
            )));
        }
    };
    Ok(Reply::Json(json!({ "endpointAddress": address })))
}
