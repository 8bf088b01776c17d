//! A session without a connection lasts as long as its client has said.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Promise, Verdict};
use crate::record::{Event, What};

/// How much later a session may end: when its node dies as its client leaves, others wait for the
/// node's lease first, and elect a leader that decides.
pub(crate) const LATEST_END: Duration = Duration::from_secs(25);

pub(super) fn check(history: &[Event], verdict: &mut Verdict) {
    let mut found: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for Event { at, what } in history {
        let What::Woke { client, left, asked, kept, present } = what else { continue };
        let in_time = *at - *left < *kept;
        let too_late = *asked - *left > *kept + LATEST_END;
        if in_time && !present || too_late && *present {
            let text = format!("left at {left:?}, back at {at:?}: present is {present}");
            found.entry(client).or_default().push(text);
        }
    }
    for (client, cases) in found {
        verdict.tell(Promise::Expired, client, &cases);
    }
}
