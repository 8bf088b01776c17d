//! Who is not let in, from both sides, and under which reason it is counted.

use std::future::ready;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::{StreamExt, stream};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use links::proto::peer_client::PeerClient;
use links::proto::peer_server::{Peer, PeerServer};
use links::proto::{Frame, Hello, frame::Kind};
use links::{Identity, PeerAddress, certificate_name};
use metrics_util::debugging::DebuggingRecorder;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tonic::{Code, Request, Response, Status, Streaming};

use crate::support::{
    Authority, CLUSTER, Event, LOST, Node, UNSURE, at, config, outgoing, until_counted,
};

fn hello() -> Hello {
    Hello {
        version: links::VERSION,
        min_version: links::MIN_VERSION,
        cluster_id: CLUSTER.to_vec().into(),
        node: 2,
        incarnation: 1,
        purpose: 1,
        folder: String::new(),
        address: String::new(),
        joins: false,
        others: Vec::new(),
        lives: Vec::new(),
    }
}

fn said(hello: Hello) -> Frame {
    Frame { kind: Some(Kind::Hello(hello)) }
}

fn pem(
    identity: &Identity,
) -> (RootCertStore, Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&identity.ca).unwrap()).unwrap();
    let chain = vec![CertificateDer::from_pem_slice(&identity.certificate).unwrap()];
    (roots, chain, PrivateKeyDer::from_pem_slice(&identity.private_key).unwrap())
}

/// Dials node 1 and begins with `first`; what the node answers to it.
async fn dial(
    address: SocketAddr,
    ca: &Identity,
    identity: Option<&Identity>,
    first: Frame,
) -> Result<Frame, Status> {
    let builder = ClientConfig::builder().with_root_certificates(pem(ca).0);
    let tls = match identity.map(pem) {
        Some((_, chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
        None => builder.with_no_client_auth(),
    };
    let socket = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from(certificate_name(1)).unwrap();
    let tls = TlsConnector::from(Arc::new(tls)).connect(name, socket).await.unwrap();
    let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (mut sender, connection) = builder.handshake(TokioIo::new(tls)).await.unwrap();
    let driving = tokio::spawn(connection);
    let service = tower::service_fn(move |request| sender.send_request(request));
    let mut client = PeerClient::with_origin(service, "https://node".parse().unwrap());
    let frames = stream::once(ready(first)).chain(stream::pending());
    let mut answers = client.stream(frames).await?.into_inner();
    let answer = answers.message().await?;
    driving.abort();
    Ok(answer.unwrap())
}

#[tokio::test]
async fn who_dials_is_checked() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _here = metrics::set_default_local_recorder(&recorder);

    let (authority, stranger) = (Authority::new(), Authority::new());
    let mut listening = config(&authority, 1);
    listening.peers = at(2, ([127, 0, 0, 1], 9).into());
    let node = Node::start(listening);
    let address = node.links.address();
    let [own, third, fourth] = [2, 3, 4].map(|node| authority.identity(node));
    let foreign = stranger.identity(2);

    let answer = dial(address, &own, Some(&own), said(hello())).await.unwrap();
    let Some(Kind::Hello(answer)) = answer.kind else { panic!("no hello") };
    assert_eq!(answer, Hello { node: 1, ..hello() });

    let new = links::VERSION + 1;
    let raft = Frame { kind: Some(Kind::Raft(Default::default())) };
    let table = [
        (Some(&own), said(Hello { version: new, min_version: new, ..hello() }), "version"),
        (Some(&own), said(Hello { cluster_id: vec![8; 16].into(), ..hello() }), "cluster"),
        (Some(&third), said(hello()), "node"),
        (Some(&own), said(Hello { node: 1, ..hello() }), "node"),
        (Some(&fourth), said(Hello { node: 4, ..hello() }), "unknown_peer"),
        (Some(&own), said(Hello { purpose: 9, ..hello() }), "contract"),
        (Some(&own), raft, "contract"),
        (Some(&foreign), said(hello()), "certificate"),
        (None, said(hello()), "no_certificate"),
    ];
    for (identity, first, reason) in table {
        let refused = dial(address, &own, identity, first).await.unwrap_err();
        let by_tls = reason.contains("certificate");
        assert_eq!(refused.code() == Code::FailedPrecondition, !by_tls, "{reason}: {refused}");
        until_counted(&snapshotter, "links_refusals_total", &format!("in {reason}")).await;
    }
}

/// A peer that answers every stream with the same frame.
struct Answering(Frame);

#[tonic::async_trait]
impl Peer for Answering {
    type StreamStream = Pin<Box<dyn futures_util::Stream<Item = Result<Frame, Status>> + Send>>;

    async fn stream(
        &self,
        _: Request<Streaming<Frame>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let answer = stream::once(ready(Ok(self.0.clone()))).chain(stream::pending());
        Ok(Response::new(Box::pin(answer)))
    }
}

/// Listens like a node with this identity.
async fn listen(identity: &Identity, answer: Frame) -> SocketAddr {
    let (roots, chain, key) = pem(identity);
    let verifier = WebPkiClientVerifier::builder(roots.into()).build().unwrap();
    let tls = ServerConfig::builder()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let Ok(tls) = acceptor.accept(socket).await else { continue };
            let service = TowerToHyperService::new(PeerServer::new(Answering(answer.clone())));
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(builder.serve_connection(TokioIo::new(tls), service));
        }
    });
    address
}

