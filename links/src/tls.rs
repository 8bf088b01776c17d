//! Mutual TLS between nodes: who a certificate says it is, and which are believed.

use std::fmt::Display;
use std::sync::Arc;

use rustls::client::verify_server_name;
use rustls::crypto::aws_lc_rs;
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, CipherSuite, ClientConfig, RootCertStore, ServerConfig, SupportedCipherSuite,
    version,
};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use thiserror::Error;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::handshake::Refusal;

/// Who this node is and which CA it believes, in PEM.
///
/// The CA signs nodes of this cluster and nothing else: whoever holds a certificate of it may be a
/// node. A node's certificate has the DNS name [`certificate_name`] among its subject alternative
/// names and, when it names extended key usages, both `serverAuth` and `clientAuth`, for a node
/// dials and is dialled. A certificate for `*.skein` may be any node.
#[derive(Clone)]
pub struct Identity {
    /// The CA, or several while one replaces another.
    pub ca: Vec<u8>,
    /// The node's certificate, followed by those between it and the CA.
    pub certificate: Vec<u8>,
    /// Its private key.
    pub private_key: Vec<u8>,
}

/// A part of an [`Identity`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// See [`Identity::ca`].
    Ca,
    /// See [`Identity::certificate`].
    Certificate,
    /// See [`Identity::private_key`].
    PrivateKey,
}

/// What is wrong with an identity.
#[derive(Debug, Error)]
#[error("{why}")]
pub struct Unfit {
    /// Where it is wrong.
    pub part: Part,
    /// In words.
    pub why: String,
}

impl Unfit {
    fn new(part: Part, why: impl Display) -> Self {
        Self { part, why: why.to_string() }
    }
}

impl Identity {
    /// Whether other nodes of the same CA would believe at a time that this is a node. One that is not
    /// valid yet is no finding: it may be the clock.
    pub fn check(&self, node: u64, now: UnixTime) -> Result<(), Unfit> {
        Tls::new(node, self)?;
        let roots = Arc::new(roots(&self.ca)?);
        let chain = certificates(Part::Certificate, &self.certificate)?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider)
            .build()
            .map_err(|error| Unfit::new(Part::Ca, error))?;
        let unfit = |why: &dyn Display| Err(Unfit::new(Part::Certificate, why));
        match verifier.verify_client_cert(&chain[0], &chain[1..], now) {
            Ok(_) => Ok(()),
            Err(rustls::Error::InvalidCertificate(error)) => match error {
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                    Ok(())
                }
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    unfit(&"it has expired")
                }
                CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                    unfit(&"the CA has not signed it")
                }
                other => unfit(&other),
            },
            Err(error) => unfit(&error),
        }
    }
}

/// The DNS name that the certificate of a node must have.
pub fn certificate_name(node: u64) -> String {
    format!("node-{node}.skein")
}

/// Both ends of a TLS connection between nodes.
pub(crate) struct Tls {
    pub(crate) connector: TlsConnector,
    pub(crate) acceptor: TlsAcceptor,
}

impl Tls {
    pub(crate) fn new(node: u64, identity: &Identity) -> Result<Self, Unfit> {
        let roots = Arc::new(roots(&identity.ca)?);
        let chain = certificates(Part::Certificate, &identity.certificate)?;
        if !is_of(&chain[0], node) {
            let why = format!("it is not valid for the name {}", certificate_name(node));
            return Err(Unfit::new(Part::Certificate, why));
        }
        let key = PrivateKeyDer::from_pem_slice(&identity.private_key)
            .map_err(|error| unreadable(Part::PrivateKey, &error))?;
        let unfit = |error| match error {
            rustls::Error::InconsistentKeys(_) => {
                Unfit::new(Part::PrivateKey, "it does not belong to the certificate")
            }
            other => Unfit::new(Part::Certificate, other),
        };

        let mut provider = aws_lc_rs::default_provider();
        // Both sides dial, so both prefer the suite that costs least by byte.
        let is_cheap =
            |suite: &SupportedCipherSuite| suite.suite() == CipherSuite::TLS13_AES_128_GCM_SHA256;
        provider.cipher_suites.sort_by_key(|suite| !is_cheap(suite));
        let provider = Arc::new(provider);
        let mut client = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&version::TLS13])
            .map_err(unfit)?
            .with_root_certificates(roots.clone())
            .with_client_auth_cert(chain.clone(), key.clone_key())
            .map_err(unfit)?;
        client.alpn_protocols = vec![b"h2".to_vec()];
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone())
            .build()
            .map_err(|error| Unfit::new(Part::Ca, error))?;
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&version::TLS13])
            .map_err(unfit)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(unfit)?;
        server.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self { connector: Arc::new(client).into(), acceptor: Arc::new(server).into() })
    }
}

/// At least one certificate.
fn certificates(part: Part, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Unfit> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = all.map_err(|error| unreadable(part, &error))?;
    if all.is_empty() {
        return Err(unreadable(part, &pem::Error::NoItemsFound));
    }
    Ok(all)
}

fn roots(pem: &[u8]) -> Result<RootCertStore, Unfit> {
    let mut roots = RootCertStore::empty();
    for ca in certificates(Part::Ca, pem)? {
        roots.add(ca).map_err(|error| Unfit::new(Part::Ca, error))?;
    }
    Ok(roots)
}

fn unreadable(part: Part, error: &pem::Error) -> Unfit {
    let what = if part == Part::PrivateKey { "private key" } else { "certificate" };
    match error {
        pem::Error::NoItemsFound => Unfit::new(part, format!("it holds no {what} in PEM")),
        error => Unfit::new(part, format!("its {what} cannot be read: {error}")),
    }
}

/// The name under which TLS looks for a node.
pub(crate) fn server_name(node: u64) -> ServerName<'static> {
    ServerName::try_from(certificate_name(node)).expect("node-<digits>.skein is a DNS name")
}

/// Whether a certificate names a node.
pub(crate) fn is_of(certificate: &CertificateDer<'_>, node: u64) -> bool {
    ParsedCertificate::try_from(certificate)
        .is_ok_and(|parsed| verify_server_name(&parsed, &server_name(node)).is_ok())
}

/// What a failed TLS handshake says about the peer, when this side ended it; `node` is the one that
/// was dialled.
pub(crate) fn refusal(error: &std::io::Error, node: u64) -> Option<Refusal> {
    match error.get_ref()?.downcast_ref()? {
        rustls::Error::NoCertificatesPresented => Some(Refusal::NoCertificate),
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => Some(Refusal::Node(node)),
        rustls::Error::InvalidCertificate(error) => Some(Refusal::Certificate(error.to_string())),
        _ => None,
    }
}

/// An error with what caused it, where an alert of TLS is found.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
