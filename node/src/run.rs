//! From a configuration to a running process and back to its end.

use std::fmt::Write as _;
use std::fs;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use api::Rights;
use api::provisioning::Issuing;
use api::registration_tasks::Registering;
use api::x509::Issuer;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

use crate::admin;
use crate::backend::Backend;
use crate::config::{Config, Listener};
use crate::dev::{self, Dev};
use crate::hsm::HsmKey;
use crate::http;
use crate::node::{Node, cannot_listen};
use crate::preflight;
use crate::process::ProcessMetrics;
use crate::registration;
use crate::telemetry;

/// Runs a node until it is told to stop or cannot go on.
pub fn run(config: Config, dev: Option<Dev>) -> anyhow::Result<()> {
    let mut found = preflight::check(&config);
    if dev.is_none() {
        dev::check_device(&config, &mut found);
    }
    let warnings = found.refuse_problems()?;
    let control = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("skein-control")
        .enable_all()
        .build()
        .context("cannot start the control runtime")?;
    let entered = control.enter();
    let log_filter = telemetry::install_log(&config.log)?;
    let traces = telemetry::Traces::start(&config.traces)?;
    drop(entered);
    for warning in warnings {
        warn!(
            key = warning.key,
            why = warning.text,
            "this configuration may not do what it should"
        );
    }
    let metrics = admin::install_metrics()?;
    let process = ProcessMetrics::register(&config);
    let issuing = issuer(&config)?.map(Issuing::new);
    let mut api = issuing.clone().map(|issuing| api_config(&config, issuing));
    let listeners = config.listeners.clone();
    let node = Node::restore(config, traces, issuing.clone())?;
    let ledger = node.shared.audit.as_ref().map(|audit| audit.ledger.clone());
    if let Some(api) = &mut api {
        api.ledger.clone_from(&ledger);
    }
    let backend = Backend::new(node.shared.clone());
    if let Some(dev) = &dev {
        control.block_on(dev.populate(&backend))?;
    }
    serve_http(
        &control,
        ("listeners.admin", &listeners.admin),
        admin::router(node.shared.clone(), metrics, process, log_filter),
    )?;
    let registering = Registering::new(backend.clone(), issuing, ledger, &node.shared.arns);
    control.spawn(registration::run(Arc::clone(&node.shared), registering));
    let verifier =
        api.as_ref().map_or_else(|| api::sigv4::Verifier::new([], None), api::Config::verifier);
    let data_plane = api.clone().map(|api| api::data_plane(backend.clone(), api));
    if listeners.http.address.is_some() {
        let api = api.context("listeners.http needs tls.issuer_certificate and its private key")?;
        serve_http(&control, ("listeners.http", &listeners.http), api::router(backend, api))?;
    }
    let shared = node.shared.clone();
    let system = actix::System::new();
    let stop = system.block_on(async { stop_signal() })?;
    let result = system.block_on(async move {
        let ready = || {
            if let Some(dev) = &dev {
                print!("{}", dev.welcome());
            }
            info!("serving; /readyz on the admin listener says when it is ready");
        };
        node.serve(data_plane, verifier, ready, stop).await
    });
    if let Some(traces) = &shared.traces {
        traces.stop();
    }
    if let Some(audit) = &shared.audit {
        audit.stop();
    }
    result
}

