//! What the policies of a principal add up to.

use std::collections::BTreeSet;
use std::sync::Arc;

use fleet::registry::{
    CertificateId, ConnectionThing, NamedDocument, PolicyName, Principal, Registry, ThingName,
};
use policy::{Action, Compiled, Decision, Request, Variables};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::arn::Arns;
use crate::policies::{find, summary};
use crate::principals::check_known;
use crate::request::Call;
use crate::service::{Api, Reply};
use crate::{Backend, Error};

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Body {
    principal: Option<String>,
    cognito_identity_pool_id: Option<String>,
    auth_infos: Option<Vec<AuthInfo>>,
    policy_names_to_add: Option<Vec<String>>,
    policy_names_to_skip: Option<Vec<String>>,
}

#[derive(Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct AuthInfo {
    action_type: Option<String>,
    resources: Option<Vec<String>>,
}

/// A question of a test: may the principal do this to each of these?
struct Question {
    action_type: String,
    action: Action,
    arns: Vec<String>,
}

impl Body {
    /// Whose policies are meant. An identity pool has none of its own.
    fn principal(&self, arns: &Arns) -> Result<Option<Principal>, Error> {
        match (&self.principal, &self.cognito_identity_pool_id) {
            (Some(principal), _) => arns.parse_principal(principal).map(Some),
            (None, Some(_)) => Ok(None),
            (None, None) => {
                Err(Error::Invalid("one of principal and cognitoIdentityPoolId is needed".into()))
            }
        }
    }

    fn questions(&self, arns: &Arns) -> Result<Vec<Question>, Error> {
        let infos = self.auth_infos.as_deref().unwrap_or_default();
        if !(1..=10).contains(&infos.len()) {
            return Err(Error::Invalid(format!(
                "authInfos must have 1 to 10 members, not {}",
                infos.len()
            )));
        }
        infos.iter().map(|info| info.question(arns)).collect()
    }
}

impl AuthInfo {
    fn question(&self, arns: &Arns) -> Result<Question, Error> {
        let action_type = self.action_type.clone().unwrap_or_default();
        let action = match action_type.as_str() {
            "PUBLISH" => Action::Publish,
            "SUBSCRIBE" => Action::Subscribe,
            "RECEIVE" => Action::Receive,
            "CONNECT" => Action::Connect,
            other => {
                return Err(Error::Invalid(format!(
                    "actionType must be PUBLISH, SUBSCRIBE, RECEIVE or CONNECT, not '{other}'"
                )));
            }
        };
        let resources = self.resources.clone().unwrap_or_default();
        for resource in &resources {
            arns.parse(resource)?;
        }
        Ok(Question { action_type, action, arns: resources })
    }
}

pub(crate) async fn policies<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let principal = call.json::<Body>()?.principal(&api.arns)?;
    let thing = call.query("thingName").map(ThingName::new).transpose()?;
    let arns = api.arns.clone();
    let policies = api.read(move |registry| {
        if let Some(thing) = &thing {
            registry.thing(thing.as_str()).ok_or_else(|| crate::things::not_found(thing))?;
        }
        let Some(principal) = principal else {
            return Ok(Vec::new());
        };
        check_known(registry, &principal)?;
        // As on a connection whose client id is the name of the thing.
        let certificate = principal.certificate().map(CertificateId::as_str);
        let client = thing.as_ref().map(ThingName::as_str);
        let thing = registry.thing_of_connection(certificate, client);
        let documents = registry.documents_of_connection(&principal, thing.as_ref()).into_iter();
        let policies = documents.filter_map(|named| registry.policy(named.policy.as_str()));
        let policies = policies.map(|policy| {
            let mut described = summary(policy, &arns);
            described["policyDocument"] = (&**policy.default_document()).into();
            described
        });
        Ok(policies.collect())
    });
    Ok(Reply::Json(json!({ "effectivePolicies": policies.await? })))
}

