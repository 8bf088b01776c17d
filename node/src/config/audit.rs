//! Where changes are recorded.

use std::path::PathBuf;

use serde::Deserialize;

use super::Findings;

/// The audit log: who has changed what.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Audit {
    /// The file that records are appended to; none are kept when absent. The node alone renames it.
    pub file: Option<PathBuf>,
    /// Bytes after which another file is begun.
    pub max_bytes: u64,
    /// Full files that are kept beside it; 0 keeps all.
    pub keep: u32,
    /// What happens to changes that cannot be recorded.
    pub on_failure: OnFailure,
}

/// What happens to changes while their records cannot be stored.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    /// They are refused; no change is answered before its record is on disk.
    #[default]
    Refuse,
    /// They are done, and records that are lost are counted.
    Count,
}

impl Default for Audit {
    fn default() -> Self {
        Self { file: None, max_bytes: 64 << 20, keep: 16, on_failure: OnFailure::Refuse }
    }
}

impl Audit {
    pub(super) fn check(&self, found: &mut Findings) {
        const LEAST: u64 = 1 << 16;
        if self.max_bytes < LEAST {
            let text = format!(
                "{} bytes have no room for records; it is at least {LEAST}",
                self.max_bytes
            );
            found.problem("audit.max_bytes", text);
        }
        if self.file.as_ref().is_some_and(|file| file.file_name().is_none()) {
            found.problem("audit.file", "it does not name a file");
        }
    }
}
