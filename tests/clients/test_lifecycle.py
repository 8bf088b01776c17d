"""Start, drain, configuration."""

import json
import shutil
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request

import pytest

import brokers
import rawmqtt as m
from parties import LASTING

pytestmark = pytest.mark.skein


def test_ready_within_two_seconds(tmp_path):
    times = []
    for number in range(3):
        broker = brokers.Skein(tmp_path / str(number))
        started = time.monotonic()
        broker.start()
        times.append(time.monotonic() - started)
        broker.stop()
    assert min(times) < 2, times


def test_a_node_that_is_alone_remembers_its_lives_whatever_the_clock_says(fresh_broker):
    fresh_broker.stop()
    begun = fresh_broker.data / "incarnation"
    lives = lambda: [int(line) for line in begun.read_text().splitlines()]
    assert len(lives()) == 1
    ahead = 1 << 60
    begun.write_text(f"{ahead}\n")
    for starts in (1, 2, 3):
        fresh_broker.restart()
        assert len(lives()) == 1 + starts and lives() == sorted(lives()) and lives()[0] == ahead


def test_a_second_start_keeps_the_files(fresh_broker):
    files = {path: path.read_bytes() for path in fresh_broker.pki.iterdir()}
    files |= {path: path.read_bytes() for path in (fresh_broker.data / "aws").iterdir()}
    fresh_broker.restart()
    assert {path: path.read_bytes() for path in files} == files


def test_secret_files_are_private(fresh_broker):
    secret = [*fresh_broker.pki.glob("*.key"), fresh_broker.data / "aws" / "credentials"]
    for path in secret:
        assert path.stat().st_mode & 0o077 == 0, path


def test_certificates_pass_strict_verification(fresh_broker):
    for name, purpose in (("server", "sslserver"), ("device", "sslclient")):
        done = subprocess.run(
            ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-CAfile", fresh_broker.ca,
             str(fresh_broker.pki / f"{name}.pem")],
            capture_output=True, text=True, timeout=20,
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_tls_versions(fresh_broker, version):
    certificate, key = fresh_broker.device
    done = subprocess.run(
        ["openssl", "s_client", version, "-connect", f"localhost:{fresh_broker.port('tls')}", "-CAfile", fresh_broker.ca,
         "-cert", certificate, "-key", key, "-verify_return_error", "-servername", "localhost"],
        input="", capture_output=True, text=True, timeout=20,
    )
    assert "Verify return code: 0 (ok)" in done.stdout, done.stdout + done.stderr


def test_old_tls_is_refused(fresh_broker):
    done = subprocess.run(
        ["openssl", "s_client", "-tls1_1", "-cipher", "ALL@SECLEVEL=0", "-connect", f"localhost:{fresh_broker.port('tls')}"],
        input="", capture_output=True, text=True, timeout=20,
    )
    assert "Cipher is (NONE)" in done.stdout or done.returncode != 0


def test_plain_listeners_are_loopback_only(fresh_broker):
    listening = subprocess.run(["ss", "-Hltn"], capture_output=True, text=True, check=True).stdout
    for line in listening.splitlines():
        address, _, port = line.split()[3].rpartition(":")
        if int(port) in [fresh_broker.port(name) for name in ("plain", "ws", "admin")]:
            assert address in ("127.0.0.1", "[::1]"), line


def test_drain(fresh_broker, name):
    new, old = m.Client(fresh_broker.plain, 5), m.Client(fresh_broker.plain, 4)
    new.connect(f"{name}-5", clean=False, props={"session_expiry_interval": 60})
    new.subscribe(f"{name}/#", qos=1)
    old.connect(f"{name}-4", clean=False)
    fresh_broker.terminate()
    last = new.closed()
    assert last is not None and last.reason == 0x8B
    assert old.closed() is None
    assert fresh_broker.process.wait(20) == 0
    fresh_broker.start()
    again = m.Client(fresh_broker.plain, 5)
    assert again.connect(f"{name}-5", clean=False).session_present
    again.publish(f"{name}/a", b"x", qos=1)
    assert again.receive().payload == b"x"
    assert m.Client(fresh_broker.plain, 4).connect(f"{name}-4", clean=False).session_present


