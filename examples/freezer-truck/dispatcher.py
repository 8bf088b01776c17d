"""The dispatcher: reads what the trucks say, asks them for things, sees whether they do them."""

import collections
import json
import threading
import time

import paho.mqtt.client as mqtt


class Dispatcher:
    def __init__(self, identity, link, clock):
        self.clock, self.changed = clock, threading.Condition()
        # name -> number of the reading -> reading
        self.readings = collections.defaultdict(dict)
        self.repeated = 0
        self.statuses = collections.defaultdict(list)
        # name -> [(setpoint, when asked, when honoured)]
        self.asked = collections.defaultdict(list)
        self.host, self.port, ca = link
        self.ready = threading.Event()
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, identity.name, protocol=mqtt.MQTTv5)
        self.client.tls_set(ca_certs=ca, certfile=str(identity.certificate), keyfile=str(identity.key))
        self.client.on_connect, self.client.on_message = self.on_connect, self.on_message
        self.client.on_subscribe = self.on_subscribe

    def start(self):
        self.client.connect(self.host, self.port, keepalive=30)
        self.client.loop_start()
        if not self.ready.wait(20):
            raise SystemExit("the dispatcher could not subscribe")

    def stop(self):
        self.client.disconnect()
        self.client.loop_stop()

    def on_connect(self, client, _data, _flags, reason, _properties):
        if reason.is_failure:
            raise SystemExit(f"the dispatcher was refused: {reason}")
        topics = ("trucks/+/telemetry", "trucks/+/status", "$aws/things/+/shadow/update/documents")
        client.subscribe([(topic, 1) for topic in topics])

    def on_subscribe(self, _client, _data, _mid, reasons, _properties):
        if not any(reason.is_failure for reason in reasons):
            self.ready.set()

    def on_message(self, _client, _data, message):
        levels = message.topic.split("/")
        with self.changed:
            if levels[0] == "$aws":
                self.documents(levels[2], json.loads(message.payload))
            elif levels[2] == "status":
                self.statuses[levels[1]].append(message.payload.decode())
            else:
                self.reading(levels[1], json.loads(message.payload))
            self.changed.notify_all()

    def reading(self, name, reading):
        self.repeated += reading["number"] in self.readings[name]
        self.readings[name][reading["number"]] = reading

    def documents(self, name, documents):
        """A desired value counts as honoured once the truck reports it."""
        reported = documents["current"]["state"].get("reported", {}).get("setpoint")
        for request in self.asked[name]:
            if request["honoured"] is None and request["setpoint"] == reported:
                request["honoured"] = time.monotonic()

    def ask(self, name, setpoint):
        with self.changed:
            self.asked[name].append({"setpoint": setpoint, "asked": time.monotonic(), "honoured": None})
        state = {"state": {"desired": {"setpoint": setpoint}}}
        self.client.publish(f"$aws/things/{name}/shadow/update", json.dumps(state), qos=1)

    def wait_for_status(self, name, status):
        return self.wait(lambda: self.statuses[name] and self.statuses[name][-1] == status)

    def wait_for_readings(self, sent):
        return self.wait(lambda: all(len(self.readings[name]) >= count for name, count in sent.items()))

    def wait(self, condition, seconds=20):
        with self.changed:
            return self.changed.wait_for(condition, seconds)
