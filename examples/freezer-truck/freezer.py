"""The physics of a refrigerated truck: enough of it to make the numbers plausible."""

import random

AMBIENT, OUT_OF_BATTERY = 24.0, 12.6


class Freezer:
    """A box, a door, a compressor and a battery. `step` moves it on by some seconds."""

    def __init__(self, seed):
        self.dice = random.Random(seed)
        self.setpoint, self.temperature = -18.0, -18.0 + self.dice.uniform(-1, 1)
        self.compressor, self.open_for, self.openings = False, 0.0, 0

    @property
    def door(self):
        return "open" if self.open_for > 0 else "closed"

    @property
    def voltage(self):
        load = 0.35 if self.compressor else 0.0
        return round(OUT_OF_BATTERY + 1.4 - load + self.dice.gauss(0, 0.03), 2)

    def step(self, seconds):
        self.open_for = max(0.0, self.open_for - seconds)
        # A stop every five minutes or so, for half a minute to a minute.
        if not self.open_for and self.dice.random() < seconds / 300:
            self.open_for, self.openings = self.dice.uniform(30, 60), self.openings + 1
        if self.temperature > self.setpoint + 0.5:
            self.compressor = True
        elif self.temperature < self.setpoint - 0.5:
            self.compressor = False
        leak = 0.02 if self.open_for else 0.0008
        cooling = 0.06 if self.compressor else 0.0
        self.temperature += seconds * (leak * (AMBIENT - self.temperature) / 40 - cooling)