@pytest.mark.parametrize("first,then", [(4, 5), (5, 4)])
def test_a_session_goes_on_with_another_version_of_the_protocol(dial, name, first, then):
    """[v3.1.1 MQTT-3.1.2-4, v5 MQTT-3.1.2-5]: the session is the client id's."""
    lasting = {4: {}, 5: {"props": LASTING}}
    client = dial(first)
    client.connect(name, clean=False, **lasting[first])
    client.subscribe(f"{name}/#", qos=1)
    client.disconnect()
    publisher = dial()
    publisher.connect(f"{name}-publisher")
    publisher.publish(f"{name}/a", b"x", qos=1)
    again = dial(then)
    assert again.connect(name, clean=False, **lasting[then]).session_present
    assert again.receive().payload == b"x"


def test_drain_keeps_what_is_queued(fresh_broker, name):
    client = m.Client(fresh_broker.plain)
    client.connect(name, clean=False, props={"session_expiry_interval": 60})
    client.subscribe(f"{name}/#", qos=1)
    client.cut()
    publisher = m.Client(fresh_broker.plain)
    publisher.connect("publisher")
    for number in range(100):
        publisher.publish(f"{name}/a", b"%d" % number, qos=1)
    fresh_broker.stop()
    fresh_broker.start()
    again = m.Client(fresh_broker.plain)
    assert again.connect(name, clean=False).session_present
    assert again.receive_payloads(100) == [b"%d" % number for number in range(100)]


def skein(*words, **more):
    return subprocess.run(
        [str(brokers.skein_binary()), *map(str, words)], capture_output=True, text=True, timeout=30, **more
    )


@pytest.mark.parametrize(
    "text,named",
    [
        ("shard = 4", "shard"),
        ("[listeners.mqtts]\nport = 1", "port"),
        ("[listeners.nowhere]\naddress = '127.0.0.1:1'", "nowhere"),
        ("shards = 3", "shards"),
        ("shards = 'many'", "shards"),
        ("[account]\nid = '12'", "account.id"),
        ("[listeners.mqtts]\naddress = '0.0.0.0:8883'", "tls"),
        ("[listeners.mqtt]\naddress = 'here'", "address"),
        ("[listeners.mqtt]\nanonymous_policy = '{}'", "anonymous_policy"),
        ("[limits]\nreceive_maximum = 0", "receive_maximum"),
        ("this is no toml", "line 1"),
        ("[listeners.mqtt\n", "line 1"),
    ],
)
def test_bad_configuration_is_explained(tmp_path, text, named):
    path = tmp_path / "skein.toml"
    path.write_text(text)
    done = skein("config", "check", path)
    said = done.stdout + done.stderr
    assert done.returncode != 0, said
    assert named in said and "panicked" not in said, said
    refused = skein("serve", "--config", path)
    assert refused.returncode != 0
    assert named in refused.stdout + refused.stderr


def test_missing_configuration(tmp_path):
    path = tmp_path / "none.toml"
    for words in (("config", "check", path), ("serve", "--config", path)):
        done = skein(*words)
        assert done.returncode != 0 and "none.toml" in done.stdout + done.stderr


def test_serve(fresh_broker, tmp_path, name):
    served = brokers.Serving(tmp_path / "served")
    pki = fresh_broker.pki
    (served.folder / "skein.toml").write_text(
        f"""
        data = '{served.data}'
        [account]
        id = '123456789012'
        region = 'eu-central-1'
        [listeners.admin]
        address = '127.0.0.1:{served.port("admin")}'
        [listeners.mqtts]
        address = '127.0.0.1:1'
        [listeners.http]
        address = '127.0.0.1:{served.port("http")}'
        [tls]
        certificate = '{pki}/server.pem'
        private_key = '{pki}/server.key'
        issuer_certificate = '{pki}/ca.pem'
        issuer_private_key = '{pki}/ca.key'
        [[access_keys]]
        id = 'AKIAEXAMPLE'
        secret = 'example secret of a test'
        """
    )
    served.start()
    try:
        # Nobody is known here: the certificate of another node is refused.
        from conftest import tls_context

        context = tls_context(fresh_broker, fresh_broker.device)
        with pytest.raises((OSError, m.Closed, AssertionError)):
            client = m.Client(
                served.address("tls"), wrap=lambda raw: context.wrap_socket(raw, server_hostname="localhost")
            )
            client.connect(name)
        # No plain listener unless it is configured.
        assert brokers.is_free(served.port("plain"))
        import boto3

        iot = boto3.client(
            "iot", endpoint_url=served.http_url, region_name="eu-central-1",
            aws_access_key_id="AKIAEXAMPLE", aws_secret_access_key="example secret of a test",
        )
        assert iot.create_thing(thingName=name)["thingArn"] == f"arn:aws:iot:eu-central-1:123456789012:thing/{name}"
    finally:
        served.stop()


