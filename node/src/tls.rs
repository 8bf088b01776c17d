//! TLS of the gateway: the node's certificate, and client certificates that are proved here and
//! judged by the registry.

mod own;

pub use own::{OwnCertificate, set_expiry};

use std::fs;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, ServerConfig,
    SignatureScheme,
};
use sha2::{Digest, Sha256};
use x509_parser::x509::X509Version;

/// ALPN names that mean MQTT follows directly.
pub const MQTT_ALPN: [&[u8]; 2] = [b"x-amzn-mqtt-ca", b"mqtt"];

/// ALPN names that mean HTTP follows.
pub const HTTP_ALPN: [&[u8]; 2] = [b"x-amzn-http-ca", b"http/1.1"];

/// What a TLS listener asks of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertificates {
    /// No handshake without one.
    Required,
    /// Another way to prove who they are follows.
    Optional,
}

/// A file that TLS cannot use, and why, in words.
#[derive(Debug, thiserror::Error)]
#[error("{key}: {why:#}")]
pub struct Unusable {
    /// Its key in the configuration.
    pub key: &'static str,
    /// What is wrong with it.
    pub why: anyhow::Error,
}

/// The TLS side of a listener.
pub fn server_config(
    own: Arc<OwnCertificate>,
    clients: ClientCertificates,
    alpn: &[&[u8]],
) -> Arc<ServerConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = Arc::new(AnyCertificate::new(&provider, clients));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has suites of TLS 1.2 and 1.3")
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(own);
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Arc::new(config)
}

/// From when to when the first certificate in a PEM file is valid, in seconds of the epoch.
pub fn validity(certificate: &Path) -> anyhow::Result<RangeInclusive<i64>> {
    let chain = read_chain(certificate)?;
    validity_of(&chain).with_context(|| certificate.display().to_string())
}

/// The same of a chain that was read.
fn validity_of(chain: &[CertificateDer<'_>]) -> anyhow::Result<RangeInclusive<i64>> {
    match chain.first().map(|leaf| x509_parser::parse_x509_certificate(leaf)) {
        Some(Ok((_, leaf))) => {
            let validity = leaf.validity();
            Ok(validity.not_before.timestamp()..=validity.not_after.timestamp())
        }
        _ => bail!("no X.509 certificate"),
    }
}

/// The private key in a PEM file.
pub fn read_key(file: &Path) -> anyhow::Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_file(file).map_err(|error| unreadable(file, "private key", &error))
}

/// At least one certificate; the first is of a version that TLS takes.
fn read_chain(file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .map_err(|error| unreadable(file, "certificates", &error))?;
    match chain.first() {
        Some(leaf) => check_version(leaf).with_context(|| file.display().to_string())?,
        None => bail!("{} holds no certificate in PEM", file.display()),
    }
    Ok(chain)
}

/// Whether a file holds a private key that is of no use without a passphrase.
pub fn is_encrypted(key: &Path) -> bool {
    fs::read_to_string(key).is_ok_and(|text| text.lines().any(says_encrypted))
}

/// PKCS #8 says it in its first line, the older format in its second.
fn says_encrypted(line: &str) -> bool {
    line == "-----BEGIN ENCRYPTED PRIVATE KEY-----" || line == "Proc-Type: 4,ENCRYPTED"
}

/// What is to be done about one.
pub fn passphrase(key: &Path) -> String {
    let key = key.display();
    format!(
        "the private key in {key} has a passphrase, which nobody types at a start: remove it with \
         `openssl pkey -in {key} -out NEW`"
    )
}

fn unreadable(path: &Path, what: &str, error: &pem::Error) -> anyhow::Error {
    let file = path.display();
    match error {
        pem::Error::Io(error) => anyhow!("cannot read {file}: {error}"),
        _ if is_encrypted(path) => anyhow!("{}", passphrase(path)),
        pem::Error::NoItemsFound => anyhow!("{file} holds no {what} in PEM"),
        error => anyhow!("the {what} in {file} cannot be read: {error}"),
    }
}

/// Version 1 has no extensions, so no names that clients could compare; TLS does not take it.
fn check_version(certificate: &CertificateDer<'_>) -> anyhow::Result<()> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate)
        .map_err(|_| anyhow!("the first block is no X.509 certificate"))?;
    if parsed.version() != X509Version::V3 {
        bail!(
            "the certificate is of X.509 version {}, which is not supported; make one of version 3, \
             with a subjectAltName",
            parsed.version().0 + 1
        );
    }
    Ok(())
}

/// The certificate id: SHA-256 of the DER, in lower-case hex.
pub fn certificate_id(certificate: &CertificateDer<'_>) -> Arc<str> {
    hex::encode(Sha256::digest(certificate)).into()
}

/// Takes any well-formed certificate whose key the client proves to hold. Which certificates may be
/// used is a question for the registry, where they are known by their id: a chain to a CA is not
/// needed (certificates can be registered without one).
#[derive(Debug)]
struct AnyCertificate {
    algorithms: WebPkiSupportedAlgorithms,
    clients: ClientCertificates,
}

impl AnyCertificate {
    fn new(provider: &CryptoProvider, clients: ClientCertificates) -> Self {
        Self { algorithms: provider.signature_verification_algorithms, clients }
    }
}

impl ClientCertVerifier for AnyCertificate {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        self.clients == ClientCertificates::Required
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let (_, certificate) = x509_parser::parse_x509_certificate(end_entity)
            .map_err(|_| CertificateError::BadEncoding)?;
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let validity = certificate.validity();
        if now > validity.not_after.timestamp() {
            return Err(CertificateError::Expired.into());
        }
        if now < validity.not_before.timestamp() {
            return Err(CertificateError::NotValidYet.into());
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
