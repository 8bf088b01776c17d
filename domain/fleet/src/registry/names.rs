//! The identifiers of the registry. A value that exists has been checked against its pattern.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Why a text is not the name of something in the registry.
#[derive(Clone, Debug, Error, PartialEq, Eq, Serialize, Deserialize)]
#[error("{what} '{value}' must satisfy the pattern {pattern} and have {min} to {max} characters")]
pub struct NameError {
    /// What should have been named, e.g. `thingName`.
    pub what: String,
    /// The text as it came, shortened when it is far too long.
    pub value: String,
    /// The pattern the whole text must match.
    pub pattern: String,
    /// The shortest length.
    pub min: usize,
    /// The longest length.
    pub max: usize,
}

/// One kind of name: what it is called in errors, its alphabet and its length.
struct Rule {
    what: &'static str,
    pattern: &'static str,
    min: usize,
    max: usize,
    allows: fn(u8) -> bool,
    /// A byte that has to be in it.
    needs: Option<u8>,
}

impl Rule {
    fn check(&self, value: &str) -> Result<(), NameError> {
        let is_complete = self.needs.is_none_or(|byte| value.as_bytes().contains(&byte));
        if (self.min..=self.max).contains(&value.len())
            && value.bytes().all(self.allows)
            && is_complete
        {
            return Ok(());
        }
        Err(NameError {
            what: self.what.into(),
            value: value.chars().take(self.max + 1).collect(),
            pattern: self.pattern.into(),
            min: self.min,
            max: self.max,
        })
    }
}

const fn is_registry_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b':' | b'_' | b'-')
}

fn is_policy_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_+=,.@-".contains(&byte)
}

/// Of role aliases and authorizers.
fn is_role_alias_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_=,@-".contains(&byte)
}

fn is_attribute_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_.,@/:#-".contains(&byte)
}

fn is_attribute_value(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_.,@/:#=[]-".contains(&byte)
}

fn is_cognito_identity(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b':' | b'_' | b'-')
}

const REGISTRY_NAME: &str = "[a-zA-Z0-9:_-]+";
const ATTRIBUTE_NAME: Rule = Rule {
    what: "attribute name",
    pattern: "[a-zA-Z0-9_.,@/:#-]+",
    min: 1,
    max: 128,
    allows: is_attribute_name,
    needs: None,
};
const ATTRIBUTE_VALUE: Rule = Rule {
    what: "attribute value",
    pattern: r"[a-zA-Z0-9_.,@/:#=\[\]-]*",
    min: 0,
    max: 800,
    allows: is_attribute_value,
    needs: None,
};

/// Checks the name of a thing's attribute.
pub fn check_attribute_name(name: &str) -> Result<(), NameError> {
    ATTRIBUTE_NAME.check(name)
}

/// Checks the value of a thing's attribute.
pub fn check_attribute_value(value: &str) -> Result<(), NameError> {
    ATTRIBUTE_VALUE.check(value)
}