/// Resolves at SIGTERM or SIGINT.
fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Serves HTTP on a listener, when it has an address.
fn serve_http(
    control: &Runtime,
    (key, config): (&'static str, &Listener),
    router: axum::Router,
) -> anyhow::Result<()> {
    let Some(address) = config.address else { return Ok(()) };
    let listener = control
        .block_on(TcpListener::bind(address))
        .with_context(|| cannot_listen(key, address))?;
    control.spawn(http::serve(listener, config.clone(), router));
    info!(listener = key, %address, "listening");
    Ok(())
}

/// What the API is told.
fn api_config(config: &Config, issuing: Issuing) -> api::Config {
    let port = config.listeners.https.address.map_or(8443, |address| address.port());
    let host = config.public_host.clone().unwrap_or_else(|| format!("localhost:{port}"));
    let key = |key: &crate::config::AccessKey| api::sigv4::AccessKey {
        id: key.id.clone(),
        secret: key.secret.clone(),
        rights: Arc::new(Rights { role: key.role, things: key.things.clone() }),
    };
    api::Config {
        account: config.account.id.clone(),
        region: config.account.region.clone(),
        any_region: config.account.any_region,
        endpoints: api::Endpoints { data: host.clone(), jobs: host.clone(), credentials: host },
        access_keys: config.access_keys.iter().map(key).collect(),
        thing_types_deprecated_for: config.limits.thing_types_deprecated_for,
        issuing,
        ledger: None,
        rates: api::Rates::new(
            NonZeroU32::new(config.limits.control_plane_rate),
            NonZeroU32::new(config.limits.data_plane_rate),
        ),
        clock: api::Clock::default(),
    }
}

/// The CA that a configuration names, if it does.
pub fn issuer(config: &Config) -> anyhow::Result<Option<Issuer>> {
    let tls = &config.tls;
    let Some(certificate) = &tls.issuer_certificate else { return Ok(None) };
    let read = |path: &Path| {
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
    };
    let issuer = match (&tls.issuer_hsm, &tls.issuer_private_key) {
        (Some(hsm), _) => Issuer::new(&read(certificate)?, Box::new(HsmKey::load(hsm)?)),
        (None, Some(key)) => Issuer::from_pem(&read(certificate)?, &read(key)?),
        (None, None) => return Ok(None),
    };
    let cannot = || format!("{} cannot issue certificates", certificate.display());
    issuer.with_context(cannot).map(Some)
}

/// What a node would do with a configuration, for people.
pub fn explain(config: &Config) -> String {
    let mut text = String::new();
    let mut line = |key: &str, value: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{key:<27} {value}");
    };
    line("data", config.data.display().to_string());
    line("account", format!("{} in {}", config.account.id, config.account.region));
    line("shards", config.shards.to_string());
    line("public_host", config.public_host.clone().unwrap_or_else(|| "none".into()));
    if let Some(cluster) = &config.cluster {
        line("cluster", format!("{}, node {}", cluster.id, cluster.node));
        line("cluster.listen", cluster.listen.to_string());
        let known = cluster.known().into_iter();
        let known: Vec<_> = known.map(|(node, address)| format!("{node} at {address}")).collect();
        line("cluster.peers", known.join(", "));
        line("cluster.certificate", cluster.certificate.display().to_string());
    }
    for (key, listener) in config.listeners.all() {
        let address = listener.address.map_or("closed".into(), |address| address.to_string());
        let anonymous = listener.anonymous_policy.as_ref().map_or("", |_| ", anonymous clients");
        line(key, format!("{address}{anonymous}"));
    }
    let of = |file: &Option<PathBuf>| {
        file.as_ref().map_or("none".into(), |file| file.display().to_string())
    };
    line("tls.certificate", of(&config.tls.certificate));
    line("tls.issuer_certificate", of(&config.tls.issuer_certificate));
    if let Some(hsm) = &config.tls.issuer_hsm {
        line("tls.issuer_hsm", format!("key {} of token {}", hsm.key, hsm.token));
    }
    let backups = config.backup.place().map_or("nowhere".into(), |it| it.display().to_string());
    line("backups", backups);
    line("audit.file", of(&config.audit.file));
    for (key, place) in config.registration.places() {
        line(&key, place.display().to_string());
    }
    for issuer in &config.jwt_issuers {
        line(&format!("jwt_issuers.{}", issuer.name), issuer.jwks.clone());
    }
    for (name, provider) in &config.oidc {
        let (roles, issuer) = (provider.roles.len(), &provider.issuer);
        line(&format!("oidc.{name}"), format!("{issuer}, {roles} rules for roles"));
    }
    line("access keys", config.access_keys.len().to_string());
    line("traces", config.traces.endpoint.clone().unwrap_or_else(|| "off".into()));
    text
}
