//! Counts what ran: every test of every suite, and every check, once.

use std::{process::ExitCode, time::Instant};

use anyhow::Result;

use crate::shell;

/// What one suite did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Count {
    /// A check that has no parts.
    pub(crate) const ONE: Self = Self { passed: 1, failed: 0, skipped: 0 };

    /// Adds what a line of a test runner's output says, if it says anything.
    pub(crate) fn read(&mut self, line: &str) {
        if let Some(rest) = line.strip_prefix("test result: ") {
            self.add(before_words(rest, &["passed", "failed", "ignored"]));
        } else if line == "Success" {
            // Criterion, which runs each bench once under `cargo test`.
            self.passed += 1;
        } else if line.starts_with('=') && line.contains(" in ") {
            let [passed, failed, skipped] = before_words(line, &["passed", "failed", "skipped"]);
            let [errors, _, _] = before_words(line, &["error", "", ""]);
            let [more_errors, _, _] = before_words(line, &["errors", "", ""]);
            self.add([passed, failed + errors + more_errors, skipped]);
        }
    }

    fn add(&mut self, [passed, failed, skipped]: [u64; 3]) {
        self.passed += passed;
        self.failed += failed;
        self.skipped += skipped;
    }
}

/// The numbers that stand before the given words: `12 passed` gives 12.
fn before_words(line: &str, words: &[&str; 3]) -> [u64; 3] {
    let parts: Vec<&str> =
        line.split([' ', ',', ';', '.']).filter(|part| !part.is_empty()).collect();
    words.map(|word| {
        parts
            .windows(2)
            .filter(|pair| pair[1] == word)
            .find_map(|pair| pair[0].parse().ok())
            .unwrap_or(0)
    })
}

/// All suites so far.
#[derive(Default)]
pub(crate) struct Tally {
    suites: Vec<(String, Count, f64, Option<String>)>,
}

impl Tally {
    /// Runs one suite. One that ends in an error without naming a failed test counts as a failure.
    pub(crate) fn suite(&mut self, name: &str, run: impl FnOnce(&mut Count) -> Result<()>) -> bool {
        shell::heading(name);
        let started = Instant::now();
        let mut count = Count::default();
        let error = run(&mut count).err().map(|error| format!("{error:#}"));
        if let Some(error) = &error {
            eprintln!("    FAILED: {error}");
            count.failed = count.failed.max(1);
        }
        let well = count.failed == 0;
        self.suites.push((name.to_owned(), count, started.elapsed().as_secs_f64(), error));
        well
    }

    /// Says how it went, ending with the one line that tools read.
    pub(crate) fn report(self) -> ExitCode {
        shell::heading("summary");
        let mut total = Count::default();
        for (name, count, seconds, error) in &self.suites {
            let Count { passed, failed, skipped } = *count;
            println!(
                "{name:<44} {passed:>5} passed {failed:>3} failed {skipped:>3} skipped {seconds:>6.0} s"
            );
            if let Some(error) = error {
                println!("    {error}");
            }
            total.add([passed, failed, skipped]);
        }
        let Count { passed, failed, skipped } = total;
        println!("\n{passed} passed, {failed} failed, {skipped} skipped");
        if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_runners_say() {
        let lines = [
            (
                "test result: ok. 12 passed; 0 failed; 3 ignored; 0 measured; 0 filtered out; finished in 0.1s",
                [12, 0, 3],
            ),
            (
                "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out",
                [1, 2, 0],
            ),
            ("Success", [1, 0, 0]),
            (
                "========= 2 failed, 120 passed, 1 skipped, 3 errors in 12.01s (0:00:12) =========",
                [120, 5, 1],
            ),
            ("========= 120 passed, 1 error in 12.01s =========", [120, 1, 0]),
            ("================ FAILURES ================", [0, 0, 0]),
            ("test codec::round_trip ... ok", [0, 0, 0]),
        ];
        for (line, [passed, failed, skipped]) in lines {
            let mut count = Count::default();
            count.read(line);
            assert_eq!(count, Count { passed, failed, skipped }, "{line}");
        }
    }

    #[test]
    fn a_suite_that_breaks_off_is_a_failure() {
        let mut tally = Tally::default();
        assert!(tally.suite("good", |count| {
            count.passed = 2;
            Ok(())
        }));
        assert!(!tally.suite("bad", |_| anyhow::bail!("does not compile")));
        assert_eq!(tally.suites[1].1, Count { passed: 0, failed: 1, skipped: 0 });
    }
}
