//! The private key of the CA that signs device certificates, in a device that never gives it away: PKCS #11,
//! version 2.40, which every maker's library speaks.
//!
//! One session signs for everybody, one signature after the other. Devices lose sessions (they are
//! restarted, their network fails), so what fails is tried once more from the beginning.

use std::fs;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use api::x509::{AuthorityKey, Scheme};
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::types::AuthPin;
use metrics::counter;
use parking_lot::Mutex;
use sha2::{Digest, Sha256, Sha384};
use tracing::{error, warn};

use crate::config::Hsm;

/// See the module.
#[derive(Clone)]
pub(crate) struct HsmKey(Arc<Device>);

struct Device {
    place: Hsm,
    library: Pkcs11,
    session: Mutex<Option<Open>>,
}

struct Open {
    session: Session,
    key: ObjectHandle,
}

impl HsmKey {
    /// Loads the library and finds the key.
    pub(crate) fn open(place: &Hsm) -> anyhow::Result<Self> {
        for (key, is_empty) in [
            ("module", place.module.as_os_str().is_empty()),
            ("token", place.token.is_empty()),
            ("key", place.key.is_empty()),
            ("pin_file", place.pin_file.as_os_str().is_empty()),
        ] {
            if is_empty {
                bail!("tls.issuer_hsm.{key} is missing");
            }
        }
        let module = place.module.display();
        let library = Pkcs11::new(&place.module)
            .with_context(|| format!("{module} is no PKCS #11 library that can be loaded"))?;
        begin(&library)?;
        let session = Mutex::new(Some(open(&library, place)?));
        Ok(Self(Arc::new(Device { place: place.clone(), library, session })))
    }
}

fn begin(library: &Pkcs11) -> anyhow::Result<()> {
    match library.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        // Once in a process.
        Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => Ok(()),
        Err(error) => bail!("the PKCS #11 library cannot be initialized: {error}"),
    }
}

/// The same as if the process had just begun: some libraries look for their devices only then.
fn open_anew(library: &Pkcs11, place: &Hsm) -> anyhow::Result<Open> {
    // Whether it was initialized does not matter.
    let _ = library.clone().finalize();
    begin(library)?;
    open(library, place)
}

/// A session that is logged in, and the key.
fn open(library: &Pkcs11, place: &Hsm) -> anyhow::Result<Open> {
    let Hsm { token, key, pin_file, .. } = place;
    let slots = library.get_slots_with_initialized_token().context("the slots cannot be listed")?;
    let is_it =
        |slot| library.get_token_info(slot).is_ok_and(|info| info.label().trim_end() == token);
    let mut slots = slots.into_iter().filter(|&slot| is_it(slot));
    let slot =
        slots.next().with_context(|| format!("there is no token with the label {token:?}"))?;
    if slots.next().is_some() {
        bail!("more than one token has the label {token:?}");
    }
    let pin = fs::read_to_string(pin_file)
        .with_context(|| format!("the PIN cannot be read from {}", pin_file.display()))?;
    let session = library.open_ro_session(slot).context("no session can be opened")?;
    match session.login(UserType::User, Some(&AuthPin::new(pin.trim_end().into()))) {
        // Another session of this process has.
        Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {}
        Err(Error::Pkcs11(RvError::PinIncorrect, _)) => {
            bail!("token {token:?} does not take the PIN in {}", pin_file.display())
        }
        Err(Error::Pkcs11(RvError::PinLocked, _)) => {
            bail!("token {token:?} is locked: its PIN was wrong too often")
        }
        Err(error) => bail!("token {token:?} lets nobody in: {error}"),
    }
    let wanted =
        [Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::Label(key.clone().into_bytes())];
    let found = session.find_objects(&wanted).context("the keys cannot be listed")?;
    match found[..] {
        [key] => Ok(Open { session, key }),
        [] => bail!("token {token:?} has no private key with the label {key:?}"),
        _ => bail!("token {token:?} has {} private keys with the label {key:?}", found.len()),
    }
}

impl AuthorityKey for HsmKey {
    fn sign(&self, scheme: Scheme, message: &[u8]) -> Result<Vec<u8>, String> {
        let Device { place, library, session } = &*self.0;
        let mut session = session.lock();
        let mut signed = match &*session {
            Some(open) => sign(open, scheme, message),
            None => Err(anyhow!("the session is lost")),
        };
        if let Err(why) = &signed {
            warn!(error = format!("{why:#}"), token = place.token, "the library begins anew");
            *session = None;
            signed = open_anew(library, place).and_then(|open| {
                let signed = sign(&open, scheme, message);
                *session = Some(open);
                signed
            });
        }
        let result = if signed.is_ok() { "ok" } else { "failed" };
        counter!("issuer_hsm_signatures_total", "result" => result).increment(1);
        signed.map_err(|why| {
            error!(
                error = format!("{why:#}"), token = place.token, key = place.key,
                "no certificates are made: see that tls.issuer_hsm can be reached, and that its token, key \
                and PIN are as configured"
            );
            format!("{why:#}")
        })
    }
}

fn sign(open: &Open, scheme: Scheme, message: &[u8]) -> anyhow::Result<Vec<u8>> {
    let (mechanism, data) = match scheme {
        Scheme::EcdsaSha256 => (Mechanism::Ecdsa, Sha256::digest(message).to_vec()),
        Scheme::EcdsaSha384 => (Mechanism::Ecdsa, Sha384::digest(message).to_vec()),
        Scheme::RsaSha256 => (Mechanism::Sha256RsaPkcs, message.to_vec()),
    };
    let signature = open.session.sign(&mechanism, open.key, &data)?;
    match scheme {
        Scheme::RsaSha256 => Ok(signature),
        Scheme::EcdsaSha256 | Scheme::EcdsaSha384 => in_der(&signature)
            .with_context(|| format!("{} bytes are no signature", signature.len())),
    }
}

/// A signature of ECDSA in DER: PKCS #11 has `r` and `s` one after the other.
fn in_der(signature: &[u8]) -> Option<Vec<u8>> {
    const MOST: usize = 96;
    if signature.is_empty() || signature.len() > MOST || !signature.len().is_multiple_of(2) {
        return None;
    }
    let (r, s) = signature.split_at(signature.len() / 2);
    let (r, s) = (integer(r), integer(s));
    let length = u8::try_from(r.len() + s.len()).expect("two of fifty bytes");
    Some([&[0x30, length], &r[..], &s[..]].concat())
}

/// A number without a sign, in DER.
fn integer(bytes: &[u8]) -> Vec<u8> {
    let zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
    let bytes = &bytes[zeros.min(bytes.len() - 1)..];
    let sign: &[u8] = if bytes[0] >= 0x80 { &[0] } else { &[] };
    let length = u8::try_from(sign.len() + bytes.len()).expect("at most fifty");
    [&[0x02, length], sign, bytes].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_two_numbers_without_needless_bytes() {
        for (signature, expected) in [
            ("0102", Some("3006020101020102")),
            ("00800001", Some("30070202008002 0101")),
            ("ff7f", Some("3007020200ff02017f")),
            ("00000000", Some("3006020100020100")),
            ("", None),
            ("010203", None),
        ] {
            let found = in_der(&hex::decode(signature).unwrap());
            let expected = expected.map(|it| hex::decode(it.replace(' ', "")).unwrap());
            assert_eq!(found, expected, "{signature}");
        }
        assert_eq!(in_der(&[0xff; 96]).unwrap().len(), 2 + 2 * 51);
        assert_eq!(in_der(&[1; 98]), None);
    }
}
