"""One truck: a real MQTT 5 client over TLS with its own certificate.

It reports every five seconds of its time, keeps what it could not send, does what its shadow
desires and reports that it did, and leaves a last will for the case that its link breaks.
"""

import collections
import json
import threading

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from freezer import Freezer

EVERY = 5.0


class Truck:
    def __init__(self, identity, link, clock, seed):
        self.name, self.clock = identity.name, clock
        self.freezer = Freezer(seed)
        self.shadow = f"$aws/things/{self.name}/shadow"
        self.host, self.port, ca = link
        self.unsent = collections.deque()
        self.sent, self.honoured = 0, []
        self.online, self.stopping = threading.Event(), threading.Event()
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, self.name, protocol=mqtt.MQTTv5)
        self.client.tls_set(ca_certs=ca, certfile=str(identity.certificate), keyfile=str(identity.key))
        self.client.will_set(f"trucks/{self.name}/status", "offline", qos=1, retain=True)
        self.client.on_connect, self.client.on_message = self.on_connect, self.on_message
        self.client.on_disconnect = lambda *_: self.online.clear()
        self.driver = threading.Thread(target=self.drive, name=self.name, daemon=True)

    def start(self):
        self.connect()
        self.driver.start()

    def connect(self):
        lasting = Properties(PacketTypes.CONNECT)
        lasting.SessionExpiryInterval = 3600
        self.client.connect(self.host, self.port, keepalive=30, clean_start=False, properties=lasting)
        self.client.loop_start()
        if not self.online.wait(20):
            raise SystemExit(f"{self.name} could not connect")

    def on_connect(self, client, _data, _flags, reason, _properties):
        if reason.is_failure:
            raise SystemExit(f"{self.name} was refused: {reason}")
        client.subscribe([(f"{self.shadow}/update/delta", 1), (f"{self.shadow}/get/accepted", 1)])
        client.publish(f"trucks/{self.name}/status", "online", qos=1, retain=True)
        # What was asked for while the truck was away.
        self.report()
        client.publish(f"{self.shadow}/get", "", qos=1)
        self.online.set()

    def on_message(self, _client, _data, message):
        document = json.loads(message.payload)
        wanted = document["state"].get("delta", {}) if message.topic.endswith("/get/accepted") else document["state"]
        if "setpoint" in wanted:
            self.freezer.setpoint = float(wanted["setpoint"])
            self.honoured.append(self.freezer.setpoint)
            self.report()

    def report(self):
        """Tells the shadow what is."""
        state = {"state": {"reported": {"setpoint": self.freezer.setpoint}}}
        self.client.publish(f"{self.shadow}/update", json.dumps(state), qos=1)

    def drive(self):
        due = self.clock.elapsed()
        while not self.stopping.is_set():
            self.freezer.step(EVERY)
            self.sent += 1
            self.unsent.append({
                "number": self.sent,
                "time": self.clock.utc(),
                "door": self.freezer.door,
                "temperature": round(self.freezer.temperature, 2),
                "voltage": self.freezer.voltage,
            })
            self.send()
            due += EVERY
            self.stopping.wait(max(0, due - self.clock.elapsed()) / self.clock.speed)

    def send(self):
        """Readings leave in order; without a link they wait."""
        while self.online.is_set() and self.unsent:
            reading = self.unsent.popleft()
            info = self.client.publish(f"trucks/{self.name}/telemetry", json.dumps(reading), qos=1)
            if info.rc not in (mqtt.MQTT_ERR_SUCCESS, mqtt.MQTT_ERR_NO_CONN):
                self.unsent.appendleft(reading)
                return

    def cut(self):
        """The radio is gone: no DISCONNECT, no reconnecting."""
        self.online.clear()
        self.client.loop_stop()
        self.client.socket().close()

    def reconnect(self):
        self.connect()

    def stop(self):
        self.stopping.set()
        self.driver.join()
        self.send()
        status = self.client.publish(f"trucks/{self.name}/status", "parked", qos=1, retain=True)
        status.wait_for_publish(20)
        self.client.disconnect()
        self.client.loop_stop()
