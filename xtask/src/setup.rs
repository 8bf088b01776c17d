//! Installs what the tests need and nothing else: Debian packages, a Python environment, JavaScript clients.
//!
//! Every step looks first and does nothing when all is there, so a second run costs nothing.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, bail};

use crate::shell;

/// A program that the tests call, and the Debian package that brings it.
const PROGRAMS: &[(&str, &str)] = &[
    ("cc", "gcc libc6-dev"),
    ("mosquitto_pub", "mosquitto-clients"),
    ("mosquitto", "mosquitto"),
    ("openssl", "openssl"),
    ("curl", "curl"),
    ("python3", "python3"),
    ("node", "nodejs"),
    ("npm", "npm"),
    ("ip", "iproute2"),
    ("faketime", "faketime"),
    ("softhsm2-util", "softhsm2"),
    ("valgrind", "valgrind"),
];

/// Where the real clients and their tests live.
pub(crate) const CLIENTS: &str = "tests/clients";
/// The Python that runs them.
pub(crate) const PYTHON: &str = ".venv/bin/python";

/// Everything, in order.
pub(crate) fn run() -> Result<()> {
    shell::heading("set-up");
    packages()?;
    python()?;
    node()
}

fn packages() -> Result<()> {
    let mut missing: Vec<&str> = PROGRAMS
        .iter()
        .filter(|(program, _)| !installed(program))
        .flat_map(|(_, package)| package.split(' '))
        .collect();
    // Debian splits ensurepip from Python: `python3 -m venv` is there and fails.
    if shell::output(&["python3", "-c", "import ensurepip"]).is_err() {
        missing.push("python3-venv");
    }
    if missing.is_empty() {
        println!("    Debian packages: all there");
        return Ok(());
    }
    let list = missing.join(" ");
    let by_hand = format!("install by hand: apt-get install --no-install-recommends {list}");
    if !shell::has("apt-get") {
        bail!("missing: {list}; there is no apt-get here to install them: {by_hand}");
    }
    if shell::output(&["id", "-u"])?.trim() != "0" {
        bail!("missing: {list}; only root may install them: sudo {}", &by_hand[17..]);
    }
    println!("    Debian packages to install: {list}");
    let environment = |mut command: Command| {
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    shell::run(environment(shell::command(&["apt-get", "-qq", "update"])))?;
    let words = ["apt-get", "-qq", "install", "-y", "--no-install-recommends"];
    let mut words = words.to_vec();
    words.extend(&missing);
    shell::run(environment(shell::command(&words))).context(by_hand)
}

/// Debian keeps daemons outside an ordinary user's path.
fn installed(program: &str) -> bool {
    shell::has(program) || Path::new("/usr/sbin").join(program).is_file()
}

fn python() -> Result<()> {
    let requirements = format!("{CLIENTS}/requirements.txt");
    // The stamp holds what was installed; it is written last, so a broken-off install is repeated.
    let stamp = Path::new(".venv/installed.txt");
    let wanted = fs::read_to_string(&requirements)?;
    if fs::read_to_string(stamp).is_ok_and(|had| had == wanted) {
        println!("    Python environment: .venv is up to date");
        return Ok(());
    }
    shell::run(shell::command(&["python3", "-m", "venv", ".venv"]))?;
    let words = [PYTHON, "-m", "pip", "install", "--disable-pip-version-check", "--quiet"];
    let mut words = words.to_vec();
    words.extend(["--requirement", &requirements]);
    shell::run(shell::command(&words)).context("cannot install the Python packages from PyPI")?;
    fs::write(stamp, wanted)?;
    Ok(())
}

fn node() -> Result<()> {
    let lock = fs::read_to_string(format!("{CLIENTS}/package-lock.json"))?;
    let stamp = format!("{CLIENTS}/node_modules/installed.json");
    if fs::read_to_string(&stamp).is_ok_and(|had| had == lock) {
        println!("    JavaScript clients: {CLIENTS}/node_modules is up to date");
        return Ok(());
    }
    // The packages work without their install scripts; no code of theirs runs here but in the tests.
    let words = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];
    let mut command = shell::command(&words);
    command.current_dir(CLIENTS);
    shell::run(command).context("cannot install the JavaScript clients from the npm registry")?;
    fs::write(stamp, lock)?;
    Ok(())
}
