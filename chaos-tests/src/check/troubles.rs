//! When something was done to the cluster.

use crate::record::{At, Event, What};

/// Times in which nodes may have known less than others.
#[derive(Default)]
pub(super) struct Troubles {
    /// Something was done to the cluster.
    pub(super) times: Vec<(At, At)>,
    /// A process stood still.
    pub(super) stops: Vec<(At, At)>,
}

impl Troubles {
    pub(super) fn of(history: &[Event]) -> Self {
        let mut all = Self::default();
        for Event { at, what } in history {
            match what {
                What::Troubled { since } => all.times.push((*since, *at)),
                What::Stopped { since, .. } => all.stops.push((*since, *at)),
                _ => {}
            }
        }
        all
    }
}

/// Those that were not over at the first of these times, and had begun before the last.
pub(super) fn between(times: &[(At, At)], from: At, to: At) -> impl Iterator<Item = &(At, At)> {
    times.iter().filter(move |(since, until)| *since < to && *until > from)
}
