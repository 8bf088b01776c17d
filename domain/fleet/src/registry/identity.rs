//! What a core needs to decide for a device: its certificate, its policies, its thing.

use std::sync::Arc;

use super::Registry;
use super::model::{
    Attributes, CertificateNames, CertificateStatus, PropagatedFrom, Thing, ThingPrincipalType,
    Timestamp,
};
use super::names::{
    CertificateId, PolicyName, Principal, TemplateName, ThingGroupName, ThingName, ThingTypeName,
};
use super::provision::{Provisional, ProvisionalRole};
use super::thing_types::{CLIENT_ID, THING_NAME};

/// A policy that applies, with its document ready to be compiled for a principal.
#[derive(Clone, Debug)]
pub struct NamedDocument {
    /// The policy's name.
    pub policy: PolicyName,
    /// Its default version, parsed once and shared.
    pub document: Arc<policy::Document>,
}

/// A thing as policy variables see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionThing {
    /// Its name.
    pub name: ThingName,
    /// Its type.
    pub thing_type: Option<ThingTypeName>,
    /// Its attributes, shared with the registry.
    pub attributes: Arc<Attributes>,
    /// Whether the certificate is attached to it.
    pub attached: bool,
    /// Whether it is the only one that the certificate may be attached to.
    pub exclusive: bool,
}

/// Everything that decides for a certificate on a connection.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The certificate.
    pub certificate: CertificateId,
    /// Only an active certificate may be used.
    pub status: CertificateStatus,
    /// First moment of its validity.
    pub not_before: Timestamp,
    /// Last moment of its validity.
    pub not_after: Timestamp,
    /// What it says about its holder and its issuer.
    pub names: Arc<CertificateNames>,
    /// Its policies, and then those of the groups of the thing of the connection.
    pub policies: Vec<NamedDocument>,
    /// The thing of the connection.
    pub thing: Option<ConnectionThing>,
}

impl ConnectionThing {
    /// As policies want it.
    pub fn variables(&self) -> policy::ThingVariables {
        policy::ThingVariables {
            name: self.name.to_string(),
            type_name: self.thing_type.as_ref().map(ToString::to_string),
            attributes: self.attributes.as_ref().clone(),
            is_attached: self.attached,
        }
    }
}

impl Identity {
    /// The variables of the certificate as policies want them.
    pub fn certificate_variables(&self) -> policy::CertificateVariables {
        policy::CertificateVariables {
            id: self.certificate.to_string(),
            serial_number: self.names.serial_number.clone(),
            subject: self.names.subject.clone(),
            issuer: self.names.issuer.clone(),
        }
    }

    /// The documents that decide, to be compiled.
    pub fn documents(&self) -> Vec<Arc<policy::Document>> {
        self.policies.iter().map(|named| Arc::clone(&named.document)).collect()
    }

    /// Whether a device may use the certificate now.
    pub fn may_connect(&self, now: Timestamp) -> bool {
        self.status == CertificateStatus::Active && now <= self.not_after && now >= self.not_before
    }
}

impl Registry {
    /// What decides for a certificate that has connected with this client id, or asks without one;
    /// none when it is not registered.
    pub fn identity(&self, certificate_id: &str, client_id: Option<&str>) -> Option<Identity> {
        let certificate = self.certificates.get(certificate_id)?;
        let principal = Principal::Certificate(certificate.id.clone());
        let thing = self.thing_of_connection(Some(certificate_id), client_id);
        Some(Identity {
            certificate: certificate.id.clone(),
            status: certificate.status,
            not_before: certificate.summary.not_before,
            not_after: certificate.summary.not_after,
            names: Arc::clone(&certificate.summary.names),
            policies: self.documents_of_connection(&principal, thing.as_ref()),
            thing,
        })
    }

    /// All policies that decide on a connection, each once: those of the principal, and those of the
    /// groups of the connection's thing and of all groups above them. Only if the principal is
    /// attached to the thing: a client id alone gives nobody more rights.
    pub fn documents_of_connection(
        &self,
        principal: &Principal,
        thing: Option<&ConnectionThing>,
    ) -> Vec<NamedDocument> {
        let mut documents = self.documents_of(principal);
        if let Some(thing) = thing.filter(|thing| thing.attached) {
            for group in self.groups_above(&thing.name) {
                for named in self.documents_of(&Principal::ThingGroup(group.clone())) {
                    if documents.iter().all(|known| known.policy != named.policy) {
                        documents.push(named);
                    }
                }
            }
        }
        documents
    }

