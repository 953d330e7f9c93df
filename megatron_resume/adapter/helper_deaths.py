"""No rank waits for a helper process that is dead: a worker of checkpoints or data, or the process of their results.

Somebody kills one of them, as the kernel does where memory is out, and Megatron waits for its answer for ever. The rank
ends with the cause named, and is restarted; not where its owner ended the helper, or it ended by itself with 0.
"""

import contextlib
import functools
import logging
import multiprocessing
import os
import select
import threading
from collections.abc import Iterator
from multiprocessing.process import BaseProcess

from ..errors import HelperDiedError
from ..watch import kernel, marks
from . import helper_processes, life, ranks
from .at_end import at_end

logger = logging.getLogger("megatron_resume")

_LOOK_S = 0.5
_BY_OWNER = "_megatron_resume_ended_by_owner"


@contextlib.contextmanager
def of_this_rank(*, outlive_sigterm: bool) -> Iterator[None]:
    """Processes that are started inside the `with` block are its helpers. In the main thread."""
    children = multiprocessing.process._children  # type: ignore[attr-defined]
    before = children.copy()
    with helper_processes.that_outlive_sigterm() if outlive_sigterm else contextlib.nullcontext():
        yield
    if children != before:
        _guard().add(children - before)


class _Guard:
    """Looks after the helpers, in a thread."""

    def __init__(self) -> None:
        self._helpers = frozenset[BaseProcess]()
        self._seen = set[BaseProcess]()  # to have ended, by one who is not its parent
        self._leaves = threading.Event()
        at_end(self._leaves.set)
        threading.Thread(target=self._work, name="megatron_resume helpers", daemon=True).start()

    def add(self, helpers: set[BaseProcess]) -> None:
        """From the main thread alone."""
        if helpers:
            self._helpers = frozenset(one for one in self._helpers if _end_of(one) is None) | helpers

    def _work(self) -> None:
        while not self._leaves.wait(_LOOK_S):
            ended = {one: self._end_of(one) for one in self._helpers if not getattr(one, _BY_OWNER, False)}
            failed = {one: status for one, status in ended.items() if status}
            if failed and not self._leaves.is_set():
                # One that was killed (its status is negative) is the cause of others that ended by an error.
                self._end_because_of(*min(failed.items(), key=lambda item: item[1]))

    def _end_of(self, helper: BaseProcess) -> int | None:
        """As `_end_of`; also of a child of the server of multiprocessing, whose end can be read once.

        That is left to its owner, who may be waiting for it: it is read here if nobody has until the next look.
        """
        status = _end_of(helper)
        if status is not None or not _is_told_of(helper):
            return status
        if helper not in self._seen:
            self._seen.add(helper)
            return None
        return helper._popen.poll()  # type: ignore[attr-defined, no-any-return]

    def _end_because_of(self, helper: BaseProcess, status: int) -> None:
        how = f"was killed by {kernel.signal_name(-status)}" if status < 0 else f"ended with exit code {status}"
        error = HelperDiedError(
            f"process {helper.pid} ({helper.name}), a helper of rank {ranks.rank()}, {how}. The rank would wait for "
            "it, so it ends, to be restarted; see whether the machine is short of memory"
        )
        logger.error("%s", error)
        life.ends_by(error)
        marks.fails_by(error)
        helper_processes.kill_all()
        os._exit(error.exit_code)  # the training thread may wait for ever


def _is_told_of(helper: BaseProcess) -> bool:
    """Whether the end of a child of the server of multiprocessing has come through its pipe, or the server is gone."""
    process = helper._popen  # type: ignore[attr-defined]
    if getattr(process, "method", "") != "forkserver" or process.returncode is not None:
        return False
    pipe = select.poll()
    pipe.register(process.sentinel, select.POLLIN)
    return bool(pipe.poll(0))


def _end_of(helper: BaseProcess) -> int | None:
    """How it ended, as multiprocessing says it; None while it lives. It is collected by its owner alone."""
    process = helper._popen  # type: ignore[attr-defined]
    if process is None:  # closed
        return 0
    if process.returncode is not None:  # collected: its number may be that of another child by now
        return int(process.returncode)
    try:
        found = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:  # its owner was quicker, or a server of multiprocessing is its parent
        code: int | None = process.returncode
        return code
    if found is None:
        return None
    return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status


@functools.cache
def _guard() -> _Guard:
    for name in ("kill", "terminate"):
        _note_the_owner(name)
    return _Guard()


def _note_the_owner(name: str) -> None:
    ends = getattr(BaseProcess, name)

    @functools.wraps(ends)
    def noted(self: BaseProcess) -> None:
        setattr(self, _BY_OWNER, True)
        ends(self)

    setattr(BaseProcess, name, noted)
