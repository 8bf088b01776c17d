//! Certificate revocation lists: what authorities have taken back, by serial number.
//!
//! A list belongs to a subject and a key, as the certificates do that were signed with them: a certificate of
//! an authority that was renewed with the same key has the same list. It goes with the last of them. Of an
//! authority that has gone, what it was is kept as long as it has certificates here: a list names them, too.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::authorities::Authority;
use super::model::{CertificateStatus, CertificateSummary, Timestamp};
use super::names::CertificateId;
use super::store::Key;
use super::{Outcome, Registry, Rejection};

/// The longest serial number in bytes, as RFC 5280 has it (4.1.2.2).
pub const LONGEST_SERIAL: usize = 20;

/// What an authority has taken back, as its newest list says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevocationList {
    /// When it was issued: its `thisUpdate`.
    pub issued: Timestamp,
    /// When there is a newer one at the latest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_update: Option<Timestamp>,
    /// Its CRL number in hex without zeros in front, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<Box<str>>,
    /// The serial numbers of the certificates.
    pub serials: SerialNumbers,
    /// When it was imported.
    pub imported: Timestamp,
}

impl RevocationList {
    /// By their numbers, where both have one, and else by when they were issued.
    fn is_older_than(&self, other: &Self) -> bool {
        let order = match (&self.number, &other.number) {
            (Some(own), Some(others)) => (own.len(), own).cmp(&(others.len(), others)),
            _ => self.issued.cmp(&other.issued),
        };
        order.then(self.issued.cmp(&other.issued)).is_lt()
    }

    /// Whether a certificate of the authority is on it.
    fn names(&self, certificate: &CertificateSummary) -> bool {
        let mut bytes = [0; LONGEST_SERIAL];
        let Some(hex) = &certificate.names.serial_number else { return false };
        let Some(serial) = bytes.get_mut(..hex.len() / 2) else { return false };
        hex::decode_to_slice(hex, serial).is_ok() && self.serials.contains(serial)
    }
}

/// Serial numbers, those of one length beside each other and in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<usize, String>", into = "BTreeMap<usize, String>")]
pub struct SerialNumbers {
    of_length: BTreeMap<usize, Box<[u8]>>,
}

impl SerialNumbers {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.of_length.iter().map(|(length, serials)| serials.len() / length).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.of_length.is_empty()
    }

    /// Whether one is there, given without zeros in front.
    pub fn contains(&self, serial: &[u8]) -> bool {
        let Some(serials) = self.of_length.get(&serial.len()) else { return false };
        let (mut from, mut to) = (0, serials.len() / serial.len());
        while from < to {
            let middle = from.midpoint(to);
            let at = middle * serial.len();
            match serials[at..at + serial.len()].cmp(serial) {
                std::cmp::Ordering::Less => from = middle + 1,
                std::cmp::Ordering::Equal => return true,
                std::cmp::Ordering::Greater => to = middle,
            }
        }
        false
    }
}

impl<'a> FromIterator<&'a [u8]> for SerialNumbers {
    /// Of serial numbers without zeros in front; one without bytes is none.
    fn from_iter<I: IntoIterator<Item = &'a [u8]>>(serials: I) -> Self {
        let mut of_length = BTreeMap::<usize, BTreeSet<&[u8]>>::new();
        for serial in serials.into_iter().filter(|serial| !serial.is_empty()) {
            of_length.entry(serial.len()).or_default().insert(serial);
        }
        let joined = |serials: BTreeSet<&[u8]>| {
            serials.into_iter().collect::<Vec<_>>().concat().into_boxed_slice()
        };
        let of_length = of_length.into_iter();
        Self { of_length: of_length.map(|(length, serials)| (length, joined(serials))).collect() }
    }
}

impl From<SerialNumbers> for BTreeMap<usize, String> {
    fn from(serials: SerialNumbers) -> Self {
        let encoded = |(length, serials)| (length, STANDARD.encode(serials));
        serials.of_length.into_iter().map(encoded).collect()
    }
}

impl TryFrom<BTreeMap<usize, String>> for SerialNumbers {
    type Error = String;

    fn try_from(encoded: BTreeMap<usize, String>) -> Result<Self, String> {
        let mut of_length = BTreeMap::new();
        for (length, serials) in encoded {
            let serials = STANDARD.decode(serials).map_err(|error| error.to_string())?;
            let is_whole = length > 0 && !serials.is_empty() && serials.len() % length == 0;
            if !is_whole || !serials.chunks(length).is_sorted_by(|one, next| one < next) {
                return Err(format!("they are no serial numbers of {length} bytes in order"));
            }
            of_length.insert(length, serials.into_boxed_slice());
        }
        Ok(Self { of_length })
    }
}

/// Whose list it is: the subject and the key of authorities, as [`Authority`] has them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Signer {
    pub(super) subject: Box<str>,
    pub(super) key: Box<str>,
}

