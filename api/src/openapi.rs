//! The API described in OpenAPI 3.1, from what the server itself works with: its routes, the types
//! that bodies are read into, the styles of its lists, the rules of its names.
//!
//! What no type says is in `operations`. With debug assertions on, so in every test, a parameter
//! that is read, an answer and an error have to be as they are described there.

mod operations;
mod shape;

use fleet::registry::{
    BillingGroupName, CertificateId, PolicyName, RoleAliasName, TemplateName, ThingGroupName,
    ThingName, ThingTypeName,
};
use serde_json::{Map, Value, json};

use crate::Error;
use crate::error::Plane;
use crate::openapi::operations::{Body, Description, describe};
use crate::rights::Role;
use crate::routes::{Operation, Route, routes};
use crate::service::Reply;

/// Exceptions by their names, without that word at the end, and the status of their answers.
const ERRORS: &[(&str, u16)] = &[
    ("InvalidRequest", 400),
    ("InvalidResponse", 400),
    ("IndexNotReady", 400),
    ("Throttling", 400),
    ("MalformedPolicy", 400),
    ("CertificateValidation", 400),
    ("RegistrationCodeValidation", 400),
    ("ResourceRegistrationFailure", 400),
    ("AccessDenied", 403),
    ("Forbidden", 403),
    ("ResourceNotFound", 404),
    ("CertificateState", 406),
    ("RequestTimeout", 408),
    ("CertificateConflict", 409),
    ("Conflict", 409),
    ("ConflictingResourceUpdate", 409),
    ("DeleteConflict", 409),
    ("ResourceAlreadyExists", 409),
    ("TransferConflict", 409),
    ("VersionConflict", 409),
    ("VersionsLimitExceeded", 409),
    ("LimitExceeded", 410),
    ("TransferAlreadyCompleted", 410),
    ("RequestEntityTooLarge", 413),
    ("UnsupportedDocumentEncoding", 415),
    ("Throttling", 429),
    ("InternalFailure", 500),
    ("ServiceUnavailable", 503),
];

/// What any operation may answer. Signatures that are not good are answered with 403, too.
const COMMON: &str = "InvalidRequest AccessDenied Forbidden RequestTimeout RequestEntityTooLarge \
                      Throttling InternalFailure ServiceUnavailable";

/// The labels of paths: what stands before them, and their names.
const LABELS: &[(&str, &str)] = &[
    ("ListNamedShadowsForThing", "thingName"),
    ("accept-certificate-transfer", "certificateId"),
    ("attached-policies", "target"),
    ("authorizer", "authorizerName"),
    ("billing-groups", "billingGroupName"),
    ("cacertificate", "caCertificateId"),
    ("cancel-certificate-transfer", "certificateId"),
    ("certificates", "certificateId"),
    ("certificates-by-ca", "caCertificateId"),
    ("connections", "clientId"),
    ("dynamic-thing-groups", "thingGroupName"),
    ("policies", "policyName"),
    ("policy-targets", "policyName"),
    ("principal-policies", "policyName"),
    ("provisioning-templates", "templateName"),
    ("reject-certificate-transfer", "certificateId"),
    ("retainedMessage", "topic"),
    ("role-aliases", "roleAlias"),
    ("target-policies", "policyName"),
    ("thing-groups", "thingGroupName"),
    ("thing-registration-tasks", "taskId"),
    ("thing-types", "thingTypeName"),
    ("things", "thingName"),
    ("topics", "topic"),
    ("transfer-certificate", "certificateId"),
    ("version", "policyVersionId"),
    ("versions", "versionId"),
];

/// The description of every operation. The same program always gives the same one.
pub fn document() -> Value {
    let mut paths = Map::new();
    for route in routes() {
        let (path, labels) = named_path(route.path);
        let methods = paths.entry(path).or_insert_with(|| json!({}));
        methods[route.method.to_ascii_lowercase()] = operation(route, &labels);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Skein",
            "description": "The APIs iot and iot-data of AWS IoT Core, and its credentials provider.",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "paths": paths,
        "components": {
            "schemas": {
                "Error": {
                    "type": "object",
                    "required": ["message"],
                    "properties": {
                        "message": { "type": "string" },
                        "resourceId": { "type": "string", "description": "Of what exists already." },
                        "resourceArn": { "type": "string" },
                        "code": { "type": "integer", "description": "Of a refused shadow." },
                        "traceId": { "type": "string" },
                    },
                },
            },
            "securitySchemes": {
                "signature": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "Authorization",
                    "description": "AWS Signature Version 4, for the service that the operation \
                                    names in x-skein-service.",
                },
                "certificate": {
                    "type": "mutualTLS",
                    "description": "That of a device; what it may do, its policies say.",
                },
                "authorizer": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "x-amz-customauthorizer-name",
                    "description": "The custom authorizer that decides, by what it finds in the head of \
                                    the request. A query parameter of that name says the same; where \
                                    there is neither, the default authorizer decides.",
                },
            },
        },
    })
}

