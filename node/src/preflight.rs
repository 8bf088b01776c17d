//! Everything that is checked before a node starts: its configuration, its files, its machine.
//!
//! `skein config check` and the start do the same. Nothing is changed: the data folder is not made.

use std::path::Path;

use storage::data::DataDir;
use time::OffsetDateTime;

use crate::clock::now_ms;
use crate::config::{Config, Findings};
use crate::kept;
use crate::run;
use crate::tls::{self, ClientCertificates};

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
    let certificate_is_read = tls::not_after(certificate);
    match &certificate_is_read {
        Err(error) => found.problem("tls.certificate", format!("{error:#}")),
        Ok(not_after) => match end_of(certificate, *not_after) {
            Some((true, text)) => found.problem("tls.certificate", text),
            Some((false, text)) => found.warning("tls.certificate", text),
            None => {}
        },
    }
    // Without the one it cannot be said whether the other belongs to it.
    let refused = match certificate_is_read {
        Err(_) => tls::read_key(key).err(),
        Ok(_) => tls::server_config(certificate, key, ClientCertificates::Required, &[]).err(),
    };
    if let Some(error) = refused {
        found.problem("tls.private_key", format!("{error:#}"));
    }
}

fn check_issuer(config: &Config, found: &mut Findings) {
    let Some(certificate) = &config.tls.issuer_certificate else { return };
    if config.tls.issuer_private_key.is_none() {
        return;
    }
    match run::issuer(config) {
        Err(error) => found.problem("tls.issuer_certificate", format!("{error:#}")),
        // Device certificates are known by their own id, whatever becomes of their issuer.
        Ok(_) => {
            let not_after = tls::not_after(certificate).ok();
            if let Some((_, text)) = not_after.and_then(|it| end_of(certificate, it)) {
                found.warning("tls.issuer_certificate", text);
            }
        }
    }
}

/// Whether a certificate has ended, and when, where that is worth a word.
fn end_of(certificate: &Path, not_after: i64) -> Option<(bool, String)> {
    let now = i64::try_from(now_ms() / 1000).unwrap_or(i64::MAX);
    let day = OffsetDateTime::from_unix_timestamp(not_after).map(OffsetDateTime::date);
    let day = day.map_or_else(|_| not_after.to_string(), |day| day.to_string());
    let file = certificate.display();
    if now > not_after {
        Some((true, format!("{file} expired on {day}")))
    } else if now + SOON_SECS > not_after {
        Some((false, format!("{file} expires on {day}")))
    } else {
        None
    }
}
