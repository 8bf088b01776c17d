//! Counts the instructions of the paths that every message takes, and compares them with committed figures:
//! unlike times they are the same on a busy machine.
//!
//! Without an argument each case runs in Valgrind twice, once with twice as many operations as the other, so
//! that what it takes to begin and to end cancels out. `accept CASE "WHY"` commits to what a case costs now.

mod cases;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{env, fs};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use cases::CASES;

/// The operations of the shorter run.
const OPERATIONS: u64 = 2_000;
/// By how many per cent a path may cost more than its figure says. One that costs as much less is worth another
/// figure.
const TOLERATED: f64 = 5.0;

/// Copies bytes in the same way on each machine: the C library chooses by what the processor can.
const SAME_COPIES: (&str, &str) = (
    "GLIBC_TUNABLES",
    "glibc.cpu.hwcaps=-AVX2,-AVX,-AVX_Fast_Unaligned_Load,-ERMS,-FSRM,-AVX512F,-AVX512VL,-AVX512BW",
);

/// What a case costs.
#[derive(Debug, Deserialize, Serialize)]
struct Figure {
    /// Instructions of one operation.
    instructions: u64,
    /// Why it is that many, and no fewer.
    why: String,
}

fn main() -> Result<ExitCode> {
    let words: Vec<String> = env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => compare(),
        ["accept", case, why] => accept(case, why),
        ["run", case, operations] => run(case, operations.parse()?),
        _ => bail!("usage: guard [accept CASE WHY]"),
    }
}

fn figures_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("figures.toml")
}

fn figures() -> Result<BTreeMap<String, Figure>> {
    let file = figures_file();
    let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    toml::from_str(&text).with_context(|| format!("reading {}", file.display()))
}

fn compare() -> Result<ExitCode> {
    let figures = figures()?;
    if let Some(name) = figures.keys().find(|name| CASES.iter().all(|(case, _)| case != name)) {
        bail!("there is a figure of {name:?}, which is no case");
    }
    let mut failed = 0;
    println!("{:<24}{:>12}{:>12}{:>9}", "instructions of", "committed", "now", "");
    for (case, _) in CASES {
        let now = cost(case)?;
        let Some(Figure { instructions, .. }) = figures.get(*case) else {
            println!("{case:<24}{:>12}{now:>12}  new: `guard accept {case} WHY`", "none");
            failed += 1;
            continue;
        };
        let more = 100.0 * (now as f64 / *instructions as f64 - 1.0);
        let verdict = match more {
            _ if more > TOLERATED => {
                failed += 1;
                format!("  too many: make it cheaper, or `guard accept {case} WHY`")
            }
            _ if more < -TOLERATED => format!("  fewer: `guard accept {case} WHY`"),
            _ => String::new(),
        };
        println!("{case:<24}{instructions:>12}{now:>12}{more:>+8.1}%{verdict}");
    }
    let (verdict, code) = match failed {
        0 => ("ok", ExitCode::SUCCESS),
        _ => ("FAILED", ExitCode::FAILURE),
    };
    println!("test result: {verdict}. {} passed; {failed} failed", CASES.len() - failed);
    Ok(code)
}

fn accept(case: &str, why: &str) -> Result<ExitCode> {
    if why.trim().is_empty() {
        bail!("a figure needs a reason");
    }
    let mut figures = if figures_file().exists() { figures()? } else { BTreeMap::new() };
    let figure = Figure { instructions: cost(case)?, why: why.to_owned() };
    println!("{case}: {} instructions", figure.instructions);
    figures.insert(case.to_owned(), figure);
    fs::write(figures_file(), toml::to_string(&figures)?)?;
    Ok(ExitCode::SUCCESS)
}

/// Instructions of one operation.
fn cost(case: &str) -> Result<u64> {
    let [fewer, more] = [OPERATIONS, 2 * OPERATIONS].map(|operations| count(case, operations));
    Ok(more?.saturating_sub(fewer?) / OPERATIONS)
}

/// Instructions of a run.
fn count(case: &str, operations: u64) -> Result<u64> {
    let written = tempfile::NamedTempFile::new()?;
    let counted = Command::new("valgrind")
        .args(["--tool=cachegrind", "--cache-sim=no"])
        .arg(format!("--cachegrind-out-file={}", written.path().display()))
        .arg(env::current_exe()?)
        .args(["run", case, &operations.to_string()])
        .env(SAME_COPIES.0, SAME_COPIES.1)
        .output()
        .context("valgrind does not start: is it installed?")?;
    let said = String::from_utf8_lossy(&counted.stderr);
    if !counted.status.success() {
        bail!("{case}: {}; valgrind says:\n{said}", counted.status);
    }
    let line = said.lines().find_map(|line| line.split_once("I   refs:")).map(|(_, count)| count);
    let count = line.context("valgrind counts no instructions")?.trim().replace(',', "");
    count.parse().with_context(|| format!("valgrind counts {count:?} instructions"))
}

fn run(case: &str, operations: u64) -> Result<ExitCode> {
    let found = CASES.iter().find(|(name, _)| *name == case);
    let (_, prepare) = found.with_context(|| format!("there is no case {case:?}"))?;
    let mut operation = prepare();
    (0..operations).for_each(|_| operation());
    Ok(ExitCode::SUCCESS)
}