impl Signer {
    pub(super) fn of(authority: &Authority) -> Self {
        Self { subject: authority.subject.clone(), key: authority.key.clone() }
    }
}

impl Registry {
    /// Takes the place of the list before. What it names and is registered is revoked; what it names no more
    /// stays as it is.
    pub(super) fn import_revocations(
        &mut self,
        authority: &CertificateId,
        list: RevocationList,
    ) -> Result<Outcome, Rejection> {
        let not_found = || Rejection::AuthorityNotFound(authority.clone());
        let signer = Signer::of(self.authorities.get(authority).ok_or_else(not_found)?);
        if let Some(present) = self.revocation_lists.get(&signer)
            && list.is_older_than(present)
        {
            let RevocationList { issued, number, .. } = present.clone();
            return Err(Rejection::RevocationListOlder { issued, number });
        }
        let revoked: Vec<_> = self.not_revoked_yet(&signer, &list).cloned().collect();
        for id in &revoked {
            self.settle(id, CertificateStatus::Revoked, list.imported);
        }
        self.revocation_lists.insert(signer.clone(), list);
        self.dirty.insert(Key::RevocationList(signer));
        Ok(Outcome::Revoked { certificates: revoked.len() as u64 })
    }

    /// The certificates that a list of an authority would revoke.
    pub fn revoked_by(
        &self,
        authority: &CertificateId,
        list: &RevocationList,
    ) -> impl Iterator<Item = &CertificateId> {
        let signer = self.authorities.get(authority).map(Signer::of);
        signer.into_iter().flat_map(move |signer| self.not_revoked_yet(&signer, list))
    }

    fn not_revoked_yet<'a, 'b>(
        &'a self,
        signer: &Signer,
        list: &'b RevocationList,
    ) -> impl Iterator<Item = &'a CertificateId> + use<'a, 'b> {
        let former = self.former_authorities.iter().filter(|(_, it)| *it == signer);
        let authorities: BTreeSet<_> =
            self.authorities_of(signer).map(|it| &it.id).chain(former.map(|(id, _)| id)).collect();
        let is_named = move |authority: &CertificateId, summary: &CertificateSummary| {
            authorities.contains(authority) && list.names(summary)
        };
        let registered = self.certificates.values();
        let named = registered.filter(move |it| {
            let is_open = it.status != CertificateStatus::Revoked;
            is_open && it.authority.as_ref().is_some_and(|by| is_named(by, &it.summary))
        });
        named.map(|it| &it.id)
    }

    /// An authority has gone, and its list with it unless others have the same key.
    pub(super) fn forget_revocations_of(&mut self, authority: &Authority) {
        let signer = Signer::of(authority);
        if self.indexes.certificates_of_authority.contains_key(&authority.id) {
            self.former_authorities.insert(authority.id.clone(), signer.clone());
            self.dirty.insert(Key::FormerAuthority(authority.id.clone()));
        }
        if self.authorities_of(&signer).next().is_none()
            && self.revocation_lists.remove(&signer).is_some()
        {
            self.dirty.insert(Key::RevocationList(signer));
        }
    }

    /// An authority is there again, or has no certificates any more.
    pub(super) fn forget_former_authority(&mut self, id: &CertificateId) {
        if self.former_authorities.remove(id).is_some() {
            self.dirty.insert(Key::FormerAuthority(id.clone()));
        }
    }

    fn authorities_of(&self, signer: &Signer) -> impl Iterator<Item = &Authority> {
        self.authorities_of_subject(&signer.subject).filter(|it| it.key == signer.key)
    }

    /// What is on the list of its authority is not registered and not activated.
    pub(super) fn check_not_revoked(
        &self,
        id: &CertificateId,
        authority: Option<&CertificateId>,
        summary: &CertificateSummary,
    ) -> Result<(), Rejection> {
        let signer = authority.and_then(|id| match self.authorities.get(id) {
            Some(authority) => Some(Signer::of(authority)),
            None => self.former_authorities.get(id).cloned(),
        });
        let list = signer.and_then(|signer| self.revocation_lists.get(&signer));
        match list.is_some_and(|list| list.names(summary)) {
            true => Err(Rejection::CertificateRevoked(id.clone())),
            false => Ok(()),
        }
    }

    /// Whether a certificate is on the list of the authority that has signed it.
    pub fn has_revoked(&self, authority: &Authority, certificate: &CertificateSummary) -> bool {
        let list = self.revocation_lists.get(&Signer::of(authority));
        list.is_some_and(|list| list.names(certificate))
    }

    /// The revocation list of an authority, by the authority's id.
    pub fn revocation_list(&self, authority: &str) -> Option<&RevocationList> {
        self.revocation_lists.get(&Signer::of(self.authorities.get(authority)?))
    }

    /// When the first of the lists is outdated.
    pub fn next_revocation_list(&self) -> Option<Timestamp> {
        self.revocation_lists.values().filter_map(|list| list.next_update).min()
    }
}
