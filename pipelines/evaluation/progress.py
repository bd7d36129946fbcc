"""Logs how far long work is, now and then."""

from __future__ import annotations

import logging
import time

_log = logging.getLogger(__name__)

LOG_SECONDS = 10.0
"""Seconds between two lines about the same work."""


class ProgressLog:
    """Counts finished items of some work and logs their number at most every `seconds`."""

    def __init__(self, name: str, total: int, seconds: float = LOG_SECONDS) -> None:
        """`name`: what is computed, with the items' name at the end: `features of images`."""
        self.name, self.total, self.seconds = name, total, seconds
        self.done = 0
        self._last_line = time.monotonic()

    def advance(self, num: int) -> None:
        """Count `num` more items as done."""
        self.done += num
        now = time.monotonic()
        if now - self._last_line >= self.seconds:
            self._last_line = now
            _log.info("%s: %d of %d", self.name, self.done, self.total)
