//! `skein dev`: a node with everything it needs to be tried.

use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::{Context, bail};
use api::Backend as _;
use fleet::registry::{
    CertificateStatus, Command, PolicyName, Principal, Rejection, ThingName, ThingPrincipalType,
    Timestamp,
};
use uuid::Uuid;

use crate::backend::Backend;
use crate::clock::now_ms;
use crate::config::{AccessKey, Account, Config, Findings, Listener, Log, LogFormat};
use crate::kept;
use crate::pki::{Pki, write_public, write_secret};

/// The thing that a new data directory holds.
const THING: &str = "dev-thing";

/// The bucket that things are registered from in bulk: a folder of this name.
const BUCKET: &str = "dev-bucket";

/// What devices and anonymous clients may do in development: everything.
const POLICY: &str =
    r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}"#;

/// What the command line says about a development node.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the node keeps its state, its certificates and its keys.
    pub data: PathBuf,
    /// Added to every port.
    pub port_offset: u16,
    /// The account in ARNs.
    pub account: String,
    /// The region in ARNs.
    pub region: String,
    /// See [`Config::accept_log_loss`].
    pub accept_log_loss: bool,
}

/// A development node's files and configuration.
pub struct Dev {
    /// Its configuration.
    pub config: Config,
    pki: Pki,
    port_offset: u16,
}

impl Dev {
    /// Makes what is missing in the data directory.
    pub fn prepare(options: Options) -> anyhow::Result<Self> {
        let Options { data, port_offset, account, region, accept_log_loss } = options;
        if port_offset > u16::MAX - 9464 {
            bail!(
                "--port-offset {port_offset}: ports end at 65535, so at most {}",
                u16::MAX - 9464
            );
        }
        let account = Account { id: account, region, any_region: true, ..Account::default() };
        Config { account: account.clone(), ..Config::default() }.check().refuse_problems()?;
        if data.exists() && !data.is_dir() {
            bail!("--data {}: it is not a folder", data.display());
        }
        fs::create_dir_all(&data).with_context(|| format!("cannot make {}", data.display()))?;
        let data = fs::canonicalize(&data)?;
        let made_here = ["aws/credentials", "pki/device.pem"];
        if kept::has_state(&data)? && !made_here.iter().any(|file| data.join(file).exists()) {
            bail!(
                "--data {}: `skein dev` has not made it, since neither aws/credentials nor pki/device.pem is \
                 there; it would register a device there that may do everything: use another folder",
                data.display()
            );
        }
        refuse_other_account(&data, &account)?;
        let pki = Pki::open(&data.join("pki"))?;
        let access_key = access_key(&data.join("aws"), &account.region)?;
        let port = |port: u16| Some(([127, 0, 0, 1], port + port_offset).into());
        let everywhere = |port: u16| Some(([0, 0, 0, 0], port + port_offset).into());
        let open = Some(POLICY.to_owned());
        let mut config = Config { data, accept_log_loss, account, ..Config::default() };
        let listeners = &mut config.listeners;
        let listener = |address| Listener { address, ..Listener::default() };
        listeners.mqtt = Listener { anonymous_policy: open.clone(), ..listener(port(1883)) };
        listeners.ws = Listener { anonymous_policy: open, ..listener(port(8083)) };
        listeners.mqtts = listener(everywhere(8883));
        listeners.quic = listener(everywhere(8883));
        listeners.https = listener(everywhere(8443));
        listeners.http = listener(port(8080));
        listeners.admin = listener(port(9464));
        config.tls.certificate = Some(pki.server.clone());
        config.tls.private_key = Some(pki.server_key.clone());
        config.tls.issuer_certificate = Some(pki.ca.clone());
        config.tls.issuer_private_key = Some(pki.ca_key.clone());
        for (folder, in_config) in [
            (BUCKET, config.registration.buckets.entry(BUCKET.to_owned()).or_default()),
            ("reports", config.registration.reports.get_or_insert_default()),
        ] {
            *in_config = config.data.join("registration").join(folder);
            fs::create_dir_all(&in_config)?;
        }
        config.access_keys = vec![access_key];
        config.log = Log { format: LogFormat::Human, ..Log::default() };
        Ok(Self { config, pki, port_offset })
    }

    /// Registers the development thing, its certificate and its policy, where they are missing.
    pub async fn populate(&self, backend: &Backend) -> anyhow::Result<()> {
        let pem = fs::read_to_string(&self.pki.device)?;
        let inspected = api::x509::inspect(&pem)?;
        let at = Timestamp(now_ms());
        let thing = ThingName::new(THING)?;
        let policy = PolicyName::new("dev-policy")?;
        let id_of_device = inspected.id.clone();
        let principal = Principal::Certificate(inspected.id.clone());
        let certificate = Command::RegisterCertificate {
            certificate: inspected.id,
            pem,
            status: CertificateStatus::Active,
            mode: Default::default(),
            authority: None,
            summary: inspected.summary,
            generation: Uuid::new_v4(),
            at,
        };
        // The last step: when it is done, all are.
        let known = backend.registry_read(move |registry| {
            let thing = registry.thing_of_connection(Some(id_of_device.as_str()), Some(THING));
            thing.is_some_and(|thing| thing.attached)
        });
        let known = known.await?;
        if known {
            return Ok(());
        }
        let document = POLICY.to_owned();
        let (tags, generation) = (Default::default(), Uuid::new_v4());
        let target = principal.clone();
        let attributes = Default::default();
        let id = Uuid::new_v4();
        for command in [
            certificate,
            Command::CreatePolicy { policy: policy.clone(), document, tags, generation, at },
            Command::AttachPolicy { policy, target },
            Command::CreateThing {
                thing: thing.clone(),
                id,
                thing_type: None,
                attributes,
                billing_group: None,
                at,
            },
            Command::AttachThingPrincipal {
                thing,
                principal,
                kind: ThingPrincipalType::NonExclusiveThing,
            },
        ] {
            match backend.registry_propose(command).await {
                Ok(_) => {}
                // Left by a start that was cut short, or there before the device got another certificate.
                Err(api::backend::ProposeError::Rejected(
                    Rejection::PolicyExists(_)
                    | Rejection::CertificateExists(_)
                    | Rejection::ThingExists { .. },
                )) => {}
                Err(error) => return Err(error).context("cannot register the development thing"),
            }
        }
        Ok(())
    }

