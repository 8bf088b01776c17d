//! Mutual TLS between nodes: who a certificate says it is, and which are believed.

use std::sync::Arc;

use rustls::client::verify_server_name;
use rustls::crypto::aws_lc_rs;
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, CipherSuite, ClientConfig, RootCertStore, ServerConfig, SupportedCipherSuite,
    version,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::StartError;
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
    pub(crate) fn new(node: u64, identity: &Identity) -> Result<Self, StartError> {
        let mut roots = RootCertStore::empty();
        for ca in certificates("CA", &identity.ca)? {
            roots.add(ca)?;
        }
        let roots = Arc::new(roots);
        let chain = certificates("certificate", &identity.certificate)?;
        if !chain.first().is_some_and(|certificate| is_of(certificate, node)) {
            return Err(StartError::Name(certificate_name(node)));
        }
        let key = PrivateKeyDer::from_pem_slice(&identity.private_key)
            .map_err(|error| StartError::Pem { part: "private key", error })?;

        let mut provider = aws_lc_rs::default_provider();
        // Both sides dial, so both prefer the suite that costs least by byte.
        let is_cheap =
            |suite: &SupportedCipherSuite| suite.suite() == CipherSuite::TLS13_AES_128_GCM_SHA256;
        provider.cipher_suites.sort_by_key(|suite| !is_cheap(suite));
        let provider = Arc::new(provider);
        let mut client = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&version::TLS13])?
            .with_root_certificates(roots.clone())
            .with_client_auth_cert(chain.clone(), key.clone_key())?;
        client.alpn_protocols = vec![b"h2".to_vec()];
        let verifier =
            WebPkiClientVerifier::builder_with_provider(roots, provider.clone()).build()?;
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)?;
        server.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self { connector: Arc::new(client).into(), acceptor: Arc::new(server).into() })
    }
}

fn certificates(
    part: &'static str,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, StartError> {
    let all: Result<_, _> = CertificateDer::pem_slice_iter(pem).collect();
    all.map_err(|error| StartError::Pem { part, error })
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
