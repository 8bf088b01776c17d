//! What was wrong with a run.

use crate::tally::Faults;

/// What was wrong at the end.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Lost, duplicated and reordered publications.
    pub faults: Faults,
    /// Everything else, in words.
    pub failures: Vec<String>,
}

/// What no broker should do, however fast.
#[derive(Debug, Default)]
pub(super) struct Irregularities {
    pub(super) closed: u64,
    pub(super) foreign: u64,
    pub(super) wrong_qos: u64,
    pub(super) wrong_length: u64,
    pub(super) refused: u64,
    pub(super) acknowledged_out_of_order: u64,
    pub(super) unacknowledged: u64,
}

impl Irregularities {
    /// Those that occurred, in words.
    pub(super) fn failures(&self) -> Vec<String> {
        let all = [
            (self.closed, "connections closed by the broker"),
            (self.foreign, "publications at the wrong subscriber"),
            (self.wrong_qos, "publications with the wrong QoS"),
            (self.wrong_length, "publications with the wrong payload length"),
            (self.refused, "publications refused"),
            (self.acknowledged_out_of_order, "acknowledgements out of order"),
            (self.unacknowledged, "publications never acknowledged"),
        ];
        let occurred = all.iter().filter(|(count, _)| *count > 0);
        occurred.map(|(count, what)| format!("{count} {what}")).collect()
    }
}
