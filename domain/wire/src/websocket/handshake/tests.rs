use super::*;

/// The request of RFC 6455 section 1.3, as an MQTT client sends it.
const REQUEST: &str = "GET /mqtt?X-Amz-Date=20150830T123600Z&a=b%20c HTTP/1.1\r\n\
    Host: server.example.com\r\n\
    Upgrade: websocket\r\n\
    Connection: keep-alive, Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Origin: http://example.com\r\n\
    Sec-WebSocket-Protocol: mqttv3.1, mqtt\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";

fn parse(text: &str) -> Upgrade {
    let (upgrade, size) = Upgrade::parse(text.as_bytes()).unwrap().unwrap();
    assert_eq!(size, text.len());
    upgrade
}

#[test]
fn the_head_is_read() {
    let upgrade = parse(REQUEST);
    assert!(upgrade.is_websocket());
    assert_eq!((upgrade.method(), upgrade.path()), ("GET", "/mqtt"));
    assert_eq!(upgrade.query(), "X-Amz-Date=20150830T123600Z&a=b%20c");
    assert_eq!(upgrade.header("HOST"), Some("server.example.com"));
    assert_eq!(upgrade.header("x-none"), None);
    assert_eq!(upgrade.headers().count(), 7);
    assert_eq!(upgrade.protocols().collect::<Vec<_>>(), ["mqttv3.1", "mqtt"]);
}

#[test]
fn a_head_asks_for_a_websocket_before_it_is_whole() {
    let end = REQUEST.find("websocket\r\n").unwrap();
    for (head, is_asked) in [
        (REQUEST, true),
        (&REQUEST[..end], true),
        ("GET /chat HTTP/1.1\r\nsec-websocket-key: x", true),
        ("GET /chat HTTP/1.1\r\nX-Upgrade: websocket\r\n", false),
        ("GET /chat HTTP/1.1\r\nA: b\r\n\r\nUpgrade: websocket\r\n", false),
        ("GET /chat HTTP/1.1\nA: b\n\nUpgrade: websocket\n", false),
        ("GET /mqtt HTTP/1.1\r\nA: b", true),
        ("GET /mqtt?a=b", true),
        ("GET /mqttx HTTP/1.1\r\n", false),
        ("Upgrade: websocket", false),
        ("", false),
    ] {
        assert_eq!(Upgrade::is_asked(head.as_bytes(), b"/mqtt"), is_asked, "{head:?}");
    }
}

#[test]
fn the_key_of_the_rfc_is_accepted() {
    let response = parse(REQUEST).accept(&["/", "/mqtt"], &["mqtt"]).unwrap();
    let expected = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";
    assert_eq!(String::from_utf8(response).unwrap(), expected);
}

#[test]
fn a_head_may_arrive_in_pieces_and_with_frames_behind() {
    for len in 0..REQUEST.len() {
        assert_eq!(Upgrade::parse(&REQUEST.as_bytes()[..len]), Ok(None), "{len}");
    }
    let more = [REQUEST.as_bytes(), &[0x82, 0x80]].concat();
    assert_eq!(Upgrade::parse(&more).unwrap().unwrap().1, REQUEST.len());
}

#[test]
fn variations_are_accepted() {
    for (from, to) in [
        ("Upgrade: websocket", "UPGRADE: WebSocket"),
        ("Upgrade: websocket", "Upgrade: h2c\r\nUpgrade: websocket"),
        ("keep-alive, Upgrade", "upgrade"),
        ("mqttv3.1, mqtt", "mqtt"),
        ("mqttv3.1, mqtt", "mqtt,foo"),
        ("mqttv3.1, mqtt", "foo\r\nSec-WebSocket-Protocol:\tmqtt "),
        ("GET /mqtt", "GET http://server.example.com/mqtt"),
    ] {
        let changed = REQUEST.replacen(from, to, 1);
        assert_ne!(changed, REQUEST);
        assert!(parse(&changed).accept(&["/mqtt"], &["mqtt"]).is_ok(), "{to}");
    }
}

#[test]
fn the_first_subprotocol_that_is_offered_is_selected() {
    for (offered, selected) in
        [("mqttv3.1, mqtt", Some("mqtt")), ("mqttv3.1", Some("mqttv3.1")), ("mqttv3.2", None)]
    {
        let changed = REQUEST.replacen("mqttv3.1, mqtt", offered, 1);
        match (parse(&changed).accept(&["/mqtt"], &["mqtt", "mqttv3.1"]), selected) {
            (Ok(response), Some(selected)) => {
                let header = format!("Sec-WebSocket-Protocol: {selected}\r\n\r\n");
                assert!(String::from_utf8(response).unwrap().ends_with(&header), "{offered}");
            }
            (Err(refusal), None) => assert_eq!(refusal.status, 400),
            (answer, _) => panic!("{offered}: {answer:?}"),
        }
    }
}

