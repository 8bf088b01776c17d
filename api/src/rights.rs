//! What the holders of access keys may do.

use serde::{Deserialize, Serialize};

use crate::routes::Operation;

/// How much the holder of an access key may do; each may do all that those before it may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Look at everything, and listen.
    ReadOnly,
    /// Change things, their groups and types, certificates, shadows; publish.
    Operator,
    /// Change what rights are made of: policies, authorities, templates, role aliases.
    #[default]
    Admin,
}

impl Role {
    /// The one with this name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::ReadOnly, Self::Operator, Self::Admin].into_iter().find(|role| role.as_str() == name)
    }

    /// As a configuration names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReadOnly => "read-only",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

/// What the holder of an access key may do, or a person.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Rights {
    /// How much.
    pub role: Role,
    /// With which things: names, or the beginnings of names with a `*` behind them. Everything, when
    /// there are none; else only what is about one of these things.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub things: Vec<String>,
}

impl Rights {
    /// Whether an operation may be carried out, whose path has these labels.
    pub(crate) fn allow(&self, operation: Operation, labels: &[String]) -> bool {
        self.role >= operation.role()
            && (self.things.is_empty()
                || operation.is_of_thing()
                    && labels.first().is_some_and(|thing| self.include(thing)))
    }

    /// Whether a thing is one of those that the holder is for.
    fn include(&self, thing: &str) -> bool {
        self.things.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(start) => thing.starts_with(start),
            None => thing == pattern,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_are_of_a_role_and_of_things() {
        use Operation as O;
        let rights = |role, things: &[&str]| Rights {
            role,
            things: things.iter().map(ToString::to_string).collect(),
        };
        for (rights, operation, label, expected) in [
            (rights(Role::ReadOnly, &[]), O::DescribeThing, "lamp", true),
            (rights(Role::ReadOnly, &[]), O::GetThingShadow, "lamp", true),
            (rights(Role::ReadOnly, &[]), O::GetRegistrationCode, "", false),
            (rights(Role::ReadOnly, &[]), O::UpdateThing, "lamp", false),
            (rights(Role::ReadOnly, &[]), O::Publish, "a", false),
            (rights(Role::Operator, &[]), O::UpdateThing, "lamp", true),
            (rights(Role::Operator, &[]), O::UpdateCertificate, "0a", true),
            (rights(Role::Operator, &[]), O::Publish, "a", true),
            (rights(Role::Operator, &[]), O::CreatePolicyVersion, "p", false),
            (rights(Role::Operator, &[]), O::AttachPolicy, "p", false),
            (rights(Role::Operator, &[]), O::RegisterThing, "", false),
            (rights(Role::Operator, &[]), O::CreateRoleAlias, "r", false),
            (rights(Role::Admin, &[]), O::AttachPolicy, "p", true),
            (rights(Role::Operator, &["lamp-*"]), O::UpdateThing, "lamp-1", true),
            (rights(Role::Operator, &["lamp-*"]), O::UpdateThingShadow, "lamp-", true),
            (rights(Role::Operator, &["lamp-*"]), O::UpdateThing, "lamp", false),
            (rights(Role::Operator, &["lamp"]), O::UpdateThing, "lamp-1", false),
            (rights(Role::Operator, &["lamp", "door"]), O::DeleteThing, "door", true),
            (rights(Role::Admin, &["*"]), O::ListThings, "", false),
            (rights(Role::Admin, &["lamp"]), O::CreatePolicy, "lamp", false),
            (rights(Role::Admin, &["lamp"]), O::Publish, "lamp", false),
            (rights(Role::ReadOnly, &["lamp"]), O::DeleteThing, "lamp", false),
        ] {
            let allowed = rights.allow(operation, &[label.to_owned()]);
            assert_eq!(allowed, expected, "{rights:?} {operation:?} {label}");
        }
    }
}
