//! The commands people and CI run: `cargo xtask setup`, `test`, `ci` and their parts.
//!
//! Each command does all the set-up it needs and says what is missing where it can't.
//! `test` and `ci` end with one line, `N passed, N failed`, that counts what really ran.

use std::{env, path::Path, process::ExitCode};

use anyhow::{Context, Result, bail};

mod audit;
mod checks;
mod licence;
mod setup;
mod shell;
mod suites;
mod tally;

const USAGE: &str = "\
usage: cargo xtask <command>

  setup     install what the tests need: Debian packages, .venv, tests/clients/node_modules
  test      every test: Rust, documentation, benches once, real clients, the example, load, guard
  rust      only the Rust tests
  clients   only the real clients; words that follow go to pytest, e.g. `clients -k shadow`
  guard     only what paths cost in instructions, against committed figures
  moto      the IoT tests of moto, from the folder that follows: its `tests`; see docs/conformance/moto.md
  check     formatting, lints, documentation, dependencies
  audit     only the dependency audit: licences, sources, bans
  ci        check, then test: exactly what CI runs

SKEIN_PROFILE names another cargo profile than `ci`: `dev` builds sooner, and runs slower.";

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    match run(&words) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[String]) -> Result<ExitCode> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the repo")?;
    env::set_current_dir(root)?;
    let (command, rest) = match words.split_first() {
        Some((command, rest)) => (command.as_str(), rest),
        None => ("help", words),
    };
    let wants_help = |word: &String| word == "-h" || word == "--help";
    if command != "clients" && rest.iter().any(wants_help) {
        println!("{USAGE}");
        return Ok(ExitCode::SUCCESS);
    }
    if !rest.is_empty() && !["clients", "moto"].contains(&command) {
        bail!("`{command}` takes no arguments, got {rest:?}\n\n{USAGE}");
    }
    let mut tally = tally::Tally::default();
    match command {
        "setup" => {
            setup::run()?;
            println!("\nready: `cargo xtask test`");
            return Ok(ExitCode::SUCCESS);
        }
        "test" => {
            setup::run()?;
            suites::all(&mut tally);
        }
        "rust" => {
            let binary = suites::build(&mut tally);
            suites::rust(&mut tally, binary.as_deref());
        }
        "clients" => {
            setup::run()?;
            if let Some(binary) = suites::build(&mut tally) {
                suites::clients(&mut tally, &binary, rest);
            }
        }
        "moto" => {
            let [tests] = rest else { bail!("`moto` takes the folder of moto's tests\n\n{USAGE}") };
            setup::run()?;
            if let Some(binary) = suites::build(&mut tally) {
                suites::moto(&mut tally, &binary, Path::new(tests));
            }
        }
        "guard" => {
            setup::run()?;
            suites::instructions(&mut tally);
        }
        "check" => checks::all(&mut tally),
        "audit" => checks::audit(&mut tally),
        "ci" => {
            checks::all(&mut tally);
            setup::run()?;
            suites::all(&mut tally);
        }
        "help" | "-h" | "--help" => {
            println!("{USAGE}");
            return Ok(ExitCode::SUCCESS);
        }
        other => bail!("no command `{other}`\n\n{USAGE}"),
    }
    Ok(tally.report())
}
