//! ARNs of this installation, written and read.

use std::fmt::Display;

use fleet::registry::{
    AuthorizerName, BillingGroupName, CertificateId, CognitoIdentity, PolicyName, Principal,
    Resource, RoleAliasName, TemplateName, ThingGroupName, ThingName, ThingTypeName,
};

use crate::{Config, Error};

/// Writes and reads the ARNs of one account and region.
#[derive(Clone, Debug)]
pub(crate) struct Arns {
    prefix: String,
    account: String,
    region: String,
}

impl Arns {
    pub(crate) fn new(config: &Config) -> Self {
        let Config { account, region, .. } = config;
        Self {
            prefix: format!("arn:aws:iot:{region}:{account}:"),
            account: account.clone(),
            region: region.clone(),
        }
    }

    /// The same names as the policies of an installation have.
    pub(crate) fn of(arns: &policy::Arns) -> Self {
        let policy::Arns { region, account, .. } = arns;
        Self {
            prefix: format!("arn:aws:iot:{region}:{account}:"),
            account: account.clone(),
            region: region.clone(),
        }
    }

    pub(crate) fn account(&self) -> &str {
        &self.account
    }

    /// As the policies of this installation see it.
    pub(crate) fn for_policies(&self) -> policy::Arns {
        policy::Arns {
            partition: "aws".into(),
            region: self.region.clone(),
            account: self.account.clone(),
        }
    }

    pub(crate) fn thing(&self, name: &ThingName) -> String {
        self.write("thing", name)
    }

    pub(crate) fn thing_type(&self, name: impl Display) -> String {
        self.write("thingtype", name)
    }

    pub(crate) fn thing_group(&self, name: &ThingGroupName) -> String {
        self.write("thinggroup", name)
    }

    pub(crate) fn billing_group(&self, name: &BillingGroupName) -> String {
        self.write("billinggroup", name)
    }

    pub(crate) fn certificate(&self, id: &CertificateId) -> String {
        self.write("cert", id)
    }

    pub(crate) fn authority(&self, id: &CertificateId) -> String {
        self.write("cacert", id)
    }

    pub(crate) fn template(&self, name: &TemplateName) -> String {
        self.write("provisioningtemplate", name)
    }

    pub(crate) fn authorizer(&self, name: &AuthorizerName) -> String {
        self.write("authorizer", name)
    }

    pub(crate) fn role_alias(&self, name: &RoleAliasName) -> String {
        self.write("rolealias", name)
    }

    pub(crate) fn policy(&self, name: &PolicyName) -> String {
        self.write("policy", name)
    }

    pub(crate) fn principal(&self, principal: &Principal) -> String {
        match principal {
            Principal::Certificate(id) => self.certificate(id),
            Principal::Cognito(identity) => identity.to_string(),
            Principal::ThingGroup(group) => self.thing_group(group),
        }
    }

    pub(crate) fn resource(&self, resource: &Resource) -> String {
        match resource {
            Resource::ThingType(name) => self.thing_type(name),
            Resource::Authorizer(name) => self.authorizer(name),
            Resource::ThingGroup(name) => self.thing_group(name),
            Resource::BillingGroup(name) => self.billing_group(name),
            Resource::Policy(name) => self.policy(name),
            Resource::Authority(id) => self.authority(id),
            Resource::Template(name) => self.template(name),
            Resource::RoleAlias(name) => self.role_alias(name),
        }
    }

    /// An ARN of whatever name somebody has given.
    pub(crate) fn named(&self, kind: &str, name: &str) -> String {
        self.write(kind, name)
    }

    fn write(&self, kind: &str, name: impl Display) -> String {
        format!("{}{kind}/{name}", self.prefix)
    }

    /// Reads what things can be attached to: the ARN of a certificate, or the id of a Cognito identity.
    pub(crate) fn parse_principal(&self, text: &str) -> Result<Principal, Error> {
        match self.parse_target(text)? {
            Principal::ThingGroup(_) => Err(no_principal(text)),
            principal => Ok(principal),
        }
    }

    /// Reads what policies can be attached to: that, or the ARN of a thing group.
    pub(crate) fn parse_target(&self, text: &str) -> Result<Principal, Error> {
        if let Ok(id) = CertificateId::new(&text.to_ascii_lowercase()) {
            let arn = self.certificate(&id);
            return Err(Error::Invalid(format!(
                "'{text}' is the id of a certificate: give its ARN, {arn}"
            )));
        }
        if !text.starts_with("arn:") {
            return Ok(Principal::Cognito(CognitoIdentity::new(text)?));
        }
        match self.parse(text)?.split_once('/') {
            Some(("cert", id)) => {
                let id = CertificateId::new(&id.to_ascii_lowercase())?;
                Ok(Principal::Certificate(id))
            }
            Some(("thinggroup", name)) => Ok(Principal::ThingGroup(ThingGroupName::new(name)?)),
            _ => Err(no_principal(text)),
        }
    }

    /// Reads the ARN of what can have tags.
    pub(crate) fn parse_resource(&self, text: &str) -> Result<Resource, Error> {
        Ok(match self.parse(text)?.split_once('/') {
            Some(("thingtype", name)) => Resource::ThingType(ThingTypeName::new(name)?),
            Some(("thinggroup", name)) => Resource::ThingGroup(ThingGroupName::new(name)?),
            Some(("billinggroup", name)) => Resource::BillingGroup(BillingGroupName::new(name)?),
            Some(("cacert", id)) => Resource::Authority(CertificateId::new(id)?),
            Some(("authorizer", name)) => Resource::Authorizer(AuthorizerName::new(name)?),
            Some(("rolealias", name)) => Resource::RoleAlias(RoleAliasName::new(name)?),
            Some(("policy", name)) => Resource::Policy(PolicyName::new(name)?),
            Some(("provisioningtemplate", name)) => Resource::Template(TemplateName::new(name)?),
            _ => {
                return Err(Error::Invalid(format!(
                    "'{text}' is not the ARN of what can have tags"
                )));
            }
        })
    }

    /// The name of a resource of this kind that is given by name, by ARN, or by both if they mean the same.
    pub(crate) fn name_or_arn(
        &self,
        kind: &str,
        name: Option<String>,
        arn: Option<String>,
    ) -> Result<String, Error> {
        let Some(arn) = arn else {
            return name.ok_or_else(|| Error::Invalid(format!("the {kind} is not named")));
        };
        let of_arn = match self.parse(&arn)?.split_once('/') {
            Some((found, name)) if found == kind => name,
            _ => return Err(Error::Invalid(format!("'{arn}' is not the ARN of a {kind}"))),
        };
        match name.filter(|name| name != of_arn) {
            Some(name) => {
                Err(Error::Invalid(format!("'{arn}' is not the ARN of the {kind} '{name}'")))
            }
            None => Ok(of_arn.to_owned()),
        }
    }

    /// The end of an ARN of this account; everything behind the fifth colon, for names may contain
    /// further ones.
    pub(crate) fn parse<'a>(&self, arn: &'a str) -> Result<&'a str, Error> {
        let parts: Vec<&str> = arn.splitn(6, ':').collect();
        let ["arn", _, "iot", region, account, resource] = parts[..] else {
            return Err(Error::Invalid(format!("'{arn}' is not an ARN of the service iot")));
        };
        if account != self.account || region != self.region {
            return Err(Error::Invalid(format!(
                "'{arn}' is not of account {} in region {}",
                self.account, self.region
            )));
        }
        Ok(resource)
    }
}

fn no_principal(text: &str) -> Error {
    Error::Invalid(format!("'{text}' is not the ARN of a principal"))
}