/// Whether an operation is described to have this parameter in its query.
pub(crate) fn asks(operation: Operation, name: &str) -> bool {
    describe(operation).query().iter().any(|member| member.name == name)
}

/// What an operation did that its description does not say.
pub(crate) fn surprise(
    operation: Operation,
    plane: Plane,
    result: &Result<Reply, Error>,
) -> Option<String> {
    let description = describe(operation);
    match result {
        Ok(reply) => {
            let value = match reply {
                Reply::Json(value) => value.clone(),
                Reply::Raw(bytes) => serde_json::from_slice(bytes).unwrap_or_default(),
                Reply::Empty => json!({}),
            };
            description.answer().surprise(&value)
        }
        Err(error) => {
            let (status, code) = error.status_and_code(plane);
            let name = code.trim_end_matches("Exception");
            let is_known = ERRORS.contains(&(name, status))
                && (COMMON.split_whitespace().any(|it| it == name) || description.fails_with(name));
            (!is_known).then(|| format!("the error {code} with {status}"))
        }
    }
}

/// The path with the names of its labels, and these.
fn named_path(pattern: &str) -> (String, Vec<&'static str>) {
    let (mut path, mut labels) = (String::new(), Vec::new());
    let mut before = "";
    for segment in pattern.split('/').skip(1) {
        path.push('/');
        if segment.starts_with('{') {
            let known = LABELS.iter().find(|(literal, _)| *literal == before);
            let (_, name) = known.expect("every label has a name, as a test checks");
            path.push_str(&format!("{{{name}}}"));
            labels.push(*name);
        } else {
            path.push_str(segment);
        }
        before = segment;
    }
    (path, labels)
}

fn operation(route: &Route, labels: &[&str]) -> Value {
    let description = describe(route.operation);
    let (service, security): (_, &[&str]) = match route.plane {
        Plane::Control => ("iot", &["signature"]),
        Plane::Data => ("iotdata", &["signature", "certificate", "authorizer"]),
        Plane::Credentials => ("credentials", &["certificate"]),
    };
    let security: Vec<Value> = security.iter().map(|one| json!({ (*one): [] })).collect();
    let mut parameters: Vec<Value> = labels.iter().map(|name| label(name)).collect();
    for (place, members) in [("query", description.query()), ("header", description.headers())] {
        parameters.extend(members.iter().map(|member| {
            json!({
                "name": member.name,
                "in": place,
                "required": !member.is_optional,
                "schema": member.schema(),
            })
        }));
    }
    let mut described = json!({
        "operationId": route.operation.name(),
        "tags": [service],
        "parameters": parameters,
    });
    if let Some(body) = body(&description) {
        described["requestBody"] = body;
    }
    described["responses"] = responses(route.plane, &description);
    described["security"] = security.into();
    described["x-skein-service"] = service.into();
    described["x-skein-role"] = match route.operation.role() {
        Role::ReadOnly => "read-only",
        Role::Operator => "operator",
        Role::Admin => "admin",
    }
    .into();
    described
}

fn label(name: &str) -> Value {
    let rule = match name {
        "thingName" => ThingName::new("").err(),
        "thingTypeName" => ThingTypeName::new("").err(),
        "thingGroupName" => ThingGroupName::new("").err(),
        "billingGroupName" => BillingGroupName::new("").err(),
        "policyName" => PolicyName::new("").err(),
        "roleAlias" => RoleAliasName::new("").err(),
        "templateName" => TemplateName::new("").err(),
        "certificateId" | "caCertificateId" => CertificateId::new("").err(),
        _ => None,
    };
    let schema = match rule {
        Some(rule) => json!({
            "type": "string",
            "pattern": format!("^{}$", rule.pattern),
            "minLength": rule.min,
            "maxLength": rule.max,
        }),
        None => json!({ "type": "string", "minLength": 1 }),
    };
    json!({ "name": name, "in": "path", "required": true, "schema": schema })
}

fn body(description: &Description) -> Option<Value> {
    let (kind, schema) = match description.body? {
        Body::Members(schema) => ("application/json", schema()),
        Body::Document => ("application/json", json!({ "type": "object" })),
        Body::Payload => ("application/octet-stream", json!({})),
    };
    Some(json!({ "content": { (kind): { "schema": schema } } }))
}

