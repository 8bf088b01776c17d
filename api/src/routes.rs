//! Which operation a method and a path mean.
//!
//! Paths are matched as they came, still percent-encoded: a `%2F` belongs to a label, a `/`
//! separates segments. Where both APIs know a path, the service of the signature decides.

use percent_encoding::percent_decode_str;

use crate::Error;
use crate::error::Plane;

/// The services that requests of the control plane are signed for.
pub(crate) const CONTROL_SERVICES: &[&str] = &["iot"];

/// The services that requests of the data plane and WebSocket handshakes are signed for.
pub const DATA_SERVICES: &[&str] = &["iotdata", "iotdevicegateway"];

macro_rules! operations {
    ($($plane:ident $method:literal $path:literal $name:ident,)*) => {
        /// An operation of AWS IoT that is offered here.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Operation {
            $($name,)*
        }

        impl Operation {
            /// All of them, in the order of the enum.
            pub(crate) const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// As AWS calls it.
            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }
        }

        const ROUTES: &[Route] = &[
            $(Route {
                plane: Plane::$plane,
                method: $method,
                path: $path,
                operation: Operation::$name,
            },)*
        ];
    };
}

/// `{}` is a label of one segment, `{+}` the rest of the path.
struct Route {
    plane: Plane,
    method: &'static str,
    path: &'static str,
    operation: Operation,
}

