//! Which operation a method and a path mean.
//!
//! Paths are matched as they came, still percent-encoded: a `%2F` belongs to a label, a `/`
//! separates segments. Where both APIs know a path, the service of the signature decides.

use percent_encoding::percent_decode_str;

use crate::Error;
use crate::error::Plane;
use crate::rights::Role;

/// The services that requests of the control plane are signed for.
pub(crate) const CONTROL_SERVICES: &[&str] = &["iot"];

/// The services that requests of the data plane and WebSocket handshakes are signed for.
pub const DATA_SERVICES: &[&str] = &["iotdata", "iotdevicegateway"];

macro_rules! operations {
    ($($plane:ident $method:literal $path:literal $name:ident $role:ident,)*) => {
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

            /// The least role that may have it carried out.
            pub(crate) fn role(self) -> Role {
                match self {
                    $(Self::$name => Role::$role,)*
                }
            }

            /// Whether it changes what there is, so that it is recorded: not what devices say.
            pub(crate) fn is_change(self) -> bool {
                let is_control = match self {
                    $(Self::$name => matches!(Plane::$plane, Plane::Control),)*
                };
                self == Self::DeleteConnection || is_control && self.role() > Role::ReadOnly
            }

            /// What kind of resource the first label names, as ARNs have it.
            pub(crate) fn kind(self) -> Option<&'static str> {
                match self {
                    $(Self::$name => kind($path),)*
                }
            }

            /// Whether it is about the thing that the first label names, and about nothing else.
            pub(crate) fn is_of_thing(self) -> bool {
                let path = match self {
                    $(Self::$name => $path,)*
                };
                let is_path_of_thing = path.starts_with("/things/{}")
                    || self == Self::ListNamedShadowsForThing;
                // The principal may be anybody's.
                is_path_of_thing && self != Self::AttachThingPrincipal
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
pub(crate) struct Route {
    pub(crate) plane: Plane,
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    pub(crate) operation: Operation,
}

/// Where every operation is.
pub(crate) fn routes() -> &'static [Route] {
    ROUTES
}

operations! {
    Control "POST" "/things/{}" CreateThing Operator,
    Control "GET" "/things/{}" DescribeThing ReadOnly,
    Control "PATCH" "/things/{}" UpdateThing Operator,
    Control "DELETE" "/things/{}" DeleteThing Operator,
    Control "GET" "/things" ListThings ReadOnly,
    Control "POST" "/thing-types/{}" CreateThingType Operator,
    Control "GET" "/thing-types/{}" DescribeThingType ReadOnly,
    Control "PATCH" "/thing-types/{}" UpdateThingType Operator,
    Control "POST" "/thing-types/{}/deprecate" DeprecateThingType Operator,
    Control "DELETE" "/thing-types/{}" DeleteThingType Operator,
    Control "GET" "/thing-types" ListThingTypes ReadOnly,
    Control "POST" "/thing-groups/{}" CreateThingGroup Operator,
    Control "GET" "/thing-groups/{}" DescribeThingGroup ReadOnly,
    Control "PATCH" "/thing-groups/{}" UpdateThingGroup Operator,
    Control "DELETE" "/thing-groups/{}" DeleteThingGroup Operator,
    Control "POST" "/dynamic-thing-groups/{}" CreateDynamicThingGroup Operator,
    Control "PATCH" "/dynamic-thing-groups/{}" UpdateDynamicThingGroup Operator,
    Control "DELETE" "/dynamic-thing-groups/{}" DeleteDynamicThingGroup Operator,
    Control "POST" "/things" RegisterThing Admin,
    Control "POST" "/thing-registration-tasks" StartThingRegistrationTask Admin,
    Control "GET" "/thing-registration-tasks" ListThingRegistrationTasks ReadOnly,
    Control "GET" "/thing-registration-tasks/{}" DescribeThingRegistrationTask ReadOnly,
    Control "PUT" "/thing-registration-tasks/{}/cancel" StopThingRegistrationTask Admin,
    Control "GET" "/thing-registration-tasks/{}/reports" ListThingRegistrationTaskReports ReadOnly,
    Control "GET" "/thing-groups" ListThingGroups ReadOnly,
    Control "GET" "/things/{}/thing-groups" ListThingGroupsForThing ReadOnly,
    Control "GET" "/thing-groups/{}/things" ListThingsInThingGroup ReadOnly,
    Control "PUT" "/thing-groups/addThingToThingGroup" AddThingToThingGroup Operator,
    Control "PUT" "/thing-groups/removeThingFromThingGroup" RemoveThingFromThingGroup Operator,
    Control "PUT" "/thing-groups/updateThingGroupsForThing" UpdateThingGroupsForThing Operator,
    Control "POST" "/billing-groups/{}" CreateBillingGroup Operator,
    Control "GET" "/billing-groups/{}" DescribeBillingGroup ReadOnly,
    Control "PATCH" "/billing-groups/{}" UpdateBillingGroup Operator,
    Control "DELETE" "/billing-groups/{}" DeleteBillingGroup Operator,
    Control "GET" "/billing-groups" ListBillingGroups ReadOnly,
    Control "PUT" "/billing-groups/addThingToBillingGroup" AddThingToBillingGroup Operator,
    Control "PUT" "/billing-groups/removeThingFromBillingGroup" RemoveThingFromBillingGroup Operator,
    Control "GET" "/billing-groups/{}/things" ListThingsInBillingGroup ReadOnly,
    Control "POST" "/tags" TagResource Operator,
    Control "POST" "/untag" UntagResource Operator,
    Control "GET" "/tags" ListTagsForResource ReadOnly,
    Control "PUT" "/things/{}/principals" AttachThingPrincipal Operator,
    Control "DELETE" "/things/{}/principals" DetachThingPrincipal Operator,
    Control "GET" "/things/{}/principals" ListThingPrincipals ReadOnly,
    Control "GET" "/things/{}/principals-v2" ListThingPrincipalsV2 ReadOnly,
    Control "GET" "/principals/things" ListPrincipalThings ReadOnly,
    Control "GET" "/principals/things-v2" ListPrincipalThingsV2 ReadOnly,
    Control "POST" "/keys-and-certificate" CreateKeysAndCertificate Operator,
    Control "POST" "/certificates" CreateCertificateFromCsr Operator,
    Control "POST" "/certificate/register" RegisterCertificate Operator,
    Control "POST" "/certificate/register-no-ca" RegisterCertificateWithoutCA Operator,
    Control "GET" "/certificates/{}" DescribeCertificate ReadOnly,
    Control "PUT" "/certificates/{}" UpdateCertificate Operator,
    Control "DELETE" "/certificates/{}" DeleteCertificate Operator,
    Control "GET" "/certificates" ListCertificates ReadOnly,
    Control "GET" "/registrationcode" GetRegistrationCode Admin,
    Control "DELETE" "/registrationcode" DeleteRegistrationCode Admin,
    Control "POST" "/cacertificate" RegisterCACertificate Admin,
    Control "GET" "/cacertificate/{}" DescribeCACertificate ReadOnly,
    Control "PUT" "/cacertificate/{}" UpdateCACertificate Admin,
    Control "DELETE" "/cacertificate/{}" DeleteCACertificate Admin,
    Control "GET" "/cacertificates" ListCACertificates ReadOnly,
    Control "GET" "/certificates-by-ca/{}" ListCertificatesByCA ReadOnly,
    Control "POST" "/authorizer/{}" CreateAuthorizer Admin,
    Control "GET" "/authorizer/{}" DescribeAuthorizer ReadOnly,
    Control "PUT" "/authorizer/{}" UpdateAuthorizer Admin,
    Control "DELETE" "/authorizer/{}" DeleteAuthorizer Admin,
    Control "GET" "/authorizers/" ListAuthorizers ReadOnly,
    Control "POST" "/authorizer/{}/test" TestInvokeAuthorizer Operator,
    Control "POST" "/default-authorizer" SetDefaultAuthorizer Admin,
    Control "GET" "/default-authorizer" DescribeDefaultAuthorizer ReadOnly,
    Control "DELETE" "/default-authorizer" ClearDefaultAuthorizer Admin,
    Control "POST" "/role-aliases/{}" CreateRoleAlias Admin,
    Control "GET" "/role-aliases/{}" DescribeRoleAlias ReadOnly,
    Control "PUT" "/role-aliases/{}" UpdateRoleAlias Admin,
    Control "DELETE" "/role-aliases/{}" DeleteRoleAlias Admin,
    Control "GET" "/role-aliases" ListRoleAliases ReadOnly,
    Control "POST" "/policies/{}" CreatePolicy Admin,
    Control "GET" "/policies/{}" GetPolicy ReadOnly,
    Control "DELETE" "/policies/{}" DeletePolicy Admin,
    Control "GET" "/policies" ListPolicies ReadOnly,
    Control "POST" "/policies/{}/version" CreatePolicyVersion Admin,
    Control "GET" "/policies/{}/version/{}" GetPolicyVersion ReadOnly,
    Control "PATCH" "/policies/{}/version/{}" SetDefaultPolicyVersion Admin,
    Control "DELETE" "/policies/{}/version/{}" DeletePolicyVersion Admin,
    Control "GET" "/policies/{}/version" ListPolicyVersions ReadOnly,
    Control "PUT" "/target-policies/{}" AttachPolicy Admin,
    Control "POST" "/target-policies/{}" DetachPolicy Admin,
    Control "POST" "/attached-policies/{+}" ListAttachedPolicies ReadOnly,
    Control "POST" "/policy-targets/{}" ListTargetsForPolicy ReadOnly,
    Control "PUT" "/principal-policies/{}" AttachPrincipalPolicy Admin,
    Control "DELETE" "/principal-policies/{}" DetachPrincipalPolicy Admin,
    Control "GET" "/principal-policies" ListPrincipalPolicies ReadOnly,
    Control "GET" "/policy-principals" ListPolicyPrincipals ReadOnly,
    Control "POST" "/effective-policies" GetEffectivePolicies ReadOnly,
    Control "POST" "/test-authorization" TestAuthorization ReadOnly,
    Control "GET" "/endpoint" DescribeEndpoint ReadOnly,
    Control "PATCH" "/transfer-certificate/{}" TransferCertificate Operator,
    Control "PATCH" "/accept-certificate-transfer/{}" AcceptCertificateTransfer Operator,
    Control "PATCH" "/reject-certificate-transfer/{}" RejectCertificateTransfer Operator,
    Control "PATCH" "/cancel-certificate-transfer/{}" CancelCertificateTransfer Operator,
    Control "GET" "/certificates-out-going" ListOutgoingCertificates ReadOnly,
    Control "GET" "/event-configurations" DescribeEventConfigurations ReadOnly,
    Control "PATCH" "/event-configurations" UpdateEventConfigurations Admin,
    Control "POST" "/provisioning-templates" CreateProvisioningTemplate Admin,
    Control "GET" "/provisioning-templates" ListProvisioningTemplates ReadOnly,
    Control "GET" "/provisioning-templates/{}" DescribeProvisioningTemplate ReadOnly,
    Control "PATCH" "/provisioning-templates/{}" UpdateProvisioningTemplate Admin,
    Control "DELETE" "/provisioning-templates/{}" DeleteProvisioningTemplate Admin,
    Control "POST" "/provisioning-templates/{}/versions" CreateProvisioningTemplateVersion Admin,
    Control "GET" "/provisioning-templates/{}/versions" ListProvisioningTemplateVersions ReadOnly,
    Control "GET" "/provisioning-templates/{}/versions/{}" DescribeProvisioningTemplateVersion ReadOnly,
    Control "DELETE" "/provisioning-templates/{}/versions/{}" DeleteProvisioningTemplateVersion Admin,
    Control "POST" "/provisioning-templates/{}/provisioning-claim" CreateProvisioningClaim Admin,
    Data "GET" "/things/{}/shadow" GetThingShadow ReadOnly,
    Data "POST" "/things/{}/shadow" UpdateThingShadow Operator,
    Data "DELETE" "/things/{}/shadow" DeleteThingShadow Operator,
    Data "GET" "/api/things/shadow/ListNamedShadowsForThing/{}" ListNamedShadowsForThing ReadOnly,
    Data "POST" "/topics/{+}" Publish Operator,
    Data "GET" "/retainedMessage" ListRetainedMessages ReadOnly,
    Data "GET" "/retainedMessage/{+}" GetRetainedMessage ReadOnly,
    Data "GET" "/connections/{}" GetConnection ReadOnly,
    Data "DELETE" "/connections/{}" DeleteConnection Operator,
    Data "GET" "/connections/{}/subscriptions" ListSubscriptions ReadOnly,
    Credentials "GET" "/role-aliases/{}/credentials" AssumeRoleWithCertificate ReadOnly,
}

/// The kind of resource that the first label of a path names.
fn kind(path: &str) -> Option<&'static str> {
    let (folder, _) = path.strip_prefix('/')?.split_once("/{")?;
    Some(match folder {
        "things" => "thing",
        "thing-types" => "thingtype",
        "thing-groups" | "dynamic-thing-groups" => "thinggroup",
        "billing-groups" => "billinggroup",
        "policies" | "target-policies" | "principal-policies" => "policy",
        "cacertificate" => "cacert",
        "role-aliases" => "rolealias",
        "provisioning-templates" => "provisioningtemplate",
        "connections" => "client",
        _ if folder.contains("certificate") => "cert",
        _ => return None,
    })
}

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
    if allowed.is_empty() {
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
    fn changes_are_told_from_the_rest() {
        use Operation as O;
        for (operation, is_change, kind) in [
            (O::CreateThing, true, Some("thing")),
            (O::DescribeThing, false, Some("thing")),
            (O::AttachThingPrincipal, true, Some("thing")),
            (O::DeprecateThingType, true, Some("thingtype")),
            (O::AddThingToThingGroup, true, None),
            (O::DeleteThingGroup, true, Some("thinggroup")),
            (O::CreateDynamicThingGroup, true, Some("thinggroup")),
            (O::UpdateCertificate, true, Some("cert")),
            (O::TransferCertificate, true, Some("cert")),
            (O::CreateKeysAndCertificate, true, None),
            (O::UpdateCACertificate, true, Some("cacert")),
            (O::GetRegistrationCode, true, None),
            (O::AttachPolicy, true, Some("policy")),
            (O::ListAttachedPolicies, false, None),
            (O::CreateProvisioningClaim, true, Some("provisioningtemplate")),
            (O::UpdateRoleAlias, true, Some("rolealias")),
            (O::TagResource, true, None),
            (O::TestAuthorization, false, None),
            (O::AssumeRoleWithCertificate, false, Some("rolealias")),
            (O::Publish, false, None),
            (O::UpdateThingShadow, false, Some("thing")),
            (O::GetConnection, false, Some("client")),
            (O::DeleteConnection, true, Some("client")),
        ] {
            assert_eq!(operation.is_change(), is_change, "{operation:?}");
            assert_eq!(operation.kind(), kind, "{operation:?}");
        }
    }

    /// Each operation that AWS documents for what is offered here, and none by another name.
    #[test]
    fn every_operation_of_the_file_is_answered() {
        let file = include_str!("../testdata/operations.txt");
        let mut names = Vec::new();
        for line in file.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let [plane, method, path, name] = line.split(' ').collect::<Vec<_>>()[..] else {
                panic!("not four words: {line}");
            };
            let plane = [Plane::Control, Plane::Data, Plane::Credentials]
                .into_iter()
                .find(|known| format!("{known:?}") == plane)
                .expect(line);
            let path: Vec<_> =
                path.split('/').map(|it| if it.starts_with('{') { "x" } else { it }).collect();
            let found = find(plane, method, &path.join("/"));
            assert_eq!(found.map(|matched| matched.operation.name()), Ok(name), "{line}");
            names.push(name);
        }
        let offered = Operation::ALL.iter().map(|operation| operation.name());
        let mut unknown = offered.filter(|name| !names.contains(name));
        assert_eq!(unknown.next(), None, "the file does not have it");
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
            (Plane::Control, "POST", "/thing-types", 405),
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
