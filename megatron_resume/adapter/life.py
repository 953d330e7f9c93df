"""What rank 0 writes into the events file of its attempt: each commit, and how this process ends.

Where a signal ends the process without Python, no ending is recorded; SIGTERM has a module of its own. An exit
code is seen where `sys.exit` is called; a script that raises SystemExit itself seems to end normally.
"""

import logging
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from ..checkpoint.events import Committed, Ending, Event, Failed, Finished, Pruned, Stopped, Trained, append
from ..errors import RejoinError, ResumeError
from ..watch.known_secrets import message_of
from .at_end import at_end

logger = logging.getLogger("megatron_resume")

MAX_MESSAGE = 1000  # characters


class Life:
    """This process's part in an attempt, from the start to its one ending."""

    def __init__(self, path: Path):
        self._path, self._pid = path, os.getpid()
        self._ending = threading.Lock()  # taken for good by whoever first says how this life ends
        self._exit: Ending | None = None  # the last that sys.exit was asked for
        self._python_exits, self._python_reports = sys.exit, sys.excepthook
        sys.exit, sys.excepthook = self._exits, self._reports  # type: ignore[assignment]
        at_end(self._leaves)

    @property
    def _is_ours(self) -> bool:
        """Whether this is not a forked child, which inherits all of this."""
        return os.getpid() == self._pid

    def tell(self, event: Committed | Pruned | Trained) -> None:
        self._append(event)

    def ends(self, ending: Ending) -> None:
        """Record the ending, unless one is."""
        if self._is_ours and self._ending.acquire(blocking=False):
            self._append(ending)

    def forget(self) -> None:
        """Record no ending, and give Python its own functions back where nobody else replaced ours."""
        self._ending.acquire(blocking=False)
        if sys.exit == self._exits:
            sys.exit = self._python_exits
        if sys.excepthook == self._reports:
            sys.excepthook = self._python_reports

    def _append(self, event: Event) -> None:
        try:
            append(self._path, event)
        except OSError as error:
            logger.warning("%s cannot be written: %s", self._path, error.strerror)

    def _exits(self, status: Any = None, /) -> None:
        if threading.current_thread() is threading.main_thread():
            self._exit = ending_by(SystemExit(status))
        self._python_exits(status)

    def _reports(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        self._python_reports(kind, error, trace)
        self.ends(ending_by(error))

    def _leaves(self) -> None:
        error = sys.exc_info()[1]  # only in a process that multiprocessing made: what ended it is still on its way
        self.ends(ending_by(error) if error else self._exit or Finished())


_life: Life | None = None  # from the begin of the attempt on, on rank 0


def begin(path: Path) -> None:
    """Record from now on in the events file `path`."""
    global _life
    forget()
    _life = Life(path)


def tell(event: Committed | Pruned | Trained) -> None:
    """Record what happened, where this process has begun an attempt."""
    if _life is not None:
        _life.tell(event)


def ends_by(error: BaseException) -> None:
    """Record that `error` ends this process, where it has begun an attempt."""
    if _life is not None:
        _life.ends(ending_by(error))


def ends_with(ending: Ending) -> None:
    """Record how this process ends, where it has begun an attempt."""
    if _life is not None:
        _life.ends(ending)


def forget() -> None:
    """Record nothing more: the attempt was taken back, or the hooks are."""
    global _life
    if _life is not None:
        _life.forget()
    _life = None


def ending_by(error: BaseException) -> Ending:
    """What a life says of itself that `error` ends now."""
    if isinstance(error, SystemExit):
        return _ending_by_exit(error)
    if isinstance(error, KeyboardInterrupt):
        return Stopped(reason="SIGINT", exit_code=128 + signal.SIGINT)
    if isinstance(error, RejoinError):
        return Stopped(reason=_text(error), exit_code=error.exit_code)
    code = error.exit_code if isinstance(error, ResumeError) else 1
    return Failed(error=type(error).__qualname__, message=_text(error), exit_code=code)


def _ending_by_exit(error: SystemExit) -> Ending:
    code = error.code & 0xFF if isinstance(error.code, int) else int(error.code is not None)
    reason = _signal_in_hand() or _signal_seen_by_megatron()
    if reason is not None:
        return Stopped(reason=reason, exit_code=code)
    return Failed(error="SystemExit", message=_text(error), exit_code=code) if code else Finished()


def _signal_in_hand() -> str | None:
    """The signal whose handler, of the script or of Megatron, called us."""
    handlers = {getattr(signal.getsignal(number), "__code__", None): number.name for number in signal.Signals}
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code not in handlers:
        frame = frame.f_back
    return handlers[frame.f_code] if frame else None


def _signal_seen_by_megatron() -> str | None:
    """The signal for which Megatron saves and leaves: `--exit-signal-handler`."""
    handler: Any = getattr(sys.modules.get("megatron.training.global_vars"), "_GLOBAL_SIGNAL_HANDLER", None)
    return signal.Signals(handler.sig).name if getattr(handler, "_signal_received", False) else None


def _text(error: BaseException) -> str:
    """Its message, as JSON can hold it."""
    return message_of(error)[:MAX_MESSAGE].encode("utf-8", "backslashreplace").decode()
