//! Signatures of tokens: RSA-SHA256, PKCS#1 v1.5.

use aws_lc_rs::rsa::PublicEncryptingKey;
use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use thiserror::Error;

const BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
const END: &str = "-----END PUBLIC KEY-----";

/// Why a text is not a key that can check signatures.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum InvalidKey {
    /// It is not in PEM.
    #[error("is not a public key in PEM, which begins with {BEGIN}")]
    Pem,
    /// It is none of RSA, too short to be safe, or too long to be checked.
    #[error("is not an RSA public key of 2048 to 8192 bits")]
    Rsa,
}

/// A public key that tokens are signed with the other half of.
#[derive(Clone, Debug)]
pub struct SigningKey(Vec<u8>);

impl SigningKey {
    /// Reads a `SubjectPublicKeyInfo` in PEM.
    pub fn from_pem(pem: &str) -> Result<Self, InvalidKey> {
        let body = pem.trim().strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(END));
        let body: String = body.ok_or(InvalidKey::Pem)?.split_ascii_whitespace().collect();
        let der = STANDARD.decode(body).map_err(|_| InvalidKey::Pem)?;
        // Which refuses other lengths.
        PublicEncryptingKey::from_der(&der).map_err(|_| InvalidKey::Rsa)?;
        Ok(Self(der))
    }

    /// Whether its other half has signed the token; the signature is in base64.
    pub fn verifies(&self, token: &str, signature: &str) -> bool {
        let Ok(signature) = STANDARD.decode(signature) else { return false };
        let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &self.0);
        key.verify(token.as_bytes(), &signature).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::rsa::KeySize;
    use aws_lc_rs::signature::{KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA512, RsaKeyPair};

    use super::*;

    fn pem(der: &[u8]) -> String {
        format!("{BEGIN}\n{}\n{END}\n", STANDARD.encode(der))
    }

    fn public_pem(pair: &RsaKeyPair) -> String {
        use aws_lc_rs::encoding::AsDer;
        let der: aws_lc_rs::encoding::PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        pem(der.as_ref())
    }

    #[test]
    fn only_its_own_signature_of_this_token_verifies() {
        let (pair, other) = (
            RsaKeyPair::generate(KeySize::Rsa2048).unwrap(),
            RsaKeyPair::generate(KeySize::Rsa2048).unwrap(),
        );
        let key = SigningKey::from_pem(&public_pem(&pair)).unwrap();
        let sign = |pair: &RsaKeyPair, is_longer: bool, token: &str| {
            let mut signature = vec![0; pair.public_modulus_len()];
            let padding = if is_longer { &RSA_PKCS1_SHA512 } else { &RSA_PKCS1_SHA256 };
            pair.sign(padding, &SystemRandom::new(), token.as_bytes(), &mut signature).unwrap();
            STANDARD.encode(signature)
        };
        let good = sign(&pair, false, "token");
        for (token, signature, valid) in [
            ("token", good.clone(), true),
            ("Token", good.clone(), false),
            ("token", sign(&other, false, "token"), false),
            ("token", sign(&pair, true, "token"), false),
            ("token", good.replace('=', ""), false),
            ("token", format!("{good}AAAA"), false),
            ("token", String::new(), false),
            ("token", "not base64!".into(), false),
        ] {
            assert_eq!(key.verifies(token, &signature), valid, "{token} {signature}");
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        // RSA with 1024 bits, and P-256.
        const SHORT: &str = "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDPDeI2fNJ/Sqq/Dku3w4VA60Zo4jGcg7l/OOiFsKeU5mm5\
            3zzEy8wMFPNwBquKkB27Hq0+JfRMaPLtwGyllRe+bSCzkaBucLycsh6tLvFFmPRiX4juyswPGzWWUZj2J1kE\
            re1oAaj9c2Zs6a+wMcGbvWBMhMWbbtgHYe/bV6a6NwIDAQAB";
        const EC: &str = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEaxfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9K\
            E5RdiYwpZP40Li/hp/m47n60p8D54WK84zV2sxXs7LtkBoN79R9Q==";
        for (text, error) in [
            (String::new(), InvalidKey::Pem),
            ("key".into(), InvalidKey::Pem),
            (format!("{BEGIN}\n!{END}"), InvalidKey::Pem),
            (pem(b"no key"), InvalidKey::Rsa),
            (format!("{BEGIN}{EC}{END}"), InvalidKey::Rsa),
            (format!("{BEGIN}{SHORT}{END}"), InvalidKey::Rsa),
        ] {
            assert_eq!(SigningKey::from_pem(&text).unwrap_err(), error, "{text}");
        }
    }
}
