//! Runs other programs: shows what is run, lets its output through, and reads along where asked.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, bail};

/// A heading for what comes next, so that a long log can be skimmed.
pub(crate) fn heading(text: &str) {
    println!("\n==> {text}");
}

/// A command as a person would type it.
pub(crate) fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// A command from its words.
pub(crate) fn command(words: &[&str]) -> Command {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).stdin(Stdio::null());
    command
}

/// Cargo, the one that runs this program.
pub(crate) fn cargo(words: &[&str]) -> Command {
    let mut command = command(&["cargo"]);
    if let Some(cargo) = std::env::var_os("CARGO") {
        command = Command::new(cargo);
        command.stdin(Stdio::null());
    }
    command.args(words);
    command
}

/// Runs to the end; anything but success is an error that names the command.
pub(crate) fn run(mut command: Command) -> Result<()> {
    let words = shown(&command);
    println!("    {words}");
    let started = Instant::now();
    let status = command.status().with_context(|| format!("cannot start `{words}`"))?;
    if !status.success() {
        bail!("`{words}` ended with {status}");
    }
    println!("    done in {:.0?}", started.elapsed());
    Ok(())
}

/// Runs to the end and gives every line of the standard output to `line` besides showing it.
pub(crate) fn read_along(mut command: Command, mut line: impl FnMut(&str)) -> Result<()> {
    let words = shown(&command);
    println!("    {words}");
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{words}`"))?;
    let output = child.stdout.take().context("the output is piped")?;
    for text in BufReader::new(output).split(b'\n') {
        let text = text?;
        let text = String::from_utf8_lossy(&text);
        println!("{text}");
        line(&text);
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("`{words}` ended with {status}");
    }
    Ok(())
}

/// What a command prints, when it succeeds.
pub(crate) fn output(words: &[&str]) -> Result<String> {
    let mut command = command(words);
    let output = command.output().with_context(|| format!("cannot start `{}`", words[0]))?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` ended with {}: {}", shown(&command), output.status, error.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether a program is there to be run.
pub(crate) fn has(program: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).any(|path| path.join(program).is_file())
}
