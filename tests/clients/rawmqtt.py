"""A strict little MQTT client for tests.

It builds any packet, also a wrong one, and refuses to read one that breaks the standard: every
test that uses it checks reserved flags, minimal lengths, UTF-8 and property rules on the way.
Versions are the protocol level: 4 is MQTT 3.1.1, 5 is MQTT 5.
"""

import socket
import struct
import time
import uuid

CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP = range(1, 8)
SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK, PINGREQ, PINGRESP, DISCONNECT, AUTH = range(8, 16)
NAMES = (
    "- CONNECT CONNACK PUBLISH PUBACK PUBREC PUBREL PUBCOMP SUBSCRIBE SUBACK UNSUBSCRIBE UNSUBACK "
    "PINGREQ PINGRESP DISCONNECT AUTH"
).split()

# name: (identifier, type, the packets a server may send it in)
PROPERTIES = {
    "payload_format_indicator": (0x01, "byte", {PUBLISH}),
    "message_expiry_interval": (0x02, "u32", {PUBLISH}),
    "content_type": (0x03, "text", {PUBLISH}),
    "response_topic": (0x08, "text", {PUBLISH}),
    "correlation_data": (0x09, "binary", {PUBLISH}),
    "subscription_identifier": (0x0B, "varint", {PUBLISH}),
    "session_expiry_interval": (0x11, "u32", {CONNACK}),
    "assigned_client_identifier": (0x12, "text", {CONNACK}),
    "server_keep_alive": (0x13, "u16", {CONNACK}),
    "authentication_method": (0x15, "text", {CONNACK, AUTH}),
    "authentication_data": (0x16, "binary", {CONNACK, AUTH}),
    "request_problem_information": (0x17, "byte", set()),
    "will_delay_interval": (0x18, "u32", set()),
    "request_response_information": (0x19, "byte", set()),
    "response_information": (0x1A, "text", {CONNACK}),
    "server_reference": (0x1C, "text", {CONNACK, DISCONNECT}),
    "reason_string": (
        0x1F,
        "text",
        {CONNACK, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK, UNSUBACK, DISCONNECT, AUTH},
    ),
    "receive_maximum": (0x21, "u16", {CONNACK}),
    "topic_alias_maximum": (0x22, "u16", {CONNACK}),
    "topic_alias": (0x23, "u16", {PUBLISH}),
    "maximum_qos": (0x24, "byte", {CONNACK}),
    "retain_available": (0x25, "byte", {CONNACK}),
    "user_property": (
        0x26,
        "pair",
        {CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK, UNSUBACK, DISCONNECT, AUTH},
    ),
    "maximum_packet_size": (0x27, "u32", {CONNACK}),
    "wildcard_subscription_available": (0x28, "byte", {CONNACK}),
    "subscription_identifier_available": (0x29, "byte", {CONNACK}),
    "shared_subscription_available": (0x2A, "byte", {CONNACK}),
}
BY_IDENTIFIER = {row[0]: (name, row[1], row[2]) for name, row in PROPERTIES.items()}
REPEATED = {"user_property", "subscription_identifier"}

# The reason codes a server may send, by packet.
REASONS = {
    CONNACK: {0x00, *range(0x80, 0x8B), 0x8C, 0x90, 0x95, 0x97, *range(0x99, 0xA0)} - {0x8B, 0x8E},
    PUBACK: {0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99},
    PUBREC: {0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99},
    PUBREL: {0x00, 0x92},
    PUBCOMP: {0x00, 0x92},
    SUBACK: {0, 1, 2, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2},
    UNSUBACK: {0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91},
    DISCONNECT: {0x00, *range(0x80, 0x84), 0x87, 0x89, 0x8B, 0x8D, 0x8E, 0x8F, 0x90, *range(0x93, 0xA3)},
}


class Closed(Exception):
    """The server has closed the connection; `last` is the DISCONNECT before it, if one came."""

    def __init__(self, last=None):
        super().__init__(f"closed by the server, last packet {last}")
        self.last = last


class Malformed(Exception):
    """What the server sent is not MQTT."""


# Building: each gives bytes, and none objects to nonsense.


