"""Real MQTT 5 clients that know three addresses and go to the next one when theirs does not answer.

A lasting session and a client that sends again what was not acknowledged: more it does not take.
"""

import json
import threading
import time

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties


class Client(threading.Thread):
    def __init__(self, name, addresses, first):
        super().__init__(name=name, daemon=True)
        self.addresses, self.at = addresses, first
        self.stopping, self.online = threading.Event(), threading.Event()
        self.nodes, self.silences = [], []
        self.lost_at = None
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, name, protocol=mqtt.MQTTv5)
        self.client.on_connect = self.on_connect

    def run(self):
        lasting = Properties(PacketTypes.CONNECT)
        lasting.SessionExpiryInterval = 3600
        while not self.stopping.is_set():
            try:
                host, port = self.addresses[self.at]
                self.client.connect(host, port, keepalive=10, clean_start=False, properties=lasting)
                while self.client.loop(timeout=0.02) == mqtt.MQTT_ERR_SUCCESS and not self.stopping.is_set():
                    self.work()
            except OSError:
                pass
            if self.online.is_set():
                self.online.clear()
                self.lost_at = time.monotonic()
            self.at = (self.at + 1) % len(self.addresses)
            # A machine that is being started again need not be asked more often.
            self.stopping.wait(0.05)
        self.client.disconnect()

    def on_connect(self, _client, _data, flags, reason, _properties):
        if reason.is_failure:
            return
        if self.nodes and not flags.session_present:
            raise SystemExit(f"{self.name}: its session is gone")
        self.nodes.append(self.at + 1)
        if self.lost_at is not None:
            self.silences.append(time.monotonic() - self.lost_at)
        self.connected()
        self.online.set()

    def connected(self):
        pass

    def work(self):
        pass

    def way(self):
        return " → ".join(f"node {node}" for node in self.nodes)


class Sensor(Client):
    """Sends numbers, half of the sensors with QoS 1, half with QoS 2."""

    EVERY = 0.05

    def __init__(self, number, addresses):
        super().__init__(f"sensor-{number}", addresses, number % len(addresses))
        self.qos = 1 + number % 2
        self.sent, self.acknowledged = 0, set()
        self.due, self.pausing = 0.0, threading.Event()
        self.numbers = {}
        self.client.on_publish = lambda _client, _data, mid, *_: self.acknowledged.add(self.numbers[mid])

    def work(self):
        now = time.monotonic()
        if not self.online.is_set() or self.pausing.is_set() or now < self.due:
            return
        self.due = now + self.EVERY
        payload = json.dumps({"number": self.sent})
        self.numbers[self.client.publish(f"readings/{self.name}", payload, qos=self.qos).mid] = self.sent
        self.sent += 1

    def is_done(self):
        return len(self.acknowledged) == self.sent


class Collector(Client):
    """Takes what all sensors send."""

    def __init__(self, addresses, first):
        super().__init__("collector", addresses, first)
        self.received, self.heard = {}, None
        self.gaps = []
        self.subscribed = threading.Event()
        self.client.on_subscribe = lambda *_: self.subscribed.set()
        self.client.on_message = self.on_message

    def connected(self):
        if not self.subscribed.is_set():
            self.client.subscribe("readings/+", qos=2)

    def on_message(self, _client, _data, message):
        now = time.monotonic()
        if self.heard is not None:
            self.gaps.append(now - self.heard)
        self.heard = now
        sensor, number = message.topic.split("/")[1], json.loads(message.payload)["number"]
        self.received.setdefault(sensor, []).append(number)

    def has(self, sensor):
        return sensor.acknowledged <= set(self.received.get(sensor.name, ()))
