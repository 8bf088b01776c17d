//! The start of an HTTP connection on the gateway: a WebSocket, or requests to the data plane.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use api::sessions::Session;
use api::sigv4::{AuthError, BodyHash};
use authorizer::{Http, Presented};
use axum::Router;
use bytes::Bytes;
use fleet::registry::Timestamp;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use wire::websocket::{Refusal, Upgrade, UpgradeError};

use super::{Place, Served};
use crate::backend::Backend;
use crate::clock::now_ms;
use crate::connection::handshake::{self, Failure, Peer};
use crate::connection::transport::{Stream, Transport};
use crate::core::Core;
use crate::http::Unread;
use crate::identity::{self, Principal, Refused};
use crate::just_in_time;
use crate::metrics;
use crate::websocket::WebSocket;

/// The SigV4 services that may open a WebSocket.
const SERVICES: [&str; 2] = ["iotdevicegateway", "iotdata"];

/// Where WebSockets are.
const PATH: &str = "/mqtt";

/// The subprotocols that are MQTT, whatever its version: the standard's, and the one that the AWS IoT
/// device SDK v1 for JavaScript offers alone.
const SUBPROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];

/// What answers HTTP on the gateway.
pub struct DataPlane {
    /// The REST data plane; a listener without one takes only WebSockets.
    pub router: Option<Router>,
    /// Checks presigned WebSocket URLs.
    pub verifier: api::sigv4::Verifier,
}

/// Reads the first request head and becomes what it asks for.
pub(super) async fn serve(
    core: &Rc<Core>,
    data_plane: &DataPlane,
    mut stream: Stream,
    mut peer: Peer,
    head_timeout: Duration,
    place: Place,
) -> Result<Served, Failure> {
    let mut head = Vec::new();
    let found = loop {
        match Upgrade::parse(&head) {
            Ok(Some(found)) => break Some(found),
            Ok(None) => {}
            Err(error @ UpgradeError::Malformed(_)) => {
                return Ok(refuse(stream, place, error.refusal()));
            }
            // Other requests have the bounds of those who answer them.
            Err(_) if data_plane.router.is_some() && !Upgrade::is_asked(&head, PATH.as_bytes()) => {
                break None;
            }
            Err(error) => return Ok(refuse(stream, place, error.refusal())),
        }
        let filled = head.len();
        head.resize(filled + 2048, 0);
        let read = poll_fn(|cx| stream.poll_read(cx, &mut head[filled..])).await?;
        head.truncate(filled + read);
        if read == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        if head[0] == handshake::CONNECT {
            return Err(Failure::Mistaken(match stream {
                Stream::Tls(_) => "looks like MQTT: use ALPN x-amzn-mqtt-ca, or listeners.mqtts",
                _ => "looks like MQTT: use listeners.mqtt",
            }));
        }
    };
    let is_tls = matches!(stream, Stream::Tls(_));
    if !is_tls {
        peer = peer.asking(found.as_ref().and_then(|(upgrade, _)| host(upgrade)));
    }
    let (upgrade, length) = match (found, &data_plane.router) {
        (Some((upgrade, length)), _) if upgrade.is_websocket() => (upgrade, length),
        (_, Some(router)) => {
            let mut router = for_caller(core, router.clone(), &peer).await;
            if is_tls {
                router = router.layer(axum::Extension(api::ServerName(peer.domain_name)));
            }
            let ip = peer.ip;
            let stream = Rewound { head: head.into(), stream };
            return Ok(Served::Http(Box::pin(async move {
                let ended =
                    crate::http::answer(router, stream, head_timeout, ip, place.bounds()).await;
                match ended {
                    Ok(()) => {}
                    Err(Unread::Late) => metrics::connect("timeout"),
                    Err(Unread::Malformed) => metrics::connect("http"),
                }
                drop(place);
            })));
        }
        (_, None) => {
            let refusal = Refusal::new(404, "only WebSocket requests are answered here");
            return Ok(refuse(stream, place, refusal));
        }
    };
    let refused = match sign_in(core, data_plane, &upgrade, peer).await {
        Ok(peer) => match upgrade.accept(&[PATH], &SUBPROTOCOLS) {
            Ok(response) => {
                write(&mut stream, &response).await?;
                let early = head[length..].to_vec();
                let limit = core.shared.limits.maximum_packet_size;
                let socket = WebSocket::new(stream, early, limit);
                let transport = Transport::WebSocket(Box::new(socket));
                handshake::connect(core, transport, peer, place).await?;
                return Ok(Served::Connection);
            }
            Err(refusal) => refusal,
        },
        Err(refusal) => refusal,
    };
    Ok(refuse(stream, place, refused))
}

/// Ends a connection that becomes none with an answer.
fn refuse(stream: Stream, place: Place, refusal: Refusal) -> Served {
    let answer = refusal.response();
    let stream = Rewound { head: Bytes::new(), stream };
    let answering = async move {
        crate::http::refuse(stream, answer, place.bounds()).await;
        drop(place);
    };
    Served::Refused(Failure::Http(refusal.message), Box::pin(answering))
}