operations! {
    Control "POST" "/things/{}" CreateThing,
    Control "GET" "/things/{}" DescribeThing,
    Control "PATCH" "/things/{}" UpdateThing,
    Control "DELETE" "/things/{}" DeleteThing,
    Control "GET" "/things" ListThings,
    Control "POST" "/thing-types/{}" CreateThingType,
    Control "GET" "/thing-types/{}" DescribeThingType,
    Control "PATCH" "/thing-types/{}" UpdateThingType,
    Control "POST" "/thing-types/{}/deprecate" DeprecateThingType,
    Control "DELETE" "/thing-types/{}" DeleteThingType,
    Control "GET" "/thing-types" ListThingTypes,
    Control "POST" "/thing-groups/{}" CreateThingGroup,
    Control "GET" "/thing-groups/{}" DescribeThingGroup,
    Control "PATCH" "/thing-groups/{}" UpdateThingGroup,
    Control "DELETE" "/thing-groups/{}" DeleteThingGroup,
    Control "GET" "/thing-groups" ListThingGroups,
    Control "GET" "/things/{}/thing-groups" ListThingGroupsForThing,
    Control "GET" "/thing-groups/{}/things" ListThingsInThingGroup,
    Control "PUT" "/thing-groups/addThingToThingGroup" AddThingToThingGroup,
    Control "PUT" "/thing-groups/removeThingFromThingGroup" RemoveThingFromThingGroup,
    Control "PUT" "/thing-groups/updateThingGroupsForThing" UpdateThingGroupsForThing,
    Control "POST" "/billing-groups/{}" CreateBillingGroup,
    Control "GET" "/billing-groups/{}" DescribeBillingGroup,
    Control "PATCH" "/billing-groups/{}" UpdateBillingGroup,
    Control "DELETE" "/billing-groups/{}" DeleteBillingGroup,
    Control "GET" "/billing-groups" ListBillingGroups,
    Control "PUT" "/billing-groups/addThingToBillingGroup" AddThingToBillingGroup,
    Control "PUT" "/billing-groups/removeThingFromBillingGroup" RemoveThingFromBillingGroup,
    Control "GET" "/billing-groups/{}/things" ListThingsInBillingGroup,
    Control "POST" "/tags" TagResource,
    Control "POST" "/untag" UntagResource,
    Control "GET" "/tags" ListTagsForResource,
    Control "PUT" "/things/{}/principals" AttachThingPrincipal,
    Control "DELETE" "/things/{}/principals" DetachThingPrincipal,
    Control "GET" "/things/{}/principals" ListThingPrincipals,
    Control "GET" "/things/{}/principals-v2" ListThingPrincipalsV2,
    Control "GET" "/principals/things" ListPrincipalThings,
    Control "GET" "/principals/things-v2" ListPrincipalThingsV2,
    Control "POST" "/keys-and-certificate" CreateKeysAndCertificate,
    Control "POST" "/certificates" CreateCertificateFromCsr,
    Control "POST" "/certificate/register" RegisterCertificate,
    Control "POST" "/certificate/register-no-ca" RegisterCertificateWithoutCA,
    Control "GET" "/certificates/{}" DescribeCertificate,
    Control "PUT" "/certificates/{}" UpdateCertificate,
    Control "DELETE" "/certificates/{}" DeleteCertificate,
    Control "GET" "/certificates" ListCertificates,
    Control "GET" "/registrationcode" GetRegistrationCode,
    Control "DELETE" "/registrationcode" DeleteRegistrationCode,
    Control "POST" "/cacertificate" RegisterCACertificate,
    Control "GET" "/cacertificate/{}" DescribeCACertificate,
    Control "PUT" "/cacertificate/{}" UpdateCACertificate,
    Control "DELETE" "/cacertificate/{}" DeleteCACertificate,
    Control "GET" "/cacertificates" ListCACertificates,
    Control "GET" "/certificates-by-ca/{}" ListCertificatesByCA,
    Control "POST" "/role-aliases/{}" CreateRoleAlias,
    Control "GET" "/role-aliases/{}" DescribeRoleAlias,
    Control "PUT" "/role-aliases/{}" UpdateRoleAlias,
    Control "DELETE" "/role-aliases/{}" DeleteRoleAlias,
    Control "GET" "/role-aliases" ListRoleAliases,
    Control "POST" "/policies/{}" CreatePolicy,
    Control "GET" "/policies/{}" GetPolicy,
    Control "DELETE" "/policies/{}" DeletePolicy,
    Control "GET" "/policies" ListPolicies,
    Control "POST" "/policies/{}/version" CreatePolicyVersion,
    Control "GET" "/policies/{}/version/{}" GetPolicyVersion,
    Control "PATCH" "/policies/{}/version/{}" SetDefaultPolicyVersion,
    Control "DELETE" "/policies/{}/version/{}" DeletePolicyVersion,
    Control "GET" "/policies/{}/version" ListPolicyVersions,
    Control "PUT" "/target-policies/{}" AttachPolicy,
    Control "POST" "/target-policies/{}" DetachPolicy,
    Control "POST" "/attached-policies/{+}" ListAttachedPolicies,
    Control "POST" "/policy-targets/{}" ListTargetsForPolicy,
    Control "PUT" "/principal-policies/{}" AttachPrincipalPolicy,
    Control "DELETE" "/principal-policies/{}" DetachPrincipalPolicy,
    Control "GET" "/principal-policies" ListPrincipalPolicies,
    Control "GET" "/policy-principals" ListPolicyPrincipals,
    Control "POST" "/effective-policies" GetEffectivePolicies,
    Control "POST" "/test-authorization" TestAuthorization,
    Control "GET" "/endpoint" DescribeEndpoint,
    Data "GET" "/things/{}/shadow" GetThingShadow,
    Data "POST" "/things/{}/shadow" UpdateThingShadow,
    Data "DELETE" "/things/{}/shadow" DeleteThingShadow,
    Data "GET" "/api/things/shadow/ListNamedShadowsForThing/{}" ListNamedShadowsForThing,
    Data "POST" "/topics/{+}" Publish,
    Data "GET" "/retainedMessage" ListRetainedMessages,
    Data "GET" "/retainedMessage/{+}" GetRetainedMessage,
    Data "GET" "/connections/{}" GetConnection,
    Data "DELETE" "/connections/{}" DeleteConnection,
    Data "GET" "/connections/{}/subscriptions" ListSubscriptions,
    Credentials "GET" "/role-aliases/{}/credentials" AssumeRoleWithCertificate,
}

/// Operations of AWS that are not offered here, on paths where others are: without this list a
/// client would be told that it used a wrong method.
const NOT_OFFERED: &[(&str, &str)] = &[("POST", "/things")];

/// A path that was understood: the operation, and its labels decoded.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Matched {
    pub(crate) operation: Operation,
    pub(crate) labels: Vec<String>,
}

/// Refuses paths with `.` and `..` segments: clients and proxies resolve them, before or after they
/// sign, so that nobody knows which path was meant. Percent-encoded they belong to a label.
pub(crate) fn check_segments(path: &str) -> Result<(), Error> {
    match path.split('/').find(|segment| matches!(*segment, "." | "..")) {
        Some(segment) => Err(Error::Invalid(format!(
            "the path has the segment '{segment}'; percent-encode it if it is part of a name"
        ))),
        None => Ok(()),
    }
}

/// Whether one of the APIs has an operation at this path, whatever its method.
pub(crate) fn has(plane: Plane, path: &str) -> bool {
    ROUTES.iter().any(|route| route.plane == plane && labels(route.path, path).is_some())
}