class Narrow(brokers.Serving):
    """A node of one core that lets few in, with more than one listener."""

    def __init__(self, folder, limits, places=1000):
        super().__init__(folder)
        policy = brokers.policy(("Allow", "iot:*", "*"))
        listeners = "".join(
            f"[listeners.{name}]\naddress = '127.0.0.1:{self.port(port)}'\nanonymous_policy = '{policy}'\n"
            f"max_connections = {places}\n"
            for name, port in (("mqtt", "plain"), ("ws", "ws"))
        )
        (self.folder / "skein.toml").write_text(
            f"data = '{self.data}'\ncores = 1\n{listeners}"
            f"[listeners.admin]\naddress = '127.0.0.1:{self.port('admin')}'\n"
            f"[limits]\n{limits}\n"
        )

    def environment(self):
        return {}


def test_a_listener_that_nobody_uses_holds_no_place(tmp_path, name):
    broker = Narrow(tmp_path / "narrow", "handshakes_per_core = 1").start()
    try:
        # Twice in a row: the place must not be the other listener's in between.
        for _ in range(2):
            with m.Client(broker.plain, timeout=5) as client:
                client.connect(name)
        for _ in range(2):
            with socket.create_connection(broker.address("ws"), 5) as raw:
                raw.sendall(b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert raw.recv(100).startswith(b"HTTP/1.1 404")
    finally:
        broker.stop()


def test_silent_sockets_that_wait_take_no_place_of_a_listener(tmp_path, name):
    broker = Narrow(tmp_path / "narrow", "handshakes_per_source = 1", places=3).start()
    try:
        silent = [socket.create_connection(broker.plain, 5) for _ in range(10)]

        def elsewhere(number):
            client = m.Client(broker.plain, timeout=5, source="127.0.0.2")
            client.connect(f"{name}-{number}")
            return client

        def refused():
            return broker.metrics().get('gateway_connects_total{result="too_many"}', 0)

        # One of the silent has the third place.
        clients = [elsewhere(number) for number in range(2)]
        with pytest.raises((m.Closed, OSError)):
            elsewhere(2)
        assert refused() == 1
        for raw in silent:
            raw.close()

        def let_in():
            try:
                return elsewhere(2)
            except (m.Closed, OSError):
                return None

        clients.append(brokers.wait_until("a place is free", let_in))
        with pytest.raises((m.Closed, OSError)):
            elsewhere(3)
        for client in clients:
            client.ping()
            client.cut()
        brokers.wait_until("every place is free", let_in).cut()
    finally:
        broker.stop()


def test_help_and_version():
    assert skein("--version").stdout.startswith("skein ")
    for words in (("--help",), ("dev", "--help"), ("serve", "--help"), ("config", "check", "--help")):
        done = skein(*words)
        assert done.returncode == 0 and done.stdout, words


def test_port_in_use_is_named(fresh_broker, tmp_path):
    other = brokers.Skein(tmp_path / "other", offset=fresh_broker.offset)
    with pytest.raises(RuntimeError) as refused:
        # Its own readiness check would be answered by the first one.
        other.is_ready = lambda: False
        other.start()
    assert "panicked" not in str(refused.value)
    assert "cannot listen on" in str(refused.value) and "--port-offset" in str(refused.value)


@pytest.mark.parametrize("listener", ["mqtt", "ws"])
def test_a_port_is_not_shared_with_another_process(tmp_path, listener):
    ports = brokers.Skein(tmp_path / "ports")
    text = f"""
        data = '{{data}}'
        [listeners.{listener}]
        address = '127.0.0.1:{ports.port("plain")}'
        """
    admin = f"[listeners.admin]\naddress = '127.0.0.1:{ports.port('admin')}'\n"
    first, second = brokers.serving(tmp_path / "first", text + admin), brokers.serving(tmp_path / "second", text)
    first.offset = ports.offset
    first.start()
    try:
        second.is_ready = lambda: False
        with pytest.raises(RuntimeError) as refused:
            second.start()
        assert f"listeners.{listener} cannot listen on 127.0.0.1:{ports.port('plain')}" in str(refused.value)
        # A restart listens again although connections of the last run linger.
        m.Client(first.plain).cut()
        first.restart()
    finally:
        first.stop()


def test_what_is_stored_is_its_owners_alone(fresh_broker, tmp_path):
    public = {fresh_broker.pki / name for name in ("ca.pem", "server.pem", "device.pem")}
    public.add(fresh_broker.data / "aws" / "config")
    found = [fresh_broker.data, *fresh_broker.data.rglob("*")]
    assert any("state" in path.parts for path in found)
    for path in found:
        mode = path.stat().st_mode & 0o777
        assert mode == (0o644 if path in public else 0o700 if path.is_dir() else 0o600), (path, oct(mode))
    fresh_broker.stop()
    fresh_broker.data.chmod(0o755)
    fresh_broker.start()
    assert "has mode 0755" in fresh_broker.tail()


def test_another_account_of_an_existing_folder_is_refused(fresh_broker):
    fresh_broker.stop()
    for words in (["--account-id", "123456789012"], ["--region", "eu-central-1"]):
        other = brokers.Skein(fresh_broker.folder, words, offset=fresh_broker.offset)
        with pytest.raises(RuntimeError, match="was made with --account-id 000000000000 --region us-east-1"):
            other.start()
    fresh_broker.start()


def test_a_folder_stays_with_its_account_and_shards(tmp_path):
    ports = brokers.Skein(tmp_path / "ports")

    def serving(more):
        admin = f"[listeners.admin]\naddress = '127.0.0.1:{ports.port('admin')}'\n"
        return brokers.serving(tmp_path / "serving", f"data = '{{data}}'\n{more}\n{admin}", ports.offset)

    serving("shards = 2").start().stop()
    for more, said in (
        ("shards = 4", "made with 2; the number cannot be changed"),
        ("shards = 2\n[account]\nid = '123456789012'", 'made with "000000000000 us-east-1"'),
        ("shards = 2\n[account]\nregion = 'eu-west-1'", 'made with "000000000000 us-east-1"'),
    ):
        other = serving(more)
        with pytest.raises(RuntimeError, match=said):
            other.start()
        done = skein("config", "check", other.folder / "skein.toml")
        assert done.returncode != 0 and said in done.stderr, done.stderr
    serving("shards = 2").start().stop()


def test_what_dev_cannot_use_is_named(tmp_path, fresh_broker):
    (tmp_path / "file").write_text("")
    done = skein("dev", "--data", tmp_path / "file")
    assert done.returncode != 0 and "it is not a folder" in done.stderr, done.stderr
    other = brokers.Skein(fresh_broker.folder)
    incarnation = (fresh_broker.data / "incarnation").read_text()
    with pytest.raises(RuntimeError, match="in use by process .*: stop it, or choose another data folder"):
        other.start()
    assert (fresh_broker.data / "incarnation").read_text() == incarnation
    fresh_broker.stop()
    (fresh_broker.pki / "device.key").unlink()
    with pytest.raises(RuntimeError, match="device.key is missing"):
        fresh_broker.start()


def openssl(*words):
    subprocess.run(["openssl", *map(str, words)], capture_output=True, check=True, timeout=30)


def make_certificate(folder, name, days, version=3):
    """A self-signed server certificate."""
    key, certificate, request = (folder / f"{name}.{end}" for end in ("key", "pem", "csr"))
    openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key)
    openssl("req", "-new", "-key", key, "-subj", "/CN=localhost", "-out", request)
    extensions = folder / "extensions"
    extensions.write_text("subjectAltName=DNS:localhost\n")
    more = ["-extfile", extensions] if version == 3 else []
    openssl("x509", "-req", "-in", request, "-signkey", key, "-days", days, "-out", certificate, *more)
    return certificate, key


