//! Everything that is checked before a node starts: its configuration, its files, its machine.
//!
//! `skein config check` and the start do the same. Nothing is changed: the data folder is not made.

use std::fs;
use std::ops::RangeInclusive;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use storage::data::DataDir;
use time::OffsetDateTime;

use crate::backup;
use crate::clock::now_ms;
use crate::config::{Config, Findings};
use crate::kept;
use crate::run;
use crate::tls::{self, ClientCertificates, Unusable};

/// A certificate that ends sooner is worth a warning.
const SOON_SECS: i64 = 30 * 24 * 60 * 60;

/// Finds what keeps a node from starting, and what will not work when it has.
pub fn check(config: &Config) -> Findings {
    let mut found = config.check();
    check_cores(config, &mut found);
    check_data(config, &mut found);
    kept::check(config, &mut found);
    check_certificate(config, &mut found);
    check_issuer(config, &mut found);
    check_backup(config, &mut found);
    found
}

fn check_cores(config: &Config, found: &mut Findings) {
    let there = std::thread::available_parallelism().map_or(1, usize::from);
    if let Some(cores) = config.cores.map(usize::from).filter(|cores| *cores > there) {
        let text = format!("{cores} are wanted, this process may use {there}");
        found.warning("cores", text);
    }
}

fn check_data(config: &Config, found: &mut Findings) {
    match DataDir::check(&config.data) {
        Err(error) => found.problem("data", error.to_string()),
        Ok(Some(mode)) => found.warning("data", open_to_others(&config.data, mode)),
        Ok(None) => {}
    }
}

fn open_to_others(data: &Path, mode: u32) -> String {
    let data = data.display();
    format!("{data} has mode {mode:04o}: everybody on this machine gets in; chmod it to 0700")
}

fn check_certificate(config: &Config, found: &mut Findings) {
    let (Some(certificate), Some(key)) = (&config.tls.certificate, &config.tls.private_key) else {
        return;
    };
    check_key_mode("tls.private_key", key, found);
    match tls::validity(certificate) {
        Ok(validity) => {
            check_validity("tls.certificate", certificate, &validity, found);
            let used = tls::server_config(certificate, key, ClientCertificates::Required, &[]);
            if let Err(Unusable { key, why }) = used {
                found.problem(key, format!("{why:#}"));
            }
        }
        Err(error) => {
            found.problem("tls.certificate", format!("{error:#}"));
            // Whether it belongs to the certificate cannot be said.
            if let Err(error) = tls::read_key(key) {
                found.problem("tls.private_key", format!("{error:#}"));
            }
        }
    }
}

fn check_issuer(config: &Config, found: &mut Findings) {
    let tls = &config.tls;
    let (Some(certificate), Some(key)) = (&tls.issuer_certificate, &tls.issuer_private_key) else {
        return;
    };
    check_key_mode("tls.issuer_private_key", key, found);
    let before = found.problems.len();
    for (name, file) in [("tls.issuer_certificate", certificate), ("tls.issuer_private_key", key)] {
        if let Err(error) = fs::read(file) {
            found.problem(name, format!("cannot read {}: {error}", file.display()));
        }
    }
    if found.problems.len() > before {
        return;
    }
    match run::issuer(config) {
        Err(error) => found.problem("tls.issuer_certificate", format!("{error:#}")),
        // Device certificates are known by their own id, whatever becomes of their issuer.
        Ok(_) => {
            let mut theirs = Findings::default();
            if let Ok(validity) = tls::validity(certificate) {
                check_validity("tls.issuer_certificate", certificate, &validity, &mut theirs);
            }
            found.warnings.extend(theirs.problems.into_iter().chain(theirs.warnings));
        }
    }
}

/// A node serves whether or not backups can be taken.
fn check_backup(config: &Config, found: &mut Findings) {
    if let Some(credentials) = &config.backup.s3.credentials {
        check_key_mode("backup.s3.credentials", credentials, found);
    }
    if let Err(error) = backup::check_place(&config.backup) {
        found.warning("backup", format!("none can be taken: {error:#}"));
    }
}

/// A key that everybody can read is no secret.
fn check_key_mode(name: &str, file: &Path, found: &mut Findings) {
    let Ok(metadata) = fs::metadata(file) else { return };
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o004 != 0 {
        let file = file.display();
        let text = format!(
            "{file} has mode {mode:04o}: everybody on this machine can read it; chmod it to 0600"
        );
        found.warning(name, text);
    }
}

/// Whether a certificate has ended or will soon, or has not begun.
fn check_validity(
    key: &str,
    certificate: &Path,
    validity: &RangeInclusive<i64>,
    found: &mut Findings,
) {
    let now = i64::try_from(now_ms() / 1000).unwrap_or(i64::MAX);
    let day = |time: i64| {
        let day = OffsetDateTime::from_unix_timestamp(time).map(OffsetDateTime::date);
        day.map_or_else(|_| time.to_string(), |day| day.to_string())
    };
    let (file, begin, end) = (certificate.display(), *validity.start(), *validity.end());
    if now > end {
        found.problem(key, format!("{file} expired on {}", day(end)));
    } else if now + SOON_SECS > end {
        found.warning(key, format!("{file} expires on {}", day(end)));
    }
    // Not a problem: it may be the clock, which is set later.
    if now < begin {
        let text = format!("{file} is valid from {} on; until then clients refuse it", day(begin));
        found.warning(key, text);
    }
}
