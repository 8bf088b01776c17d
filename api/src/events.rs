//! Which events of the registry are published.

use std::collections::BTreeMap;

use fleet::registry::{Command, EventCommand, EventConfigurations, EventType};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::request::Call;
use crate::service::{Api, Reply};
use crate::{Backend, Error};

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Body {
    #[serde(default)]
    event_configurations: BTreeMap<String, Configuration>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
struct Configuration {
    #[serde(default)]
    enabled: bool,
}

pub(crate) async fn describe<B: Backend>(api: &Api<B>, _call: &Call) -> Result<Reply, Error> {
    let described = api.read(|registry| Ok(description(registry.event_configurations())));
    Ok(Reply::Json(described.await?))
}

/// The configurations as DescribeEventConfigurations answers.
pub(crate) fn description(configurations: &EventConfigurations) -> Value {
    let of = |kind: EventType| {
        (kind.as_str().to_owned(), json!({ "Enabled": configurations.enabled.contains(&kind) }))
    };
    let mut described = Map::new();
    described.insert("eventConfigurations".into(), EventType::ALL.map(of).into_iter().collect());
    if !configurations.is_default() {
        described.insert("creationDate".into(), configurations.created.seconds().into());
        described.insert("lastModifiedDate".into(), configurations.modified.seconds().into());
    }
    described.into()
}

pub(crate) async fn update<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let body: Body = call.json()?;
    let mut enabled = BTreeMap::new();
    for (name, configuration) in body.event_configurations {
        let kind = EventType::ALL.into_iter().find(|kind| kind.as_str() == name);
        let unknown = || Error::Invalid(format!("there are no events of the kind '{name}'"));
        enabled.insert(kind.ok_or_else(unknown)?, configuration.enabled);
    }
    api.propose(Command::Event(EventCommand::Configure { enabled, at: call.now })).await?;
    Ok(Reply::Empty)
}