@pytest.mark.parametrize(
    "days,version,key,problem,warning",
    [
        (365, 3, None, None, None),
        (20, 3, None, None, "expires on"),
        (-1, 3, None, "expired on", None),
        (365, 1, None, "X.509 version 1, which is not supported", None),
        (365, 3, "other", "does not belong to the certificate", None),
        (365, 3, "nowhere", "cannot read", None),
        (365, 3, "garbage", "holds no private key in PEM", None),
    ],
)
def test_certificates_are_checked(tmp_path, days, version, key, problem, warning):
    certificate, right_key = make_certificate(tmp_path, "server", days, version)
    make_certificate(tmp_path, "other", 365)
    (tmp_path / "garbage.key").write_text("nothing\n")
    path = tmp_path / "skein.toml"
    path.write_text(
        f"""
        data = 'data'
        [listeners.mqtts]
        address = '127.0.0.1:{brokers.Skein(tmp_path / "ports").port("tls")}'
        [tls]
        certificate = 'server.pem'
        private_key = '{key or "server"}.key'
        """
    )
    done = skein("config", "check", path)
    said = done.stdout + done.stderr
    assert (done.returncode == 0) == (problem is None), said
    if problem:
        assert f"tls.{'private_key' if key else 'certificate'}: " in said and problem in said, said
        refused = skein("serve", "--config", path)
        assert refused.returncode != 0 and problem in refused.stderr, refused.stderr
    assert ("warning: tls.certificate: " in said) == (warning is not None) and (warning or "") in said, said
    assert not (tmp_path / "data").exists()


