//! Credentials between two commands: in a file that only the user can read.

use std::env;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Options;
use super::sts::Credentials;

/// Credentials that last for less are as good as none.
const LEAST: time::Duration = time::Duration::minutes(5);

/// Where credentials are kept that were got with these options; nowhere for a user without a home.
pub(super) fn file(options: &Options) -> Option<PathBuf> {
    let folder = |name| env::var_os(name).map(PathBuf::from).filter(|it| it.is_absolute());
    let folder = folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")))?;
    Some(folder.join("skein").join(format!("login-{}.json", key(options))))
}

/// Other options get other credentials.
fn key(options: &Options) -> String {
    let (role, duration) = (options.role_arn(), options.duration.unwrap_or_default().to_string());
    let session = options.session_name.as_deref().unwrap_or_default();
    let Options { endpoint, issuer, client_id, scope, .. } = options;
    let mut hash = Sha256::new();
    for part in [endpoint, issuer, client_id, scope, &role, &duration, session] {
        hash.update(part.len().to_be_bytes());
        hash.update(part);
    }
    hex::encode(&hash.finalize()[..16])
}

/// What is kept there, if it can still be used.
pub(super) fn read(file: &Path) -> Option<Credentials> {
    let credentials: Credentials = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
    is_good(&credentials, OffsetDateTime::now_utc()).then_some(credentials)
}

fn is_good(credentials: &Credentials, now: OffsetDateTime) -> bool {
    let expires = OffsetDateTime::parse(&credentials.expiration, &Rfc3339);
    expires.is_ok_and(|expires| expires - now >= LEAST)
}

/// Keeps them there: nobody sees half of them.
pub(super) fn write(file: &Path, credentials: &Credentials) -> io::Result<()> {
    let folder = file.parent().ok_or(io::ErrorKind::NotFound)?;
    fs::create_dir_all(folder)?;
    let draft = folder.join(format!(".login-{}", uuid::Uuid::new_v4()));
    let mut written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    let done = written
        .write_all(&serde_json::to_vec(credentials)?)
        .and_then(|()| fs::rename(&draft, file));
    if done.is_err() {
        // It is of no use to anybody.
        let _ = fs::remove_file(&draft);
    }
    done
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn credentials(expiration: &str) -> Credentials {
        Credentials {
            version: 1,
            access_key_id: "ASIA".into(),
            secret_access_key: "secret".into(),
            session_token: "token".into(),
            expiration: expiration.into(),
        }
    }

    #[test]
    fn credentials_are_used_until_they_are_about_to_expire() {
        let now = OffsetDateTime::parse("2026-01-01T12:00:00Z", &Rfc3339).unwrap();
        for (expiration, expected) in [
            ("2026-01-01T12:05:00Z", true),
            ("2026-01-01T12:04:59Z", false),
            ("2026-01-01T11:00:00Z", false),
            ("later", false),
        ] {
            assert_eq!(is_good(&credentials(expiration), now), expected, "{expiration}");
        }
    }

    #[test]
    fn they_are_kept_for_the_user_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("skein/login-x.json");
        assert_eq!(read(&file), None);
        let kept = credentials("9999-01-01T00:00:00Z");
        for _ in 0..2 {
            write(&file, &kept).unwrap();
        }
        assert_eq!(read(&file), Some(kept));
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(file.parent().unwrap()).unwrap().count(), 1);
        fs::write(&file, "{").unwrap();
        assert_eq!(read(&file), None);
    }
}
