//! Everything that is checked before a node starts: its configuration, its files, its machine.
//!
//! `skein config check` and the start do the same. Nothing is changed: the data folder is not made.

use std::fs;
use std::io::ErrorKind;
use std::ops::RangeInclusive;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use api::x509::{CertificateError, PROBE, Unsigned};
use rustls::pki_types::UnixTime;
use socket2::{Domain, Socket};
use storage::data::DataDir;
use time::OffsetDateTime;

use crate::audit;
use crate::backup;
use crate::clock::now_ms;
use crate::config::{Config, Findings};
use crate::fetch;
use crate::kept;
use crate::mesh;
use crate::registration;
use crate::run;
use crate::tls::{self, OwnCertificate, Unusable};

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
    check_cluster(config, &mut found);
    check_addresses(config, &mut found);
    check_backup(config, &mut found);
    audit::check(&config.audit, &mut found);
    check_token_keys(config, &mut found);
    check_registration(config, &mut found);
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
            let response = config.tls.ocsp_response.as_deref();
            match OwnCertificate::load(certificate, key, response) {
                Err(Unusable { key, why }) => found.problem(key, format!("{why:#}")),
                // Handshakes do without it.
                Ok(own) => {
                    if let Err(Unusable { key, why }) = own.check_ocsp() {
                        found.warning(key, format!("{why:#}"));
                    }
                }
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

/// Whether the keys of issuers are there. They may come later.
fn check_token_keys(config: &Config, found: &mut Findings) {
    let of_issuers = config.jwt_issuers.iter().enumerate();
    let of_issuers = of_issuers
        .map(|(number, it)| (format!("jwt_issuers[{number}]"), it.jwks_file(), it.ca.as_deref()));
    let of_providers = config
        .oidc
        .iter()
        .map(|(name, it)| (format!("oidc.{name}"), it.jwks_file(), it.ca.as_deref()));
    for (place, file, ca) in of_issuers.chain(of_providers) {
        if let Some(ca) = ca {
            let read = fs::read(ca).map_err(|error| error.to_string());
            if let Err(error) = read.and_then(|pem| fetch::trusting(&pem)) {
                found.warning(format!("{place}.ca"), format!("{}: {error}", ca.display()));
            }
        }
        let Some(file) = file else { continue };
        let place = format!("{place}.jwks");
        match fs::read(file).map(|bytes| authorizer::jwt::Keys::parse(&bytes)) {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => found.warning(place, format!("{}: {error}", file.display())),
            Err(error) => found.warning(place, format!("cannot read {}: {error}", file.display())),
        }
    }
}

fn check_issuer(config: &Config, found: &mut Findings) {
    let tls = &config.tls;
    let Some(certificate) = &tls.issuer_certificate else { return };
    let (key, secret) = match (&tls.issuer_hsm, &tls.issuer_private_key) {
        (Some(hsm), _) => ("tls.issuer_hsm.pin_file", &hsm.pin_file),
        (None, Some(file)) => ("tls.issuer_private_key", file),
        (None, None) => return,
    };
    check_key_mode(key, secret, found);
    let before = found.problems.len();
    for (name, file) in [("tls.issuer_certificate", certificate), (key, secret)] {
        if let Err(error) = fs::read(file) {
            found.problem(name, format!("cannot read {}: {error}", file.display()));
        }
    }
    if found.problems.len() > before {
        return;
    }
    if tls.issuer_hsm.is_none() && tls::is_encrypted(secret) {
        found.problem(key, tls::passphrase(secret));
        return;
    }
    let is_hsm = tls.issuer_hsm.is_some();
    match run::issuer(config) {
        Err(error) => {
            let key = if is_hsm { "tls.issuer_hsm" } else { "tls.issuer_certificate" };
            found.problem(key, format!("{error:#}"));
        }
        // Device certificates are known by their own id, whatever becomes of their issuer.
        Ok(issuer) => {
            let mut theirs = Findings::default();
            match issuer.as_ref().filter(|_| is_hsm).map(|issuer| issuer.prove(PROBE)) {
                // It may be there again before the first certificate is to be made.
                Some(Err(CertificateError::Signing(Unsigned { why, lasts: false }))) => {
                    theirs.warning("tls.issuer_hsm", why);
                }
                Some(Err(error)) => found.problem("tls.issuer_hsm", error.to_string()),
                Some(Ok(_)) | None => {}
            }
            if let Ok(validity) = tls::validity(certificate) {
                check_validity("tls.issuer_certificate", certificate, &validity, &mut theirs);
            }
            found.warnings.extend(theirs.problems.into_iter().chain(theirs.warnings));
        }
    }
}

/// Whether other nodes would believe that this is the node that the configuration names.
fn check_cluster(config: &Config, found: &mut Findings) {
    let Some(cluster) = &config.cluster else { return };
    let named = cluster.keyed_files().into_iter().filter(|(_, it)| !it.as_os_str().is_empty());
    for (key, file) in named {
        if let Err(error) = fs::read(file) {
            found.problem(key, format!("cannot read {}: {error}", file.display()));
        }
    }
    check_key_mode("cluster.private_key", &cluster.private_key, found);
    if tls::is_encrypted(&cluster.private_key) {
        found.problem("cluster.private_key", tls::passphrase(&cluster.private_key));
        return;
    }
    // What cannot be read is said already.
    let Ok(identity) = mesh::identity(cluster) else { return };
    let now = UnixTime::since_unix_epoch(Duration::from_millis(now_ms()));
    if let Err(unfit) = identity.check(cluster.node, now) {
        let Unusable { key, why } = mesh::unusable(cluster, unfit);
        found.problem(key, format!("{why:#}"));
    } else if let Ok(validity) = tls::validity(&cluster.certificate) {
        check_validity("cluster.certificate", &cluster.certificate, &validity, found);
    }
}

/// Whether this machine has the addresses, and this process may take them. That somebody else has taken
/// one is seen at the start: it may be the node that runs already.
fn check_addresses(config: &Config, found: &mut Findings) {
    for (key, kind, address) in config.addresses() {
        // Nobody is listened to: a client would be lost.
        let domain = Domain::for_address(address);
        let taken = Socket::new(domain, kind, None)
            .and_then(|socket| socket.set_reuse_address(true).map(|()| socket))
            .and_then(|socket| socket.bind(&address.into()));
        let Err(error) = taken else { continue };
        let remedy = match error.kind() {
            ErrorKind::PermissionDenied => {
                "; ports below 1024 need CAP_NET_BIND_SERVICE, under systemd AmbientCapabilities= and \
                 CapabilityBoundingSet="
            }
            ErrorKind::AddrNotAvailable => "; no interface of this machine has it",
            _ => continue,
        };
        found.problem(key, format!("cannot listen on {address}: {error}{remedy}"));
    }
}

/// A node serves whether or not backups can be taken.
fn check_backup(config: &Config, found: &mut Findings) {
    if let Some(credentials) = &config.backup.s3.credentials {
        check_key_mode("backup.s3.credentials", credentials, found);
    }
    let place = backup::check_place(&config.backup).map_err(|error| format!("{error:#}"));
    let folder = config.backup.folder.as_deref().map_or(Ok(()), |it| check_folder(it, config));
    for why in [place, folder].into_iter().filter_map(Result::err) {
        found.warning("backup", format!("none can be taken: {why}"));
    }
}

/// A node serves whether or not things can be registered in bulk.
fn check_registration(config: &Config, found: &mut Findings) {
    if let Some(credentials) = &config.registration.s3.credentials {
        check_key_mode("registration.s3.credentials", credentials, found);
    }
    for (key, place) in config.registration.places() {
        if let Err(error) = registration::check_place(place, &config.registration.s3) {
            found.warning(key, format!("{error:#}"));
        }
    }
}

/// Whether backups could be written into a folder, and would outlive the state.
fn check_folder(folder: &Path, config: &Config) -> Result<(), String> {
    if folder.starts_with(&config.data) {
        let (folder, data) = (folder.display(), config.data.display());
        return Err(format!("{folder} is in the data folder {data}, and would be lost with it"));
    }
    DataDir::check(folder).map(drop).map_err(|error| error.to_string())
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
