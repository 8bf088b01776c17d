//! Keys and certificates that `skein dev` makes for itself, and those of a cluster's nodes.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

/// The files in `DIR/pki`.
#[derive(Clone, Debug)]
pub struct Pki {
    /// The CA that signed the other certificates.
    pub ca: PathBuf,
    /// Its key.
    pub ca_key: PathBuf,
    /// The node's certificate: localhost, 127.0.0.1, ::1.
    pub server: PathBuf,
    /// Its key.
    pub server_key: PathBuf,
    /// The certificate of `dev-thing`.
    pub device: PathBuf,
    /// Its key.
    pub device_key: PathBuf,
}

impl Pki {
    fn of(folder: &Path) -> Self {
        Self {
            ca: folder.join("ca.pem"),
            ca_key: folder.join("ca.key"),
            server: folder.join("server.pem"),
            server_key: folder.join("server.key"),
            device: folder.join("device.pem"),
            device_key: folder.join("device.key"),
        }
    }

    /// Uses the files in a folder; makes the folder with all of them when it is not there.
    pub fn open(folder: &Path) -> anyhow::Result<Self> {
        let pki = Self::of(folder);
        if !folder.exists() {
            make_folder(folder, |new| Self::of(new).make())
                .with_context(|| format!("cannot make certificates in {}", folder.display()))?;
        }
        let all =
            [&pki.ca, &pki.ca_key, &pki.server, &pki.server_key, &pki.device, &pki.device_key];
        if let Some(missing) = all.into_iter().find(|file| !file.exists()) {
            bail!(
                "{} is missing: put it back, use another --data, or, if `skein dev` has made {}, remove that to \
                 have all its files made anew; the certificate of the device before goes on to be accepted until \
                 it is deleted",
                missing.display(),
                folder.display()
            );
        }
        Ok(pki)
    }

    fn make(&self) -> anyhow::Result<()> {
        let ca_key = KeyPair::generate()?;
        let mut ca = params("Skein development CA");
        ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let ca_certificate = ca.self_signed(&ca_key)?;
        write_secret(&self.ca_key, &ca_key.serialize_pem())?;
        write_public(&self.ca, &ca_certificate.pem())?;
        let issuer = Issuer::new(ca, ca_key);

        let mut server =
            CertificateParams::new(["localhost", "127.0.0.1", "::1"].map(String::from))?;
        leaf(&mut server, "localhost", ExtendedKeyUsagePurpose::ServerAuth);
        let key = KeyPair::generate()?;
        write_secret(&self.server_key, &key.serialize_pem())?;
        write_public(&self.server, &server.signed_by(&key, &issuer)?.pem())?;

        let mut device = CertificateParams::default();
        leaf(&mut device, "dev-thing", ExtendedKeyUsagePurpose::ClientAuth);
        let key = KeyPair::generate()?;
        write_secret(&self.device_key, &key.serialize_pem())?;
        write_public(&self.device, &device.signed_by(&key, &issuer)?.pem())?;
        Ok(())
    }
}

/// Makes a folder with all that belongs in it, or none.
fn make_folder(
    folder: &Path,
    fill: impl FnOnce(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let new = folder.with_extension("new");
    if new.exists() {
        // Left by a start that was cut short.
        fs::remove_dir_all(&new)?;
    }
    fs::create_dir_all(&new)?;
    fill(&new)?;
    for file in fs::read_dir(&new)? {
        fs::File::open(file?.path())?.sync_all()?;
    }
    Ok(fs::rename(&new, folder)?)
}

/// Makes keys and certificates for the links of these nodes in a folder: `node-<n>.pem` and
/// `node-<n>.key`, signed by `ca.pem`, whose key is `ca.key`. The CA is made if it is not there; a node
/// that has its files keeps them. Gives the nodes that got new ones.
pub fn make_node_keys(folder: &Path, nodes: &[u64]) -> anyhow::Result<Vec<u64>> {
    let (ca, ca_key) = (folder.join("ca.pem"), folder.join("ca.key"));
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut params = params("Skein cluster CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let issuer = if ca.exists() {
        let read = |path: &Path| {
            fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
        };
        let key = KeyPair::from_pem(&read(&ca_key)?)
            .with_context(|| format!("{} is no private key", ca_key.display()))?;
        Issuer::from_ca_cert_pem(&read(&ca)?, key)
            .with_context(|| format!("{} is no CA certificate", ca.display()))?
    } else {
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        write_secret(&ca_key, &key.serialize_pem())?;
        write_public(&ca, &certificate.pem())?;
        Issuer::new(params, key)
    };
    let mut made = Vec::new();
    for &node in nodes {
        let file = |ending: &str| folder.join(format!("node-{node}.{ending}"));
        if file("pem").exists() {
            continue;
        }
        let name = links::certificate_name(node);
        let mut certificate = CertificateParams::new([name.clone()])?;
        leaf(&mut certificate, &name, ExtendedKeyUsagePurpose::ServerAuth);
        certificate.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
        let key = KeyPair::generate()?;
        write_secret(&file("key"), &key.serialize_pem())?;
        write_public(&file("pem"), &certificate.signed_by(&key, &issuer)?.pem())?;
        made.push(node);
    }
    Ok(made)
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2024, 1, 1);
    params.not_after = date_time_ymd(2049, 12, 31);
    params
}

fn leaf(certificate: &mut CertificateParams, name: &str, purpose: ExtendedKeyUsagePurpose) {
    let names = std::mem::take(&mut certificate.subject_alt_names);
    *certificate = params(name);
    certificate.subject_alt_names = names;
    certificate.is_ca = IsCa::ExplicitNoCa;
    certificate.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    certificate.extended_key_usages = vec![purpose];
    certificate.use_authority_key_identifier_extension = true;
}

/// Writes a file that everybody may read, whatever the process makes of other files.
pub fn write_public(path: &Path, text: &str) -> io::Result<()> {
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))
}

/// Writes a file that only its owner may read.
pub fn write_secret(path: &Path, text: &str) -> io::Result<()> {
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}
