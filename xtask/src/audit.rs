//! The dependency audit: what is linked, from where, and under which licence.
//!
//! The rules stand in `deny.toml`, in cargo-deny's own format, and `cargo metadata` says what is
//! there, so the audit needs neither network nor an installed tool. Known advisories need a
//! database that is not on crates.io: they are checked when cargo-deny and the database are here.

use std::{collections::BTreeMap, fs, path::PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{licence, shell};

const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Refuses a dependency that `deny.toml` does not allow, naming each.
pub(crate) fn run() -> Result<()> {
    let rules: toml::Table = toml::from_str(&fs::read_to_string("deny.toml")?)?;
    let targets = strings(&rules, &["graph", "targets"], None);
    let mut words = vec!["cargo", "metadata", "--locked", "--format-version", "1"];
    // What is linked on other platforms is not linked here.
    words.extend(targets.iter().flat_map(|target| ["--filter-platform", target]));
    let metadata: Value = serde_json::from_str(&shell::output(&words)?)?;
    let packages = metadata["packages"].as_array().context("metadata lists packages")?;
    let faults = faults(packages, &rules)?;
    for fault in &faults {
        eprintln!("    {fault}");
    }
    if !faults.is_empty() {
        bail!("{} of {} packages break a rule of deny.toml", faults.len(), packages.len());
    }
    println!("    {} packages: licences, sources and bans are in order", packages.len());
    advisories()
}

fn faults(packages: &[Value], rules: &toml::Table) -> Result<Vec<String>> {
    let allowed = strings(rules, &["licenses", "allow"], None);
    let exceptions = exceptions(rules);
    let banned = strings(rules, &["bans", "deny"], Some("crate"));
    let mut faults = Vec::new();
    for package in packages {
        let name = package["name"].as_str().context("a package has a name")?;
        let version = package["version"].as_str().context("a package has a version")?;
        let label = format!("{name} {version}");
        match package["source"].as_str() {
            Some(CRATES_IO) => {}
            // A member of this workspace.
            None => {}
            Some(other) => faults.push(format!("{label}: comes from {other}, not crates.io")),
        }
        if banned.iter().any(|banned| banned == name) {
            faults.push(format!("{label}: is banned"));
        }
        let Some(expression) = package["license"].as_str() else {
            faults.push(format!("{label}: names no licence"));
            continue;
        };
        let own = exceptions.get(name).map(Vec::as_slice).unwrap_or_default();
        let is_allowed = |name: &str| allowed.iter().chain(own).any(|allowed| allowed == name);
        match licence::satisfied(expression, &is_allowed) {
            Ok(true) => {}
            Ok(false) => faults.push(format!("{label}: the licence {expression} is not allowed")),
            Err(error) => faults.push(format!("{label}: {error}")),
        }
    }
    Ok(faults)
}

/// An array of strings in the rules, or of tables whose `key` is the string.
fn strings(rules: &toml::Table, path: &[&str; 2], key: Option<&str>) -> Vec<String> {
    let list = rules.get(path[0]).and_then(|table| table.get(path[1]));
    let list = list.and_then(toml::Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let text = |value: &toml::Value| {
        let value = key.and_then(|key| value.get(key)).unwrap_or(value);
        value.as_str().map(str::to_owned)
    };
    list.iter().filter_map(text).collect()
}

fn exceptions(rules: &toml::Table) -> BTreeMap<String, Vec<String>> {
    let list = rules.get("licenses").and_then(|table| table.get("exceptions"));
    let list = list.and_then(toml::Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let read = |value: &toml::Value| {
        let allow = value.get("allow")?.as_array()?;
        let allow = allow.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect();
        Some((value.get("crate")?.as_str()?.to_owned(), allow))
    };
    list.iter().filter_map(read).collect()
}

fn advisories() -> Result<()> {
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let database = home.is_some_and(|home| home.join("advisory-dbs").is_dir());
    if !database || !shell::has("cargo-deny") {
        println!("    advisories: not checked, no cargo-deny with its database on this machine");
        return Ok(());
    }
    shell::run(shell::cargo(&["deny", "--offline", "check", "advisories"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, source: Option<&str>, licence: Option<&str>) -> Value {
        serde_json::json!({ "name": name, "version": "1.0.0", "source": source, "license": licence })
    }

    #[test]
    fn names_every_fault() {
        let rules = r#"
            [licenses]
            allow = ["MIT"]
            exceptions = [{ crate = "special", allow = ["Zlib"] }]
            [bans]
            deny = [{ crate = "openssl" }]
        "#;
        let rules = toml::from_str(rules).unwrap();
        let table = [
            (package("good", Some(CRATES_IO), Some("MIT OR GPL-3.0")), None),
            (package("own", None, Some("MIT")), None),
            (package("special", Some(CRATES_IO), Some("Zlib")), None),
            (package("other", Some(CRATES_IO), Some("Zlib")), Some("Zlib is not allowed")),
            (package("bare", Some(CRATES_IO), None), Some("names no licence")),
            (package("openssl", Some(CRATES_IO), Some("MIT")), Some("is banned")),
            (package("fork", Some("git+https://example.com"), Some("MIT")), Some("not crates.io")),
        ];
        for (package, expected) in table {
            let faults = faults(&[package], &rules).unwrap();
            match expected {
                None => assert!(faults.is_empty(), "{faults:?}"),
                Some(part) => assert!(faults.len() == 1 && faults[0].contains(part), "{faults:?}"),
            }
        }
    }
}
