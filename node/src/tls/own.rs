//! The node's own certificate, taken anew when its files change.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use ::aws_lc_rs::hmac;
use anyhow::anyhow;
use metrics::{counter, gauge};
use rustls::Error;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tracing::{info, warn};

use super::{Unusable, ocsp, read_chain, read_key, validity_of};
use crate::clock::now_ms;

/// How often its files are looked at. Whoever renews certificates sends no signal.
const LOOK: Duration = Duration::from_secs(5);

/// A certificate chain with its key, as its files had them when they were last usable.
#[derive(Debug)]
pub struct OwnCertificate {
    certificate: PathBuf,
    private_key: PathBuf,
    /// What a responder says of it.
    ocsp_response: Option<PathBuf>,
    current: RwLock<Arc<CertifiedKey>>,
}

impl OwnCertificate {
    /// Reads it for the first time.
    pub fn load(
        certificate: &Path,
        private_key: &Path,
        ocsp_response: Option<&Path>,
    ) -> Result<Self, Unusable> {
        let (certificate, private_key) = (certificate.to_owned(), private_key.to_owned());
        let current = RwLock::new(Arc::new(read(&certificate, &private_key)?));
        let ocsp_response = ocsp_response.map(Path::to_owned);
        let own = Self { certificate, private_key, ocsp_response, current };
        // What is wrong with it is said by whoever looks again.
        let _ = own.staple();
        Ok(own)
    }

    /// Whether there is a response to show with it, if a file for that is named.
    pub fn check_ocsp(&self) -> Result<(), Unusable> {
        let Some(file) = &self.ocsp_response else { return Ok(()) };
        let current = self.current();
        let key = "tls.ocsp_response";
        ocsp::read(file, &current.cert, now()).map(drop).map_err(|why| Unusable { key, why })
    }

    /// Takes what the files have whenever that is something else. What cannot be used, or is not valid
    /// now, is reported when it is still there at the next look, for files are written one after the
    /// other; handshakes go on with what there was.
    pub async fn follow(self: Arc<Self>) {
        let (mut trouble, mut ocsp_trouble) = (Trouble::default(), Trouble::default());
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let own = Arc::clone(&self);
            let look = tokio::task::spawn_blocking(move || (own.renew(), own.staple()));
            // A look that panicked has said so.
            let Ok((renewed, stapled)) = look.await else { continue };
            if let Some(error) = trouble.is_news(renewed.as_ref().err()) {
                counter!("tls_certificate_changes_total", "result" => "refused").increment(1);
                warn!(error, "the new certificate is not used; the one before is");
            }
            if let Ok(Some(expires_at)) = renewed {
                counter!("tls_certificate_changes_total", "result" => "taken").increment(1);
                set_expiry(expires_at);
                let file = self.certificate.display();
                info!(%file, expires_at, "the certificate was replaced: new handshakes show it");
            }
            if let Some(error) = ocsp_trouble.is_news(stapled.as_ref().err()) {
                warn!(error, "no new OCSP response is shown: see what fetches it");
            }
            if let Ok(Some(until)) = stapled {
                gauge!("tls_ocsp_response_expiry_seconds").set(until as f64);
                info!(until, "new handshakes show what the responder says of the certificate");
            }
        }
    }

    /// A secret that rests on the private key and is for one purpose alone.
    pub fn derive(&self, purpose: &[u8]) -> anyhow::Result<[u8; 32]> {
        let key = read_key(&self.private_key)?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, key.secret_der());
        let tag = hmac::sign(&key, purpose);
        Ok(tag.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }

    fn current(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn set(&self, new: CertifiedKey) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
    }

    /// Takes the OCSP response that the file has; tells when a new one is outdated, in seconds of the
    /// epoch. What there was stays as long as it is right.
    fn staple(&self) -> Result<Option<i64>, Unusable> {
        let (Some(file), current) = (&self.ocsp_response, self.current()) else { return Ok(None) };
        let with = |ocsp| CertifiedKey { ocsp, ..CertifiedKey::clone(&current) };
        match ocsp::read(file, &current.cert, now()) {
            Ok(staple) if current.ocsp.as_ref() == Some(&staple.response) => Ok(None),
            Ok(staple) => {
                self.set(with(Some(staple.response)));
                Ok(Some(staple.until))
            }
            Err(why) => {
                let shown = current.ocsp.as_ref();
                if shown.is_some_and(|shown| ocsp::judge(shown, &current.cert, now()).is_err()) {
                    self.set(with(None));
                }
                Err(Unusable { key: "tls.ocsp_response", why })
            }
        }
    }

    /// Reads the files; tells when a certificate that is new expires, in seconds of the epoch.
    fn renew(&self) -> Result<Option<i64>, Unusable> {
        let found = read(&self.certificate, &self.private_key)?;
        let current = self.current();
        if found.cert == current.cert {
            return Ok(None);
        }
        let key = "tls.certificate";
        let valid = validity_of(&found.cert).map_err(|why| Unusable { key, why })?;
        if !valid.contains(&now()) {
            let why = anyhow!("the certificate in {} is not valid now", self.certificate.display());
            return Err(Unusable { key, why });
        }
        // Of the new one, or none: what there was is about the one before.
        let response = self.ocsp_response.as_ref();
        let response = response.and_then(|file| ocsp::read(file, &found.cert, now()).ok());
        self.set(CertifiedKey { ocsp: response.map(|staple| staple.response), ..found });
        Ok(Some(*valid.end()))
    }
}

/// What is wrong with a file.
#[derive(Default)]
struct Trouble {
    before: String,
    seen: u64,
}

impl Trouble {
    /// What is to be said of a look: nothing before the same is seen twice, and then nothing more.
    fn is_news(&mut self, error: Option<&Unusable>) -> Option<String> {
        let error = error.map(Unusable::to_string).unwrap_or_default();
        self.seen = if error == self.before { self.seen + 1 } else { 1 };
        self.before.clone_from(&error);
        (self.seen == 2 && !error.is_empty()).then_some(error)
    }
}

impl ResolvesServerCert for OwnCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

/// Seconds of the epoch.
fn now() -> i64 {
    i64::try_from(now_ms() / 1000).unwrap_or(i64::MAX)
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
