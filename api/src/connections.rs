//! Connections of clients over HTTP.

use policy::Action;
use serde_json::{Map, Value, json};

use crate::backend::{Connection, Ending, Subscription};
use crate::paging::{NEXT_TOKEN, Style};
use crate::request::Call;
use crate::service::{Api, Reply};
use crate::{Backend, Error};

pub(crate) const SUBSCRIPTIONS: Style = NEXT_TOKEN.sized("maxResults", 20, 200);

pub(crate) async fn get<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let client = call.label(0);
    let with_sockets = call.flag("includeSocketInformation")?;
    api.authorize(call, Action::GetConnection, format!("client/{client}")).await?;
    match api.backend.connection_get(client.to_owned()).await? {
        Some(connection) => Ok(Reply::Json(describe(client, &connection, with_sockets))),
        None => Err(not_found(client)),
    }
}

pub(crate) async fn delete<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let client = call.label(0);
    let ending = Ending {
        clean_session: call.flag("cleanSession")?,
        prevent_will: call.flag("preventWillMessage")?,
    };
    api.authorize(call, Action::DeleteConnection, format!("client/{client}")).await?;
    if api.backend.connection_delete(client.to_owned(), ending).await? {
        Ok(Reply::Empty)
    } else {
        Err(not_found(client))
    }
}

pub(crate) async fn subscriptions<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let client = call.label(0);
    let cursor = SUBSCRIPTIONS.read(call)?;
    api.authorize(call, Action::ListSubscriptions, format!("client/{client}")).await?;
    let paging = cursor.paging.clone();
    let listed = api.backend.subscriptions(client.to_owned(), paging.after, paging.limit).await?;
    let listed = listed.ok_or_else(|| not_found(client))?;
    let item = |Subscription { filter, qos }| json!({ "topicFilter": filter, "qos": qos });
    let items = listed.items.into_iter().map(item).collect();
    Ok(cursor.reply("subscriptions", items, listed.next))
}

fn not_found(client: &str) -> Error {
    Error::NotFound(format!("No connection or session of client {client} exists"))
}

fn describe(client: &str, connection: &Connection, with_sockets: bool) -> Value {
    let source = connection.source.filter(|_| with_sockets);
    let target = connection.target.filter(|_| with_sockets);
    let members: [(&str, Option<Value>); 12] = [
        ("clientId", Some(client.into())),
        ("connected", Some(connection.connected.into())),
        ("thingName", connection.thing.clone().map(Value::from)),
        ("cleanSession", Some(connection.clean_session.into())),
        ("sourceIp", source.map(|(address, _)| address.to_string().into())),
        ("sourcePort", source.map(|(_, port)| port.into())),
        ("targetIp", target.map(|(address, _)| address.to_string().into())),
        ("targetPort", target.map(|(_, port)| port.into())),
        ("keepAliveDuration", connection.keep_alive_secs.map(Value::from)),
        ("connectedSince", connection.connected_since_ms.map(Value::from)),
        ("disconnectedSince", connection.disconnected_since_ms.map(Value::from)),
        ("sessionExpiry", connection.session_expiry_secs.map(Value::from)),
    ];
    let present = members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(present.collect::<Map<_, _>>())
}