/// Checks a free description, `[\p{Graph}\x20]*`, at most 2028 characters.
pub fn check_description(text: &str) -> Result<(), NameError> {
    const MAX: usize = 2028;
    if text.chars().count() <= MAX && !text.chars().any(char::is_control) {
        return Ok(());
    }
    Err(NameError {
        what: "description".into(),
        value: text.chars().take(64).collect(),
        pattern: r"[\p{Graph}\x20]*".into(),
        min: 0,
        max: MAX,
    })
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $rule:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks the text and takes it as a name.
            pub fn new(value: &str) -> Result<Self, NameError> {
                const RULE: Rule = $rule;
                RULE.check(value)?;
                Ok(Self(value.into()))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(value: String) -> Result<Self, NameError> {
                Self::new(&value)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.as_ref().to_owned()
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
    };
}

name!(
    /// The name of a thing; case-sensitive, never changes.
    ThingName,
    Rule { what: "thingName", pattern: REGISTRY_NAME, min: 1, max: 128, allows: is_registry_name, needs: None }
);
name!(
    /// The name of a thing type.
    ThingTypeName,
    Rule {
        what: "thingTypeName",
        pattern: REGISTRY_NAME,
        min: 1,
        max: 128,
        allows: is_registry_name, needs: None,
    }
);
name!(
    /// The name of a static thing group; never changes.
    ThingGroupName,
    Rule {
        what: "thingGroupName",
        pattern: REGISTRY_NAME,
        min: 1,
        max: 128,
        allows: is_registry_name, needs: None,
    }
);
name!(
    /// The name of a billing group; never changes.
    BillingGroupName,
    Rule {
        what: "billingGroupName",
        pattern: REGISTRY_NAME,
        min: 1,
        max: 128,
        allows: is_registry_name, needs: None,
    }
);
name!(
    /// The name of a policy.
    PolicyName,
    Rule {
        what: "policyName",
        pattern: r"[\w+=,.@-]+",
        min: 1,
        max: 128,
        allows: is_policy_name, needs: None,
    }
);
name!(
    /// The name of a custom authorizer; never changes.
    AuthorizerName,
    Rule {
        what: "authorizerName",
        pattern: r"[\w=,@-]+",
        min: 1,
        max: 128,
        allows: is_role_alias_name, needs: None,
    }
);
name!(
    /// The name of a role alias; never changes.
    RoleAliasName,
    Rule {
        what: "roleAlias",
        pattern: r"[\w=,@-]+",
        min: 1,
        max: 128,
        allows: is_role_alias_name, needs: None,
    }
);
name!(
    /// The id of a certificate: the SHA-256 of its DER form in lower-case hex.
    CertificateId,
    Rule {
        what: "certificateId",
        pattern: "[a-f0-9]+",
        min: 64,
        max: 64,
        allows: |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
        needs: None,
    }
);
name!(
    /// The name of a provisioning template.
    TemplateName,
    Rule {
        what: "templateName",
        pattern: "[0-9A-Za-z_-]+",
        min: 1,
        max: 36,
        allows: |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'),
        needs: None,
    }
);
name!(
    /// The id of a task that registers things in bulk.
    RegistrationTaskId,
    Rule {
        what: "taskId",
        pattern: "[a-zA-Z0-9-]+",
        min: 1,
        max: 40,
        allows: |byte| byte.is_ascii_alphanumeric() || byte == b'-',
        needs: None,
    }
);
name!(
    /// The id of a Cognito identity, `region:uuid`.
    CognitoIdentity,
    Rule {
        what: "principal",
        pattern: "[a-zA-Z0-9_-]+:[a-zA-Z0-9:_-]+",
        min: 3,
        max: 128,
        allows: is_cognito_identity,
        needs: Some(b':'),
    }
);

/// Who can have policies attached, and, but for groups, things.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Principal {
    /// A certificate of the registry.
    Certificate(CertificateId),
    /// An identity that Cognito vouches for; the registry keeps only what is attached to it.
    Cognito(CognitoIdentity),
    /// A static thing group, for the connections of its things.
    ThingGroup(ThingGroupName),
}

impl Principal {
    /// A text that orders like the principal and reads back: for stored keys and places in lists.
    pub(super) fn key(&self) -> String {
        match self {
            Self::Certificate(id) => format!("c{id}"),
            Self::Cognito(identity) => format!("i{identity}"),
            Self::ThingGroup(group) => format!("g{group}"),
        }
    }

    /// Reads what [`Self::key`] wrote.
    pub(super) fn from_key(key: &str) -> Option<Self> {
        match key.split_at_checked(1)? {
            ("c", id) => CertificateId::new(id).ok().map(Self::Certificate),
            ("i", identity) => CognitoIdentity::new(identity).ok().map(Self::Cognito),
            ("g", group) => ThingGroupName::new(group).ok().map(Self::ThingGroup),
            _ => None,
        }
    }

    /// The certificate, when the principal is one.
    pub fn certificate(&self) -> Option<&CertificateId> {
        match self {
            Self::Certificate(id) => Some(id),
            Self::Cognito(_) | Self::ThingGroup(_) => None,
        }
    }
}

impl From<CertificateId> for Principal {
    fn from(id: CertificateId) -> Self {
        Self::Certificate(id)
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate(id) => write!(f, "cert/{id}"),
            Self::Cognito(identity) => identity.fmt(f),
            Self::ThingGroup(group) => write!(f, "thinggroup/{group}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_their_patterns() {
        let long = "x".repeat(129);
        for (name, valid) in [
            ("lamp", true),
            ("a:b_c-D9", true),
            ("", false),
            ("a b", false),
            ("a/b", false),
            ("ä", false),
            (&long[..128], true),
            (&long, false),
        ] {
            assert_eq!(ThingName::new(name).is_ok(), valid, "{name:?}");
        }
        for (name, valid) in [("a+b=c,d.e@f-g_h", true), ("a:b", false), ("a/b", false)] {
            assert_eq!(PolicyName::new(name).is_ok(), valid, "{name:?}");
        }
        for (name, valid) in
            [("a_b=c,d@e-F9", true), ("a.b", false), ("a/b", false), ("a:b", false)]
        {
            assert_eq!(RoleAliasName::new(name).is_ok(), valid, "{name:?}");
            assert_eq!(AuthorizerName::new(name).is_ok(), valid, "{name:?}");
        }
        let id = "0a".repeat(32);
        for (name, valid) in [(&id[..], true), (&id[1..], false), (&id.to_uppercase(), false)] {
            assert_eq!(CertificateId::new(name).is_ok(), valid, "{name:?}");
        }
    }

    #[test]
    fn a_name_of_a_command_is_checked_when_it_is_read() {
        let error = serde_json::from_str::<ThingName>(r#""a b""#).unwrap_err();
        assert!(error.to_string().contains("thingName 'a b'"), "{error}");
    }
}
