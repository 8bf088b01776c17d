use std::future::poll_fn;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream as Socket};
use std::sync::Arc;
use std::thread;

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::{IN_PLACE, TlsStream};

type Client = StreamOwned<ClientConnection, Socket>;

/// What a client does in a thread of its own, and what a server makes of its stream meanwhile.
fn between<T: Send + 'static>(
    client: impl FnOnce(Client) -> T + Send + 'static,
    server: impl AsyncFnOnce(TlsStream),
) -> T {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(["localhost".into()]).unwrap();
    let certificate = params.self_signed(&key).unwrap().der().clone();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let ours = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let theirs = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();

    actix_rt::System::new().block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let doing = thread::spawn(move || {
            let name = ServerName::try_from("localhost").unwrap();
            let session = ClientConnection::new(Arc::new(theirs), name).unwrap();
            client(StreamOwned::new(session, Socket::connect(address).unwrap()))
        });
        let (socket, _) = listener.accept().await.unwrap();
        let accepted = TlsAcceptor::from(Arc::new(ours)).accept(socket).await.unwrap();
        let (socket, session) = accepted.into_inner();
        server(TlsStream::new(socket, session)).await;
        doing.join().unwrap()
    })
}

async fn read(stream: &mut TlsStream, into: &mut [u8]) -> std::io::Result<usize> {
    poll_fn(|cx| stream.poll_read(cx, into)).await
}

/// All that is read into buffers of these sizes by turns, and how it ended.
async fn read_all(stream: &mut TlsStream, sizes: &[usize]) -> (Vec<u8>, std::io::Result<()>) {
    let mut all = Vec::new();
    for size in sizes.iter().cycle() {
        let mut buffer = vec![0; *size];
        match read(stream, &mut buffer).await {
            Ok(0) => return (all, Ok(())),
            Ok(count) => all.extend_from_slice(&buffer[..count]),
            Err(error) => return (all, Err(error)),
        }
    }
    unreachable!("a cycle has no end")
}

/// No two places in it look alike.
fn pattern(length: usize) -> Vec<u8> {
    (0..length as u32).flat_map(|at| at.wrapping_mul(2_654_435_761).to_be_bytes()).collect()
}

#[test]
fn records_of_all_lengths_in_pieces_of_all_lengths_are_read_whole_and_in_order() {
    let sizes: [&[usize]; 4] =
        [&[128 * 1024], &[IN_PLACE], &[100], &[IN_PLACE, 1, 5000, 128 * 1024]];
    for sizes in sizes {
        let sent = pattern(200_000);
        let expected = sent.clone();
        let client = move |mut client: Client| {
            client.conn.complete_io(&mut client.sock).unwrap();
            let mut left = &sent[..];
            for (turn, length) in [1, 100, 16_384, 4_000, 9_000, 2].into_iter().cycle().enumerate()
            {
                let (now, later) = left.split_at(length.min(left.len()));
                client.conn.writer().write_all(now).unwrap();
                // Several records at once, cut where no record ends.
                if turn % 3 == 2 || later.is_empty() {
                    let mut records = Vec::new();
                    while client.conn.wants_write() {
                        client.conn.write_tls(&mut records).unwrap();
                    }
                    for piece in records.chunks(7_001) {
                        client.sock.write_all(piece).unwrap();
                    }
                }
                left = later;
                if left.is_empty() {
                    break;
                }
            }
            client.conn.send_close_notify();
            client.conn.complete_io(&mut client.sock).unwrap();
            // The server ends the session, too.
            assert_eq!(client.read(&mut [0; 10]).unwrap(), 0);
        };
        between(client, async |mut stream| {
            let (read, end) = read_all(&mut stream, sizes).await;
            assert!(read == expected, "{sizes:?}: {} bytes are not what was sent", read.len());
            end.unwrap();
            poll_fn(|cx| stream.poll_shutdown(cx)).await.unwrap();
        });
    }
}

#[test]
fn what_came_before_a_broken_record_is_read_and_the_client_is_told() {
    let client = |mut client: Client| {
        client.conn.complete_io(&mut client.sock).unwrap();
        let mut records = Vec::new();
        client.conn.writer().write_all(b"good").unwrap();
        client.conn.write_tls(&mut records).unwrap();
        client.conn.writer().write_all(&[0; 9000]).unwrap();
        client.conn.write_tls(&mut records).unwrap();
        let last = records.len() - 1;
        records[last] ^= 1;
        client.sock.write_all(&records).unwrap();
        client.read(&mut [0; 10]).unwrap_err()
    };
    let told = between(client, async |mut stream| {
        let (read, end) = read_all(&mut stream, &[128 * 1024]).await;
        assert_eq!(read, b"good");
        assert_eq!(end.unwrap_err().kind(), ErrorKind::InvalidData);
    });
    assert!(told.to_string().contains("BadRecordMac"), "{told}");
}

#[test]
fn a_socket_that_ends_before_its_session_is_cut_off() {
    for size in [100, 128 * 1024] {
        let client = |mut client: Client| {
            client.write_all(b"said").unwrap();
            client.sock.shutdown(Shutdown::Write).unwrap();
            let _ = client.read(&mut [0; 10]);
        };
        between(client, async |mut stream| {
            let (read, end) = read_all(&mut stream, &[size]).await;
            assert_eq!(read, b"said");
            assert_eq!(end.unwrap_err().kind(), ErrorKind::UnexpectedEof);
        });
    }
}

#[test]
fn more_than_the_session_may_hold_is_written_piece_by_piece() {
    let sent = pattern(500_000);
    let expected = sent.clone();
    let client = |mut client: Client| {
        let mut all = Vec::new();
        client.read_to_end(&mut all).unwrap();
        all
    };
    let read = between(client, async |mut stream| {
        let mut at = 0;
        while at < sent.len() {
            let slices = [std::io::IoSlice::new(&sent[at..]), std::io::IoSlice::new(&[])];
            at += poll_fn(|cx| stream.poll_write(cx, &slices)).await.unwrap();
        }
        poll_fn(|cx| stream.poll_flush(cx)).await.unwrap();
        poll_fn(|cx| stream.poll_shutdown(cx)).await.unwrap();
    });
    assert!(read == expected, "{} bytes are not what was sent", read.len());
}
