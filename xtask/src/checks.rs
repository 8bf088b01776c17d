//! What a change must satisfy besides its tests: format, lints, documentation, dependencies.

use anyhow::Result;

use crate::{
    audit, shell, suites,
    tally::{Count, Tally},
};

/// Every check; each runs even when an earlier one failed.
pub(crate) fn all(tally: &mut Tally) {
    check(tally, "format", || shell::run(shell::cargo(&["fmt", "--all", "--check"])));
    audit(tally);
    check(tally, "lints", || {
        let mut clippy = shell::cargo(&["clippy", "--workspace", "--all-targets", "--quiet"]);
        clippy.args(["--profile", &suites::profile(), "--", "-D", "warnings"]);
        shell::run(clippy)
    });
    check(tally, "documentation", || {
        let mut doc = shell::cargo(&["doc", "--workspace", "--no-deps", "--quiet"]);
        doc.args(["--profile", &suites::profile()]).env("RUSTDOCFLAGS", "-D warnings");
        shell::run(doc)
    });
}

/// Licences, sources and bans of everything that is linked.
pub(crate) fn audit(tally: &mut Tally) {
    check(tally, "dependency audit", audit::run);
}

fn check(tally: &mut Tally, name: &str, run: impl FnOnce() -> Result<()>) {
    tally.suite(name, |count| {
        run()?;
        *count = Count::ONE;
        Ok(())
    });
}