#[test]
fn incorrect_requests_are_refused() {
    for (from, to, status) in [
        ("GET", "POST", 405),
        ("HTTP/1.1", "HTTP/1.0", 400),
        ("/mqtt?", "/mqtt/?", 404),
        ("/mqtt?", "/MQTT?", 404),
        ("Host:", "X-Host:", 400),
        ("Upgrade: websocket", "Upgrade: h2c", 400),
        ("Upgrade: websocket\r\n", "", 400),
        ("keep-alive, Upgrade", "keep-alive", 400),
        ("Version: 13", "Version: 8", 426),
        ("Sec-WebSocket-Version: 13\r\n", "", 426),
        ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "", 400),
        ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZQ==", 400),
        ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ", 400),
        ("dGhlIHNhbXBsZSBub25jZQ==", "????", 400),
        ("Origin:", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin:", 400),
        ("mqttv3.1, mqtt", "mqttv3.1", 400),
        ("mqttv3.1, mqtt", "MQTT", 400),
        ("Sec-WebSocket-Protocol: mqttv3.1, mqtt\r\n", "", 400),
    ] {
        let changed = REQUEST.replacen(from, to, 1);
        assert_ne!(changed, REQUEST);
        let refusal = parse(&changed).accept(&["/mqtt"], &["mqtt"]).unwrap_err();
        assert_eq!(refusal.status, status, "{from} -> {to}: {}", refusal.message);
    }
}

#[test]
fn broken_heads_are_refused() {
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(65));
    let just = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(64));
    let long = format!("GET / HTTP/1.1\r\na: {}", "b".repeat(Upgrade::MAX_BYTES));
    let whole = format!("{long}\r\n\r\n");
    assert!(Upgrade::parse(just.as_bytes()).unwrap().is_some());
    for (bytes, error, status) in [
        (many.as_bytes(), UpgradeError::TooManyHeaders, 431),
        (long.as_bytes(), UpgradeError::TooLarge, 431),
        (whole.as_bytes(), UpgradeError::TooLarge, 431),
        (b"\x10\x0d\x00\x04MQTT", UpgradeError::Malformed(httparse::Error::Token), 400),
        (b"GET / HTTP/2.0\r\n", UpgradeError::Malformed(httparse::Error::Version), 400),
        (b"GET / HTTP/1.1\r\na: \xff\r\n\r\n", UpgradeError::Utf8, 400),
    ] {
        assert_eq!(Upgrade::parse(bytes), Err(error), "{:02x?}", &bytes[..8]);
        assert_eq!(error.refusal().status, status, "{error}");
    }
}

#[test]
fn targets_are_split() {
    for (target, path, query) in [
        ("/", "/", ""),
        ("/a?b=c", "/a", "b=c"),
        ("/a?b?c", "/a", "b?c"),
        ("/a?", "/a", ""),
        ("*", "*", ""),
        ("ws://host/a?b", "/a", "b"),
        ("ws://host", "/", ""),
        ("http://host?b", "/", "b"),
        ("/a://b?c", "/a://b", "c"),
    ] {
        assert_eq!(split_target(target), (path, query), "{target}");
    }
}

#[test]
fn refusals_are_answers() {
    let response = String::from_utf8(Refusal::new(426, "a \"no\"").response()).unwrap();
    let expected = "HTTP/1.1 426 Upgrade Required\r\nconnection: close, upgrade\r\n\
        sec-websocket-version: 13\r\nupgrade: websocket\r\n\
        content-type: application/json\r\nx-amzn-errortype: InvalidRequestException\r\n\
        content-length: 22\r\n\r\n{\"message\":\"a \\\"no\\\"\"}";
    assert_eq!(response, expected);
    for (status, told) in [
        (404, "Not Found\r\nconnection: close\r\n"),
        (404, "\r\nx-amzn-errortype: UnknownOperationException\r\n"),
        (405, "\r\nallow: GET\r\n"),
        (405, "\r\nx-amzn-errortype: MethodNotAllowedException\r\n"),
    ] {
        let response = String::from_utf8(Refusal::new(status, "").response()).unwrap();
        assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{response}");
        assert!(response.contains(told), "{response}");
    }
}