    /// What a person needs to use the node: endpoints, files, and commands to copy.
    pub fn welcome(&self) -> String {
        let port = |port: u16| port + self.port_offset;
        let data = self.config.data.display();
        let Pki { ca, device, device_key, .. } = &self.pki;
        let (ca, device, key) = (quoted(ca), quoted(device), quoted(device_key));
        let aws = self.config.data.join("aws");
        let (credentials, config) = (quoted(&aws.join("credentials")), quoted(&aws.join("config")));
        format!(
            "\
Skein is ready. Data, certificates and keys are in {data}

  MQTT                 127.0.0.1:{}  (no TLS, no credentials, loopback only)
  MQTT over TLS        localhost:{}  (client certificate)
  MQTT over QUIC       localhost:{}  (UDP; client certificate)
  MQTT over WebSocket  ws://127.0.0.1:{}/mqtt
  WebSocket and HTTPS  https://localhost:{}  (client certificate or SigV4)
  AWS-compatible REST  http://127.0.0.1:{}
  Metrics and health   http://127.0.0.1:{}/metrics /livez /readyz

Try it (a second client with -i dev-thing takes over from the first):

  mosquitto_sub -h localhost -p {} --cafile {ca} --cert {device} --key {key} -i dev-thing -q 1 -t 'greetings/#' -v
  mosquitto_pub -h 127.0.0.1 -p {} -q 1 -t greetings/world -m hello
  mosquitto_pub -h 127.0.0.1 -p {} -q 1 -t '$aws/things/dev-thing/shadow/update' -m '{{\"state\":{{\"desired\":{{\"light\":\"on\"}}}}}}'
  AWS_SHARED_CREDENTIALS_FILE={credentials} AWS_CONFIG_FILE={config} aws --endpoint-url http://127.0.0.1:{} iot list-things
  curl http://127.0.0.1:{}/metrics
",
            port(1883),
            port(8883),
            port(8883),
            port(8083),
            port(8443),
            port(8080),
            port(9464),
            port(8883),
            port(1883),
            port(1883),
            port(8080),
            port(9464),
        )
    }
}

/// Finds that a folder is one that `skein dev` has made, and lets in whoever has the key of its device.
pub fn check_device(config: &Config, found: &mut Findings) {
    let key = device_key(&config.data);
    if key.exists() {
        let text = format!(
            "`skein dev` has made {}: whoever has {} may do everything as {THING}; make its certificate inactive, \
             detach dev-policy and {THING} from it, delete it and the file, or use another folder",
            config.data.display(),
            key.display()
        );
        found.warning("data", text);
    }
}

fn device_key(data: &Path) -> PathBuf {
    data.join("pki").join("device.key")
}

/// Refuses another account and region than the folder was made with, in the words of the command line.
fn refuse_other_account(data: &Path, account: &Account) -> anyhow::Result<()> {
    let Some(kept) = kept::account(data)?.filter(|kept| *kept != kept::named(account)) else {
        return Ok(());
    };
    let (id, region) = kept.split_once(' ').unwrap_or_default();
    bail!(
        "--account-id {} --region {}: {} was made with --account-id {id} --region {region}, which the \
         ARNs in its policies name; use these, or another --data",
        account.id,
        account.region,
        data.display()
    )
}

/// Reads the access key of an earlier start, or makes one.
fn access_key(folder: &Path, region: &str) -> anyhow::Result<AccessKey> {
    let credentials = folder.join("credentials");
    let kept = match fs::read_to_string(&credentials) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            return Err(error).with_context(|| format!("cannot read {}", credentials.display()));
        }
    };
    if let Some(text) = kept {
        let value = |key: &str| {
            let mut lines = text.lines().filter_map(|line| line.split_once('='));
            lines.find(|(name, _)| name.trim() == key).map(|(_, value)| value.trim().to_owned())
        };
        if let (Some(id), Some(secret)) =
            (value("aws_access_key_id"), value("aws_secret_access_key"))
        {
            return Ok(AccessKey { id, secret, ..AccessKey::default() });
        }
        bail!("{} holds no access key; remove it to have one made", credentials.display());
    }
    let random = || Uuid::new_v4().simple().to_string();
    let id = format!("AKIADEV{}", random()[..13].to_uppercase());
    let secret = format!("{}{}", random(), &random()[..8]);
    fs::create_dir_all(folder)?;
    let text = format!("[default]\nregion = {region}\noutput = json\n");
    write_public(&folder.join("config"), &text)?;
    let text = format!("[default]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n");
    write_secret(&credentials, &text)
        .with_context(|| format!("cannot write {}", credentials.display()))?;
    Ok(AccessKey { id, secret, ..AccessKey::default() })
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}
