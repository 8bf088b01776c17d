"""WebSocket URLs with a signature in their query: good until they expire, and for nothing but what was signed."""

import queue
import time
import urllib.parse

import paho.mqtt.client as paho
import pytest

import aws
from test_role_aliases import upgrade

pytestmark = pytest.mark.skein


def test_a_url_is_good_again_until_it_expires(skein):
    """As with AWS: whoever has it comes in, as often as they like, and not one second longer than it says."""
    signed_at = time.time()
    url = aws.presigned_url(skein, expires=8)
    assert [upgrade(skein, url) for _ in range(3)] == [101] * 3
    # The signature counts whole seconds.
    time.sleep(max(0, signed_at + 9.1 - time.time()))
    assert [upgrade(skein, url) for _ in range(3)] == [403] * 3
    assert upgrade(skein, aws.presigned_url(skein)) == 101


def test_a_connection_outlasts_its_url(skein, name):
    """Signatures are looked at in the handshake: who reconnects needs a new one."""
    url, signed_at = aws.presigned_url(skein, expires=6), time.time()
    events, ends = queue.Queue(), queue.Queue()
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=name, transport="websockets", reconnect_on_failure=False)
    client.ws_set_options(path=url.partition(f"localhost:{skein.port('wss')}")[2])
    client.tls_set(skein.ca)
    client.on_connect = lambda client, data, flags, reason, props: events.put(reason)
    client.on_message = lambda client, data, message: events.put(message.payload)
    client.on_disconnect = lambda client, data, flags, reason, props: ends.put(reason)
    client.connect("localhost", skein.port("wss"))
    client.loop_start()
    assert events.get(timeout=10) == 0
    time.sleep(max(0, signed_at + 7.1 - time.time()))
    assert upgrade(skein, url) == 403
    client.subscribe(name, qos=1)
    client.publish(name, b"still here", qos=1)
    assert events.get(timeout=10) == b"still here" and ends.empty()
    client.disconnect()
    client.loop_stop()


@pytest.mark.parametrize("expires, status", [(60, 101), (604_800, 101), (604_801, 403), (0, 403), (-1, 403), ("1e3", 403), ("", 403)])
def test_how_long_a_url_may_be_good(skein, expires, status):
    """Its own signer cannot make it good for more than a week."""
    assert upgrade(skein, aws.presigned_url(skein, expires=expires)) == status


def changed(url, **more):
    """With other parameters in its query, or without them."""
    head, _, query = url.partition("?")
    given = [(key, more.get(key, value)) for key, value in urllib.parse.parse_qsl(query)]
    return f"{head}?{urllib.parse.urlencode([(key, value) for key, value in given if value is not None])}"


TAMPERED = {
    "longer": lambda url: changed(url, **{"X-Amz-Expires": "86400"}),
    "for ever": lambda url: changed(url, **{"X-Amz-Expires": None}),
    "twice": lambda url: f"{url}&X-Amz-Expires=86400",
    "before": lambda url: url.replace("?", "?X-Amz-Expires=86400&"),
    "more": lambda url: f"{url}&x-amz-customauthorizer-name=x",
    "empty": lambda url: f"{url}&x",
    "headers": lambda url: changed(url, **{"X-Amz-SignedHeaders": "host;x-other"}),
    "no host": lambda url: changed(url, **{"X-Amz-SignedHeaders": ""}),
    "algorithm": lambda url: changed(url, **{"X-Amz-Algorithm": "AWS4-HMAC-SHA1"}),
    "region": lambda url: url.replace("%2Fus-east-1%2F", "%2Feu-west-1%2F"),
    "service": lambda url: url.replace("%2Fiotdevicegateway%2F", "%2Fiotdata%2F"),
    "signature": lambda url: changed(url, **{"X-Amz-Signature": "0" * 64}),
    "half a signature": lambda url: url[:-32],
    "slash": lambda url: url.replace("/mqtt?", "/mqtt/?"),
    "two slashes": lambda url: url.replace("/mqtt?", "//mqtt?"),
    "escaped": lambda url: url.replace("/mqtt?", "/%6dqtt?"),
    "elsewhere": lambda url: url.replace("/mqtt?", "/topics/x?"),
}


@pytest.mark.parametrize("how", TAMPERED)
def test_a_url_that_was_changed_is_none(skein, how):
    url = aws.presigned_url(skein)
    assert upgrade(skein, url) == 101
    other = TAMPERED[how](url)
    assert other != url and upgrade(skein, other) in (403, 404), other


def test_a_date_that_was_changed_makes_no_old_url_young(skein):
    url = aws.presigned_url(skein, expired=True)
    now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    young = changed(url, **{"X-Amz-Date": now})
    assert young != url and upgrade(skein, url) == upgrade(skein, young) == 403


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:{port}", "other.example:{port}", "localhost:{other}"])
def test_a_url_is_for_its_host_alone(skein, host):
    url, port = aws.presigned_url(skein), skein.port("wss")
    assert upgrade(skein, url, Host=f"localhost:{port}") == 101
    assert upgrade(skein, url, Host=host.format(port=port, other=port + 1)) == 403


def test_what_is_not_signed_may_change(skein):
    """Neither the order of the query nor other headers are part of the signature."""
    head, _, query = aws.presigned_url(skein).partition("?")
    turned = "&".join(reversed(query.split("&")))
    assert upgrade(skein, f"{head}?{turned}", Origin="https://app.example") == 101