/// Who opens a WebSocket: by its certificate, or by the signature in the URL.
async fn sign_in(
    core: &Rc<Core>,
    data_plane: &DataPlane,
    upgrade: &Upgrade,
    peer: Peer,
) -> Result<Peer, Refusal> {
    let signed = upgrade.query().contains("X-Amz-Signature=");
    if !signed || matches!(peer.principal, Principal::Certificate(_)) {
        return Ok(with_head(peer, upgrade));
    }
    let headers: Vec<(&str, &[u8])> =
        upgrade.headers().map(|(name, value)| (name, value.as_bytes())).collect();
    let request = api::sigv4::Request {
        method: upgrade.method(),
        path: upgrade.path(),
        query: upgrade.query(),
        headers: &headers,
    };
    let now = Timestamp(now_ms());
    let refused = |error: AuthError| {
        let (code, message) = (error.code(), error.to_string());
        Refusal { status: 403, code, message }
    };
    let claim = data_plane.verifier.begin(&request, &SERVICES, now.0 / 1000).map_err(refused)?;
    let backend = Backend::new(Arc::clone(&core.shared));
    let resolved = api::sessions::resolve(&backend, claim, now).await;
    let (claim, session) = resolved.map_err(|error| match error {
        api::Error::Auth(error) => refused(error),
        api::Error::Unavailable => Refusal::new(503, &error.to_string()),
        error => Refusal::new(403, &error.to_string()),
    })?;
    let signer = claim.finish(&request, BodyHash::of(b"")).map_err(refused)?;
    let principal = match session {
        Some(Session::Device(session)) => Principal::session(session),
        Some(Session::Person(session)) if session.rights.things.is_empty() => {
            Principal::person(session)
        }
        Some(Session::Person(_)) => {
            return Err(Refusal::new(403, "this session is for single things, by HTTP only"));
        }
        None => {
            let rights = data_plane.verifier.rights(&signer.access_key);
            let rights = rights.filter(|rights| rights.things.is_empty()).ok_or_else(|| {
                Refusal::new(403, "this access key is for single things, by HTTP only")
            })?;
            Principal::AccessKey(signer.access_key.into(), rights.role)
        }
    };
    Ok(Peer { principal, presented: None, ..peer })
}

/// The name that a request without TLS asks for; none where it asks for several.
fn host(upgrade: &Upgrade) -> Option<String> {
    let mut hosts = upgrade.header_values("host");
    policy::domain_name(hosts.next().filter(|_| hosts.next().is_none())?)
}

/// The head of the request belongs to what custom authorizers are asked with.
fn with_head(peer: Peer, upgrade: &Upgrade) -> Peer {
    let presented = peer.presented.map(|presented| {
        let headers = upgrade.headers();
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let http = Some(Http { headers, query: upgrade.query().to_owned() });
        Box::new(Presented { http, ..*presented })
    });
    Peer { presented, ..peer }
}

/// The data plane for a caller who has proved to hold an active certificate.
async fn for_caller(core: &Rc<Core>, router: Router, peer: &Peer) -> Router {
    let Principal::Certificate(id) = &peer.principal else {
        let tls = peer.presented.as_ref().and_then(|presented| presented.tls.clone());
        return match tls {
            Some(tls) => router.layer(axum::Extension(api::Unidentified { tls })),
            None => router,
        };
    };
    // Unknown and inactive certificates are refused here, before any request is read.
    let policy = identity::policy_of(&core.shared, &peer.principal, peer.variables(None)).await;
    match (policy, fleet::registry::CertificateId::new(id)) {
        (Ok(_), Ok(certificate)) => {
            let caller = api::CertificateCaller {
                certificate,
                source_ip: peer.ip,
                domain_name: peer.domain_name.clone(),
                session: None,
            };
            router.layer(axum::Extension(caller))
        }
        (Err(Refused::Unknown | Refused::Inactive), _) => {
            if let Some(certificate) = &peer.certificate {
                just_in_time::introduce(&core.shared, certificate, peer.ip);
            }
            router
        }
        _ => router,
    }
}

async fn write(stream: &mut Stream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = poll_fn(|cx| stream.poll_write(cx, &[io::IoSlice::new(bytes)])).await?;
        bytes = &bytes[written..];
    }
    poll_fn(|cx| stream.poll_flush(cx)).await
}

/// A stream that gives back what was read from it first.
struct Rewound {
    head: Bytes,
    stream: Stream,
}

impl AsyncRead for Rewound {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.head.is_empty() {
            let length = self.head.len().min(into.remaining());
            into.put_slice(&self.head.split_to(length));
            return Poll::Ready(Ok(()));
        }
        let read = self.stream.poll_read(cx, into.initialize_unfilled());
        read.map_ok(|count| into.advance(count))
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stream.poll_write(cx, &[io::IoSlice::new(bytes)])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_shutdown(cx)
    }
}