pub(crate) async fn test<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let body: Body = call.json()?;
    let questions = body.questions(&api.arns)?;
    let principal = body.principal(&api.arns)?;
    let client_id = call.query("clientId").map(ToOwned::to_owned);
    let arns = api.arns.clone();
    let request = Request { now_secs: Some(call.now.0 / 1000), ..Request::default() };
    let results = api.read(move |registry| {
        let certificate = principal.as_ref().and_then(Principal::certificate);
        let certificate = certificate.map(CertificateId::as_str);
        let thing = registry.thing_of_connection(certificate, client_id.as_deref());
        let documents = documents(registry, principal.as_ref(), thing.as_ref(), &body)?;
        let variables = variables(registry, certificate, client_id, thing.as_ref());
        let results = questions.iter().flat_map(|question| {
            question
                .arns
                .iter()
                .map(|arn| result((question, arn), &request, &documents, &variables, &arns))
        });
        Ok(results.collect::<Vec<_>>())
    });
    Ok(Reply::Json(json!({ "authResults": results.await? })))
}

/// The policies of the principal, with some left out and others put in.
fn documents(
    registry: &Registry,
    principal: Option<&Principal>,
    thing: Option<&ConnectionThing>,
    body: &Body,
) -> Result<Vec<NamedDocument>, Error> {
    let mut documents = Vec::new();
    if let Some(principal) = principal {
        check_known(registry, principal)?;
        documents = registry.documents_of_connection(principal, thing);
    }
    let skipped = body.policy_names_to_skip.as_deref().unwrap_or_default();
    documents.retain(|named| !skipped.iter().any(|name| name == named.policy.as_str()));
    for name in body.policy_names_to_add.as_deref().unwrap_or_default() {
        let policy = find(registry, &PolicyName::new(name)?)?.name.clone();
        if let Some(document) = registry.document(name)
            && documents.iter().all(|named| named.policy != policy)
        {
            documents.push(NamedDocument { policy, document });
        }
    }
    Ok(documents)
}

fn variables(
    registry: &Registry,
    certificate: Option<&str>,
    client_id: Option<String>,
    thing: Option<&ConnectionThing>,
) -> Variables {
    let identity = certificate.and_then(|id| registry.identity(id, None));
    Variables {
        certificate: identity.map(|identity| identity.certificate_variables()),
        thing: thing.map(ConnectionThing::variables),
        client_id,
        ..Variables::default()
    }
}

/// One policy at a time, to say which of them decided.
fn result(
    (question, arn): (&Question, &str),
    request: &Request<'_>,
    documents: &[NamedDocument],
    variables: &Variables,
    arns: &Arns,
) -> Value {
    let resource = arns.parse(arn).unwrap_or_default();
    let named = |wanted: Decision| -> Vec<Value> {
        let matching = documents.iter().filter(|named| {
            let alone = [Arc::clone(&named.document)];
            let compiled = Compiled::new(&alone, &arns.for_policies(), variables);
            compiled.decide(question.action, resource, request) == wanted
        });
        let policy = |named: &NamedDocument| json!({ "policyName": named.policy, "policyArn": arns.policy(&named.policy) });
        matching.map(policy).collect()
    };
    let (allowed, denied) = (named(Decision::Allowed), named(Decision::ExplicitDeny));
    let decision = match (allowed.is_empty(), denied.is_empty()) {
        (_, false) => "EXPLICIT_DENY",
        (false, true) => "ALLOWED",
        (true, true) => "IMPLICIT_DENY",
    };
    let missing = documents.iter().flat_map(|named| {
        let known = (&arns.for_policies(), variables);
        named.document.missing(known, question.action, resource, request)
    });
    json!({
        "authInfo": { "actionType": question.action_type, "resources": [arn] },
        "allowed": { "policies": allowed },
        "denied": {
            "implicitDeny": { "policies": named(Decision::ImplicitDeny) },
            "explicitDeny": { "policies": denied },
        },
        "authDecision": decision,
        "missingContextValues": missing.collect::<BTreeSet<_>>(),
    })
}
