//! What readers see of thing groups and billing groups.

use std::collections::BTreeSet;
use std::ops::Bound;

use super::Registry;
use super::model::{BillingGroup, ThingGroup};
use super::names::{ThingGroupName, ThingName};
use super::view::{Page, Paging, after, page};

/// Which thing groups a list shows; an empty filter shows all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ThingGroupFilter {
    /// Only the groups directly below this one.
    pub parent: Option<ThingGroupName>,
    /// With a parent: also all that are further below.
    pub is_recursive: bool,
    /// Only groups whose names begin so.
    pub prefix: String,
}

impl Registry {
    /// A thing group by its name.
    pub fn thing_group(&self, name: &str) -> Option<&ThingGroup> {
        self.thing_groups.get(name)
    }

    /// A billing group by its name.
    pub fn billing_group(&self, name: &str) -> Option<&BillingGroup> {
        self.billing_groups.get(name)
    }

    /// Thing groups in the order of their names.
    pub fn thing_groups(&self, filter: &ThingGroupFilter, paging: &Paging) -> Page<&ThingGroup> {
        let start = from(&filter.prefix, paging);
        let of_prefix = |name: &ThingGroupName| name.as_str().starts_with(&filter.prefix);
        let key = |group: &&ThingGroup| group.name.to_string();
        match &filter.parent {
            None => {
                let groups = self.thing_groups.range::<str, _>((start, Bound::Unbounded));
                let groups = groups.map(|(_, group)| group);
                let groups = groups.take_while(|group| of_prefix(&group.name));
                page(groups, paging.limit, |_| true, key)
            }
            Some(parent) => {
                // In the order of names, whatever the levels; there are at most so many levels.
                let below: BTreeSet<_> = match filter.is_recursive {
                    true => self.thing_group_tree(parent).skip(1).collect(),
                    false => self.indexes.children_of.get(parent).into_iter().flatten().collect(),
                };
                let below = below.into_iter().filter(|name| {
                    let is_after = paging.after.as_deref().is_none_or(|it| name.as_str() > it);
                    is_after && of_prefix(name)
                });
                let groups = below.filter_map(|name| self.thing_groups.get(name));
                page(groups, paging.limit, |_| true, key)
            }
        }
    }

    /// The groups that a thing is in itself, in the order of their names.
    pub fn groups_of(&self, thing: &str, paging: &Paging) -> Page<&ThingGroupName> {
        let groups = self.groups_of.get(thing).into_iter();
        let range = (after(paging), Bound::Unbounded);
        let groups = groups.flat_map(|groups| groups.range::<str, _>(range));
        page(groups.map(|(group, _)| group), paging.limit, |_| true, ToString::to_string)
    }

    /// The things of a group in the order of their names; recursively, those of the groups of its
    /// tree, in the order of the groups' names.
    pub fn things_of_group(
        &self,
        group: &ThingGroupName,
        recursive: bool,
        paging: &Paging,
    ) -> Page<&ThingName> {
        let place = paging.after.as_deref().and_then(|place| place.split_once('/'));
        let tree = self.thing_group_tree(group).take(if recursive { usize::MAX } else { 1 });
        let groups: BTreeSet<&str> = tree.map(ThingGroupName::as_str).collect();
        let start = place.map_or(Bound::Unbounded, |(group, _)| Bound::Included(group));
        let members = groups.range::<str, _>((start, Bound::Unbounded)).flat_map(|group| {
            let start = match place {
                Some((at, thing)) if at == *group => Bound::Excluded(thing),
                _ => Bound::Unbounded,
            };
            let things = self.indexes.things_of_group.get(*group).into_iter();
            things
                .flat_map(move |things| things.range::<str, _>((start, Bound::Unbounded)))
                .map(move |thing| (*group, thing))
        });
        let key = |(group, thing): &(&str, &ThingName)| format!("{group}/{thing}");
        page(members, paging.limit, |_| true, key).map(|(_, thing)| thing)
    }

    /// Billing groups in the order of their names.
    pub fn billing_groups(&self, prefix: &str, paging: &Paging) -> Page<&BillingGroup> {
        let groups = self.billing_groups.range::<str, _>((from(prefix, paging), Bound::Unbounded));
        let groups = groups.map(|(_, group)| group);
        let groups = groups.take_while(|group| group.name.as_str().starts_with(prefix));
        page(groups, paging.limit, |_| true, |group| group.name.to_string())
    }

    /// The things of a billing group in the order of their names.
    pub fn things_of_billing_group(&self, group: &str, paging: &Paging) -> Page<&ThingName> {
        let things = self.indexes.things_of_billing_group.get(group).into_iter();
        let range = (after(paging), Bound::Unbounded);
        let things = things.flat_map(|things| things.range::<str, _>(range));
        page(things, paging.limit, |_| true, ToString::to_string)
    }
}

/// Where a list of names with a prefix goes on.
fn from<'a>(prefix: &'a str, paging: &'a Paging) -> Bound<&'a str> {
    match paging.after.as_deref() {
        Some(place) if place >= prefix => Bound::Excluded(place),
        _ => Bound::Included(prefix),
    }
}
