"""A storage that fails as one on a network: system calls on chosen paths end with an errno, for a while or always."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

CALLS = ("open", "stat", "lstat", "listdir", "readlink")


class Fault:
    """Counts how often it fired, so that a test can show that it did."""

    def __init__(self, name: str, number: int, times: int):
        self.name, self.number, self.times, self.fired = name, number, times, 0

    def strike(self, path: object) -> None:
        if not isinstance(path, str | bytes | os.PathLike) or self.fired >= self.times:
            return
        if os.fsdecode(path).endswith(self.name):
            self.fired += 1
            raise OSError(self.number, os.strerror(self.number), os.fsdecode(path))


@contextmanager
def failing(name: str, number: int, *, times: int = 1_000_000, calls: tuple[str, ...] = CALLS) -> Iterator[Fault]:
    """While the block runs, `calls` on paths that end with `name` fail with errno `number`, `times` times."""
    fault = Fault(name, number, times)

    def striking(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: object = ".", *args: Any, **kwargs: Any) -> Any:
            fault.strike(path)
            return original(path, *args, **kwargs)

        return call

    patches = [patch.object(os, call, striking(getattr(os, call))) for call in calls]
    for one in patches:
        one.start()
    try:
        yield fault
    finally:
        for one in patches:
            one.stop()
