//! What readers see: single objects, and lists a page at a time.
//!
//! A page looks at a bounded number of entries, so a filter that few of a million things match
//! costs its reader round trips and never the registry's thread a long turn.

use std::collections::BTreeSet;
use std::ops::Bound;

use super::Registry;
use super::authorities::Authority;
use super::authorizers::{Authorizer, AuthorizerStatus};
use super::model::{Certificate, Policy, Thing, ThingPrincipalType, ThingType, Timestamp};
use super::names::{
    AuthorizerName, CertificateId, NameError, PolicyName, Principal, RegistrationTaskId,
    RoleAliasName, ThingName, ThingTypeName,
};
use super::registration_tasks::{RegistrationStatus, RegistrationTask};
use super::role_aliases::RoleAlias;

/// How many entries one page looks at before it ends, full or not.
const LOOKED_AT: usize = 10_000;

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The entries, in order.
    pub items: Vec<T>,
    /// Where the next page starts: [`Paging::after`] of the next call; none on the last page.
    pub next: Option<String>,
}

impl<T> Page<T> {
    /// The same page of other entries.
    pub fn map<U>(self, change: impl FnMut(T) -> U) -> Page<U> {
        Page { items: self.items.into_iter().map(change).collect(), next: self.next }
    }
}

/// In which direction a list is walked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// From the first or oldest.
    #[default]
    Ascending,
    /// From the last or newest.
    Descending,
}

/// Which part of a list is wanted.
#[derive(Clone, Debug)]
pub struct Paging {
    /// [`Page::next`] of the page before; none for the first page.
    pub after: Option<String>,
    /// The most entries on the page.
    pub limit: usize,
    /// The direction.
    pub order: Order,
}

impl Paging {
    /// A page in ascending order.
    pub fn ascending(after: Option<String>, limit: usize) -> Self {
        Self { after, limit, order: Order::Ascending }
    }
}

/// Which things a list shows; an empty filter shows all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ThingFilter {
    /// Only things of this type.
    pub thing_type: Option<String>,
    /// Only things that have this attribute.
    pub attribute_name: Option<String>,
    /// Only things that have an attribute (the one named, or any) with this value.
    pub attribute_value: Option<String>,
    /// The value is only the start of what the attribute has.
    pub value_is_prefix: bool,
}

impl ThingFilter {
    fn matches(&self, thing: &Thing) -> bool {
        if self.thing_type.is_some()
            && self.thing_type.as_deref() != thing.thing_type.as_ref().map(ThingTypeName::as_str)
        {
            return false;
        }
        let value_matches = |value: &str| match &self.attribute_value {
            None => true,
            Some(wanted) if self.value_is_prefix => value.starts_with(wanted.as_str()),
            Some(wanted) => value == wanted,
        };
        match &self.attribute_name {
            Some(name) => thing.attributes.get(name).is_some_and(|value| value_matches(value)),
            None if self.attribute_value.is_some() => {
                thing.attributes.values().any(|value| value_matches(value))
            }
            None => true,
        }
    }
}

impl Registry {
    /// A thing by its name.
    pub fn thing(&self, name: &str) -> Option<&Thing> {
        self.things.get(name)
    }

    /// A thing type by its name.
    pub fn thing_type(&self, name: &str) -> Option<&ThingType> {
        self.thing_types.get(name)
    }

    /// A certificate by its id.
    pub fn certificate(&self, id: &str) -> Option<&Certificate> {
        self.certificates.get(id)
    }

    /// A policy by its name.
    pub fn policy(&self, name: &str) -> Option<&Policy> {
        self.policies.get(name)
    }

    /// Whether a principal is known: an identity from outside always is.
    pub fn knows(&self, principal: &Principal) -> bool {
        match principal {
            Principal::Certificate(id) => self.certificates.contains_key(id),
            Principal::ThingGroup(group) => self.thing_groups.contains_key(group),
            Principal::Cognito(_) => true,
        }
    }

    /// Things in the order of their names.
    pub fn things(&self, filter: &ThingFilter, paging: &Paging) -> Page<&Thing> {
        let wanted = |thing: &&Thing| filter.matches(thing);
        let name = |thing: &&Thing| thing.name.to_string();
        let start = after(paging);
        match &filter.thing_type {
            Some(thing_type) => {
                let names = self.indexes.things_of_type.get(thing_type.as_str());
                let names = names.map(|names| names.range::<str, _>((start, Bound::Unbounded)));
                let things = names.into_iter().flatten().filter_map(|name| self.things.get(name));
                page(things, paging.limit, wanted, name)
            }
            None => {
                let things = self.things.range::<str, _>((start, Bound::Unbounded));
                page(things.map(|(_, thing)| thing), paging.limit, wanted, name)
            }
        }
    }

