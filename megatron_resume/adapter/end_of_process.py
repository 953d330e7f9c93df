"""Something to do with all ranks when this process ends by itself: before its group is gone, and not for ever."""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FunctionType, TracebackType
from typing import Any

import torch.distributed as dist

from ..hooks import AnyFunction, swap
from ..policy import policy_of_environ
from ..watch import marks
from .at_end import at_end


class EndOfProcess:
    """Does the last things of a process that ends as a script that did its work.

    Args:
        finish: called before the group is destroyed, and before `leave`.
        leave: called at the end.
        give_up: called by a thread if what is done `in_time` takes too long; has to end the process.
    """

    def __init__(self, finish: Callable[[], None], leave: Callable[[], None], give_up: Callable[[], None]):
        self._finish, self._leave, self._give_up = finish, leave, give_up
        self._limit_s = float(policy_of_environ(os.environ).grace_period)
        self._pid, self._status = os.getpid(), 0
        self._begun, self._done = threading.Event(), threading.Event()
        threading.Thread(target=self._watch, name="megatron_resume end", daemon=True).start()
        self._python_exits, self._python_reports = sys.exit, sys.excepthook
        sys.exit, sys.excepthook = self._exits, self._reports  # type: ignore[assignment]
        self._undo = _before_the_group_is_destroyed(self._finish_if_well)
        at_end(self._leave_if_well)

    def _is_well(self) -> bool:
        """Whether no error and no exit code ends this process, as far as Python tells."""
        error = sys.exc_info()[1]  # sys.exit(0) is on its way where `finally` destroys the group
        leaves = error is None or (isinstance(error, SystemExit) and error.code in (None, 0))
        return leaves and not self._status and not marks.has_failed()

    def forget(self) -> None:
        """For `uninstall`."""
        self._undo()
        self._pid = 0
        if sys.exit == self._exits:
            sys.exit = self._python_exits
        if sys.excepthook == self._reports:
            sys.excepthook = self._python_reports

    def _exits(self, status: Any = None, /) -> None:
        if threading.current_thread() is threading.main_thread():
            self._status = int(status not in (None, 0))
        self._python_exits(status)

    def _reports(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        self._status = 1
        self._python_reports(kind, error, trace)

    def _finish_if_well(self) -> None:
        if os.getpid() == self._pid and self._is_well():
            self._finish()

    def _leave_if_well(self) -> None:
        if os.getpid() == self._pid and self._is_well():
            self._finish()
            self._leave()

    @contextmanager
    def in_time(self) -> Iterator[None]:
        """Give up if this takes longer than the grace period of the policy: other ranks may never come.

        The thread stands by from the start on, since a process that ends can start none.
        """
        self._done.clear()
        self._begun.set()
        try:
            yield
        finally:
            self._begun.clear()
            self._done.set()

    def _watch(self) -> None:
        while self._begun.wait():
            if not self._done.wait(self._limit_s):
                self._give_up()


def _before_the_group_is_destroyed(act: Callable[[], None]) -> Callable[[], None]:
    """Call `act` before torch.distributed goes down; returns what undoes that."""
    destroy = dist.distributed_c10d.destroy_process_group
    if not isinstance(destroy, FunctionType) or destroy.__code__.co_freevars:
        return lambda: None

    def wrap(original: AnyFunction) -> AnyFunction:
        def destroy_process_group(group: Any = None) -> Any:
            if group in (None, dist.group.WORLD):
                act()
            return original(group)

        return destroy_process_group

    return swap(destroy, wrap)
