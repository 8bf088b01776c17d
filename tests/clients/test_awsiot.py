"""The AWS IoT device SDK for Python v2, unmodified: connections over mTLS and SigV4, shadows."""

import concurrent.futures
import contextlib
import queue

import awscrt.auth
import awscrt.mqtt
import awscrt.mqtt5
import awscrt.mqtt_request_response
import awsiot
import pytest
from awsiot import iotshadow, mqtt5_client_builder, mqtt_connection_builder

import aws
from brokers import REGION

pytestmark = pytest.mark.skein
QOS = awscrt.mqtt.QoS
WAIT = 15


@pytest.fixture
def connect311(skein, name):
    """MQTT 3.1.1 connections of the SDK."""
    opened = []

    def connect(client_id=None, how="certificate", **more):
        common = dict(endpoint="localhost", client_id=client_id or name, ca_filepath=skein.ca, **more)
        if how == "certificate":
            certificate, key = skein.device
            connection = mqtt_connection_builder.mtls_from_path(
                certificate, key, port=skein.port("tls"), **common
            )
        else:
            connection = mqtt_connection_builder.websockets_with_default_aws_signing(
                REGION, provider(skein), port=skein.port("wss"), **common
            )
        connection.connect().result(WAIT)
        opened.append(connection)
        return connection

    yield connect
    for connection in opened:
        with contextlib.suppress(RuntimeError):
            # The test has ended it itself.
            connection.disconnect().result(WAIT)


class Client5:
    """An MQTT 5 client of the SDK; its events end in queues."""

    def __init__(self, skein, client_id, how="certificate", **more):
        self.messages, success, failure = queue.Queue(), concurrent.futures.Future(), queue.Queue()
        common = dict(
            endpoint="localhost", client_id=client_id, ca_filepath=skein.ca,
            on_publish_received=lambda event: self.messages.put(event.publish_packet),
            on_lifecycle_connection_success=lambda event: success.done() or success.set_result(event),
            on_lifecycle_connection_failure=lambda event: failure.put(event.exception),
            **more,
        )
        if how == "certificate":
            certificate, key = skein.device
            self.client = mqtt5_client_builder.mtls_from_path(certificate, key, port=skein.port("tls"), **common)
        else:
            self.client = mqtt5_client_builder.websockets_with_default_aws_signing(
                REGION, provider(skein), port=skein.port("wss"), **common
            )
        self.client.start()
        try:
            self.connected = success.result(WAIT)
        except concurrent.futures.TimeoutError:
            raise AssertionError(f"no connection: {list(failure.queue)}") from None

    def get(self):
        return self.messages.get(timeout=WAIT)


@pytest.fixture
def connect5(skein, name):
    opened = []

    def connect(client_id=None, **more):
        client = Client5(skein, client_id or name, **more)
        opened.append(client)
        return client

    yield connect
    for one in opened:
        one.client.stop()


def provider(skein):
    found = aws.credentials(skein)
    return awscrt.auth.AwsCredentialsProvider.new_static(found.access_key, found.secret_key)


@pytest.mark.parametrize("how", ["certificate", "signed"])
def test_round_trip_311(connect311, name, how):
    connection = connect311(how=how)
    got = queue.Queue()
    done, _ = connection.subscribe(
        f"{name}/#", QOS.AT_LEAST_ONCE, lambda topic, payload, **_: got.put((topic, payload))
    )
    assert done.result(WAIT)["qos"] == QOS.AT_LEAST_ONCE
    for number in range(20):
        done, _ = connection.publish(f"{name}/{number}", str(number), QOS.AT_LEAST_ONCE)
        done.result(WAIT)
    assert [got.get(timeout=WAIT) for _ in range(20)] == [(f"{name}/{n}", b"%d" % n) for n in range(20)]


@pytest.mark.parametrize("how", ["certificate", "signed"])
def test_round_trip_5(connect5, name, how):
    one = connect5(how=how)
    mqtt5 = awscrt.mqtt5
    subscription = mqtt5.Subscription(topic_filter=f"{name}/#", qos=mqtt5.QoS.AT_LEAST_ONCE)
    suback = one.client.subscribe(mqtt5.SubscribePacket(subscriptions=[subscription])).result(WAIT)
    assert suback.reason_codes == [mqtt5.SubackReasonCode.GRANTED_QOS_1]
    for number in range(20):
        packet = mqtt5.PublishPacket(
            topic=f"{name}/{number}", payload=str(number), qos=mqtt5.QoS.AT_LEAST_ONCE,
            content_type="text/plain", user_properties=[mqtt5.UserProperty("k", "v")],
        )
        done = one.client.publish(packet).result(WAIT)
        assert done.puback.reason_code == mqtt5.PubackReasonCode.SUCCESS
    got = [one.get() for _ in range(20)]
    assert [packet.payload for packet in got] == [b"%d" % n for n in range(20)]
    assert got[0].content_type == "text/plain"
    assert [(p.name, p.value) for p in got[0].user_properties] == [("k", "v")]


