//! Whether something is signed with a key.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA512_ASN1, ECDSA_P384_SHA512_ASN1, ECDSA_P521_SHA256_ASN1, ECDSA_P521_SHA384_ASN1,
    ECDSA_P521_SHA512_ASN1, EcdsaVerificationAlgorithm, UnparsedPublicKey,
};
use x509_parser::asn1_rs::BitString;
use x509_parser::error::X509Error;
use x509_parser::verify::verify_signature;
use x509_parser::x509::{AlgorithmIdentifier, SubjectPublicKeyInfo};

/// Checks a signature, also with the curves and hashes that the parser leaves out.
pub(super) fn verify(
    key: &SubjectPublicKeyInfo<'_>,
    algorithm: &AlgorithmIdentifier<'_>,
    signature: &BitString<'_>,
    signed: &[u8],
) -> Result<(), X509Error> {
    match verify_signature(key, algorithm, signature, signed) {
        Err(X509Error::SignatureUnsupportedAlgorithm) => {
            let scheme = scheme(key, algorithm).ok_or(X509Error::SignatureUnsupportedAlgorithm)?;
            let key = UnparsedPublicKey::new(scheme, &key.subject_public_key.data);
            key.verify(signed, &signature.data).map_err(|_| X509Error::SignatureVerificationError)
        }
        checked => checked,
    }
}

fn scheme(
    key: &SubjectPublicKeyInfo<'_>,
    algorithm: &AlgorithmIdentifier<'_>,
) -> Option<&'static EcdsaVerificationAlgorithm> {
    const P256: &str = "1.2.840.10045.3.1.7";
    const P384: &str = "1.3.132.0.34";
    const P521: &str = "1.3.132.0.35";
    const SHA256: &str = "1.2.840.10045.4.3.2";
    const SHA384: &str = "1.2.840.10045.4.3.3";
    const SHA512: &str = "1.2.840.10045.4.3.4";
    let curve = key.algorithm.parameters.as_ref()?.as_oid().ok()?.to_id_string();
    let hash = algorithm.algorithm.to_id_string();
    Some(match (&*curve, &*hash) {
        (P256, SHA512) => &ECDSA_P256_SHA512_ASN1,
        (P384, SHA512) => &ECDSA_P384_SHA512_ASN1,
        (P521, SHA256) => &ECDSA_P521_SHA256_ASN1,
        (P521, SHA384) => &ECDSA_P521_SHA384_ASN1,
        (P521, SHA512) => &ECDSA_P521_SHA512_ASN1,
        _ => return None,
    })
}
