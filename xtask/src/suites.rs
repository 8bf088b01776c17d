//! The test suites. Each runs to its end and is counted, so one failure hides no other.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::{setup, shell, tally::Tally};

/// The cargo profile that everything is checked, built and tested with: one, so that nothing is
/// compiled twice.
pub(crate) fn profile() -> String {
    env::var("SKEIN_PROFILE").unwrap_or_else(|_| "ci".to_owned())
}

/// Every test there is.
pub(crate) fn all(tally: &mut Tally) {
    let binary = build(tally);
    rust(tally, binary.as_deref());
    if let Some(binary) = &binary {
        clients(tally, binary, &[]);
        load(tally, binary);
    }
    instructions(tally);
}

/// Unit and integration tests, fuzz corpora, documentation examples, each bench once.
///
/// Tests of real processes find the binary in `SKEIN_BIN`.
pub(crate) fn rust(tally: &mut Tally, binary: Option<&Path>) {
    const SUITES: &[(&str, &[&str])] = &[
        ("rust tests", &["test", "--workspace", "--lib", "--bins", "--tests", "--no-fail-fast"]),
        ("documentation examples", &["test", "--workspace", "--doc", "--no-fail-fast"]),
        // The whole workspace again, so that nothing is compiled anew with other features.
        ("benches, each once", &["test", "--workspace", "--bench", "*", "--no-fail-fast"]),
    ];
    for (name, words) in SUITES {
        tally.suite(name, |count| {
            let mut cargo = shell::cargo(words);
            cargo.args(["--profile", &profile()]);
            if let Some(binary) = binary {
                cargo.env("SKEIN_BIN", binary);
            }
            shell::read_along(cargo, |line| count.read(line))
        });
    }
}

/// The clients that people use, against a freshly started `skein dev`.
pub(crate) fn clients(tally: &mut Tally, binary: &Path, words: &[String]) {
    tally.suite("real clients and the example", |count| {
        let mut pytest = shell::command(&[setup::PYTHON, "-m", "pytest", setup::CLIENTS]);
        // Tests mostly wait; two processes, each with a broker of its own, halve that.
        pytest.args(["-n", "2", "--dist", "loadfile"]);
        pytest.args(words).env("SKEIN_BIN", binary).env("PYTHONDONTWRITEBYTECODE", "1");
        shell::read_along(pytest, |line| count.read(line))?;
        if count.passed == 0 {
            bail!("no test ran");
        }
        Ok(())
    });
}

/// The tests of a mock of AWS, which are not ours, against nodes of their own.
pub(crate) fn moto(tally: &mut Tally, binary: &Path, tests: &Path) {
    tally.suite("the IoT tests of moto", |count| {
        let mut pytest = shell::command(&[setup::PYTHON, "-m", "pytest", "-p", "moto_suite"]);
        // Theirs are the options and the folder that they import from; ours is the plugin alone.
        pytest.args(["-c", "/dev/null", "-p", "no:cacheprovider", "--tb=short", "--rootdir"]);
        pytest.arg(tests).args(["test_iot", "test_iotdata"].map(|folder| tests.join(folder)));
        pytest.env("SKEIN_BIN", binary).env("PYTHONPATH", setup::CLIENTS);
        pytest.env("PYTHONDONTWRITEBYTECODE", "1");
        shell::read_along(pytest, |line| count.read(line))?;
        if count.passed == 0 {
            bail!("no test ran");
        }
        Ok(())
    });
}

/// The load generator's scenarios, about a second each: nothing may be lost, doubled or reordered.
fn load(tally: &mut Tally, binary: &Path) {
    let generator = binary.with_file_name("skein-load");
    tally.suite("load, briefly", |count| {
        if !generator.is_file() {
            bail!("{} is not there: `cargo build -p benches` builds it", generator.display());
        }
        let skein = binary.display();
        let (broker, program) = (format!("--broker=skein={skein}"), format!("--program={skein}"));
        for words in [["compare", "--quick", &broker], ["cluster", "--quick", &program]] {
            // What each round did goes to the other stream.
            let mut load = shell::command(&["sh", "-c", "exec \"$0\" \"$@\" 2>&1"]);
            load.arg(&generator).args(words);
            shell::read_along(load, |line| {
                if line.starts_with("round ") {
                    count.passed += 1;
                } else if line.starts_with("  FAILED") {
                    count.passed -= 1;
                    count.failed += 1;
                }
            })?;
        }
        Ok(())
    });
}

/// What paths cost in instructions, against the figures in `benches/guard`: of a release build, for that is
/// what is run.
pub(crate) fn instructions(tally: &mut Tally) {
    tally.suite("instructions", |count| {
        let guard = shell::cargo(&["run", "--release", "--package", "guard"]);
        shell::read_along(guard, |line| count.read(line))
    });
}

/// Builds the binary that the real clients talk to, and the load generator beside it.
pub(crate) fn build(tally: &mut Tally) -> Option<PathBuf> {
    if let Some(binary) = env::var_os("SKEIN_BIN") {
        return Some(PathBuf::from(binary));
    }
    let profile = profile();
    let mut binary = None;
    tally.suite(&format!("build skein ({profile})"), |count| {
        let words = ["build", "--package", "node", "--package", "benches", "--bins", "--profile"];
        let mut words = words.to_vec();
        words.push(&profile);
        shell::run(shell::cargo(&words))?;
        let folder = if profile == "dev" { "debug" } else { profile.as_str() };
        let path = target_directory()?.join(folder).join("skein");
        if !path.is_file() {
            bail!("cargo built no {}", path.display());
        }
        binary = Some(path);
        count.passed = 1;
        Ok(())
    });
    binary
}

fn target_directory() -> Result<PathBuf> {
    let metadata = shell::output(&["cargo", "metadata", "--no-deps", "--format-version", "1"])?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata)?;
    let path = metadata["target_directory"].as_str().context("metadata names the target")?;
    Ok(PathBuf::from(path))
}