def test_every_problem_and_warning_is_said(tmp_path):
    path = tmp_path / "skein.toml"
    path.write_text(
        """
        data = '/dev/null/skein'
        cores = 60000
        public_host = 'https://iot.example.com'
        [account]
        id = ''
        [listeners.mqtt]
        address = '0.0.0.0:1883'
        [listeners.ws]
        address = '127.0.0.1:1883'
        [tls]
        certificate = 'none.pem'
        private_key = 'none.key'
        issuer_certificate = 'none.pem'
        issuer_private_key = 'none.key'
        [[access_keys]]
        id = ''
        secret = ''
        [log]
        filter = 'loud'
        [traces]
        endpoint = 'localhost'
        """
    )
    done = skein("config", "check", path)
    assert done.returncode != 0
    problems = [
        "data", "public_host", "account.id", "listeners.ws.address", "access_keys[0].id", "access_keys[0].secret",
        "log.filter", "traces.endpoint", "tls.certificate", "tls.private_key",
        "tls.issuer_certificate", "tls.issuer_private_key",
    ]
    for key in problems:
        assert f"\n  {key}: " in done.stderr, (key, done.stderr)
    for key in ("cores", "listeners.mqtt"):
        assert f"warning: {key}: " in done.stderr, (key, done.stderr)
    for talk in ("cargo", "os error 2)\n  data", "expected", "at line"):
        assert talk not in done.stderr.lower(), done.stderr


def test_errors_and_warnings_are_always_logged(fresh_broker):
    def put(text):
        url = "http://%s:%d/admin/log" % fresh_broker.address("admin")
        request = urllib.request.Request(url, text.encode(), method="PUT")
        try:
            return urllib.request.urlopen(request, timeout=5).status, ""
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    assert put("")[0] == 400
    for number, text in enumerate(["off", "node=debug"], 1):
        assert put(text)[0] == 204
        assert fresh_broker.log.read_text().count("what is logged has changed") == number
    assert fresh_broker.get("/admin/log")[1].strip() == "node=debug,warn"
    status, said = put("node=loud")
    assert status == 400 and said.count("level filter") == 1, said


