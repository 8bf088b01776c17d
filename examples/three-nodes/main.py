"""Three nodes, a small fleet, and a node that is killed while the fleet is talking."""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from clients import Collector, Sensor
from nodes import Cluster

PATIENCE = 60


def main():
    parser = argparse.ArgumentParser(prog="examples/three-nodes/run", description=__doc__)
    parser.add_argument("--sensors", type=int, default=6, help="how many (6)")
    parser.add_argument("--seconds", type=float, default=4, help="before the kill, until the restart, and after it (4)")
    parser.add_argument("--node", type=int, default=2, choices=(1, 2, 3), help="that is killed (2)")
    chosen = parser.parse_args()
    if chosen.sensors < 1 or chosen.seconds <= 0:
        parser.error("--sensors and --seconds are more than nothing")
    with tempfile.TemporaryDirectory(prefix="three-nodes-") as folder, Cluster(Path(folder)) as cluster:
        return tell(chosen, cluster)


def tell(chosen, cluster):
    addresses = [node.mqtt for node in cluster.nodes]
    victim = cluster.nodes[chosen.node - 1]
    say("three nodes serve: " + ", ".join(f"node {node.number} on port {node.mqtt[1]}" for node in cluster.nodes))
    collector = Collector(addresses, chosen.node - 1)
    collector.start()
    until("the collector subscribes", collector.subscribed.is_set)
    sensors = [Sensor(number, addresses) for number in range(1, chosen.sensors + 1)]
    for sensor in sensors:
        sensor.start()
    time.sleep(chosen.seconds)
    say(f"kill -9 of node {victim.number}, which leads {victim.leads()} of 5 groups and holds the collector")
    victim.kill()
    time.sleep(chosen.seconds)
    say(f"node {victim.number} is started again")
    victim.start()
    cluster.wait_ready()
    say("all three serve")
    time.sleep(chosen.seconds)
    for sensor in sensors:
        sensor.pausing.set()
    until("every reading is acknowledged", lambda: all(sensor.is_done() for sensor in sensors))
    arrived = until("every reading arrives", lambda: all(map(collector.has, sensors)), strict=False)
    for client in [*sensors, collector]:
        client.stopping.set()
        client.join(10)
    return report(sensors, collector, arrived)


def report(sensors, collector, arrived):
    print(f"\n{'client':<11}{'QoS':<5}{'sent':>6}{'acked':>7}{'lost':>6}{'twice':>7}  {'without a link':<16}nodes")
    wrong = not arrived
    for sensor in sensors:
        received = collector.received.get(sensor.name, [])
        lost, twice = len(sensor.acknowledged - set(received)), len(received) - len(set(received))
        firsts = list(dict.fromkeys(received))
        # QoS 1 says "at least once"; QoS 2 says once; both keep their order.
        wrong |= lost > 0 or (sensor.qos == 2 and twice > 0) or firsts != sorted(firsts)
        print(
            f"{sensor.name:<11}{sensor.qos:<5}{sensor.sent:>6}{len(sensor.acknowledged):>7}{lost:>6}{twice:>7}"
            f"  {silence(sensor):<16}{sensor.way()}"
        )
    longest = max(collector.gaps, default=0)
    print(f"{'collector':<11}{'':<31}  {silence(collector):<16}{collector.way()}; nothing came for {longest:.1f} s at most")
    print("\nsomething is wrong" if wrong else "\nnothing was lost, nothing of QoS 2 came twice, everything came in order")
    return 1 if wrong else 0


def silence(client):
    return ", ".join(f"{seconds:.1f} s" for seconds in client.silences) or "never"


def until(what, condition, strict=True):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            if strict:
                raise SystemExit(f"{what}: not within {PATIENCE} s")
            return False
        time.sleep(0.02)
    return True


BEGUN = time.monotonic()


def say(text):
    print(f"{time.monotonic() - BEGUN:6.1f} s  {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
