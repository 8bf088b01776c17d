//! Metrics, health, what is logged, backups and the nodes of a cluster, on a listener of their own.

pub mod change;
pub mod cluster;
pub mod crl;
pub mod explain;
pub mod ready;
pub mod replay;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use api::Source;
use api::audit::{Actor, Attempt, Change, Intent, Outcome};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use bytes::Bytes;
use fleet::registry::Timestamp;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use uuid::Uuid;

use crate::audit;
use crate::backup::{Backups, Standing};
use crate::clock::now_ms;
use crate::config::is_address;
use crate::fetch;
use crate::process::ProcessMetrics;
use crate::shared::Shared;
use crate::telemetry::LogFilter;

/// How long the answer of a node is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// Collects the metrics of the process. Once per process.
pub fn install_metrics() -> anyhow::Result<PrometheusHandle> {
    let seconds =
        [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0];
    let hours = |hours: f64| hours * 3600.0;
    let minutes = |minutes: f64| minutes * 60.0;
    let lives = [
        1.0,
        10.0,
        minutes(1.0),
        minutes(10.0),
        hours(1.0),
        hours(4.0),
        hours(12.0),
        hours(24.0),
        hours(3.0 * 24.0),
        hours(7.0 * 24.0),
        hours(30.0 * 24.0),
    ];
    let counts: Vec<f64> = (0..15).map(|power| f64::from(1 << power)).collect();
    Ok(PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Full("gateway_connection_seconds".into()), &lives)?
        .set_buckets_for_metric(Matcher::Suffix("_per_batch".into()), &counts)?
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &seconds)?
        .install_recorder()?)
}

/// `/metrics`, `/livez`, `/readyz`, `/admin/audit`, `/admin/backup`, `/admin/cluster`, `/admin/crl`,
/// `/admin/log`, `/admin/policy/explain`, `/admin/policy/record`, `/admin/policy/replay`.
pub fn router(
    shared: Arc<Shared>,
    metrics: PrometheusHandle,
    process: ProcessMetrics,
    log_filter: LogFilter,
) -> Router {
    let reader = log_filter.clone();
    let log = get(move || std::future::ready(reader.get() + "\n")).put(
        move |State(shared): State<Arc<Shared>>,
              source: Option<Extension<Source>>,
              filter: String| {
            set_log_filter(shared, source, log_filter.clone(), filter)
        },
    );
    let process = Arc::new(process);
    // Files are read, and the control runtime has one thread.
    let render = move |State(shared): State<Arc<Shared>>| {
        let (process, metrics) = (Arc::clone(&process), metrics.clone());
        async move {
            ready::observe(&shared).await;
            let render = tokio::task::spawn_blocking(move || {
                process.read();
                metrics.render()
            });
            render.await.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
        }
    };
    Router::new()
        .route("/metrics", get(render))
        .route("/livez", get(|| std::future::ready("ok\n")))
        .route("/readyz", get(ready::ready))
        .route("/admin/audit", get(audit::stream))
        .route("/admin/backup", get(backup).post(begin_backup))
        .route("/admin/cluster", get(standing).post(change::change))
        .route("/admin/log", log)
        .route("/admin/policy/explain", post(explain::explain))
        .route("/admin/policy/record", post(replay::record))
        .route("/admin/policy/replay", post(replay::replay))
        .layer(middleware::from_fn(await_body))
        // Its bodies are longer, and it awaits them itself.
        .route("/admin/crl", post(crl::import))
        .with_state(shared)
        .layer(middleware::from_fn(refuse_functions))
}

/// Bodies have to come in time: whose does not takes a connection from those who watch the node.
async fn await_body(request: Request, next: Next) -> Response {
    const LONGEST: usize = 2 << 20;
    let (head, body) = request.into_parts();
    match whole(body, LONGEST).await {
        Ok(body) => next.run(Request::from_parts(head, body.into())).await,
        Err(refused) => refused.into_response(),
    }
}

/// A body of at most so many bytes, or why there is none.
async fn whole(body: Body, longest: usize) -> Result<Bytes, (StatusCode, String)> {
    const ARRIVES_WITHIN: Duration = Duration::from_secs(30);
    let arriving = tokio::time::timeout(ARRIVES_WITHIN, Limited::new(body, longest).collect());
    match arriving.await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err((
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body has more than {longest} bytes\n"),
        )),
        Ok(Err(error)) => {
            Err((StatusCode::BAD_REQUEST, format!("the body has not come: {error}\n")))
        }
        Err(_) => {
            let why =
                format!("the body has not come within {} seconds\n", ARRIVES_WITHIN.as_secs());
            Err((StatusCode::REQUEST_TIMEOUT, why))
        }
    }
}

/// Whoever may say which address a node asks must not act here by that.
async fn refuse_functions(request: Request, next: Next) -> Response {
    match request.headers().contains_key(fetch::ASKED_BY) {
        true => (StatusCode::FORBIDDEN, "no address for a hook or an authorizer\n").into_response(),
        false => next.run(request).await,
    }
}

async fn standing(
    State(shared): State<Arc<Shared>>,
) -> Result<Json<cluster::Standing>, StatusCode> {
    let standing = cluster::Standing::look(&shared).await;
    standing.map(Json).ok_or(StatusCode::SERVICE_UNAVAILABLE)
}

async fn backup(State(shared): State<Arc<Shared>>) -> Json<Standing> {
    Json(shared.backups.standing())
}