def test_metrics_of_the_process(fresh_broker, name):
    with m.Client(fresh_broker.plain) as client:
        client.connect(name)
        client.subscribe(f"{name}/#", qos=1)
        client.publish(f"{name}/a", b"x", qos=1)
        assert client.receive().payload == b"x"
    values = fresh_broker.metrics()
    assert values["outbox_lost_total"] == values['session_queue_dropped_total{reason="full"}'] == 0
    assert values['gateway_decisions_total{action="receive",decision="allowed"}'] >= 1
    resident = fresh_broker.resident_bytes()
    assert resident / 4 < values["process_resident_memory_bytes"] < resident * 4
    assert 10 < values["process_open_fds"] < values["process_max_fds"]
    assert 0 <= time.time() - values["process_start_time_seconds"] < 600
    assert values["storage_free_bytes"] > 1 << 20
    for certificate in ("node", "issuer"):
        ends = values[f'tls_certificate_expiry_seconds{{certificate="{certificate}"}}']
        assert time.gmtime(ends)[:3] == (2049, 12, 31)
    assert not [sample for sample in values if "quantile=" in sample]

    def buckets():
        return [it for it in fresh_broker.metrics() if it.startswith("gateway_connection_seconds_bucket")]

    brokers.wait_until("the connection has ended", buckets)
    assert 'gateway_connection_seconds_bucket{le="2592000"}' in buckets()


def test_a_certificate_is_replaced_while_clients_stay(fresh_broker, tmp_path):
    files = {kind: fresh_broker.pki / f"server.{kind}" for kind in ("pem", "key")}
    before = {kind: file.read_bytes() for kind, file in files.items()}

    def shown():
        return ssl.get_server_certificate(("127.0.0.1", fresh_broker.port("wss")))

    def changes(result):
        return fresh_broker.metrics().get('tls_certificate_changes_total{result="%s"}' % result, 0)

    old = shown()
    with m.Client(fresh_broker.plain) as client:
        client.connect("stays")
        renewed = tmp_path / "renewed"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
             "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
             "-keyout", f"{renewed}.key", "-out", f"{renewed}.pem"],
            check=True, capture_output=True,
        )
        files["pem"].write_bytes(renewed.with_suffix(".pem").read_bytes())
        brokers.wait_until("a certificate without its key is noticed", lambda: changes("refused") == 1, 20)
        assert shown() == old
        files["key"].write_bytes(renewed.with_suffix(".key").read_bytes())
        brokers.wait_until("the pair is taken", lambda: changes("taken") == 1)
        assert ssl.PEM_cert_to_DER_cert(shown()) == ssl.PEM_cert_to_DER_cert(files["pem"].read_text())
        ends = fresh_broker.metrics()['tls_certificate_expiry_seconds{certificate="node"}']
        assert 29 < (ends - time.time()) / 86400 < 31
        client.ping()
    for kind, file in files.items():
        file.write_bytes(before[kind])
    brokers.wait_until("the first pair is taken again", lambda: shown() == old)


def test_mistakes_are_logged_with_their_remedy(fresh_broker):
    def no_tls(listener, sent):
        with socket.create_connection(fresh_broker.address(listener), 5) as raw:
            raw.sendall(sent)
            raw.recv(100)

    def tls(listener, *words, sent=b""):
        words = ["openssl", "s_client", "-connect", "127.0.0.1:%d" % fresh_broker.port(listener), *words]
        subprocess.run(words, input=sent, capture_output=True, timeout=20)

    hello = bytes.fromhex("16030100") + bytes(100)
    for listener, make, said in (
        ("plain", lambda: no_tls("plain", hello), "looks like TLS: use listeners.mqtts"),
        ("tls", lambda: no_tls("tls", m.connect("x")), "without it there is MQTT on listeners.mqtt"),
        ("tls", lambda: tls("tls"), "peer sent no certificates"),
        ("wss", lambda: tls("wss", "-quiet", sent=m.connect("x")), "use ALPN x-amzn-mqtt-ca"),
        ("plain", lambda: no_tls("plain", b"GET / HTTP/1.1"), "the first packet is not CONNECT"),
    ):
        make()
        brokers.wait_until(f"{listener}: {said}", lambda: said in fresh_broker.log.read_text(), 5)
    # Whatever a client does, it cannot have warnings written.
    tls("tls", "-servername", "127.0.0.1")
    assert "WARN" not in fresh_broker.log.read_text()


