"""Simulated time: it starts now and runs as fast as it is told."""

import datetime
import time


class Clock:
    def __init__(self, speed):
        self.speed = speed
        self.began, self.began_at = time.monotonic(), datetime.datetime.now(datetime.UTC)

    def elapsed(self):
        """Simulated seconds since the start."""
        return (time.monotonic() - self.began) * self.speed

    def utc(self):
        """What a truck's own clock says."""
        now = self.began_at + datetime.timedelta(seconds=self.elapsed())
        return now.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def sleep(self, seconds):
        time.sleep(max(0, seconds) / self.speed)
