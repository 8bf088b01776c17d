//! `skein login`: a person logs in with an OpenID Connect provider, and gets temporary credentials for
//! the token from a node, in the form in which AWS tools take them from a `credential_process`.
//!
//! The token comes by the authorization code flow with PKCE and an answer to a port of this machine
//! (RFC 8252), or by a code that is entered on another one (RFC 8628). Who signed it is for the node to
//! check; here it has to be an answer to what was asked.

mod browser;
mod cache;
mod device;
mod sts;

use std::fs::{self, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use authorizer::jwt::Claimed;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use crate::fetch;
use crate::jwks::{Metadata, discovery};

/// What RFC 3986 leaves unreserved.
const ENCODED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
/// How long an answer of the provider or the node may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// What a session is called whose person has no name that could be one.
const SESSION: &str = "skein-login";

/// What is asked, of whom, and how.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Where the node serves REST, like `https://iot.example.com:8443`.
    #[arg(long)]
    endpoint: String,
    /// The issuer, as in `[oidc.NAME]` of the node's configuration.
    #[arg(long)]
    issuer: String,
    /// The id of Skein as a client of the provider: `audience` in that configuration.
    #[arg(long)]
    client_id: String,
    /// A file with the secret of the client, for providers that want one of programs, too.
    #[arg(long)]
    client_secret_file: Option<PathBuf>,
    /// `admin`, `operator`, `read-only`, or an ARN like `arn:aws:iam::000000000000:role/admin`.
    #[arg(long)]
    role: String,
    /// The account of the node, for `--role` without an ARN.
    #[arg(long, default_value = "000000000000")]
    account_id: String,
    /// What the session is called; the name that the provider knows by default.
    #[arg(long)]
    session_name: Option<String>,
    /// How long the credentials last, in seconds; what the node finds usual by default.
    #[arg(long)]
    duration: Option<u32>,
    /// Prints a code to enter on another machine, for one without a browser.
    #[arg(long)]
    device: bool,
    /// What the provider is asked for: put in what makes it say the claims that give roles.
    #[arg(long, default_value = "openid profile email")]
    scope: String,
    /// A CA in PEM that is trusted beside those of the machine.
    #[arg(long)]
    ca: Option<PathBuf>,
    /// Logs in anew each time: otherwise credentials are kept in a file of the user's cache until they
    /// are about to expire.
    #[arg(long)]
    no_cache: bool,
    /// Logs in now, and keeps the new credentials: for when those that are kept are refused.
    #[arg(long, conflicts_with = "no_cache")]
    renew: bool,
    /// Seconds until this command gives up waiting for the person.
    #[arg(long, default_value_t = 300)]
    timeout: u64,
}

impl Options {
    /// The role in the words of STS.
    fn role_arn(&self) -> String {
        match self.role.starts_with("arn:") {
            true => self.role.clone(),
            false => format!("arn:aws:iam::{}:role/{}", self.account_id, self.role),
        }
    }
}

/// Logs in, and gives what is to be printed.
///
/// # Errors
/// When an address is none, nobody logs in in time, or the provider or the node refuses.
pub fn login(options: &Options) -> anyhow::Result<String> {
    check_address("--endpoint", &options.endpoint)?;
    check_address("--issuer", &options.issuer)?;
    let kept = match options.no_cache {
        true => None,
        false => cache::file(options),
    };
    if let Some(file) = kept.as_deref().filter(|_| !options.renew)
        && let Some(credentials) = cache::read(file)
    {
        return Ok(serde_json::to_string(&credentials)?);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let credentials = runtime.block_on(ask(options))?;
    if let Some(file) = kept
        && let Err(error) = cache::write(&file, &credentials)
    {
        // They are good without it.
        say(&format!("skein: cannot keep the credentials in {}: {error}", file.display()));
    }
    Ok(serde_json::to_string(&credentials)?)
}

fn check_address(option: &str, given: &str) -> anyhow::Result<()> {
    let url = given.parse::<axum::http::Uri>().ok();
    let has_host = url.as_ref().and_then(|it| it.host()).is_some_and(|host| !host.is_empty());
    if has_host && url.is_some_and(|it| matches!(it.scheme_str(), Some("http" | "https"))) {
        return Ok(());
    }
    bail!("{option} {given:?} is not an address that begins with https:// or http://")
}

async fn ask(options: &Options) -> anyhow::Result<sts::Credentials> {
    let provider = Provider::find(options).await?;
    let waiting = async {
        match options.device {
            true => device::log_in(&provider).await,
            false => browser::log_in(&provider).await,
        }
    };
    let patience = Duration::from_secs(options.timeout);
    let token = tokio::time::timeout(patience, waiting).await;
    let token = token.map_err(|_| anyhow!("nobody has logged in in {} s", options.timeout))??;
    let claimed = provider.check(&token)?;
    let session = options.session_name.clone().unwrap_or_else(|| session_name(&claimed));
    sts::assume_role(&provider.client, options, &session, &token).await
}

/// A provider that a person logs in with.
struct Provider<'a> {
    client: reqwest::Client,
    options: &'a Options,
    secret: Option<String>,
    metadata: Metadata,
}

