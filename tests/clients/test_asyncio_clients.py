"""gmqtt, an MQTT 5 client with a codec of its own, and aiomqtt."""

import asyncio
import contextlib
import ssl

import aiomqtt
import gmqtt
import pytest

from conftest import tls_context


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 30))


class Device:
    """A gmqtt client whose callbacks end in queues."""

    def __init__(self, client_id, **more):
        self.client = gmqtt.Client(client_id, **more)
        self.messages, self.subscribed = asyncio.Queue(), asyncio.Queue()
        self.client.on_message = self.on_message
        self.client.on_subscribe = lambda _c, mid, qos, props: self.subscribed.put_nowait(qos)

    async def on_message(self, _client, topic, payload, qos, properties):
        await self.messages.put((topic, payload, qos, properties))
        return 0

    async def start(self, address, version=5, tls=False):
        await self.client.connect(address[0], address[1], ssl=tls, version=version, keepalive=60)
        return self

    async def subscribe(self, *words, **more):
        self.client.subscribe(*words, **more)
        return await self.subscribed.get()


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("listener", ["plain", "tls"])
def test_gmqtt(broker, name, listener, version):
    async def body():
        address = ("localhost", broker.port(listener))
        tls = tls_context(broker, broker.device) if listener == "tls" else False
        one = await Device(name).start(address, version, tls)
        await one.subscribe(f"{name}/#", qos=2)
        for qos in (0, 1, 2):
            one.client.publish(f"{name}/{qos}", f"payload {qos}", qos=qos)
            topic, payload, got, _ = await one.messages.get()
            assert (topic, payload, got) == (f"{name}/{qos}", b"payload %d" % qos, qos)
        with contextlib.suppress(ssl.SSLError):
            # gmqtt minds an acknowledgement that crosses its close.
            await one.client.disconnect()

    run(body())


def test_gmqtt_properties(broker, name):
    async def body():
        one = await Device(name, session_expiry_interval=60, receive_maximum=24_000).start(broker.plain)
        await one.subscribe(name, qos=1, subscription_identifier=9)
        one.client.publish(
            name, "{}", qos=1, content_type="json", message_expiry_interval=60, response_topic="r",
            correlation_data=b"c", user_property=[("k", "v"), ("k", "w")],
        )
        _, _, _, got = await one.messages.get()
        assert got["content_type"] == ["json"]
        assert got["response_topic"] == ["r"]
        assert got["correlation_data"] == [b"c"]
        assert got["user_property"] == [("k", "v"), ("k", "w")]
        assert got["subscription_identifier"] == [9]
        assert 58 <= got["message_expiry_interval"][0] <= 60
        await one.client.disconnect()

    run(body())


def test_gmqtt_resumes_its_session(broker, name):
    async def body():
        one = await Device(name, clean_session=False, session_expiry_interval=60).start(broker.plain)
        await one.subscribe(f"{name}/t", qos=1)
        await one.client.disconnect(session_expiry_interval=60)
        other = await Device(f"{name}-p").start(broker.plain)
        for number in range(10):
            other.client.publish(f"{name}/t", str(number), qos=1)
        await other.subscribe("flush", qos=1)
        again = await Device(name, clean_session=False, session_expiry_interval=60).start(broker.plain)
        got = [(await again.messages.get())[1] for _ in range(10)]
        assert got == [b"%d" % number for number in range(10)]
        await again.client.disconnect()
        await other.client.disconnect()

    run(body())


@pytest.mark.parametrize("version", [aiomqtt.ProtocolVersion.V311, aiomqtt.ProtocolVersion.V5], ids=["3.1.1", "5"])
@pytest.mark.parametrize("listener", ["plain", "tls"])
def test_aiomqtt(broker, name, listener, version):
    async def body():
        tls = tls_context(broker, broker.device) if listener == "tls" else None
        async with aiomqtt.Client(
            "localhost", broker.port(listener), identifier=name, protocol=version, tls_context=tls
        ) as client:
            await client.subscribe(f"{name}/#", qos=1)
            for number in range(50):
                await client.publish(f"{name}/{number}", str(number), qos=1)
            got = []
            async for message in client.messages:
                got.append(int(message.payload))
                if len(got) == 50:
                    break
            assert got == list(range(50))

    run(body())


def test_aiomqtt_refused_without_a_certificate(broker, name):
    async def body():
        with pytest.raises((aiomqtt.MqttError, ssl.SSLError)):
            async with aiomqtt.Client(
                "localhost", broker.port("tls"), identifier=name, tls_context=tls_context(broker), timeout=5
            ) as client:
                await client.publish(name, b"x", qos=1)

    run(body())