    /// Thing types in the order of their names, or the one that is asked for.
    pub fn thing_types(&self, only: Option<&str>, paging: &Paging) -> Page<&ThingType> {
        if let Some(name) = only {
            return Page { items: self.thing_type(name).into_iter().collect(), next: None };
        }
        let types = self.thing_types.range::<str, _>((after(paging), Bound::Unbounded));
        page(types.map(|(_, found)| found), paging.limit, |_| true, |found| found.name.to_string())
    }

    /// Certificates by age.
    pub fn certificates(&self, paging: &Paging) -> Page<&Certificate> {
        let index = &self.indexes.certificates_by_age;
        let found = |(_, id): &(Timestamp, CertificateId)| self.certificates.get(id);
        by_age(index, paging, CertificateId::new, found, |certificate| {
            aged_key(certificate.created, certificate.id.as_str())
        })
    }

    /// The certificates that were registered under an authority, by age.
    pub fn certificates_of_authority(&self, id: &str, paging: &Paging) -> Page<&Certificate> {
        let Some(index) = self.indexes.certificates_of_authority.get(id) else {
            return Page { items: Vec::new(), next: None };
        };
        let found = |(_, id): &(Timestamp, CertificateId)| self.certificates.get(id);
        by_age(index, paging, CertificateId::new, found, |certificate| {
            aged_key(certificate.created, certificate.id.as_str())
        })
    }

    /// Authorities by age, or those that use the template of a name.
    pub fn authorities(&self, template: Option<&str>, paging: &Paging) -> Page<&Authority> {
        let index = &self.indexes.authorities_by_age;
        let uses = |authority: &&Authority| {
            template.is_none() || authority.registration.template_name.as_deref() == template
        };
        let found = |(_, id): &(Timestamp, CertificateId)| self.authorities.get(id).filter(uses);
        by_age(index, paging, CertificateId::new, found, |authority| {
            aged_key(authority.created, authority.id.as_str())
        })
    }

    /// Authorizers by age, or those with a status.
    pub fn authorizers(
        &self,
        status: Option<AuthorizerStatus>,
        paging: &Paging,
    ) -> Page<&Authorizer> {
        let index = &self.indexes.authorizers_by_age;
        let wanted = |it: &&Authorizer| status.is_none_or(|status| it.status == status);
        let found =
            |(_, name): &(Timestamp, AuthorizerName)| self.authorizers.get(name).filter(wanted);
        by_age(index, paging, AuthorizerName::new, found, |authorizer| {
            aged_key(authorizer.created, authorizer.name.as_str())
        })
    }

    /// Role aliases by age.
    pub fn role_aliases(&self, paging: &Paging) -> Page<&RoleAlias> {
        let index = &self.indexes.role_aliases_by_age;
        let found = |(_, name): &(Timestamp, RoleAliasName)| self.role_aliases.get(name);
        by_age(index, paging, RoleAliasName::new, found, |alias| {
            aged_key(alias.created, alias.name.as_str())
        })
    }

    /// Tasks that register in bulk by age, or those that stand so.
    pub fn registration_tasks(
        &self,
        status: Option<RegistrationStatus>,
        paging: &Paging,
    ) -> Page<&RegistrationTask> {
        let index = &self.indexes.registration_tasks_by_age;
        let stands = |task: &&RegistrationTask| status.is_none_or(|status| task.status == status);
        let found = |(_, id): &(Timestamp, RegistrationTaskId)| {
            self.registration_tasks.get(id).filter(stands)
        };
        by_age(index, paging, RegistrationTaskId::new, found, |task| {
            aged_key(task.created, task.id.as_str())
        })
    }

    /// Policies by age.
    pub fn policies(&self, paging: &Paging) -> Page<&Policy> {
        let index = &self.indexes.policies_by_age;
        let found = |(_, name): &(Timestamp, PolicyName)| self.policies.get(name);
        by_age(index, paging, PolicyName::new, found, |policy| {
            aged_key(policy.created, policy.name.as_str())
        })
    }

    /// The policies of a principal in the order of their names; there are at most
    /// [`POLICIES_PER_PRINCIPAL`](super::POLICIES_PER_PRINCIPAL).
    pub fn policies_of(&self, principal: &Principal) -> Vec<&Policy> {
        let names = self.policies_of.get(principal).into_iter().flatten();
        names.filter_map(|name| self.policies.get(name)).collect()
    }