impl<'a> Provider<'a> {
    async fn find(options: &'a Options) -> anyhow::Result<Self> {
        let client = client(options)?;
        let secret = options.client_secret_file.as_ref().map(|file| {
            let read = fs::read_to_string(file).map(|text| text.trim().to_owned());
            read.with_context(|| format!("cannot read {}", file.display()))
        });
        let address = discovery(&options.issuer);
        let asked = async {
            let response =
                client.get(&address).send().await.map_err(reqwest::Error::without_url)?;
            let status = response.status();
            match status.is_success() {
                true => anyhow::Ok(fetch::body(response).await?),
                false => bail!("status {status}"),
            }
        };
        let document = asked.await.with_context(|| format!("cannot ask {address}"))?;
        let metadata = Metadata::parse(&document, &options.issuer).map_err(|text| anyhow!(text))?;
        Ok(Self { client, options, secret: secret.transpose()?, metadata })
    }

    /// Posts a form as this client, and reads what comes back, also when it is an error.
    async fn post(&self, address: &str, fields: &[(&str, &str)]) -> anyhow::Result<Vec<u8>> {
        let mut fields = fields.to_vec();
        fields.push(("client_id", &self.options.client_id));
        fields.extend(self.secret.as_deref().map(|secret| ("client_secret", secret)));
        let (_, body) = post(&self.client, address, &fields).await?;
        Ok(body)
    }

    /// Asks for a token.
    async fn token(&self, fields: &[(&str, &str)]) -> anyhow::Result<Answer> {
        let endpoint = self.metadata.token_endpoint.as_deref();
        let endpoint = endpoint.context("the provider has no token_endpoint")?;
        let body = self.post(endpoint, fields).await.context("cannot ask for a token")?;
        let answer = serde_json::from_slice(&body);
        answer.context("the provider's answer to the question for a token cannot be read")
    }

    /// Reads a token, which has to be of this provider and for this client.
    fn check(&self, token: &str) -> anyhow::Result<Claimed> {
        let claimed = Claimed::read(token).context("the provider's token is none")?;
        if claimed.text("iss") != Some(&self.options.issuer) {
            bail!("the provider's token is of another issuer");
        }
        if !claimed.is_for(&self.options.client_id) {
            bail!("the provider's token is for another client");
        }
        Ok(claimed)
    }
}

/// What a provider answers who is asked for a token.
#[derive(Deserialize)]
struct Answer {
    id_token: Option<String>,
    error: Option<String>,
    error_description: Option<String>,
}

impl Answer {
    fn token(self) -> anyhow::Result<String> {
        if let Some(error) = self.error {
            bail!(refusal(&error, self.error_description.as_deref()));
        }
        self.id_token.context("the provider gives no id_token: does the scope have openid?")
    }
}

/// How a provider refuses something.
fn refusal(error: &str, description: Option<&str>) -> String {
    let description = description.map(|it| format!(" ({})", printable(it))).unwrap_or_default();
    format!("the provider refuses: {}{description}", printable(error))
}

