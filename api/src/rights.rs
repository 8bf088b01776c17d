//! What the holders of access keys may do.

use serde::{Deserialize, Serialize};

use crate::routes::Operation;

/// How many of the things that somebody is for are named to whom it is not for others.
const NAMED: usize = 10;

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
    /// Why an operation may not be carried out whose path has these labels; none if it may.
    pub(crate) fn refusal(&self, operation: Operation, labels: &[String]) -> Option<String> {
        let (role, name) = (self.role.as_str(), operation.name());
        if self.role < operation.role() {
            let needed = operation.role().as_str();
            return Some(format!("has the role {role}, and {name} needs the role {needed}"));
        }
        let thing = labels.first().filter(|_| operation.is_of_thing());
        if self.things.is_empty() || thing.is_some_and(|thing| self.include(thing)) {
            return None;
        }
        let (named, more) = self.things.split_at(self.things.len().min(NAMED));
        let more = if more.is_empty() { "" } else { ", …" };
        let of = thing.map(|thing| format!(" of {thing}")).unwrap_or_default();
        Some(format!(
            "has the role {role} for the things {}{more} alone, and is not for {name}{of}",
            named.join(", ")
        ))
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
            let refusal = rights.refusal(operation, &[label.to_owned()]);
            assert_eq!(refusal.is_none(), expected, "{rights:?} {operation:?} {label}");
        }
    }

    #[test]
    fn a_refusal_names_what_is_missing() {
        use Operation as O;
        let many: Vec<String> = (0..12).map(|it| format!("t{it}")).collect();
        for (role, things, operation, expected) in [
            (
                Role::ReadOnly,
                vec![],
                O::UpdateThing,
                "has the role read-only, and UpdateThing needs the role operator",
            ),
            (
                Role::Operator,
                vec!["lamp-*".into(), "door".into()],
                O::UpdateThing,
                "has the role operator for the things lamp-*, door alone, and is not for UpdateThing of gate",
            ),
            (
                Role::Admin,
                many,
                O::ListThings,
                "has the role admin for the things t0, t1, t2, t3, t4, t5, t6, t7, t8, t9, … alone, and is \
                 not for ListThings",
            ),
        ] {
            let refusal = Rights { role, things }.refusal(operation, &["gate".to_owned()]);
            assert_eq!(refusal.as_deref(), Some(expected));
        }
    }
}
