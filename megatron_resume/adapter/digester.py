"""The thread on rank 0 that reads large model files again after a commit, so that their content can be vouched for."""

import logging
import os
import threading
from contextlib import suppress
from pathlib import Path

from ..checkpoint import attempts, digests
from ..checkpoint.commit import is_committed
from ..checkpoint.folder import read_own_files
from ..checkpoint.layout import PointName, digests_path, model_folder, point_path
from ..checkpoint.records import Receipt
from ..checkpoint.storage import exists

logger = logging.getLogger("megatron_resume")

LOOK_EVERY = 64 << 20  # bytes between two looks for a newer attempt
NICENESS = 19


class _Superseded(Exception):
    """A newer attempt began."""


class _Removed(Exception):
    """Retention took the point."""


class Digester:
    """Records digests of the newest committed point, one point at a time; nobody waits for it."""

    def __init__(self, root: Path, roles: tuple[str, ...]):
        self._root, self._roles = root, roles
        self._waiting: PointName | None = None
        self._arrived = threading.Condition()
        self._has_failed = False
        threading.Thread(target=self._work, name="megatron_resume digests", daemon=True).start()

    def committed(self, name: PointName) -> None:
        """Take this point next; one that still waits is dropped, so that no work piles up."""
        with self._arrived:
            self._waiting = name
            self._arrived.notify()

    def _next(self) -> PointName:
        with self._arrived:
            while self._waiting is None:
                self._arrived.wait()
            name, self._waiting = self._waiting, None
            return name

    def _work(self) -> None:
        _step_back()
        while True:
            self._try(self._next())

    def _try(self, name: PointName) -> None:
        try:
            self._record(name)
        except _Superseded:
            logger.info("digests of %s were not finished before a newer attempt began", name)
        except Exception as error:  # what it is for is safe without it, and training must not notice
            if not is_committed(point_path(self._root, name)):  # also an error is one of what was there
                logger.info("digests of %s were not finished before it was removed", name)
                return
            if not self._has_failed:
                logger.warning("digests of %s are not recorded: %s; this is said once", name, error)
            self._has_failed = True

    def _record(self, name: PointName) -> None:
        point = read_own_files(self._root, name, self._roles)
        for role, receipt in point.receipts.items():
            if digests.undigested(receipt) and not exists(digests_path(self._root, name, role)):
                self._record_model(name, point.directories[role], receipt)

    def _record_model(self, name: PointName, save: Path, receipt: Receipt) -> None:
        unlooked = 0

        def on_block(size: int) -> None:
            nonlocal unlooked
            unlooked += size
            if unlooked >= LOOK_EVERY:
                self._check_is_of_use(name)
                unlooked = 0

        self._check_is_of_use(name)
        found = digests.compute(save / model_folder(receipt.iteration), receipt, on_block)
        self._check_is_of_use(name)
        digests.write_digests(self._root, found)

    def _check_is_of_use(self, name: PointName) -> None:
        if attempts.newer_than(self._root, name.attempt) is not None:
            raise _Superseded
        if not is_committed(point_path(self._root, name)):
            raise _Removed


def _step_back() -> None:
    """Let everything else on this machine go first; on Linux niceness is the thread's own."""
    with suppress(OSError):  # a sandbox may forbid it
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
