"""mosquitto_pub and mosquitto_sub, as a person would call them."""

import os
import signal
import subprocess

import pytest

from brokers import REPO


class Subscriber:
    """A running mosquitto_sub; it has its SUBACK, or all that -C asks for, when this returns."""

    def __init__(self, words):
        self.process = subprocess.Popen(
            ["stdbuf", "-oL", "mosquitto_sub", "-d", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1
        )
        self.seen = []
        self.until("Subscribed (mid:")

    def until(self, start):
        for line in self.process.stdout:
            self.seen.append(line.rstrip("\n"))
            if line.startswith(start):
                return

    def payloads(self):
        """Everything it printed besides its debug lines, once it has ended by -C."""
        lines = self.seen + self.process.stdout.read().splitlines()
        noise = ("Client ", "Subscribed ", "Received ")
        return [line for line in lines if line and not line.startswith(noise)]


@pytest.fixture
def mosquitto(broker):
    """Words for either client: listener, version, certificate."""
    running = []

    def words(listener, version):
        base = ["-h", "localhost", "-p", str(broker.port(listener)), "-V", version]
        if listener == "tls":
            certificate, key = broker.device
            base += ["--cafile", broker.ca, "--cert", certificate, "--key", key]
        return base

    class Clients:
        def subscribe(self, *more, listener="plain", version="mqttv311"):
            subscriber = Subscriber([*words(listener, version), *more])
            running.append(subscriber.process)
            return subscriber

        def publish(self, *more, listener="plain", version="mqttv311", check=True):
            command = ["mosquitto_pub", *words(listener, version), *more]
            done = subprocess.run(command, capture_output=True, text=True, timeout=20)
            assert not check or done.returncode == 0, done.stderr
            return done

    yield Clients()
    for process in running:
        process.kill()
        process.wait()


@pytest.mark.parametrize("qos", "012")
@pytest.mark.parametrize("version", ["mqttv311", "mqttv5"])
@pytest.mark.parametrize("listener", ["plain", "tls"])
def test_publish_and_subscribe(mosquitto, name, listener, version, qos):
    subscriber = mosquitto.subscribe("-t", name, "-q", qos, "-C", "2", listener=listener, version=version)
    for text in ("one", "two"):
        mosquitto.publish("-t", name, "-q", qos, "-m", text, listener=listener, version=version)
    assert subscriber.payloads() == ["one", "two"]


@pytest.mark.parametrize("version", ["mqttv311", "mqttv5"])
def test_retained(mosquitto, name, version):
    mosquitto.publish("-t", f"{name}/a", "-q", "1", "-r", "-m", "kept", version=version)
    subscriber = mosquitto.subscribe("-t", f"{name}/#", "-C", "1", "-F", "%r %t %p", version=version)
    assert subscriber.payloads() == [f"1 {name}/a kept"]
    mosquitto.publish("-t", f"{name}/a", "-q", "1", "-r", "-n", version=version)
    subscriber = mosquitto.subscribe("-t", f"{name}/#", "-C", "1", version=version)
    mosquitto.publish("-t", f"{name}/a", "-m", "live", version=version)
    assert subscriber.payloads() == ["live"]


@pytest.mark.parametrize("version", ["mqttv311", "mqttv5"])
def test_will(mosquitto, name, version):
    subscriber = mosquitto.subscribe("-t", name, "-q", "1", "-C", "1", version=version)
    victim = mosquitto.subscribe(
        "-t", "x", "--will-topic", name, "--will-payload", "gone", "--will-qos", "1", version=version
    )
    victim.process.kill()
    assert subscriber.payloads() == ["gone"]


def test_persistent_session(mosquitto, name):
    words = ("-i", name, "-c", "-t", f"{name}/t", "-q", "1")
    mosquitto.subscribe(*words).process.terminate()
    for number in range(5):
        mosquitto.publish("-t", f"{name}/t", "-q", "1", "-m", str(number))
    assert mosquitto.subscribe(*words, "-C", "5").payloads() == list("01234")


@pytest.mark.parametrize("version", ["mqttv311", "mqttv5"])
def test_shared(mosquitto, name, version):
    words = ("-t", f"$share/g/{name}", "-q", "1", "-C", "2")
    members = [mosquitto.subscribe(*words, version=version) for _ in range(2)]
    for number in range(4):
        mosquitto.publish("-t", name, "-q", "1", "-m", str(number), version=version)
    assert sorted(members[0].payloads() + members[1].payloads()) == list("0123")


def test_properties(mosquitto, name):
    subscriber = mosquitto.subscribe(
        "-t", name, "-C", "1", "-F", "%R %D %C %P %p", "-D", "subscribe", "subscription-identifier", "7", version="mqttv5"
    )
    mosquitto.publish(
        *("-t", name, "-m", "x", "-D", "publish", "response-topic", "answer", "-D", "publish", "correlation-data", "77"),
        *("-D", "publish", "content-type", "text/plain", "-D", "publish", "user-property", "k", "v"),
        version="mqttv5",
    )
    assert subscriber.payloads() == ["answer 77 text/plain k:v x"]


def test_large_payload_from_a_file(mosquitto, name, tmp_path):
    path = tmp_path / "payload"
    path.write_bytes(b"0123456789abcdef" * 65_536)
    subscriber = mosquitto.subscribe("-t", name, "-q", "1", "-C", "1")
    mosquitto.publish("-t", name, "-q", "1", "-f", str(path))
    (payload,) = subscriber.payloads()
    assert payload == path.read_text()


def test_many_lines(mosquitto, broker, name):
    subscriber = mosquitto.subscribe("-t", name, "-q", "2", "-C", "500")
    lines = [str(number) for number in range(500)]
    done = subprocess.run(
        ["mosquitto_pub", "-h", "localhost", "-p", str(broker.port("plain")), "-t", name, "-q", "2", "-l"],
        input="\n".join(lines) + "\n", text=True, capture_output=True, timeout=30,
    )
    assert done.returncode == 0, done.stderr
    assert subscriber.payloads() == lines


def test_tls_needs_a_certificate(mosquitto, broker, name):
    done = subprocess.run(
        ["mosquitto_pub", "-h", "localhost", "-p", str(broker.port("tls")), "--cafile", broker.ca, "-t", name, "-m", "x"],
        capture_output=True, text=True, timeout=20,
    )
    assert done.returncode != 0


@pytest.mark.skein
def test_the_printed_commands_work(skein, tmp_path):
    """`skein dev` prints five commands; each works as it stands, from any folder."""
    text = skein.log.read_text()
    commands = [line.strip().removeprefix("$ ") for line in text.splitlines()]
    first_words = ("mosquitto_sub", "mosquitto_pub", "aws ", "curl ")
    commands = [line for line in commands if line.startswith(first_words) or " aws " in f" {line}"]
    assert len(commands) == 5, text
    environment = skein.aws_environment()
    environment["PATH"] = f"{REPO}/.venv/bin:{environment['PATH']}"
    for command in commands:
        if command.startswith("mosquitto_sub"):
            # Waits for messages until it is told to end.
            process = subprocess.Popen(
                f"stdbuf -oL {command} -d", shell=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                env=environment, cwd=REPO, start_new_session=True,
            )
            try:
                for line in process.stdout:
                    if line.startswith("Subscribed (mid:"):
                        break
                else:
                    pytest.fail(f"{command} ended")
            finally:
                process.stdout.close()
                os.killpg(process.pid, signal.SIGTERM)
                process.wait()
            continue
        done = subprocess.run(
            command, shell=True, capture_output=True, text=True, timeout=30, env=environment, cwd=REPO
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