/// Finds the operation of a request to one of the APIs.
pub(crate) fn find(plane: Plane, method: &str, path: &str) -> Result<Matched, Error> {
    let mut allowed = Vec::new();
    for route in ROUTES.iter().filter(|route| route.plane == plane) {
        let Some(labels) = labels(route.path, path) else {
            continue;
        };
        if route.method == method {
            let labels = labels.into_iter().map(decode).collect::<Result<_, _>>()?;
            return Ok(Matched { operation: route.operation, labels });
        }
        allowed.push(route.method);
    }
    if allowed.is_empty() || NOT_OFFERED.contains(&(method, path)) {
        return Err(Error::UnknownOperation(format!(
            "{method} {path} is not an operation that is offered here"
        )));
    }
    Err(Error::MethodNotAllowed(allowed.join(", ")))
}

/// The labels of a path, when it has the form of the pattern.
fn labels<'a>(pattern: &str, path: &'a str) -> Option<Vec<&'a str>> {
    let mut labels = Vec::new();
    let mut rest = path;
    for expected in pattern.split('/').skip(1) {
        rest = rest.strip_prefix('/')?;
        if expected == "{+}" {
            return (!rest.is_empty()).then(|| {
                labels.push(rest);
                labels
            });
        }
        let (segment, tail) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        rest = tail;
        match expected {
            "{}" if !segment.is_empty() => labels.push(segment),
            literal if literal == segment => {}
            _ => return None,
        }
    }
    rest.is_empty().then_some(labels)
}

fn decode(label: &str) -> Result<String, Error> {
    let text = percent_decode_str(label).decode_utf8();
    let text = text.map_err(|_| Error::Invalid(format!("'{label}' in the path is not UTF-8")))?;
    Ok(text.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_find_their_operations() {
        use Plane::{Control, Credentials, Data};
        for (plane, method, path, name, labels) in [
            (Control, "GET", "/things", "ListThings", &[][..]),
            (Control, "GET", "/things/a%20b", "DescribeThing", &["a b"]),
            (Control, "GET", "/things/a:b", "DescribeThing", &["a:b"]),
            (Control, "GET", "/things/shadow/principals", "ListThingPrincipals", &["shadow"]),
            (Control, "DELETE", "/policies/p%2Bq/version/2", "DeletePolicyVersion", &["p+q", "2"]),
            (Control, "POST", "/attached-policies/a%3Ab%2Fc", "ListAttachedPolicies", &["a:b/c"]),
            (Control, "POST", "/attached-policies/a:b/c", "ListAttachedPolicies", &["a:b/c"]),
            (Data, "POST", "/topics/a%2Fb", "Publish", &["a/b"]),
            (Data, "POST", "/topics/a/b", "Publish", &["a/b"]),
            (Data, "POST", "/topics//a/", "Publish", &["/a/"]),
            (Data, "POST", "/topics/%2F", "Publish", &["/"]),
            (Data, "POST", "/topics/a%252Fb", "Publish", &["a%2Fb"]),
            (Data, "GET", "/retainedMessage", "ListRetainedMessages", &[]),
            (Data, "GET", "/retainedMessage/a", "GetRetainedMessage", &["a"]),
            (Data, "GET", "/connections/a%2Fb/subscriptions", "ListSubscriptions", &["a/b"]),
            (Control, "GET", "/role-aliases/a", "DescribeRoleAlias", &["a"]),
            (
                Credentials,
                "GET",
                "/role-aliases/a/credentials",
                "AssumeRoleWithCertificate",
                &["a"],
            ),
        ] {
            let found = find(plane, method, path).unwrap();
            assert_eq!(found.operation.name(), name, "{path}");
            assert_eq!(found.labels, labels, "{path}");
        }
    }

    #[test]
    fn what_is_not_a_route_is_said() {
        for (plane, method, path, status) in [
            (Plane::Control, "GET", "/", 404),
            (Plane::Control, "GET", "", 404),
            (Plane::Control, "GET", "/things/", 404),
            (Plane::Control, "GET", "/things/a/b", 404),
            (Plane::Control, "GET", "/things/a/shadow", 404),
            (Plane::Control, "GET", "/jobs", 404),
            (Plane::Control, "PUT", "/things/a", 405),
            (Plane::Control, "POST", "/things", 404),
            (Plane::Control, "GET", "/things/%ff", 400),
            (Plane::Data, "POST", "/topics/", 404),
            (Plane::Data, "GET", "/topics/a", 405),
            (Plane::Control, "GET", "/role-aliases/a/credentials", 404),
            (Plane::Credentials, "POST", "/role-aliases/a/credentials", 405),
            (Plane::Credentials, "GET", "/role-aliases/a", 404),
        ] {
            let error = find(plane, method, path).unwrap_err();
            assert_eq!(error.status_and_code(plane).0, status, "{method} {path}: {error:?}");
        }
    }
}