fn responses(plane: Plane, description: &Description) -> Value {
    let content = |schema: Value| json!({ "application/json": { "schema": schema } });
    let mut responses = Map::new();
    let answer =
        json!({ "description": "Done.", "content": content(description.answer().schema()) });
    responses.insert("200".into(), answer);
    let common = COMMON.split_whitespace().filter(|name| match *name {
        "AccessDenied" => plane != Plane::Data,
        "Forbidden" => plane == Plane::Data,
        _ => true,
    });
    let names: Vec<&str> = common.chain(description.fails.split_whitespace()).collect();
    let is_meant = |(name, status): &&(&str, u16)| match (*name, plane) {
        ("Throttling", Plane::Control) => *status == 400,
        ("Throttling", _) => *status == 429,
        _ => names.contains(name),
    };
    for &(name, status) in ERRORS.iter().filter(is_meant) {
        let error = responses.entry(status.to_string()).or_insert_with(|| {
            json!({
                "description": "",
                "headers": { "x-amzn-errortype": { "schema": { "type": "string" } } },
                "content": content(json!({ "$ref": "#/components/schemas/Error" })),
            })
        });
        let known = error["description"].as_str().unwrap_or_default();
        let separator = if known.is_empty() { "" } else { ", " };
        error["description"] = format!("{known}{separator}{name}Exception").into();
    }
    Value::Object(responses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_is_described() {
        let document = document();
        let mut names = Vec::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                names.push(operation["operationId"].as_str().unwrap());
                let described = operation["responses"]["200"]["content"].is_object();
                assert!(described, "{method} {path}");
            }
        }
        let mut expected: Vec<&str> = Operation::ALL.iter().map(|it| it.name()).collect();
        names.sort_unstable();
        expected.sort_unstable();
        assert_eq!(names, expected);
    }

    #[test]
    fn who_may_ask_is_said_by_a_scheme_that_is_described() {
        let document = document();
        let schemes = &document["components"]["securitySchemes"];
        for (method, path, expected) in [
            ("post", "/things/{thingName}", &["signature"][..]),
            ("get", "/things/{thingName}/shadow", &["signature", "certificate", "authorizer"]),
            ("get", "/role-aliases/{roleAlias}/credentials", &["certificate"]),
        ] {
            let security = document["paths"][path][method]["security"].as_array().unwrap();
            let names: Vec<&str> = security
                .iter()
                .flat_map(|it| it.as_object().unwrap().keys().map(|it| &**it))
                .collect();
            assert_eq!(names, expected, "{method} {path}");
            assert!(names.iter().all(|name| schemes[name].is_object()), "{method} {path}");
        }
    }

    #[test]
    fn who_asks_too_often_is_told_by_the_status_of_the_plane() {
        let document = document();
        for (method, path, described, other) in [
            ("get", "/things", "400", "429"),
            ("get", "/things/{thingName}/shadow", "429", "400"),
            ("get", "/role-aliases/{roleAlias}/credentials", "429", "400"),
        ] {
            let responses = &document["paths"][path][method]["responses"];
            let is_named = |status: &str| {
                let text = responses[status]["description"].as_str().unwrap_or_default();
                text.contains("ThrottlingException")
            };
            assert!(is_named(described) && !is_named(other), "{method} {path}: {responses}");
        }
    }

    #[test]
    fn every_error_is_known() {
        for operation in Operation::ALL {
            for name in describe(*operation).fails.split_whitespace() {
                assert!(ERRORS.iter().any(|(known, _)| *known == name), "{operation:?}: {name}");
            }
        }
    }

    #[test]
    fn what_is_not_described_is_noticed() {
        let answer = |value| Ok(Reply::Json(value));
        let thing = json!({ "thingName": "a", "thingArn": "b", "thingId": "c" });
        for (result, surprise) in [
            (answer(thing), None),
            (answer(json!({ "thingName": "a", "thingArn": "b" })), Some("thingId is missing")),
            (Err(Error::NotFound(String::new())), None),
            (
                Err(Error::VersionConflict(String::new())),
                Some("the error VersionConflictException with 409"),
            ),
        ] {
            let found = super::surprise(Operation::CreateThing, Plane::Control, &result);
            assert_eq!(found.as_deref(), surprise, "{result:?}");
        }
        assert!(asks(Operation::ListThings, "attributeName"));
        assert!(!asks(Operation::ListThings, "attributename"));
    }
}