    /// Who has the policy, in the order of their ids.
    pub fn targets_of(&self, policy: &str, paging: &Paging) -> Page<&Principal> {
        let Some(targets) = self.indexes.targets_of.get(policy) else {
            return Page { items: Vec::new(), next: None };
        };
        let after = paging.after.as_deref().and_then(Principal::from_key);
        in_order(targets.range(beyond(after, paging.order)), paging, |_| true, |p| p.key())
    }

    /// The things of a principal in the order of their names.
    pub fn things_of(
        &self,
        principal: &Principal,
        only: Option<ThingPrincipalType>,
        paging: &Paging,
    ) -> Page<(&ThingName, ThingPrincipalType)> {
        let Some(things) = self.things_of.get(principal) else {
            return Page { items: Vec::new(), next: None };
        };
        let things = things.range::<str, _>((after(paging), Bound::Unbounded));
        let things = things.map(|(thing, kind)| (thing, *kind));
        let wanted = |(_, kind): &(_, _)| only.is_none_or(|only| *kind == only);
        page(things, paging.limit, wanted, |(thing, _)| thing.to_string())
    }

    /// The principals of a thing in the order of their ids.
    pub fn principals_of(
        &self,
        thing: &str,
        only: Option<ThingPrincipalType>,
        paging: &Paging,
    ) -> Page<(&Principal, ThingPrincipalType)> {
        let Some(principals) = self.indexes.principals_of.get(thing) else {
            return Page { items: Vec::new(), next: None };
        };
        let after = paging.after.as_deref().and_then(Principal::from_key);
        let principals = principals.range(beyond(after, Order::Ascending));
        let principals = principals.map(|(principal, kind)| (principal, *kind));
        let wanted = |(_, kind): &(_, _)| only.is_none_or(|only| *kind == only);
        page(principals, paging.limit, wanted, |(principal, _)| principal.key())
    }
}

/// The lower end of a list of names.
pub(super) fn after(paging: &Paging) -> Bound<&str> {
    paging.after.as_deref().map_or(Bound::Unbounded, Bound::Excluded)
}

/// What is left of an ordered list behind a place in it.
fn beyond<K>(place: Option<K>, order: Order) -> (Bound<K>, Bound<K>) {
    match (place, order) {
        (None, _) => (Bound::Unbounded, Bound::Unbounded),
        (Some(place), Order::Ascending) => (Bound::Excluded(place), Bound::Unbounded),
        (Some(place), Order::Descending) => (Bound::Unbounded, Bound::Excluded(place)),
    }
}

/// Cuts a page out of a list.
pub(super) fn page<T>(
    mut items: impl Iterator<Item = T>,
    limit: usize,
    wanted: impl Fn(&T) -> bool,
    key: impl Fn(&T) -> String,
) -> Page<T> {
    let mut page = Page { items: Vec::new(), next: None };
    let mut last = None;
    for _ in 0..LOOKED_AT {
        let Some(item) = items.next() else {
            return page;
        };
        if page.items.len() == limit {
            page.next = last;
            return page;
        }
        last = Some(key(&item));
        if wanted(&item) {
            page.items.push(item);
        }
    }
    page.next = last.filter(|_| items.next().is_some());
    page
}

/// As [`page`], in either direction.
fn in_order<T>(
    items: impl DoubleEndedIterator<Item = T>,
    paging: &Paging,
    wanted: impl Fn(&T) -> bool,
    key: impl Fn(&T) -> String,
) -> Page<T> {
    match paging.order {
        Order::Ascending => page(items, paging.limit, wanted, key),
        Order::Descending => page(items.rev(), paging.limit, wanted, key),
    }
}

/// A page of what an index by age refers to.
fn by_age<'a, K: Ord, T>(
    index: &'a BTreeSet<(Timestamp, K)>,
    paging: &Paging,
    parse: impl Fn(&str) -> Result<K, NameError>,
    found: impl Fn(&'a (Timestamp, K)) -> Option<&'a T>,
    key: impl Fn(&T) -> String,
) -> Page<&'a T> {
    let place = paging.after.as_deref().and_then(|after| {
        let (at, name) = after.split_once(' ')?;
        Some((Timestamp(at.parse().ok()?), parse(name).ok()?))
    });
    let entries = index.range(beyond(place, paging.order)).filter_map(found);
    in_order(entries, paging, |_| true, |item| key(item))
}

fn aged_key(created: Timestamp, name: &str) -> String {
    format!("{} {name}", created.0)
}