#[tokio::test]
async fn who_answers_is_checked() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let [own, third] = [2, 3].map(|node| authority.identity(node));
    let foreign = stranger.identity(2);
    let new = links::VERSION + 1;
    let table = [
        (&own, said(Hello { version: new, min_version: new, ..hello() }), "version"),
        (&own, said(Hello { cluster_id: vec![8; 16].into(), ..hello() }), "cluster"),
        (&own, said(Hello { node: 3, ..hello() }), "node"),
        (&third, said(hello()), "node"),
        (&own, said(Hello { purpose: 9, ..hello() }), "contract"),
        (&own, Frame { kind: None }, "contract"),
        (&foreign, said(hello()), "certificate"),
    ];
    for (identity, answer, reason) in table {
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        let _here = metrics::set_default_local_recorder(&recorder);
        let address = listen(identity, answer).await;
        let mut dialling = config(&authority, 1);
        dialling.peers = at(2, address);
        let node = Node::start(dialling);
        until_counted(&snapshotter, "links_refusals_total", &format!("out {reason}")).await;
        assert!(!node.links.reachable(2), "{reason}");
    }
}

#[tokio::test]
async fn a_peer_that_refuses_is_believed() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _here = metrics::set_default_local_recorder(&recorder);
    let authority = Authority::new();
    // It does not know node 1.
    let peer = Node::start(config(&authority, 2));
    let mut dialling = config(&authority, 1);
    dialling.peers = at(2, peer.links.address());
    let node = Node::start(dialling);
    until_counted(&snapshotter, "links_refusals_total", "out by_peer").await;
    assert!(!node.links.reachable(2));
}

#[tokio::test]
async fn a_peer_without_its_data_is_told_so_for_good_and_no_stream_of_it_opens() {
    let authority = Authority::new();
    let mut own = config(&authority, 1);
    own.peers = at(2, "127.0.0.1:1".parse().unwrap());
    let node = Node::start(own);
    let mut lost = config(&authority, 2);
    lost.peers = at(1, node.links.address());
    lost.folder = LOST.to_owned();
    let mut peer = Node::start(lost);
    // Nor when it is the other one who dials.
    node.links.set_peers(at(2, peer.links.address()));
    peer.until(Event::Denied(1, "node 2 is denied".into())).await;
    while peer.denials < 10 {
        let event = peer.next().await;
        assert!(!matches!(event, Event::Connected(stream, _) if stream == outgoing(1)));
    }
    assert!(node.open.is_empty() && !node.links.reachable(2));
}

#[tokio::test]
async fn each_tells_the_other_of_the_lives_on_its_data_folder() {
    let authority = Authority::new();
    let mut own = config(&authority, 1);
    own.lives = vec![5, 7];
    let mut node = Node::start(own);
    let mut dialling = config(&authority, 2);
    dialling.peers = at(1, node.links.address());
    dialling.lives = vec![4, 6, 9];
    let mut peer = Node::start(dialling);
    node.until(Event::Lived(2, vec![4, 6, 9])).await;
    node.links.set_peers(at(2, peer.links.address()));
    peer.until(Event::Lived(1, vec![5, 7])).await;
}

#[tokio::test]
async fn a_peer_is_found_where_it_is_dialled_whether_or_not_it_lets_this_node_in() {
    let authority = Authority::new();
    for folder in ["", LOST] {
        let mut own = config(&authority, 1);
        own.peers = at(2, "127.0.0.1:1".parse().unwrap());
        own.incarnation = 7;
        let node = Node::start(own);
        let mut dialling = config(&authority, 2);
        dialling.peers = at(1, node.links.address());
        dialling.folder = folder.to_owned();
        let mut peer = Node::start(dialling);
        peer.until(Event::Found(1, node.links.address().to_string(), 7)).await;
    }
}

#[tokio::test]
async fn a_peer_of_whom_nobody_is_sure_hears_that_and_dials_again() {
    let authority = Authority::new();
    let mut own = config(&authority, 1);
    own.peers = at(2, "127.0.0.1:1".parse().unwrap());
    let node = Node::start(own);
    let mut unsure = config(&authority, 2);
    unsure.peers = at(1, node.links.address());
    unsure.folder = UNSURE.to_owned();
    let mut peer = Node::start(unsure);
    for _ in 0..10 {
        peer.until(Event::Doubted(1)).await;
    }
    assert!(peer.denials == 0 && !node.links.reachable(2));
}

#[tokio::test]
async fn a_peer_that_joins_hears_where_the_others_are() {
    let authority = Authority::new();
    let mut node = Node::start(config(&authority, 1));
    let mut joining = config(&authority, 2);
    joining.peers = at(1, node.links.address());
    joining.joins = true;
    let mut peer = Node::start(joining);
    node.links.set_peers(at(2, peer.links.address()));
    let told = [1, 3].map(|it| PeerAddress { node: it, address: format!("host-{it}:7400") });
    peer.until(Event::Told(1, told.into())).await;
    // It tells nothing to somebody who has been there for longer.
    for _ in 0..6 {
        assert!(!matches!(node.next().await, Event::Told(..)));
    }
}

#[tokio::test]
async fn a_certificate_of_another_node_fails_the_start() {
    let authority = Authority::new();
    let mut config = config(&authority, 1);
    config.identity = authority.identity(2);
    struct Deaf;
    impl links::Receiver for Deaf {
        fn connected(&self, _: links::Stream, _: u64) {}
        fn lost(&self, _: links::Stream) {}
        fn received(&self, _: u64, _: links::Batch) {}
    }
    let started = links::Links::start(config, Deaf, &tokio::runtime::Handle::current());
    let error = started.err().expect("the certificate names node 2").to_string();
    assert!(error.contains("node-1.skein"), "{error}");
}
