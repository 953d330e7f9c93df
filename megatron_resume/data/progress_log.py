"""How far a long reading of a file is, in the log."""

import logging
import time

FIRST_AFTER_S, EVERY_S = 1.0, 10.0

_log = logging.getLogger(__name__)


class ProgressLog:
    """A line when it takes longer than a second, one every 10 s, and one at the end of those that were announced."""

    def __init__(self, what: str):
        self._what = what
        self._begun = time.monotonic()
        self._next = self._begun + FIRST_AFTER_S

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        is_announced = self._next > self._begun + FIRST_AFTER_S
        if now < self._next and not (is_announced and done == total):
            return
        self._next = now + EVERY_S
        _log.info("%s: %.1f of %.1f GB in %.0f s", self._what, done / 1e9, total / 1e9, now - self._begun)
