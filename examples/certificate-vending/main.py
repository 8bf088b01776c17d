"""A fleet that is registered in bulk, and devices that fetch their certificates when they are switched on."""

import argparse
import contextlib
import sys
import tempfile
import time
from pathlib import Path

from device import DENIED, Device, Refused
from factory import BUCKET, register
from node import Node
from vending import VendingMachine


def main():
    parser = argparse.ArgumentParser(prog="examples/certificate-vending/run", description=__doc__)
    parser.add_argument("--devices", type=int, default=100, help="how many are registered (100)")
    parser.add_argument("--on", type=int, default=5, help="how many of them are switched on (5)")
    chosen = parser.parse_args()
    if not 2 <= chosen.on <= chosen.devices:
        parser.error("--on is at least 2, and at most --devices")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="certificate-vending-")))
        node = stack.enter_context(Node(folder / "skein"))
        return vend(chosen, node, folder, stack)


def vend(chosen, node, folder, stack):
    say(f"the factory makes {chosen.devices} meters, each with a key of its own")
    devices = [Device(f"meter-{number:05}", folder) for number in range(1, chosen.devices + 1)]
    lines = [device.line(Model="M2") for device in devices]
    # A line that somebody has broken: it is refused, and all others are registered.
    lines.insert(1, {"Serial": "meter-without-a-request"})
    bucket = node.data / "registration" / BUCKET
    results, errors = register(node.client("iot"), bucket, lines, say)
    for line in errors:
        say(f"line {line['lineNumber']}: {line['errorMessage']}")

    host, port, ca = node.link
    machine = stack.enter_context(VendingMachine(results, (host, port), Path(ca).read_text()))
    say(f"the vending machine has {len(machine.certificates)} certificates")
    wrong = []

    def expect(what, found, wanted):
        say(f"{what}: {found}")
        if found != wanted:
            wrong.append(what)

    on = devices[: chosen.on]
    for number, device in enumerate(on):
        device.fetch_certificate(machine.url)
        expect(f"{device.serial} reports over mTLS", device.report(f"{number} kWh"), f"{number} kWh")
    expect(f"{on[0].serial} reports as {on[1].serial}", on[0].report("0 kWh", about=on[1].serial), DENIED)
    thief = Device(on[0].serial, folder / "nowhere")
    expect(f"somebody else asks for the certificate of {thief.serial}", asked(thief, machine), "no certificate for you")
    stranger = Device("meter-99999", folder / "nowhere")
    expect(f"{stranger.serial}, which nobody has made, asks", asked(stranger, machine), "no certificate for you")
    if len(results) != chosen.devices or [line["lineNumber"] for line in errors] != [2]:
        wrong.append("the registration")
    say(f"not as it should be: {', '.join(wrong)}" if wrong else "everything is in order")
    return 1 if wrong else 0


def asked(device, machine):
    """What a device is told that asks for its certificate."""
    try:
        device.fetch_certificate(machine.url)
    except Refused as why:
        return str(why)
    return "a certificate"


def say(text):
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
