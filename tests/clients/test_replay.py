"""What policies have decided about a client is recorded, and decided again by a version that is no default yet."""

import json
import subprocess
import urllib.error
import urllib.request

import pytest

import aws
from brokers import policy, skein_binary, wait_until

pytestmark = pytest.mark.skein


@pytest.fixture
def ask(skein):
    """`skein policy …` asked of the broker: (exit code, what it says)."""

    def ask(*words, of=skein):
        words = [skein_binary(), "policy", *words, "--admin", "%s:%d" % of.address("admin")]
        done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=30)
        return done.returncode, done.stdout + done.stderr

    return ask


def allowed(name, *topics, more=()):
    return policy(
        ("Allow", ["iot:Connect", "iot:Subscribe"], "*"),
        ("Allow", ["iot:Publish", "iot:Receive", "iot:RetainPublish"], [f"topic/{name}/{topic}" for topic in topics]),
        *more,
    )


@pytest.fixture
def lamp(skein, tmp_path, name):
    """A device whose policy has a second version: it may not publish to `b` any more, but to `c`."""
    identity = aws.Identity(skein, tmp_path, name, allowed(name, "a", "b"))
    denied = ("Deny", "iot:Connect", f"client/{name}-other")
    other = allowed(name, "a", "c", more=[denied])
    identity.iot.create_policy_version(policyName=name, policyDocument=other)
    return identity


@pytest.fixture
def connect(dial, lamp):
    def connect(client_id, **more):
        client = dial(5, "tls", device=lamp.files)
        client.connack = client.connect(client_id, **more)
        return client

    return connect


def publish(client, topic, **more):
    return client.publish(topic, b"x", qos=1, check=False, **more)


def replay(skein, body):
    return post(skein, "/admin/policy/replay", body)


def post(skein, path, body):
    url = "http://%s:%d%s" % (*skein.address("admin"), path)
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_what_would_change_is_said_with_its_statement(skein, ask, connect, name):
    client = connect(name)
    client.subscribe(f"{name}/#", qos=0)
    # Decided and remembered before anybody looks.
    publish(client, f"{name}/a")
    publish(client, f"{name}/b")
    code, said = ask("record", "--client", name, "--minutes", "5")
    assert (code, said) == (0, f"client {name} is recorded for 5 minutes\n")
    for topic in ("a", "b", "b"):
        publish(client, f"{name}/{topic}")
    code, said = ask("replay", "--client", name, "--policy", name, "--version", "2")
    assert code == 1, said
    assert f"iot:Publish on topic/{name}/b, decided 1 times: allowed, would be not allowed\n" in said
    assert f"  now allows: policy {name}, version 1, statement 1\n" in said
    assert f"iot:Receive on topic/{name}/b, decided 1 times: allowed, would be not allowed\n" in said
    assert f"topic/{name}/a" not in said
    assert "2 decisions would be other ones" in said and "the default is version 1" in said
    code, said = ask("replay", "--client", name, "--policy", name, "--version", "1")
    assert code == 0 and "would be" not in said, said


def test_what_was_denied_and_a_connect_are_decided_again(skein, ask, connect, lamp, name):
    assert ask("record", "--client", f"{name}-other")[1].startswith(f"client {name}-other is not connected; it is recorded")
    client = connect(f"{name}-other")
    assert client.connack.reason == 0
    assert publish(client, f"{name}/c") == 0x87
    status, answer = replay(skein, {"client": f"{name}-other", "policy": name, "version": 2})
    assert status == 200, answer
    changes = {(it["action"], it["resource"]): it for it in answer["changes"]}
    connected = changes["iot:Connect", f"client/{name}-other"]
    assert (connected["recorded"], connected["then"]["decision"]) == ("allowed", "explicitly denied")
    (deny,) = [it for it in connected["then"]["statements"] if it["says"] == "denies"]
    assert (deny["policy"], deny["version"], deny["statement"]) == (name, 2, 2)
    published = changes["iot:Publish", f"topic/{name}/c"]
    assert (published["recorded"], published["now"]["decision"], published["then"]["decision"]) == ("not allowed", "not allowed", "allowed")
    # What counts when it is replayed is what the default says then.
    lamp.iot.set_default_policy_version(policyName=name, policyVersionId="2")
    status, answer = wait_until("it counts", lambda: replay(skein, {"client": f"{name}-other", "policy": name, "version": 1}))
    assert status == 200 and {it["now"]["decision"] for it in answer["changes"]} == {"explicitly denied", "allowed"}


def test_nothing_is_kept_that_nobody_asked_for(skein, ask, connect, name):
    client = connect(name)
    publish(client, f"{name}/a")
    code, said = ask("replay", "--client", name, "--policy", name, "--version", "2")
    assert code == 1 and "nothing is recorded of client" in said, said
    code, said = ask("record", "--client", name, "--minutes", "0")
    assert code == 1 and "nobody records client" in said, said
    ask("record", "--client", name)
    publish(client, f"{name}/b")
    assert ask("record", "--client", name, "--minutes", "0") == (0, f"client {name} is not recorded any more\n")
    publish(client, f"{name}/b")
    assert ask("replay", "--client", name, "--policy", name, "--version", "2")[0] == 1


def test_questions_that_make_no_sense(skein, ask, connect, dial, name):
    ask("record", "--client", name)
    code, said = ask("replay", "--client", name, "--policy", name, "--version", "2")
    assert code == 1 and "has not connected to this node" in said, said
    connect(name)
    for words, why in (
        (("--policy", f"{name}-none", "--version", "1"), "there is no policy"),
        (("--policy", name, "--version", "9"), "has no version 9"),
    ):
        code, said = ask("replay", "--client", name, *words)
        assert code == 1 and why in said, said
    skein.boto("iot").create_policy(policyName=f"{name}-other", policyDocument=allowed(name, "a"))
    code, said = ask("replay", "--client", name, "--policy", f"{name}-other", "--version", "1")
    assert code == 1 and "is not attached to client" in said, said
    dial().connect(f"{name}-anonymous")
    ask("record", "--client", f"{name}-anonymous")
    code, said = ask("replay", "--client", f"{name}-anonymous", "--policy", name, "--version", "1")
    assert code == 1 and "has no certificate" in said, said
    for body in ({"client": name, "minutes": 10**6}, {"client": "", "minutes": 1}):
        assert post(skein, "/admin/policy/record", body)[0] == 400
    assert post(skein, "/admin/policy/record", {"client": name})[0] == 422


def test_another_node_says_where_the_client_is(cluster, on, ask, name):
    on(2, name)
    code, said = ask("record", "--client", name, of=cluster[1])
    assert code == 1 and f"client {name} is connected to node 2: ask its admin listener" in said, said
    assert ask("record", "--client", name, of=cluster[2])[0] == 0
    code, said = ask("replay", "--client", name, "--policy", "p", "--version", "1", of=cluster[3])
    assert code == 1 and "is connected to node 2" in said, said