    /// The groups that a thing is in, and all above them; none twice.
    pub fn groups_above<'a>(
        &'a self,
        thing: &ThingName,
    ) -> impl Iterator<Item = &'a ThingGroupName> {
        let groups = self.groups_of.get(thing).into_iter().flat_map(|groups| groups.keys());
        groups.flat_map(|group| self.thing_group_path(group).map(|group| &group.name))
    }

    /// The thing of a connection: the one the certificate is exclusively attached to, else the one
    /// that is named like the client id, if there is one.
    pub fn thing_of_connection(
        &self,
        certificate_id: Option<&str>,
        client_id: Option<&str>,
    ) -> Option<ConnectionThing> {
        let certificate = certificate_id.and_then(|id| self.certificates.get(id));
        let principal = certificate.map(|certificate| Principal::from(certificate.id.clone()));
        let attached = principal.and_then(|principal| self.things_of.get(&principal));
        if let Some((name, ThingPrincipalType::ExclusiveThing)) =
            attached.and_then(|things| things.first_key_value())
        {
            let exclusive =
                |thing| ConnectionThing { exclusive: true, ..connection_thing(thing, true) };
            return self.things.get(name).map(exclusive);
        }
        let thing = self.things.get(client_id?)?;
        let is_attached = attached.is_some_and(|things| things.contains_key(&thing.name));
        Some(connection_thing(thing, is_attached))
    }

    /// The user properties, names and values, that the type of a connection's thing adds to what is
    /// published there, in the order of the type; those that have no value are left out. Only if the
    /// principal is attached to the thing: who merely has its name as client id does not speak for it.
    pub fn propagated(&self, thing: &ConnectionThing, client_id: &str) -> Vec<(String, String)> {
        let known = thing.thing_type.as_ref().filter(|_| thing.attached);
        let Some(thing_type) = known.and_then(|name| self.thing_types.get(name)) else {
            return Vec::new();
        };
        let value_of = |source: &PropagatedFrom| match source {
            PropagatedFrom::ThingAttribute(name) => thing.attributes.get(name).cloned(),
            PropagatedFrom::ConnectionAttribute(name) => match name.as_str() {
                CLIENT_ID => Some(client_id.to_owned()),
                THING_NAME => Some(thing.name.to_string()),
                _ => None,
            },
        };
        let attributes = thing_type.properties.propagating_attributes.iter();
        attributes
            .filter_map(|attribute| {
                Some((attribute.user_property_key.clone(), value_of(&attribute.source)?))
            })
            .collect()
    }

    /// The default versions of the policies of a principal, in the order of their names.
    pub fn documents_of(&self, principal: &Principal) -> Vec<NamedDocument> {
        let policies = self.policies_of.get(principal).into_iter().flatten();
        let attached = policies.filter_map(|policy| {
            let document = Arc::clone(self.indexes.documents.get(policy)?);
            Some(NamedDocument { policy: policy.clone(), document })
        });
        attached.chain(self.document_of_claim(principal)).collect()
    }

    /// What a claim allows is not attached to it, and nobody can take it away.
    fn document_of_claim(&self, principal: &Principal) -> Option<NamedDocument> {
        let provisional = &self.certificates.get(principal.certificate()?)?.provisional;
        let Some(Provisional { role: ProvisionalRole::Claim(template), .. }) = provisional else {
            return None;
        };
        let document = policy::Document::parse(&claim_document(template)).ok()?;
        let policy = PolicyName::new("ProvisioningClaim").ok()?;
        Some(NamedDocument { policy, document: Arc::new(document) })
    }

    /// The parsed default version of one policy.
    pub fn document(&self, policy: &str) -> Option<Arc<policy::Document>> {
        self.indexes.documents.get(policy).cloned()
    }
}

/// Lets a device connect, with any client id, ask for a certificate and provision itself with one
/// template.
fn claim_document(template: &TemplateName) -> String {
    let requests = [
        "$aws/certificates/create/*",
        "$aws/certificates/create-from-csr/*",
        &format!("$aws/provisioning-templates/{template}/provision/*"),
    ];
    let arns = |kind: &str| requests.map(|topic| format!("arn:*:iot:*:*:{kind}/{topic}"));
    serde_json::json!({
        "Version": "2012-10-17",
        "Statement": [
            { "Effect": "Allow", "Action": "iot:Connect", "Resource": "*" },
            {
                "Effect": "Allow",
                "Action": ["iot:Publish", "iot:Receive"],
                "Resource": arns("topic"),
            },
            { "Effect": "Allow", "Action": "iot:Subscribe", "Resource": arns("topicfilter") },
        ],
    })
    .to_string()
}

fn connection_thing(thing: &Thing, attached: bool) -> ConnectionThing {
    ConnectionThing {
        name: thing.name.clone(),
        thing_type: thing.thing_type.clone(),
        attributes: Arc::clone(&thing.attributes),
        attached,
        exclusive: false,
    }
}