def test_session_311(connect311, skein, name):
    first = connect311(clean_session=False)
    done, _ = first.subscribe(f"{name}/t", QOS.AT_LEAST_ONCE)
    done.result(WAIT)
    first.disconnect().result(WAIT)
    other = connect311(f"{name}-other")
    done, _ = other.publish(f"{name}/t", "kept", QOS.AT_LEAST_ONCE)
    done.result(WAIT)
    got = queue.Queue()
    certificate, key = skein.device
    again = mqtt_connection_builder.mtls_from_path(
        certificate, key, endpoint="localhost", port=skein.port("tls"), ca_filepath=skein.ca,
        client_id=name, clean_session=False,
    )
    again.on_message(lambda topic, payload, **_: got.put(payload))
    assert again.connect().result(WAIT)["session_present"]
    assert got.get(timeout=WAIT) == b"kept"
    again.disconnect().result(WAIT)


# Shadows, the older client: publishes and subscriptions of one's own.


class ShadowV1:
    """Every topic of one shadow through `IotShadowClient`, classic or named."""

    def __init__(self, connection, thing, shadow):
        self.client = iotshadow.IotShadowClient(connection)
        self.thing, self.shadow = thing, shadow
        self.infix = "named_shadow" if shadow else "shadow"
        self.events = {}
        for operation in ("get", "update", "delete"):
            for answer in ("accepted", "rejected"):
                self.listen(f"{operation}_{self.infix}_{answer}", f"{operation}/{answer}", operation)
        self.listen(f"{self.infix}_delta_updated_events", "delta", "delta")
        self.listen(f"{self.infix}_updated_events", "documents", "documents")

    def target(self):
        return {"thing_name": self.thing} | ({"shadow_name": self.shadow} if self.shadow else {})

    def request_type(self, operation):
        kind = {"delta": "DeltaUpdated", "documents": "Updated"}.get(operation)
        name = "NamedShadow" if self.shadow else "Shadow"
        if kind:
            return getattr(iotshadow, f"{name}{kind}SubscriptionRequest")
        return getattr(iotshadow, f"{operation.capitalize()}{name}SubscriptionRequest")

    def listen(self, method, event, operation):
        self.events[event] = queue.Queue()
        subscribe = getattr(self.client, f"subscribe_to_{method}")
        done, _ = subscribe(self.request_type(operation)(**self.target()), QOS.AT_LEAST_ONCE, self.events[event].put)
        done.result(WAIT)

    def publish(self, operation, **fields):
        name = "NamedShadow" if self.shadow else "Shadow"
        request = getattr(iotshadow, f"{operation.capitalize()}{name}Request")(**self.target(), **fields)
        getattr(self.client, f"publish_{operation}_{self.infix}")(request, QOS.AT_LEAST_ONCE).result(WAIT)

    def get(self, event):
        return self.events[event].get(timeout=WAIT)


