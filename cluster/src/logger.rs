//! What the Raft library has to say, on its way to `tracing`.

use slog::{Drain, Level, Logger, Never, OwnedKVList, Record, o};

struct Tracing;

impl Drain for Tracing {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, _values: &OwnedKVList) -> Result<(), Never> {
        let text = record.msg();
        match record.level() {
            Level::Critical | Level::Error => tracing::error!(%text, "raft"),
            Level::Warning => tracing::warn!(%text, "raft"),
            // What Raft calls news is of no use to an operator.
            Level::Info | Level::Debug => tracing::debug!(%text, "raft"),
            Level::Trace => tracing::trace!(%text, "raft"),
        }
        Ok(())
    }
}

/// The logger given to every group.
pub(crate) fn logger() -> Logger {
    Logger::root(Tracing, o!())
}
