//! The node's own certificate, taken anew when its files change.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::anyhow;
use metrics::{counter, gauge};
use rustls::Error;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tracing::{info, warn};

use super::{Unusable, read_chain, read_key, validity_of};
use crate::clock::now_ms;

/// How often its files are looked at. Whoever renews certificates sends no signal.
const LOOK: Duration = Duration::from_secs(5);

/// A certificate chain with its key, as its files had them when they were last usable.
#[derive(Debug)]
pub struct OwnCertificate {
    certificate: PathBuf,
    private_key: PathBuf,
    current: RwLock<Arc<CertifiedKey>>,
}

impl OwnCertificate {
    /// Reads it for the first time.
    pub fn load(certificate: &Path, private_key: &Path) -> Result<Self, Unusable> {
        let (certificate, private_key) = (certificate.to_owned(), private_key.to_owned());
        let current = RwLock::new(Arc::new(read(&certificate, &private_key)?));
        Ok(Self { certificate, private_key, current })
    }

    /// Takes what the files have whenever that is something else. What cannot be used, or is not valid
    /// now, is reported when it is still there at the next look, for files are written one after the
    /// other; handshakes go on with what there was.
    pub async fn follow(self: Arc<Self>) {
        let (mut error_before, mut seen) = (String::new(), 0_u64);
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let own = Arc::clone(&self);
            // A look that panicked has said so.
            let Ok(renewed) = tokio::task::spawn_blocking(move || own.renew()).await else {
                continue;
            };
            let error = renewed.as_ref().err().map(Unusable::to_string).unwrap_or_default();
            seen = if error == error_before { seen + 1 } else { 1 };
            error_before = error;
            match renewed {
                Ok(None) => {}
                Ok(Some(expires_at)) => {
                    counter!("tls_certificate_changes_total", "result" => "taken").increment(1);
                    set_expiry(expires_at);
                    let file = self.certificate.display();
                    info!(%file, expires_at, "the certificate was replaced: new handshakes show it");
                }
                Err(error) if seen == 2 => {
                    counter!("tls_certificate_changes_total", "result" => "refused").increment(1);
                    warn!(%error, "the new certificate is not used; the one before is");
                }
                Err(_) => {}
            }
        }
    }

    /// Reads the files; tells when a certificate that is new expires, in seconds of the epoch.
    fn renew(&self) -> Result<Option<i64>, Unusable> {
        let found = read(&self.certificate, &self.private_key)?;
        let current = Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner));
        if found.cert == current.cert {
            return Ok(None);
        }
        let key = "tls.certificate";
        let valid = validity_of(&found.cert).map_err(|why| Unusable { key, why })?;
        if !valid.contains(&(now_ms() as i64 / 1000)) {
            let why = anyhow!("the certificate in {} is not valid now", self.certificate.display());
            return Err(Unusable { key, why });
        }
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(found);
        Ok(Some(*valid.end()))
    }
}

impl ResolvesServerCert for OwnCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// Says on `/metrics` when the node's certificate expires, in seconds of the epoch.
pub fn set_expiry(at: i64) {
    gauge!("tls_certificate_expiry_seconds", "certificate" => "node").set(at as f64);
}

fn read(certificate: &Path, private_key: &Path) -> Result<CertifiedKey, Unusable> {
    let in_certificate = |why| Unusable { key: "tls.certificate", why };
    let in_key = |why| Unusable { key: "tls.private_key", why };
    let chain = read_chain(certificate).map_err(in_certificate)?;
    let key = read_key(private_key).map_err(in_key)?;
    let provider: CryptoProvider = aws_lc_rs::default_provider();
    CertifiedKey::from_der(chain, key, &provider).map_err(|error| match error {
        Error::InconsistentKeys(_) => in_key(anyhow!(
            "the private key in {} does not belong to the certificate in {}",
            private_key.display(),
            certificate.display()
        )),
        Error::InvalidCertificate(why) => in_certificate(anyhow!(
            "the certificate in {} cannot be used: {why}",
            certificate.display()
        )),
        other => in_key(anyhow!(
            "the private key in {} cannot be used; RSA of 2048 bits and more, P-256, P-384, P-521 \
             and Ed25519 are supported: {other}",
            private_key.display()
        )),
    })
}