fn client(options: &Options) -> anyhow::Result<reqwest::Client> {
    let mut client = reqwest::Client::builder().timeout(TIMEOUT);
    if let Some(file) = &options.ca {
        let read = || anyhow::Ok(reqwest::Certificate::from_pem_bundle(&fs::read(file)?)?);
        let trusted = read().with_context(|| format!("cannot use {}", file.display()))?;
        client = client.tls_certs_merge(trusted);
    }
    Ok(client.redirect(reqwest::redirect::Policy::none()).build()?)
}

async fn post(
    client: &reqwest::Client,
    address: &str,
    fields: &[(&str, &str)],
) -> anyhow::Result<(u16, Vec<u8>)> {
    let request = client.post(address).body(form(fields));
    let request = request.header("content-type", "application/x-www-form-urlencoded");
    let request = request.header("accept", "application/json, text/xml");
    let response = request.send().await.map_err(|error| anyhow!(fetch::NoAnswer::from(error)))?;
    Ok((response.status().as_u16(), fetch::body(response).await?))
}

/// Fields as a form has them, or a query.
fn form(fields: &[(&str, &str)]) -> String {
    let encode = |text| utf8_percent_encode(text, &ENCODED);
    let fields = fields.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value)));
    fields.collect::<Vec<_>>().join("&")
}

/// What STS takes for the name of a session, from what the provider knows.
fn session_name(claimed: &Claimed) -> String {
    let mut names = ["email", "preferred_username", "sub"].into_iter();
    let known = names.find_map(|name| claimed.text(name)).unwrap_or_default();
    let is_taken = |it: &char| it.is_ascii_alphanumeric() || "_+=,.@-".contains(*it);
    let name: String = known.chars().filter(is_taken).take(64).collect();
    if name.len() < 2 { SESSION.into() } else { name }
}

/// Without what a terminal would act upon.
fn printable(text: &str) -> String {
    text.chars().filter(|it| !it.is_control()).take(16 * 1024).collect()
}

/// Tells the person something. AWS tools keep what a `credential_process` writes to themselves, so it
/// is written to the terminal, where there is one.
fn say(text: &str) {
    let terminal = match io::stderr().is_terminal() {
        true => None,
        false => OpenOptions::new().write(true).open("/dev/tty").ok(),
    };
    // Whoever cannot be told anything sees that it does not go on.
    let _ = match terminal {
        Some(mut terminal) => writeln!(terminal, "{text}"),
        None => writeln!(io::stderr(), "{text}"),
    };
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::json;

    use super::*;

    #[test]
    fn sessions_have_names_that_sts_takes() {
        for (claims, expected) in [
            (json!({ "email": "me@x.org", "sub": "s" }), "me@x.org"),
            (json!({ "preferred_username": "Jörg Müller", "sub": "s" }), "JrgMller"),
            (json!({ "sub": "auth0|17" }), "auth017"),
            (json!({ "sub": "x".repeat(100) }), &"x".repeat(64)),
            (json!({ "sub": "é" }), SESSION),
            (json!({}), SESSION),
        ] {
            let token = format!("e30.{}.x", URL_SAFE_NO_PAD.encode(claims.to_string()));
            assert_eq!(session_name(&Claimed::read(&token).unwrap()), expected, "{claims}");
        }
    }

    #[test]
    fn addresses_have_a_scheme() {
        for (given, is_good) in [
            ("https://iot.example.com:8443", true),
            ("http://127.0.0.1:8080/", true),
            ("http://[::1]:8080", true),
            ("iot.example.com:8443", false),
            ("127.0.0.1:8443", false),
            ("iot.example.com", false),
            ("mqtts://iot.example.com", false),
            ("https://", false),
            ("", false),
        ] {
            assert_eq!(check_address("--endpoint", given).is_ok(), is_good, "{given}");
        }
        let error = check_address("--endpoint", "here:1").unwrap_err().to_string();
        assert!(error.starts_with("--endpoint \"here:1\" is not an address"), "{error}");
    }

    #[test]
    fn forms_are_encoded() {
        let fields = [("a", "b c+d&e=f"), ("ü", "https://x/?y")];
        assert_eq!(form(&fields), "a=b%20c%2Bd%26e%3Df&%C3%BC=https%3A%2F%2Fx%2F%3Fy");
        assert_eq!(printable("a\u{1b}[31mb\r\n"), "a[31mb");
    }
}
