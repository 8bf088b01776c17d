//! TLS of the gateway: the node's certificate, and client certificates that are proved here and
//! judged by the registry.

mod ocsp;
mod own;

pub use own::{OwnCertificate, set_expiry};

use std::fs;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature,
    verify_tls13_signature, verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerMisbehaved,
    ServerConfig, SignatureScheme,
};
use sha2::{Digest, Sha256};
use x509_parser::asn1_rs::{FromDer, Sequence};
use x509_parser::x509::{SubjectPublicKeyInfo, X509Version};

/// ALPN names that mean MQTT follows directly.
pub const MQTT_ALPN: [&[u8]; 2] = [b"x-amzn-mqtt-ca", b"mqtt"];

/// ALPN names of clients that have a certificate: custom authorizers are not asked about them.
pub const CERTIFICATE_ALPN: [&[u8]; 2] = [b"x-amzn-mqtt-ca", b"x-amzn-http-ca"];

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
) -> ServerConfig {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = Arc::new(AnyCertificate::new(&provider, clients));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has suites of TLS 1.2 and 1.3")
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(own);
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config
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
        match key_of_early_version(certificate) {
            Some(key) => verify_tls12_with_key(message, &key, signature, &self.algorithms),
            None => verify_tls12_signature(message, certificate, signature, &self.algorithms),
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match key_of_early_version(certificate) {
            Some(key) => {
                verify_tls13_signature_with_raw_key(message, &key, signature, &self.algorithms)
            }
            None => verify_tls13_signature(message, certificate, signature, &self.algorithms),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The key of a certificate of version 1 or 2, which `openssl x509 -req` makes where nobody asks for
/// extensions, and many devices have: webpki does not read it, though nothing that matters for a
/// client known by its id is missing.
fn key_of_early_version(
    certificate: &CertificateDer<'_>,
) -> Option<SubjectPublicKeyInfoDer<'static>> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    (parsed.version() != X509Version::V3).then(|| parsed.public_key().raw.to_vec().into())
}

/// RFC 5246, 7.4.8: with one of the algorithms that the scheme of the signature may mean, the one that
/// the key is for.
fn verify_tls12_with_key(
    message: &[u8],
    key: &SubjectPublicKeyInfoDer<'_>,
    signature: &DigitallySignedStruct,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, Error> {
    let bad_key = || Error::from(CertificateError::BadEncoding);
    let (_, info) = SubjectPublicKeyInfo::from_der(key).map_err(|_| bad_key())?;
    let (_, parts) = Sequence::from_der(key).map_err(|_| bad_key())?;
    let (_, algorithm) = Sequence::from_der(&parts.content).map_err(|_| bad_key())?;
    let of_scheme = algorithms.mapping.iter().filter(|(scheme, _)| *scheme == signature.scheme);
    let verifier = of_scheme
        .flat_map(|(_, verifiers)| verifiers.iter())
        .find(|verifier| verifier.public_key_alg_id().as_ref() == &*algorithm.content);
    let verifier = verifier.ok_or(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme)?;
    verifier
        .verify_signature(&info.subject_public_key.data, message, signature.signature())
        .map(|()| HandshakeSignatureValid::assertion())
        .map_err(|_| CertificateError::BadSignature.into())
}

#[cfg(test)]
mod tests {
    use rustls::client::ResolvesClientCert;
    use rustls::sign::CertifiedKey;
    use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConnection};
    use rustls_pki_types::{PrivatePkcs8KeyDer, ServerName};

    use super::*;

    /// Shows a certificate and signs with a key, whether or not they belong together.
    #[derive(Debug)]
    struct Shown(Arc<CertifiedKey>);

    impl ResolvesClientCert for Shown {
        fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
            Some(Arc::clone(&self.0))
        }

        fn has_certs(&self) -> bool {
            true
        }
    }

    fn private_key(key: &rcgen::KeyPair) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(key.serialize_der()).into()
    }

    fn self_signed(key: &rcgen::KeyPair) -> CertificateDer<'static> {
        let params = rcgen::CertificateParams::new(["localhost".into()]).unwrap();
        params.self_signed(key).unwrap().der().clone()
    }

    /// A certificate without what only version 3 has, and with its signature as it was, which nobody
    /// looks at.
    fn of_version_1(certificate: &[u8]) -> CertificateDer<'static> {
        let sequence = |parts: &[&[u8]]| {
            let content = parts.concat();
            let length = u16::try_from(content.len()).unwrap().to_be_bytes();
            [&[0x30, 0x82][..], &length, &content].concat()
        };
        let (_, outer) = Sequence::from_der(certificate).unwrap();
        let (rest, contents) = Sequence::from_der(&outer.content).unwrap();
        let mut fields = Vec::new();
        let mut left: &[u8] = &contents.content;
        while !left.is_empty() {
            let (after, _) = x509_parser::asn1_rs::Any::from_der(left).unwrap();
            fields.push(&left[..left.len() - after.len()]);
            left = after;
        }
        // The version in front and the extensions behind.
        fields.retain(|field| field[0] & 0xc0 != 0x80);
        sequence(&[&sequence(&fields), rest]).into()
    }

    /// Whether the server takes a client that shows this certificate and has that key.
    fn is_taken(
        certificate: CertificateDer<'static>,
        key: &rcgen::KeyPair,
        version: &'static rustls::SupportedProtocolVersion,
    ) -> Result<(), Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let server_key = rcgen::KeyPair::generate().unwrap();
        let server_certificate = self_signed(&server_key);
        let mut roots = RootCertStore::empty();
        roots.add(server_certificate.clone()).unwrap();
        let verifier = AnyCertificate::new(&provider, ClientCertificates::Required);
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(Arc::new(verifier))
            .with_single_cert(vec![server_certificate], private_key(&server_key))
            .unwrap();
        let signing = provider.key_provider.load_private_key(private_key(key)).unwrap();
        let shown = Shown(Arc::new(CertifiedKey::new(vec![certificate], signing)));
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_client_cert_resolver(Arc::new(shown));
        let name = ServerName::try_from("localhost").unwrap();
        let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
        let mut server = ServerConnection::new(Arc::new(server)).unwrap();
        while server.is_handshaking() {
            let mut flight = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut flight).unwrap();
            }
            server.read_tls(&mut &flight[..]).unwrap();
            server.process_new_packets()?;
            let mut flight = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut flight).unwrap();
            }
            client.read_tls(&mut &flight[..]).unwrap();
            client.process_new_packets().unwrap();
        }
        Ok(())
    }

    #[test]
    fn certificates_of_any_version_need_their_own_key() {
        let keys = [
            rcgen::KeyPair::generate().unwrap(),
            rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap(),
            rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048)
                .unwrap(),
        ];
        let others = [
            rcgen::KeyPair::generate().unwrap(),
            rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap(),
            rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048)
                .unwrap(),
        ];
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            for (key, other) in keys.iter().zip(&others) {
                let third = self_signed(key);
                let first = of_version_1(&third);
                let (_, parsed) = x509_parser::parse_x509_certificate(&first).unwrap();
                assert_eq!(parsed.version(), X509Version::V1);
                for certificate in [third, first] {
                    assert_eq!(is_taken(certificate.clone(), key, version), Ok(()));
                    is_taken(certificate, other, version).unwrap_err();
                }
                // Of another kind altogether.
                is_taken(of_version_1(&self_signed(key)), &keys[2], version)
                    .map_or_else(drop, |()| assert!(std::ptr::eq(key, &keys[2])));
            }
        }
    }
}
