//! Where backups are kept.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::Findings;

/// How the URL of a place in an S3-compatible store begins.
pub const S3_SCHEME: &str = "s3://";

/// Backups of the state.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Backup {
    /// Where they are written, each into a folder of its own.
    pub folder: Option<PathBuf>,
    /// Where they are written instead, as `s3://bucket/prefix`. None are taken when both are absent.
    pub url: Option<String>,
    /// The store of `url`, and of the URLs that `skein cluster check` and `restore` are given.
    pub s3: S3,
}

/// How an S3-compatible store is reached.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct S3 {
    /// `https://host:port`; `AWS_ENDPOINT_URL_S3` or `AWS_ENDPOINT_URL` when absent, and then what AWS has
    /// in the region.
    pub endpoint: Option<String>,
    /// `AWS_REGION` or `AWS_DEFAULT_REGION` when absent, and then `us-east-1`.
    pub region: Option<String>,
    /// Whether the bucket stands in the path of a URL rather than in its host name.
    pub path_style: bool,
    /// Whether an endpoint may be without TLS: what is stored can be read on the way.
    pub allow_http: bool,
    /// A CA that is believed besides those of the machine, in PEM.
    pub ca: Option<PathBuf>,
    /// A file like `~/.aws/credentials`; the environment's `AWS_ACCESS_KEY_ID` and its like when absent.
    pub credentials: Option<PathBuf>,
    /// The part of that file.
    pub profile: String,
}

impl Default for S3 {
    fn default() -> Self {
        Self {
            endpoint: None,
            region: None,
            path_style: true,
            allow_http: false,
            ca: None,
            credentials: None,
            profile: "default".into(),
        }
    }
}

impl Backup {
    /// The folder, or the URL, below which backups are.
    pub fn place(&self) -> Option<PathBuf> {
        self.folder.clone().or_else(|| self.url.as_ref().map(PathBuf::from))
    }

    /// The files it names, and its folder.
    pub(super) fn files(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        [&mut self.folder, &mut self.s3.ca, &mut self.s3.credentials].into_iter().flatten()
    }

    pub(super) fn check(&self, found: &mut Findings) {
        if self.folder.is_some() && self.url.is_some() {
            found.problem("backup.url", "backups go to one place, and there is backup.folder");
        }
        if let Some(url) = self.url.as_ref().filter(|url| bucket(Path::new(url)).is_none()) {
            let text = format!("{url:?} is not `s3://bucket` or `s3://bucket/prefix`");
            found.problem("backup.url", text);
        }
        let endpoint = self.s3.endpoint.iter();
        for why in endpoint.filter_map(|endpoint| self.s3.check_endpoint(endpoint).err()) {
            found.problem("backup.s3.endpoint", why);
        }
    }
}

impl S3 {
    /// Whether a store may be reached there.
    pub fn check_endpoint(&self, endpoint: &str) -> Result<(), String> {
        match endpoint.parse::<axum::http::Uri>().ok().as_ref().and_then(|it| it.scheme_str()) {
            Some("https") => Ok(()),
            Some("http") if self.allow_http => Ok(()),
            Some("http") => Err(format!(
                "{endpoint:?} has no TLS, what is stored could be read on the way: set \
                 allow_http beside it if it may"
            )),
            _ => Err(format!("{endpoint:?} is not a URL like \"https://s3.example.com\"")),
        }
    }
}

/// Bucket and prefix, if a place is the URL of one; the prefix may be empty.
pub fn bucket(place: &Path) -> Option<(&str, &str)> {
    let rest = place.to_str()?.strip_prefix(S3_SCHEME)?;
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let is_plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
    (!bucket.is_empty() && bucket.bytes().all(is_plain)).then_some((bucket, prefix))
}
