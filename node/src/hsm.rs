//! The private key of the CA that signs device certificates, in a device that never gives it away: PKCS #11,
//! version 2.40, which every maker's library speaks.
//!
//! A thread of its own has the device: one signature comes after the other, and whoever asks for one waits no
//! longer than [`PATIENCE`], for a device may hang. Devices lose sessions (they are restarted, their network
//! fails), so what fails is tried once more from the beginning.

use std::fs;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use api::x509::{AuthorityKey, Scheme, Unsigned};
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::types::AuthPin;
use metrics::{counter, describe_counter};
use parking_lot::Mutex;
use sha2::{Digest, Sha256, Sha384};
use tracing::{debug, error};

use crate::config::Hsm;

/// How long a signature may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Signatures that wait; more are refused.
const WAITING: usize = 16;

/// The key, on its thread.
pub(crate) struct HsmKey {
    /// Gone when the thread is to end.
    jobs: Option<SyncSender<Job>>,
    /// Closed when the thread has ended.
    ended: Mutex<Receiver<()>>,
}

struct Job {
    scheme: Scheme,
    message: Vec<u8>,
    /// When nobody waits for it any more.
    until: Instant,
    signed: Sender<Result<Vec<u8>, Fault>>,
}

/// Why nothing is signed, before it is told.
struct Fault {
    why: anyhow::Error,
    /// Whether it stays so until somebody changes something.
    lasts: bool,
}

impl Fault {
    fn lasting(why: anyhow::Error) -> Self {
        Self { why, lasts: true }
    }
}

impl<E: Into<anyhow::Error>> From<E> for Fault {
    fn from(error: E) -> Self {
        Self { why: error.into(), lasts: false }
    }
}

/// What the thread has.
struct Device {
    place: Hsm,
    library: Pkcs11,
    session: Option<Open>,
    /// The hash of a PIN that the token did not take: it may lock itself when that comes again.
    refused_pin: Option<[u8; 32]>,
}

struct Open {
    session: Session,
    key: ObjectHandle,
}

impl HsmKey {
    /// Loads the library. Whether the device can be reached shows with the first signature.
    ///
    /// # Errors
    /// When something is missing in the configuration, or the library cannot be loaded.
    pub(crate) fn load(place: &Hsm) -> anyhow::Result<Self> {
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
        describe_counter!("issuer_hsm_signatures_total", "Signatures asked of the issuer's device");
        let ((sender, jobs), (ends, ended)) = (sync_channel(WAITING), mpsc::channel());
        let device = Device { place: place.clone(), library, session: None, refused_pin: None };
        thread::Builder::new()
            .name("skein-hsm".into())
            .spawn(move || {
                device.serve(&jobs);
                drop::<Sender<()>>(ends);
            })
            .context("no thread can be started")?;
        Ok(Self { jobs: Some(sender), ended: Mutex::new(ended) })
    }

    fn signature(&self, scheme: Scheme, message: &[u8]) -> Result<Vec<u8>, Fault> {
        let (signed, signature) = mpsc::channel();
        let job =
            Job { scheme, message: message.to_vec(), until: Instant::now() + PATIENCE, signed };
        let jobs = self.jobs.as_ref().context("the device's thread has ended")?;
        jobs.try_send(job).map_err(|_| anyhow!("too many signatures wait for the device"))?;
        match signature.recv_timeout(PATIENCE) {
            Ok(signed) => signed,
            Err(RecvTimeoutError::Timeout) => Err(anyhow!("the device does not answer"))?,
            Err(RecvTimeoutError::Disconnected) => Err(anyhow!("the device's thread has ended"))?,
        }
    }
}

/// The library is one for the whole process: who comes next begins with it when this one has ended. A
/// device that hangs is not waited for.
impl Drop for HsmKey {
    fn drop(&mut self) {
        self.jobs = None;
        let _ = self.ended.get_mut().recv_timeout(Duration::from_secs(1));
    }
}

impl AuthorityKey for HsmKey {
    fn sign(&self, scheme: Scheme, message: &[u8]) -> Result<Vec<u8>, Unsigned> {
        self.signature(scheme, message).map_err(|Fault { why, lasts }| {
            counter!("issuer_hsm_signatures_total", "result" => "failed").increment(1);
            let why = format!("{why:#}");
            error!(
                error = why,
                "no certificates are made: see that tls.issuer_hsm can be reached, and that its token, \
                key and PIN are as configured"
            );
            Unsigned { why, lasts }
        })
    }

    fn signed(&self, is_own: bool) {
        let result = if is_own { "ok" } else { "wrong_key" };
        counter!("issuer_hsm_signatures_total", "result" => result).increment(1);
        if !is_own {
            error!(
                "no certificates are made: the key in the token is not that of tls.issuer_certificate; see \
                that tls.issuer_hsm names the right token and key, or have the certificate that is the key's"
            );
        }
    }
}