def varint(number):
    out = bytearray()
    while True:
        byte = number % 128
        number //= 128
        out.append(byte | (0x80 if number else 0))
        if not number:
            return bytes(out)


def text(value):
    data = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else bytes(value)
    return struct.pack(">H", len(data)) + data


def packet(kind, flags, body=b"", length=None):
    return bytes([kind << 4 | flags]) + (varint(len(body)) if length is None else length) + body


def properties(given=None, version=5):
    """The property section: a dict by name, a list of (name, value), or raw bytes."""
    if version < 5:
        return b""
    if isinstance(given, (bytes, bytearray)):
        return varint(len(given)) + given
    pairs = list(given.items()) if isinstance(given, dict) else list(given or ())
    out = b""
    for name, value in pairs:
        identifier, kind, _ = PROPERTIES[name]
        several = value if name in REPEATED and isinstance(value, list) else [value]
        for one in several:
            out += varint(identifier) + property_value(kind, one)
    return varint(len(out)) + out


def property_value(kind, value):
    if kind == "byte":
        return struct.pack(">B", value)
    if kind == "u16":
        return struct.pack(">H", value)
    if kind == "u32":
        return struct.pack(">I", value)
    if kind == "varint":
        return varint(value)
    if kind == "pair":
        return text(value[0]) + text(value[1])
    return text(value)


class Will:
    def __init__(self, topic, payload=b"", qos=0, retain=False, props=None):
        self.topic, self.payload, self.qos, self.retain = topic, payload, qos, retain
        self.props = props


def connect(
    client_id="",
    version=5,
    clean=True,
    keep_alive=0,
    will=None,
    username=None,
    password=None,
    props=None,
    flags=None,
    protocol="MQTT",
    level=None,
    tail=b"",
):
    if flags is None:
        flags = 0x02 if clean else 0
        if will:
            flags |= 0x04 | will.qos << 3 | (0x20 if will.retain else 0)
        flags |= (0x80 if username is not None else 0) | (0x40 if password is not None else 0)
    body = text(protocol) + bytes([version if level is None else level, flags])
    body += struct.pack(">H", keep_alive) + properties(props, version) + text(client_id)
    if will:
        body += properties(will.props, version) + text(will.topic) + text(will.payload)
    for field in (username, password):
        if field is not None:
            body += text(field)
    return packet(CONNECT, 0, body + tail)


def publish(topic, payload=b"", qos=0, retain=False, dup=False, id=None, props=None, version=5):
    body = text(topic)
    if qos and id is None:
        id = 1
    if id is not None:
        body += struct.pack(">H", id)
    flags = (8 if dup else 0) | qos << 1 | (1 if retain else 0)
    payload = payload.encode() if isinstance(payload, str) else payload
    return packet(PUBLISH, flags, body + properties(props, version) + payload)


def ack(kind, id, reason=None, props=None, flags=None):
    body = struct.pack(">H", id)
    if reason is not None or props is not None:
        body += bytes([reason or 0])
    if props is not None:
        body += properties(props)
    return packet(kind, (2 if kind == PUBREL else 0) if flags is None else flags, body)


def subscribe(id, filters, props=None, version=5, flags=2):
    body = struct.pack(">H", id) + properties(props, version)
    for filter, options in filters:
        body += text(filter) + bytes([options])
    return packet(SUBSCRIBE, flags, body)


def unsubscribe(id, filters, props=None, version=5, flags=2):
    body = struct.pack(">H", id) + properties(props, version)
    return packet(UNSUBSCRIBE, flags, body + b"".join(text(filter) for filter in filters))


def disconnect(reason=None, props=None):
    body = b"" if reason is None else bytes([reason])
    return packet(DISCONNECT, 0, body + (b"" if props is None else properties(props)))


def auth(reason=None, props=None):
    body = b"" if reason is None else bytes([reason])
    return packet(AUTH, 0, body + (b"" if props is None else properties(props)))


def options(qos=0, no_local=False, retain_as_published=False, retain_handling=0):
    return qos | (4 if no_local else 0) | (8 if retain_as_published else 0) | retain_handling << 4


