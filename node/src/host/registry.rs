//! What the leader of the registry does for it: its events are published, and certificates go whose time
//! is over.

use std::rc::Rc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use cluster::{GroupId, GroupsView};
use fleet::registry::{Command, ProvisioningCommand, Timestamp};

use super::{Machine, NodeHost};
use crate::core::{Core, ToCore};
use crate::{metrics, registry_events};

/// Events of the registry that are published at a time.
const EVENTS_AT_ONCE: usize = 100;

impl NodeHost {
    /// Has the events published that wait in the registry, if that is this node's business.
    pub(super) fn announce(&mut self, groups: &mut GroupsView<'_, Machine>) {
        let meta = GroupId::META;
        let Some(registry) = groups.get(meta).and_then(Machine::registry) else { return };
        metrics::set_lost_events(registry.lost_events());
        if !registry.has_events() || !groups.leads(meta) {
            return;
        }
        if !self.shared.announcing.swap(true, Ordering::AcqRel) {
            let registry = groups.get(meta).and_then(Machine::registry);
            let events = registry.map(|it| it.waiting_events(EVENTS_AT_ONCE)).unwrap_or_default();
            let run = Box::new(|core: &Rc<Core>| registry_events::publish(core, events));
            self.shared.send(0, ToCore::Run(run));
        }
    }

    /// Tells until when the revocation lists are good.
    pub(super) fn tell_revocation_lists(groups: &GroupsView<'_, Machine>) {
        if let Some(registry) = groups.get(GroupId::META).and_then(Machine::registry) {
            metrics::set_revocation_list_expiry(registry.next_revocation_list());
        }
    }

    /// Has things registered in bulk, or forgets what was long ago, if that is this node's business.
    pub(super) fn wake_registration(&self, groups: &mut GroupsView<'_, Machine>, now_ms: u64) {
        let meta = GroupId::META;
        let Some(registry) = groups.get(meta).and_then(Machine::registry) else { return };
        let is_due = registry.running_registration_task().is_some()
            || registry.expired_registration_task(Timestamp(now_ms)).is_some();
        if is_due && groups.leads(meta) {
            self.shared.registrations.wake();
        }
    }
}

impl NodeHost {
    /// What deletes the provisional certificates of the registry whose time is over.
    pub(super) fn sweep(
        &mut self,
        groups: &mut GroupsView<'_, Machine>,
        now_ms: u64,
    ) -> Option<(GroupId, Bytes)> {
        let meta = GroupId::META;
        let next = groups.get(meta).and_then(Machine::registry)?.next_sweep()?;
        let now = Timestamp(now_ms);
        if next > now || !groups.leads(meta) {
            return None;
        }
        if let Some(audit) = &self.shared.audit
            && self.recorded_sweep.replace(next) != Some(next)
            && let Some(registry) = groups.get(meta).and_then(Machine::registry)
        {
            audit.ledger.note_swept(registry, registry.swept_at(now), now);
        }
        let sweep = Command::Provisioning(ProvisioningCommand::Sweep { at: now });
        Some((meta, sweep.encode().into()))
    }
}
