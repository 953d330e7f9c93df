"""Wait for what another process does; a test that waits in vain says for what."""

import inspect
import time
from collections.abc import Callable

PATIENCE_S = 300  # of a test that fails: no test relies on how fast a machine is


def until(happened: Callable[[], object], said: Callable[[], str] = str) -> None:
    """Return when `happened` is true; `said` tells the rest of what is known when that takes too long."""
    deadline = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < deadline, f"waited {PATIENCE_S} s for {_source(happened)}\n{said()}"
        time.sleep(0.02)


def _source(happened: Callable[[], object]) -> str:
    try:
        return inspect.getsource(happened).strip()
    except (OSError, TypeError):
        return repr(happened)