# Reading: strict.


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        if self.at + count > len(self.data):
            raise Malformed(f"wants {count} bytes at {self.at} of {len(self.data)}")
        self.at += count
        return self.data[self.at - count : self.at]

    def u8(self):
        return self.take(1)[0]

    def u16(self):
        return struct.unpack(">H", self.take(2))[0]

    def u32(self):
        return struct.unpack(">I", self.take(4))[0]

    def varint(self):
        value, start = 0, self.at
        for shift in (0, 7, 14, 21):
            byte = self.u8()
            value |= (byte & 127) << shift
            if byte < 128:
                if varint(value) != self.data[start : self.at]:
                    raise Malformed("a length is not in its shortest form")
                return value
        raise Malformed("a length of more than four bytes")

    def binary(self):
        return self.take(self.u16())

    def text(self):
        value = self.binary().decode("utf-8")
        if "\0" in value:
            raise Malformed("a string holds U+0000")
        return value

    def rest(self):
        return self.take(len(self.data) - self.at)

    def done(self):
        return self.at == len(self.data)

    def properties(self, packet):
        inner = Reader(self.take(self.varint()))
        found = {}
        while not inner.done():
            identifier = inner.varint()
            if identifier not in BY_IDENTIFIER:
                raise Malformed(f"no property {identifier:#x}")
            name, kind, packets = BY_IDENTIFIER[identifier]
            if packet not in packets:
                raise Malformed(f"{name} in {NAMES[packet]}")
            value = inner.property_value(kind)
            if name in REPEATED:
                found.setdefault(name, []).append(value)
            elif name in found:
                raise Malformed(f"{name} twice")
            else:
                found[name] = value
        return found

    def property_value(self, kind):
        if kind == "byte":
            return self.u8()
        if kind == "pair":
            return (self.text(), self.text())
        return getattr(self, kind)()


class Packet:
    """A packet from the server; its fields are attributes."""

    def __init__(self, kind, **fields):
        self.kind = kind
        self.props = {}
        self.__dict__.update(fields)

    def __repr__(self):
        fields = {k: v for k, v in self.__dict__.items() if k != "kind"}
        return f"{NAMES[self.kind]}{fields}"


def parse(kind, flags, body, version):
    """One packet of a server."""
    if kind != PUBLISH and flags != (2 if kind == PUBREL else 0):
        raise Malformed(f"{NAMES[kind]} with the flags {flags:#x}")
    read = Reader(body)
    out = Packet(kind, size=len(body))
    if kind == CONNACK:
        acknowledge, out.reason = read.u8(), read.u8()
        if acknowledge > 1:
            raise Malformed(f"CONNACK with the flags {acknowledge:#x}")
        out.session_present = bool(acknowledge)
        if version == 5:
            out.props = read.properties(kind)
            if out.reason not in REASONS[CONNACK] and out.reason not in (1, 2, 3, 4, 5):
                raise Malformed(f"CONNACK with the reason {out.reason:#x}")
        elif out.reason > 5:
            # A CONNACK to an unknown protocol level may be of any version.
            raise Malformed(f"CONNACK with the return code {out.reason:#x}")
        if out.reason and out.session_present:
            raise Malformed("a refusal with session present")
    elif kind == PUBLISH:
        out.dup, out.qos, out.retain = bool(flags & 8), flags >> 1 & 3, bool(flags & 1)
        if out.qos == 3 or (out.dup and not out.qos):
            raise Malformed(f"PUBLISH with the flags {flags:#x}")
        out.topic = read.text()
        if "+" in out.topic or "#" in out.topic:
            raise Malformed(f"wildcard in the topic name {out.topic}")
        out.id = read.u16() if out.qos else None
        if out.id == 0:
            raise Malformed("packet identifier 0")
        if version == 5:
            out.props = read.properties(kind)
        if not out.topic and "topic_alias" not in out.props:
            raise Malformed("an empty topic name")
        out.payload = read.rest()
    elif kind in (PUBACK, PUBREC, PUBREL, PUBCOMP):
        out.id, out.reason = read.u16(), 0
        if version == 5 and not read.done():
            out.reason = read.u8()
            if not read.done():
                out.props = read.properties(kind)
            if out.reason not in REASONS[kind]:
                raise Malformed(f"{NAMES[kind]} with the reason {out.reason:#x}")
    elif kind in (SUBACK, UNSUBACK):
        out.id = read.u16()
        if version == 5:
            out.props = read.properties(kind)
        out.reasons = list(read.rest())
        allowed = REASONS[kind] if version == 5 else {0, 1, 2, 0x80} if kind == SUBACK else set()
        if not set(out.reasons) <= allowed:
            raise Malformed(f"{NAMES[kind]} with the reasons {out.reasons}")
    elif kind == PINGRESP:
        pass
    elif kind == DISCONNECT and version == 5:
        out.reason = 0 if read.done() else read.u8()
        if not read.done():
            out.props = read.properties(kind)
        if out.reason not in REASONS[DISCONNECT]:
            raise Malformed(f"DISCONNECT with the reason {out.reason:#x}")
    elif kind == AUTH and version == 5:
        out.reason = 0 if read.done() else read.u8()
        if not read.done():
            out.props = read.properties(kind)
    else:
        raise Malformed(f"a server sent {NAMES[kind]}")
    if not read.done():
        raise Malformed(f"{len(body) - read.at} bytes too many in {NAMES[kind]}")
    return out


