//! Where things are registered from in bulk.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Findings, S3, S3_SCHEME, bucket};

/// Registration in bulk.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Registration {
    /// What requests call a bucket, and where its objects are: a folder, or `s3://bucket/prefix`. Nothing
    /// is registered in bulk when there is none.
    pub buckets: BTreeMap<String, PathBuf>,
    /// Where reports are written: a folder, or `s3://bucket/prefix`.
    pub reports: Option<PathBuf>,
    /// The store of these URLs.
    pub s3: S3,
}

impl Registration {
    /// The files it names, and its folders.
    pub(super) fn files(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let places = self.buckets.values_mut().chain(self.reports.iter_mut());
        let s3 = [&mut self.s3.ca, &mut self.s3.credentials].into_iter().flatten();
        places.filter(|place| !is_url(place)).chain(s3)
    }

    /// The places it names, by their keys.
    pub fn places(&self) -> impl Iterator<Item = (String, &Path)> {
        let buckets = self.buckets.iter();
        let buckets =
            buckets.map(|(name, place)| (format!("registration.buckets.{name}"), place.as_path()));
        let reports = self.reports.iter();
        buckets.chain(reports.map(|place| ("registration.reports".to_owned(), place.as_path())))
    }

    pub(super) fn check(&self, found: &mut Findings) {
        for (key, place) in self.places() {
            if is_url(place) && bucket(place).is_none() {
                let text = format!("{place:?} is not `s3://bucket` or `s3://bucket/prefix`");
                found.problem(key, text);
            } else if place.as_os_str().is_empty() {
                found.problem(key, "names no folder");
            }
        }
        let is_name = |name: &str| {
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
            (3..=256).contains(&name.len()) && name.bytes().all(is_plain)
        };
        for name in self.buckets.keys().filter(|name| !is_name(name)) {
            let text = format!("{name:?} is not 3 to 256 letters, digits, `.`, `_` and `-`");
            found.problem("registration.buckets", text);
        }
        if !self.buckets.is_empty() && self.reports.is_none() {
            found.problem("registration.reports", "is needed where there are buckets");
        }
        let endpoint = self.s3.endpoint.iter();
        for why in endpoint.filter_map(|endpoint| self.s3.check_endpoint(endpoint).err()) {
            found.problem("registration.s3.endpoint", why);
        }
    }
}

/// Whether a place is in a store, and not a folder.
pub(crate) fn is_url(place: &Path) -> bool {
    place.to_str().is_some_and(|place| place.starts_with(S3_SCHEME))
}