def test_denials_are_logged(tmp_path):
    ports = brokers.Skein(tmp_path / "ports")
    policy = brokers.policy(
        ("Allow", "iot:Connect", "client/good"),
        ("Allow", ["iot:Publish", "iot:Subscribe"], "*"),
        ("Allow", "iot:Receive", "topic/a/*"),
        ("Deny", "iot:Publish", "topic/a/secret"),
        ("Deny", "iot:Subscribe", "topicfilter/b/#"),
    )
    broker = brokers.serving(
        tmp_path / "serving",
        f"""
        data = '{{data}}'
        cores = 1
        [listeners.admin]
        address = '127.0.0.1:{ports.port("admin")}'
        [listeners.mqtts]
        address = '127.0.0.1:{ports.port("tls")}'
        [listeners.mqtt]
        address = '127.0.0.1:{ports.port("plain")}'
        anonymous_policy = '{policy}'
        [tls]
        certificate = 'server.pem'
        private_key = 'server.key'
        """,
    )
    broker.offset = ports.offset
    make_certificate(broker.folder, "server", 365)
    broker.start()

    def lines(message):
        entries = [json.loads(line) for line in broker.log.read_text().splitlines()]
        return [entry for entry in entries if entry["message"] == message]

    try:
        listening = {entry["listener"]: entry["address"] for entry in lines("listening")}
        assert set(listening) == {"listeners.mqtt", "listeners.mqtts", "listeners.admin"}
        assert listening["listeners.mqtt"] == "127.0.0.1:%d" % ports.port("plain")

        with m.Client(broker.plain) as refused:
            assert refused.connect("bad", check=False).reason == 0x87
        (line,) = lines("connection refused")
        assert (line["client"], line["principal"], line["ip"]) == ("bad", "anonymous", "127.0.0.1")
        assert (line["reason"], line["action"], line["resource"]) == ("Not authorized", "iot:Connect", "client/bad")
        assert line["why"] == "no statement of a policy allows it"

        client = m.Client(broker.plain)
        client.connect("good")

        def publish_secret():
            return client.publish("a/secret", b"hidden payload", qos=1, check=False)

        assert publish_secret() == 0x87
        assert client.subscribe("b/#", qos=1, check=False) == [0x87]
        client.subscribe("c/#", qos=1)
        client.publish("c/1", b"hidden payload", qos=1)
        said = {(line["action"], line["resource"], line["why"]) for line in lines("denied")}
        assert said == {
            ("iot:Publish", "topic/a/secret", "a statement of a policy denies it"),
            ("iot:Subscribe", "topicfilter/b/#", "a statement of a policy denies it"),
            ("iot:Receive", "topic/c/1", "no statement of a policy allows it"),
        }
        assert {(line["client"], line["ip"]) for line in lines("denied")} == {("good", "127.0.0.1")}
        with m.Client(broker.plain) as again:
            again.connect("good")
            assert client.closed().reason == 0x8E
            (line,) = [line for line in lines("taken over: its client id has connected again")]
            assert (line["client"], line["ip"]) == ("good", "127.0.0.1")
        client = m.Client(broker.plain)
        client.connect("good")
        # More than a second allows, in however many seconds this takes.
        while not any("left_out" in line for line in lines("denied")):
            for _ in range(50):
                publish_secret()
        assert "hidden payload" not in broker.log.read_text()
    finally:
        broker.stop()


@pytest.mark.parametrize("left", ["aws", "pki"])
def test_a_development_folder_is_known_by_either_secret(fresh_broker, left):
    """What is gone of them is made anew, whatever has become of the thing."""
    change = {"attributes": {"room": "b"}}
    fresh_broker.boto("iot").update_thing(thingName="dev-thing", attributePayload=change)
    fresh_broker.stop()
    gone = fresh_broker.data / ({"aws", "pki"} - {left}).pop()
    shutil.rmtree(gone)
    fresh_broker.start()
    principals = fresh_broker.boto("iot").list_thing_principals(thingName="dev-thing")["principals"]
    assert len(principals) == (2 if left == "aws" else 1)
    assert gone.is_dir() and not gone.with_suffix(".new").exists()