impl Device {
    fn serve(mut self, jobs: &Receiver<Job>) {
        serve(jobs, |scheme, message| self.sign(scheme, message));
        self.session = None;
        // Before the library is unloaded, which may have threads of its own.
        let _ = self.library.finalize();
    }

    fn sign(&mut self, scheme: Scheme, message: &[u8]) -> Result<Vec<u8>, Fault> {
        if let Some(open) = &self.session {
            match sign(open, scheme, message) {
                Ok(signature) => return Ok(signature),
                Err(why) => debug!(error = format!("{why:#}"), "the library begins anew"),
            }
        }
        let open = self.open_anew()?;
        let signature = sign(self.session.insert(open), scheme, message)?;
        Ok(signature)
    }

    /// The same as if the process had just begun: some libraries look for their devices only then.
    fn open_anew(&mut self) -> Result<Open, Fault> {
        self.session = None;
        // Whether it was initialized does not matter.
        let _ = self.library.clone().finalize();
        begin(&self.library)?;
        self.open()
    }

    /// A session that is logged in, and the key.
    fn open(&mut self) -> Result<Open, Fault> {
        let Hsm { token, key, pin_file, .. } = &self.place;
        let library = &self.library;
        let slots = library.get_slots_with_initialized_token();
        let slots = slots.context("the slots cannot be listed")?;
        let is_it =
            |slot| library.get_token_info(slot).is_ok_and(|info| info.label().trim_end() == token);
        let mut slots = slots.into_iter().filter(|&slot| is_it(slot));
        let slot =
            slots.next().with_context(|| format!("there is no token with the label {token:?}"))?;
        if slots.next().is_some() {
            return Err(Fault::lasting(anyhow!("more than one token has the label {token:?}")));
        }
        let pin = fs::read_to_string(pin_file)
            .with_context(|| format!("the PIN cannot be read from {}", pin_file.display()))
            .map_err(Fault::lasting)?;
        let pin = pin.trim_end();
        let digest = Sha256::digest(pin).into();
        let refused = || {
            let file = pin_file.display();
            Fault::lasting(anyhow!("token {token:?} does not take the PIN in {file}"))
        };
        if self.refused_pin == Some(digest) {
            return Err(refused());
        }
        let session = library.open_ro_session(slot).context("no session can be opened")?;
        match session.login(UserType::User, Some(&AuthPin::new(pin.into()))) {
            // Another session of this process has.
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => self.refused_pin = None,
            Err(Error::Pkcs11(RvError::PinIncorrect, _)) => {
                self.refused_pin = Some(digest);
                return Err(refused());
            }
            Err(Error::Pkcs11(RvError::PinLocked, _)) => {
                let why = anyhow!("token {token:?} is locked: its PIN was wrong too often");
                return Err(Fault::lasting(why));
            }
            Err(error) => Err(anyhow!("token {token:?} lets nobody in: {error}"))?,
        }
        let wanted = [
            Attribute::Class(ObjectClass::PRIVATE_KEY),
            Attribute::Label(key.clone().into_bytes()),
        ];
        let found = session.find_objects(&wanted).context("the keys cannot be listed")?;
        let count = found.len();
        match found[..] {
            [key] => Ok(Open { session, key }),
            [] => Err(Fault::lasting(anyhow!(
                "token {token:?} has no private key with the label {key:?}"
            ))),
            _ => Err(Fault::lasting(anyhow!(
                "token {token:?} has {count} private keys with the label {key:?}"
            ))),
        }
    }
}

/// Does the jobs that somebody waits for, until there can be no more.
fn serve(jobs: &Receiver<Job>, mut sign: impl FnMut(Scheme, &[u8]) -> Result<Vec<u8>, Fault>) {
    while let Ok(Job { scheme, message, until, signed }) = jobs.recv() {
        if Instant::now() < until {
            // Who has lost patience meanwhile does not hear it.
            let _ = signed.send(sign(scheme, &message));
        }
    }
}

fn begin(library: &Pkcs11) -> anyhow::Result<()> {
    match library.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        // Once in a process.
        Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => Ok(()),
        Err(error) => bail!("the PKCS #11 library cannot be initialized: {error}"),
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
    fn nothing_is_signed_that_nobody_waits_for() {
        let (sender, jobs) = sync_channel(WAITING);
        let now = Instant::now();
        for (message, until) in [(b"late", now), (b"good", now + PATIENCE)] {
            let (scheme, signed) = (Scheme::RsaSha256, mpsc::channel().0);
            sender.send(Job { scheme, message: message.to_vec(), until, signed }).unwrap();
        }
        drop(sender);
        let mut seen = Vec::new();
        serve(&jobs, |_, message| {
            seen.push(message.to_vec());
            Ok(Vec::new())
        });
        assert_eq!(seen, [b"good"]);
    }

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
