"""What the conformance tests share."""

import rawmqtt as m

MALFORMED, PROTOCOL_ERROR, UNSUPPORTED_VERSION = 0x81, 0x82, 0x84

# Messages at once, without more in flight than every broker takes.
COUNT = 20


def expiry(seconds):
    return {"session_expiry_interval": seconds}


def refused_connect(client, *reasons):
    """The connection ends; a CONNACK, if sent, gives one of these reasons."""
    try:
        answer = client.next()
    except m.Closed:
        return
    assert answer.kind == m.CONNACK and answer.reason in reasons, answer
    assert client.closed() is None, "DISCONNECT after a refusal [MQTT-3.14.0-1]"