async fn begin_backup(
    State(shared): State<Arc<Shared>>,
    source: Option<Extension<Source>>,
) -> Result<(StatusCode, Json<Standing>), Refused> {
    let attempt = attempt(&shared, source, "BeginBackup", "backup")?;
    let begun = match Backups::begin(&shared) {
        Ok(()) => Ok((StatusCode::ACCEPTED, Json(shared.backups.standing()))),
        Err(error) => Err((StatusCode::CONFLICT, format!("{error}\n"))),
    };
    ended(attempt, begun).await
}

/// Why something is not done that an operator wants.
type Refused = (StatusCode, String);

/// What an operator changes; refused while that cannot be recorded.
fn attempt(
    shared: &Shared,
    source: Option<Extension<Source>>,
    operation: &str,
    resource: &str,
) -> Result<Attempt, Refused> {
    let ledger = shared.audit.as_ref().map(|audit| &audit.ledger);
    let begun = Attempt::begin(ledger, || Intent {
        actor: Actor::AdminPort,
        source: source.map(|Extension(Source(ip))| ip),
        operation: operation.into(),
        resource: Some(resource.into()),
        request: Uuid::new_v4().to_string(),
    });
    begun.map_err(|_| unrecorded("nothing is changed"))
}

fn unrecorded(what: &str) -> Refused {
    let why = format!("the audit log cannot be written, and {what}: see the node's log\n");
    (StatusCode::SERVICE_UNAVAILABLE, why)
}

/// Records what came of something that an operator wanted.
async fn ended<T>(attempt: Attempt, result: Result<T, Refused>) -> Result<T, Refused> {
    let classify =
        |(status, _): &Refused| (Outcome::of_status(status.as_u16()), status.as_u16().to_string());
    let recorded = attempt.conclude(&result, classify, Timestamp(now_ms())).await;
    recorded.map_err(|_| {
        let (_, why) = unrecorded("what was done is not recorded yet");
        // Not one that says that nothing was done.
        (StatusCode::INTERNAL_SERVER_ERROR, why)
    })?;
    result
}

/// Asks a node by its admin listener, with JSON in `body` or nothing; gives the body of an answer that is
/// a success.
pub fn ask(admin: &str, method: &str, path: &str, body: &str) -> anyhow::Result<String> {
    let (content_type, patience) = ("application/json", PATIENCE);
    send(admin, &Asked { method, path, content_type, body: body.as_bytes(), patience })
}

/// A node did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
#[error("the node at {admin} answers {status}: {why}")]
struct Unwilling {
    admin: String,
    status: String,
    why: String,
}

/// Whether nothing was done, as 503 says here, and the same may be done soon.
fn is_for_now(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Unwilling>().is_some_and(|unwilling| unwilling.status == "503")
}

/// A request to an admin listener.
struct Asked<'a> {
    method: &'a str,
    path: &'a str,
    content_type: &'a str,
    body: &'a [u8],
    /// How long its answer is waited for.
    patience: Duration,
}

fn send(admin: &str, asked: &Asked<'_>) -> anyhow::Result<String> {
    let Asked { method, path, content_type, body, patience } = asked;
    if !is_address(admin) || admin.contains('/') {
        bail!("--admin {admin:?} is not HOST:PORT, without http://, like 127.0.0.1:9464");
    }
    let cannot = || format!("cannot ask the node at {admin}");
    let mut stream = TcpStream::connect(admin).with_context(cannot)?;
    stream.set_read_timeout(Some(*patience))?;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: skein\r\nConnection: close\r\n\
         Content-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(&[request.as_bytes(), body].concat()).with_context(cannot)?;
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        // Something else is spoken there.
        Err(error) if error.kind() != ErrorKind::ConnectionReset => {
            return Err(error).with_context(cannot);
        }
        _ => {}
    }
    let answer = String::from_utf8_lossy(&answer);
    let Some((head, body)) = answer.split_once("\r\n\r\n").filter(|_| answer.starts_with("HTTP/"))
    else {
        bail!("{admin} does not answer in HTTP: is it the admin listener?");
    };
    let status = head.split(' ').nth(1).unwrap_or_default();
    if matches!(status, "400" | "401" | "403" | "404") && body.trim_start().starts_with('{') {
        bail!("{admin} answers {status}: is it the admin listener?");
    }
    if !status.starts_with('2') {
        let (admin, status) = (admin.to_owned(), status.to_owned());
        return Err(Unwilling { admin, status, why: body.trim().to_owned() }.into());
    }
    Ok(body.to_owned())
}

async fn set_log_filter(
    shared: Arc<Shared>,
    source: Option<Extension<Source>>,
    log_filter: LogFilter,
    filter: String,
) -> Result<StatusCode, Refused> {
    if filter.trim().is_empty() {
        let why = "the body is empty; it is a filter like `info,node=debug`\n";
        return Err((StatusCode::BAD_REQUEST, why.into()));
    }
    let attempt = attempt(&shared, source, "SetLogFilter", "log-filter")?;
    let before = log_filter.get();
    let set = match log_filter.set(filter.trim()) {
        Ok(()) => Ok(StatusCode::NO_CONTENT),
        Err(error) => Err((StatusCode::BAD_REQUEST, format!("{error:#}\n"))),
    };
    let (before, after) = (before.into(), Some(log_filter.get().into()));
    attempt.add(Change { resource: "log-filter".into(), before, after });
    ended(attempt, set).await
}
