//! Gives out certificates, revokes them and restores them, through any node.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};

use super::Place;
use crate::client::Credentials;
use crate::cluster::{HTTP, POLICY};
use crate::record::What;
use crate::{Dice, control};

const POLICY_NAME: &str = "outcasts";

/// A certificate that was given out.
pub(super) struct Identity {
    /// The id of the certificate.
    pub(super) principal: String,
    pub(super) credentials: Credentials,
}

/// Where a warden lays down the certificate that is to be used.
#[derive(Default)]
pub(super) struct Desk {
    identity: Mutex<Option<Arc<Identity>>>,
    is_closed: AtomicBool,
}

impl Desk {
    pub(super) fn identity(&self) -> Option<Arc<Identity>> {
        self.identity.lock().expect("no thread panics with it").clone()
    }

    /// Whether this certificate is still the one to be used.
    pub(super) fn has(&self, used: &Identity) -> bool {
        self.identity().is_some_and(|identity| identity.principal == used.principal)
    }

    /// Whether the certificate that lies there now is active and stays so.
    pub(super) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::SeqCst)
    }
}

/// See the module.
pub(super) struct Warden {
    /// Who has signed the certificates of nodes.
    authority: String,
    desk: Arc<Desk>,
    dice: Dice,
}

impl Warden {
    pub(super) fn new(authority: String, desk: Arc<Desk>, dice: &mut Dice) -> Self {
        Self { authority, desk, dice: dice.split() }
    }

    pub(super) fn live(&mut self, place: &Place<'_>) {
        while !place.is_over() {
            // The last one is given out, revoked and restored while nothing troubles the cluster.
            let is_last = place.is_finishing();
            let Some(identity) = self.issue(place) else { continue };
            let principal = identity.principal.clone();
            *self.desk.identity.lock().expect("no thread panics with it") =
                Some(Arc::new(identity));
            let mut is_active = true;
            while is_active && !place.is_over() {
                is_active = self.revoke_for_a_while(place, &principal);
                if place.is_finishing() {
                    break;
                }
            }
            if is_last && is_active {
                self.desk.is_closed.store(true, Ordering::SeqCst);
                return;
            }
        }
    }

    /// Whether the certificate is active again. Asking for that is not repeated: what was not answered
    /// may be done at any time later, also after the next revocation.
    fn revoke_for_a_while(&mut self, place: &Place<'_>, principal: &str) -> bool {
        thread::sleep(self.dice.millis(1_000..3_000));
        while !self.set_status(place, principal, "INACTIVE") {
            if place.is_over() {
                return false;
            }
        }
        place.recorder.note(What::Revoked { principal: principal.to_owned() });
        // Half of the time for longer than a node that is cut off keeps its connections.
        let is_long = !place.is_finishing() && self.dice.one_in(2);
        thread::sleep(self.dice.millis(if is_long { 8_000..14_000 } else { 2_000..5_000 }));
        place.recorder.note(What::Restoring { principal: principal.to_owned() });
        self.set_status(place, principal, "ACTIVE")
    }

    fn set_status(&mut self, place: &Place<'_>, principal: &str, status: &str) -> bool {
        let target = format!("/certificates/{principal}?newStatus={status}");
        self.ask(place, "PUT", &target, &Value::Null).is_ok()
    }

    /// A new certificate that may do everything; `None` when it cannot be had now.
    fn issue(&mut self, place: &Place<'_>) -> Option<Identity> {
        let policy = json!({ "policyDocument": POLICY });
        // Refused when it is there already.
        drop(self.ask(place, "POST", &format!("/policies/{POLICY_NAME}"), &policy));
        let made = self.ask(place, "POST", "/keys-and-certificate?setAsActive=true", &Value::Null);
        let made = made.ok()?;
        let target = json!({ "target": made["certificateArn"] });
        self.ask(place, "PUT", &format!("/target-policies/{POLICY_NAME}"), &target).ok()?;
        match self.identity(&made) {
            Ok(identity) => Some(identity),
            Err(error) => {
                let text = format!("CreateKeysAndCertificate: {error:#}");
                place.recorder.note(What::Broken { client: "warden".into(), text });
                None
            }
        }
    }

    fn identity(&self, made: &Value) -> anyhow::Result<Identity> {
        let text =
            |value: &Value| value.as_str().map(str::to_owned).context("something is missing");
        let (certificate, key) =
            (text(&made["certificatePem"])?, text(&made["keyPair"]["PrivateKey"])?);
        let credentials = Credentials::read(&certificate, &key, &self.authority)?;
        Ok(Identity { principal: text(&made["certificateId"])?, credentials })
    }

    fn ask(
        &mut self,
        place: &Place<'_>,
        method: &str,
        target: &str,
        body: &Value,
    ) -> io::Result<Value> {
        let (_, address) = place.any(HTTP, &mut self.dice);
        let answer = control::ask(address, method, target, body);
        if answer.is_err() {
            thread::sleep(Duration::from_millis(30));
        }
        answer
    }
}
