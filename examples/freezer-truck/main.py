"""Refrigerated trucks, their dispatcher, and what went on between them.

The story, in simulated minutes: the trucks drive and report; the dispatcher asks them all for a
colder freezer; one truck loses its link, is asked for something else meanwhile, and comes back.
"""

import argparse
import contextlib
import sys
import tempfile
import threading
import time
from pathlib import Path

import boto3
import botocore.exceptions

from clock import Clock
from dispatcher import Dispatcher
from fleet import Fleet
from node import Node
from report import report
from truck import Truck

COLDER, AWAY = -22.0, -20.0


def arguments():
    parser = argparse.ArgumentParser(prog="examples/freezer-truck/run", description=__doc__.splitlines()[0])
    parser.add_argument("--trucks", type=int, default=10, help="how many (10)")
    parser.add_argument("--minutes", type=float, default=10, help="how long, in simulated minutes (10)")
    parser.add_argument("--speed", type=float, default=40, help="simulated seconds per second (40)")
    parser.add_argument("--seed", type=int, default=1, help="of doors and weather (1)")
    other = parser.add_argument_group("a Skein (or AWS IoT Core) that runs already")
    other.add_argument("--endpoint", metavar="HOST", help="of the devices; without it one is started here")
    other.add_argument("--port", type=int, default=8883, help="MQTT over TLS (8883)")
    other.add_argument("--api", metavar="URL", help="of the control plane; credentials as for any AWS tool")
    other.add_argument("--ca", metavar="FILE", help="who vouches for the endpoint; the system's list without it")
    chosen = parser.parse_args()
    if chosen.trucks < 1 or chosen.minutes <= 0 or chosen.speed <= 0:
        parser.error("--trucks, --minutes and --speed are more than nothing")
    return chosen


def main():
    chosen = arguments()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="freezer-trucks-")))
        if chosen.endpoint:
            link = (chosen.endpoint, chosen.port, chosen.ca)
            iot = boto3.client("iot", endpoint_url=chosen.api)
        else:
            node = stack.enter_context(Node(folder / "skein"))
            link, iot = node.link, node.client("iot")
        return drive(chosen, link, iot, folder, stack)


def without_traceback():
    """What somebody has forgotten to set, or a node that is not there, in a line."""
    try:
        return main()
    except botocore.exceptions.NoRegionError:
        return "the control plane needs a region: set AWS_DEFAULT_REGION"
    except botocore.exceptions.NoCredentialsError:
        return "the control plane needs credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
        return f"the control plane cannot be used: {error}"


def drive(chosen, link, iot, folder, stack):
    clock = Clock(chosen.speed)
    fleet = Fleet(iot, folder)
    say(f"a certificate, a thing and a policy for each of {chosen.trucks} trucks")
    stack.callback(fleet.scrap)
    dispatcher = Dispatcher(fleet.dispatcher(), link, clock)
    names = [f"truck-{number:02}" for number in range(1, chosen.trucks + 1)]
    trucks = [Truck(fleet.truck(name), link, clock, chosen.seed * 1000 + n) for n, name in enumerate(names)]
    dispatcher.start()
    stack.callback(dispatcher.stop)
    for truck in trucks:
        truck.start()

    def minutes(part):
        clock.sleep(chosen.minutes * 60 * part)

    say(f"{len(trucks)} trucks on the road for {chosen.minutes:g} minutes at {chosen.speed:g} times the speed of time")
    minutes(0.3)
    say(f"the dispatcher asks all for {COLDER:g} °C")
    for name in names:
        dispatcher.ask(name, COLDER)
    minutes(0.2)
    lost = trucks[-1]
    say(f"{lost.name} loses its link; meanwhile it is asked for {AWAY:g} °C")
    lost.cut()
    dispatcher.wait_for_status(lost.name, "offline")
    dispatcher.ask(lost.name, AWAY)
    minutes(0.2)
    say(f"{lost.name} is back")
    lost.reconnect()
    dispatcher.wait_for_status(lost.name, "online")
    minutes(0.3)

    stopping = [threading.Thread(target=truck.stop) for truck in trucks]
    for thread in stopping:
        thread.start()
    for thread in stopping:
        thread.join()
    dispatcher.wait_for_readings({truck.name: truck.sent for truck in trucks})
    for name in names:
        dispatcher.wait_for_status(name, "parked")
    return report(trucks, dispatcher, lost, COLDER, AWAY)


def say(text):
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


if __name__ == "__main__":
    sys.exit(without_traceback())
