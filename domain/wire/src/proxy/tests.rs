use proptest::prelude::*;

use super::*;

fn header(source: &str, destination: &str) -> Header {
    Header { source: source.parse().ok(), destination: destination.parse().ok() }
}

fn v2(version_command: u8, family: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    [V2_SIGNATURE, &[version_command, family], &length, content].concat()
}

const INET: &[u8] = &[192, 0, 2, 1, 198, 51, 100, 2, 0xdc, 0x04, 0x22, 0xb3];

fn inet6() -> Vec<u8> {
    let ip = |last| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last).octets();
    [&ip(1)[..], &ip(2), &[0, 1, 0xff, 0xff]].concat()
}

#[test]
fn headers_are_read() {
    let inet = header("192.0.2.1:56324", "198.51.100.2:8883");
    let unknown = Header::default();
    let longest = format!("PROXY UNKNOWN{:>92}\r\n", "x");
    let tlv = [INET, b"\x04\x00\x00", b"\x20\x00\x03abc"].concat();
    let largest = [INET, &[4], &(4096u16 - 16 - 12 - 3).to_be_bytes(), &[0; 4065]].concat();
    assert_eq!(longest.len(), MAX_V1_BYTES);
    for (bytes, expected) in [
        (b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 8883\r\n".to_vec(), inet),
        (
            b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n".to_vec(),
            header("255.255.255.255:65535", "255.255.255.255:65535"),
        ),
        (b"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n".to_vec(), header("0.0.0.0:0", "0.0.0.0:0")),
        (
            b"PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n".to_vec(),
            header("[2001:db8::1]:1", "[2001:db8::2]:65535"),
        ),
        (
            b"PROXY TCP6 ffff:f:f:f:f:f:f:ffff ffff:f:f:f:f:f:f:ffff 65535 65535\r\n".to_vec(),
            header("[ffff:f:f:f:f:f:f:ffff]:65535", "[ffff:f:f:f:f:f:f:ffff]:65535"),
        ),
        (b"PROXY UNKNOWN\r\n".to_vec(), unknown),
        (b"PROXY UNKNOWN what ever\r\n".to_vec(), unknown),
        (longest.into_bytes(), unknown),
        (v2(0x21, 0x11, INET), inet),
        (v2(0x21, 0x11, &tlv), inet),
        (v2(0x21, 0x11, &largest), inet),
        (v2(0x21, 0x21, &inet6()), header("[2001:db8::1]:1", "[2001:db8::2]:65535")),
        (v2(0x21, 0x12, INET), unknown),
        (v2(0x21, 0x22, &inet6()), unknown),
        (v2(0x21, 0x31, &[0; 216]), unknown),
        (v2(0x21, 0x32, &[0; 216]), unknown),
        (v2(0x21, 0x00, b"any"), unknown),
        (v2(0x20, 0x00, b""), unknown),
        (v2(0x20, 0x11, INET), unknown),
        (v2(0x20, 0x99, b"any"), unknown),
    ] {
        assert!(is_begun(&bytes), "{bytes:?}");
        let size = bytes.len();
        for cut in 0..size {
            assert_eq!(
                parse(&bytes[..cut]),
                Ok(None),
                "{:02x?} cut at {cut}",
                &bytes[..20.min(size)]
            );
        }
        assert_eq!(parse(&bytes), Ok(Some((expected, size))));
        let followed = [&bytes[..], b"\x10\x0c\x00\x04MQTT"].concat();
        assert_eq!(parse(&followed), Ok(Some((expected, size))));
    }
}

#[test]
fn other_bytes_are_refused() {
    use ParseError::*;
    let endless = [b"PROXY UNKNOWN ".to_vec(), vec![b'x'; 100]].concat();
    let late = format!("PROXY UNKNOWN{:>93}\r\n", "x").into_bytes();
    let large = v2(0x21, 0x11, &[0; 4081]);
    for (bytes, expected) in [
        (&b"\x10\x0c\x00\x04MQTT"[..], Missing),
        (b"PROXX", Missing),
        (b"proxy TCP4", Missing),
        (b"PROXY\tTCP4", Missing),
        (b"\r\n\r\n\0\r\nQUIX", Missing),
        (&endless, Unterminated),
        (&late, Unterminated),
        (b"PROXY UNKNOWN\rx", Unterminated),
        (b"PROXY \r\n", Protocol),
        (b"PROXY TCP4\r\n", Protocol),
        (b"PROXY TCP5 1.1.1.1 1.1.1.1 1 1\r\n", Protocol),
        (b"PROXY UNKNOWNx\r\n", Protocol),
        (b"PROXY  TCP4 1.1.1.1 1.1.1.1 1 1\r\n", Protocol),
        (b"PROXY TCP4 \r\n", Addresses),
        (b"PROXY TCP4 1.1.1.1 1.1.1.1 1\r\n", Addresses),
        (b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1 1\r\n", Addresses),
        (b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1 \r\n", Addresses),
        (b"PROXY TCP4 1.1.1.1  1.1.1.1 1 1\r\n", Addresses),
        (b"PROXY TCP4 1.1.1.01 1.1.1.1 1 1\r\n", Addresses),
        (b"PROXY TCP4 1.1.1 1.1.1.1 1 1\r\n", Addresses),
        (b"PROXY TCP4 ::1 ::1 1 1\r\n", Addresses),
        (b"PROXY TCP6 1.1.1.1 1.1.1.1 1 1\r\n", Addresses),
        (b"PROXY TCP6 fe80::1%eth0 ::1 1 1\r\n", Addresses),
        (b"PROXY TCP4 1.1.1.1 1.1.1.1 1 65536\r\n", Addresses),
        (b"PROXY TCP4 1.1.1.1 1.1.1.1 +1 1\r\n", Addresses),
        (b"PROXY TCP4 1.1.1.1 1.1.1.1 01 1\r\n", Addresses),
        (b"PROXY TCP4 1.1.1.1 1.1.1.1 1 \xff\r\n", Addresses),
        (&v2(0x11, 0x11, INET), Version(1)),
        (&v2(0x31, 0x11, INET), Version(3)),
        (&v2(0x22, 0x11, INET), Command(2)),
        (&v2(0x21, 0x41, INET), Family(0x41)),
        (&v2(0x21, 0x13, INET), Family(0x13)),
        (&v2(0x21, 0x01, INET), Family(0x01)),
        (&v2(0x21, 0x10, INET), Family(0x10)),
        (&v2(0x21, 0x11, &INET[..11]), Length),
        (&v2(0x21, 0x21, &inet6()[..35]), Length),
        (&v2(0x21, 0x31, &[0; 215]), Length),
        (&v2(0x21, 0x11, &[INET, b"\x04"].concat()), Length),
        (&v2(0x21, 0x11, &[INET, b"\x04\x00\x02a"].concat()), Length),
        (&large, TooLarge { bytes: 4097 }),
    ] {
        assert_eq!(parse(bytes), Err(expected), "{:02x?}", &bytes[..bytes.len().min(40)]);
    }
}

fn addresses_of_one_family() -> impl Strategy<Value = (SocketAddr, SocketAddr)> {
    let v4 = |(ip, port): ([u8; 4], u16)| SocketAddr::from((ip, port));
    let v6 = |(ip, port): ([u8; 16], u16)| SocketAddr::from((ip, port));
    prop_oneof![
        any::<[([u8; 4], u16); 2]>()
            .prop_map(move |[source, destination]| (v4(source), v4(destination))),
        any::<[([u8; 16], u16); 2]>()
            .prop_map(move |[source, destination]| (v6(source), v6(destination))),
    ]
}

proptest! {
    #[test]
    fn both_versions_carry_any_address((source, destination) in addresses_of_one_family()) {
        let expected = Header { source: Some(source), destination: Some(destination) };
        let protocol = if source.is_ipv4() { "TCP4" } else { "TCP6" };
        let (from, to) = (source.ip(), destination.ip());
        let line = format!("PROXY {protocol} {from} {to} {} {}\r\n", source.port(), destination.port());
        prop_assert_eq!(parse(line.as_bytes()), Ok(Some((expected, line.len()))));

        let octets = |ip| match ip {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        let ports = [source.port().to_be_bytes(), destination.port().to_be_bytes()].concat();
        let content = [octets(from), octets(to), ports].concat();
        let bytes = v2(0x21, if source.is_ipv4() { 0x11 } else { 0x21 }, &content);
        prop_assert_eq!(parse(&bytes), Ok(Some((expected, bytes.len()))));
    }
}
