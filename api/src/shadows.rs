//! Device shadows over REST.

use fleet::registry::ThingName;
use policy::Action;
use serde_json::json;

use crate::paging::{NEXT_TOKEN, Style};
use crate::request::Call;
use crate::service::{Api, Reply};
use crate::{Backend, Error};

pub(crate) const NAMES: Style = NEXT_TOKEN.sized("pageSize", 25, 100);

/// The shadow that a request is about: a thing, and a name unless it is the classic shadow.
struct Target {
    thing: String,
    name: Option<String>,
}

impl Target {
    fn read(call: &Call) -> Result<Self, Error> {
        let thing = ThingName::new(call.label(0))?.to_string();
        let name = call.query("name").map(ToOwned::to_owned);
        if let Some(name) = name.as_deref().filter(|name| !shadow::is_valid_name(name)) {
            return Err(Error::Invalid(format!(
                "the shadow name '{name}' must satisfy the pattern [$a-zA-Z0-9:_-]+ and have 1 \
                 to 64 characters"
            )));
        }
        Ok(Self { thing, name })
    }

    /// The end of its ARN.
    fn resource(&self) -> String {
        match &self.name {
            Some(name) => format!("thing/{}/{name}", self.thing),
            None => format!("thing/{}", self.thing),
        }
    }
}

pub(crate) async fn get<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let target = Target::read(call)?;
    api.authorize(call, Action::GetThingShadow, target.resource()).await?;
    Ok(Reply::Raw(api.backend.shadow_get(target.thing, target.name).await?))
}

pub(crate) async fn update<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let target = Target::read(call)?;
    api.authorize(call, Action::UpdateThingShadow, target.resource()).await?;
    let request = call.body.clone();
    Ok(Reply::Raw(api.backend.shadow_update(target.thing, target.name, request).await?))
}

pub(crate) async fn delete<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let target = Target::read(call)?;
    api.authorize(call, Action::DeleteThingShadow, target.resource()).await?;
    Ok(Reply::Raw(api.backend.shadow_delete(target.thing, target.name).await?))
}

pub(crate) async fn list_names<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let thing = ThingName::new(call.label(0))?.to_string();
    let cursor = NAMES.read(call)?;
    api.authorize(call, Action::ListNamedShadowsForThing, format!("thing/{thing}")).await?;
    let paging = cursor.paging.clone();
    let listed = api.backend.shadow_names(thing, paging.after, paging.limit).await?;
    let mut body = json!({ "results": listed.items, "timestamp": call.now.0 / 1000 });
    if let Some(place) = listed.next {
        body[cursor.next] = cursor.token(&place).into();
    }
    Ok(Reply::Json(body))
}