@pytest.mark.parametrize("shadow", [None, "config"], ids=["classic", "named"])
@pytest.mark.parametrize("version", ["3.1.1", "5"])
def test_shadow_v1(connect311, connect5, name, shadow, version):
    connection = connect311() if version == "3.1.1" else connect5().client
    if version == "5":
        connection = connection.new_connection()
        connection.connect().result(WAIT)
    device = ShadowV1(connection, name, shadow)

    device.publish("get", client_token="t0")
    refused = device.get("get/rejected")
    assert (refused.code, refused.client_token) == (404, "t0")
    assert refused.message == f"No shadow exists with name: '{shadow or name}'"

    state = iotshadow.ShadowState(desired={"colour": "red", "level": {"x": 1, "y": 2}})
    device.publish("update", state=state, client_token="t1")
    accepted = device.get("update/accepted")
    assert (accepted.version, accepted.client_token) == (1, "t1")
    assert accepted.state.desired == {"colour": "red", "level": {"x": 1, "y": 2}}
    assert accepted.state.reported is None
    delta = device.get("delta")
    assert (delta.version, delta.state) == (1, {"colour": "red", "level": {"x": 1, "y": 2}})
    documents = device.get("documents")
    assert documents.current.version == 1
    assert documents.current.state.desired["colour"] == "red"

    state = iotshadow.ShadowState(reported={"colour": "red", "level": {"x": 1}})
    device.publish("update", state=state, version=1)
    assert device.get("update/accepted").version == 2
    assert device.get("delta").state == {"level": {"y": 2}}
    documents = device.get("documents")
    assert (documents.previous.version, documents.current.version) == (1, 2)

    device.publish("update", state=state, version=1, client_token="t2")
    refused = device.get("update/rejected")
    assert (refused.code, refused.message, refused.client_token) == (409, "Version conflict", "t2")

    device.publish("get")
    whole = device.get("get/accepted")
    assert whole.version == 2
    assert whole.state.delta == {"level": {"y": 2}}
    assert whole.state.reported == {"colour": "red", "level": {"x": 1}}
    assert whole.metadata.desired["colour"]["timestamp"] > 1_600_000_000

    device.publish("delete", client_token="t3")
    assert device.get("delete/accepted").version == 2
    device.publish("delete")
    assert device.get("delete/rejected").code == 404
    # A new document goes on counting, and nothing of the old one is left.
    device.publish("update", state=iotshadow.ShadowState(reported={"a": 1}))
    assert device.get("update/accepted").version == 3
    device.publish("get")
    assert device.get("get/accepted").state.desired is None
    if version == "5":
        connection.disconnect().result(WAIT)


# Shadows, the newer client: one call per request, streams of events.


@pytest.mark.parametrize("shadow", [None, "config"], ids=["classic", "named"])
@pytest.mark.parametrize("version", ["3.1.1", "5"])
def test_shadow_v2(connect311, connect5, name, shadow, version):
    protocol = connect311() if version == "3.1.1" else connect5().client
    options = awscrt.mqtt_request_response.ClientOptions(
        max_request_response_subscriptions=4, max_streaming_subscriptions=4, operation_timeout_in_seconds=WAIT
    )
    client = iotshadow.IotShadowClientV2(protocol, options)
    target = {"thing_name": name} | ({"shadow_name": shadow} if shadow else {})
    infix, kind = ("named_shadow", "NamedShadow") if shadow else ("shadow", "Shadow")

    def call(operation, **fields):
        request = getattr(iotshadow, f"{operation.capitalize()}{kind}Request")(**target, **fields)
        return getattr(client, f"{operation}_{infix}")(request).result(WAIT)

    def stream(what, name):
        events, subscribed = queue.Queue(), concurrent.futures.Future()

        def status(event):
            established = awscrt.mqtt_request_response.SubscriptionStatusEventType.SUBSCRIPTION_ESTABLISHED
            if event.type == established and not subscribed.done():
                subscribed.set_result(None)

        stream = getattr(client, f"create_{infix}_{what}_stream")(
            getattr(iotshadow, f"{kind}{name}SubscriptionRequest")(**target),
            awsiot.ServiceStreamOptions(incoming_event_listener=events.put, subscription_status_listener=status),
        )
        stream.open()
        subscribed.result(WAIT)
        return stream, events

    with pytest.raises(awsiot.V2ServiceException) as refused:
        call("get")
    assert refused.value.modeled_error.code == 404

    delta_stream, deltas = stream("delta_updated", "DeltaUpdated")
    updated_stream, updates = stream("updated", "Updated")
    made = call("update", state=iotshadow.ShadowState(desired={"on": True}, reported={"on": False}))
    assert made.version == 1
    assert deltas.get(timeout=WAIT).state == {"on": True}
    assert updates.get(timeout=WAIT).current.state.desired == {"on": True}

    assert call("get").state.delta == {"on": True}
    assert call("update", state=iotshadow.ShadowState(reported={"on": True}), version=1).version == 2
    assert call("get").state.delta is None
    with pytest.raises(awsiot.V2ServiceException) as refused:
        call("update", state=iotshadow.ShadowState(reported={"on": True}), version=1)
    assert refused.value.modeled_error.code == 409
    assert call("delete").version == 2
    with pytest.raises(awsiot.V2ServiceException) as refused:
        call("delete")
    assert refused.value.modeled_error.code == 404
    del delta_stream, updated_stream