class Client:
    """One connection. What arrives while something else is awaited is kept for later."""

    def __init__(self, address, version=5, timeout=10, wrap=None, source=None, link=None):
        self.version, self.timeout = version, timeout
        if link is None:
            link = socket.create_connection(address, timeout, source and (source, 0))
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = link
        if wrap:
            self.socket = wrap(self.socket)
        self.buffer = bytearray()
        self.kept = []
        self.last_id = 0
        self.aliases = {}
        self.ended = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.cut()

    # Sending

    def send(self, *packets):
        self.socket.sendall(b"".join(packets))

    def new_id(self):
        self.last_id = self.last_id % 65535 + 1
        return self.last_id

    def connect(self, client_id="", check=True, **fields):
        """CONNECT and its CONNACK; `check` wants success."""
        fields.setdefault("version", self.version)
        self.client_id = client_id
        self.send(connect(client_id, **fields))
        answer = self.next()
        assert answer.kind == CONNACK, answer
        assert not check or answer.reason == 0, answer
        return answer

    def subscribe(self, *filters, qos=0, props=None, check=True, **more):
        """Filters, or (filter, options) pairs; gives the reason codes."""
        id = self.new_id()
        pairs = [f if isinstance(f, tuple) else (f, options(qos, **more)) for f in filters]
        self.send(subscribe(id, pairs, props, self.version))
        answer = self.expect(SUBACK)
        assert answer.id == id, answer
        assert len(answer.reasons) == len(pairs), answer
        assert not check or all(reason < 0x80 for reason in answer.reasons), answer
        return answer.reasons

    def unsubscribe(self, *filters, props=None):
        id = self.new_id()
        self.send(unsubscribe(id, filters, props, self.version))
        answer = self.expect(UNSUBACK)
        assert answer.id == id, answer
        assert len(answer.reasons) == (len(filters) if self.version == 5 else 0), answer
        return answer.reasons

    def publish(self, topic, payload=b"", qos=0, retain=False, props=None, check=True, id=None):
        """Publishes and completes the exchange; gives the reason code of the first answer."""
        id = (id or self.new_id()) if qos else None
        self.send(publish(topic, payload, qos, retain, id=id, props=props, version=self.version))
        if not qos:
            return 0
        answer = self.expect(PUBACK if qos == 1 else PUBREC)
        assert answer.id == id, answer
        assert not check or answer.reason < 0x80, answer
        if qos == 2 and answer.reason < 0x80:
            self.send(ack(PUBREL, id))
            complete = self.expect(PUBCOMP)
            assert complete.id == id and complete.reason == 0, complete
        return answer.reason

    # Receiving

    def next(self, timeout=None):
        """The next packet, whatever it is."""
        if self.kept:
            return self.kept.pop(0)
        return self._read(timeout)

    def expect(self, kind, timeout=None):
        """The next packet of one kind; others wait for their turn."""
        for at, kept in enumerate(self.kept):
            if kept.kind == kind:
                return self.kept.pop(at)
        deadline = time.monotonic() + (timeout or self.timeout)
        while True:
            got = self._read(max(0.01, deadline - time.monotonic()))
            if got.kind == kind:
                return got
            self.kept.append(got)

    def receive(self, ack_it=True, timeout=None):
        """The next publication, acknowledged to its end."""
        got = self.expect(PUBLISH, timeout)
        if not got.topic:
            got.topic = self.aliases[got.props["topic_alias"]]
        elif "topic_alias" in got.props:
            self.aliases[got.props["topic_alias"]] = got.topic
        if ack_it and got.qos == 1:
            self.send(ack(PUBACK, got.id))
        elif ack_it and got.qos == 2:
            self.send(ack(PUBREC, got.id))
            release = self.expect(PUBREL)
            assert release.id == got.id, release
            self.send(ack(PUBCOMP, got.id))
        return got

    def receive_payloads(self, count, **more):
        return [self.receive(**more).payload for _ in range(count)]

    def ping(self):
        self.send(packet(PINGREQ, 0))
        self.expect(PINGRESP)

    def nothing_more(self):
        """Nothing else has been sent here: a message of our own comes first and alone."""
        mark = f"mark/{uuid.uuid4()}"
        self.subscribe(mark, qos=1)
        self.publish(mark, b"mark", qos=1)
        got = self.receive()
        assert got.topic == mark, f"unexpected {got}"
        self.unsubscribe(mark)
        self.ping()
        assert not self.kept, f"unexpected {self.kept}"

    def closed(self, timeout=None):
        """The server ends the connection; gives its DISCONNECT, if there is one."""
        deadline = time.monotonic() + (timeout or self.timeout)
        try:
            while True:
                self._read(max(0.01, deadline - time.monotonic()))
        except Closed as end:
            return end.last

    def refused(self, *reasons, timeout=None):
        """The server ends the connection; with version 5 a DISCONNECT, if sent, says one of these."""
        last = self.closed(timeout)
        if last is not None and reasons:
            assert last.reason in reasons, f"{last}, wanted one of {[hex(r) for r in reasons]}"
        return last

    # Ending

    def disconnect(self, reason=None, props=None):
        self.send(disconnect(reason, props) if self.version == 5 else disconnect())
        self.closed()
        self.cut()

    def cut(self):
        """Drops the link without a word."""
        self.socket.close()

    def _fill(self, count, deadline):
        while len(self.buffer) < count:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"nothing from the server, {bytes(self.buffer)[:64]!r} before")
            self.socket.settimeout(left)
            try:
                data = self.socket.recv(65536)
            except (ConnectionResetError, BrokenPipeError):
                data = b""
            if not data:
                if self.buffer:
                    raise Malformed(f"closed amid a packet: {bytes(self.buffer)[:64]!r}")
                raise Closed(self.ended)
            self.buffer += data

    def _read(self, timeout=None):
        deadline = time.monotonic() + (timeout or self.timeout)
        self._fill(2, deadline)
        length, at = 0, 1
        while True:
            self._fill(at + 1, deadline)
            byte = self.buffer[at]
            length |= (byte & 127) << 7 * (at - 1)
            at += 1
            if byte < 128:
                break
            if at > 4:
                raise Malformed("a remaining length of more than four bytes")
        if varint(length) != bytes(self.buffer[1:at]):
            raise Malformed("a remaining length not in its shortest form")
        self._fill(at + length, deadline)
        head, body = self.buffer[0], bytes(self.buffer[at : at + length])
        del self.buffer[: at + length]
        got = parse(head >> 4, head & 15, body, self.version)
        if got.kind == DISCONNECT:
            self.ended = got
        return got


def stall(client, publisher, topic):
    """Sends a client, which reads nothing from now on, more than its socket takes."""
    # Most of it is to wait in the broker, not in the kernel.
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
    client.subscribe(topic)
    publisher.send(*[publish(topic, bytes(60_000))] * 150)
    publisher.ping()
