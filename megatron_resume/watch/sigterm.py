"""SIGTERM, noticed at once: also while the training thread waits in native code, where Python runs no handler.

The kernel's signal handler, which is Python's, writes into a pipe; a thread of ours reads it.
"""

import contextlib
import ctypes
import mmap
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

_CHILD_S = 0.3  # how long a forked child looks whether the rank was told to end, too
_MEGATRON = "megatron.training.dist_signal_handler"


class _Shared(ctypes.Structure):
    """In memory that forked children share."""

    _fields_ = (("asked", ctypes.c_int64), ("leaving", ctypes.c_int64))


class Listener:
    """Takes SIGTERM in this process. Make it in the main thread."""

    def __init__(self, on_request: Callable[[], None]) -> None:
        """`on_request` is called once, in a thread of its own, when somebody asks this process to end."""
        self._on_request, self._pid = on_request, os.getpid()
        self._shared = _Shared.from_buffer(mmap.mmap(-1, ctypes.sizeof(_Shared)))
        self._exit_code: int | None = None  # with which the main thread is to leave
        self._listen(self._wait)
        os.register_at_fork(before=_hold, after_in_parent=_let_go, after_in_child=self._listen_in_child)

    def _listen(self, wait: Callable[[], None]) -> None:
        """Have a thread of this process wait for signals."""
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._wake()
        threading.Thread(target=wait, name="megatron_resume SIGTERM", daemon=True).start()

    def _listen_in_child(self) -> None:
        """A forked child waits by a pipe of its own: that of its parent would wake that.

        It needs the thread, too: a signal that comes just before a sleep does not end the sleep, and without us SIGTERM
        ends a child whatever it waits for.
        """
        try:
            signal.set_wakeup_fd(-1)
            os.close(self._reader)
            os.close(self._writer)
            if signal.getsignal(signal.SIGTERM) == self._handle:
                self._listen(self._wait_in_child)
        finally:
            _let_go()

    def _wake(self) -> None:
        before = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        if before != -1:  # that of an event loop; then the handler alone tells
            signal.set_wakeup_fd(before, warn_on_full_buffer=False)

    def take(self) -> bool:
        """Have SIGTERM come to us, unless the script handles it itself; again where Megatron took it since."""
        found = signal.getsignal(signal.SIGTERM)
        if found == self._handle:
            return True
        if found is not signal.SIG_DFL and getattr(found, "__module__", "") != _MEGATRON:
            return False
        signal.signal(signal.SIGTERM, self._handle)
        return True

    @property
    def was_asked(self) -> bool:
        return bool(self._shared.asked)

    @property
    def is_leaving(self) -> bool:
        return bool(self._shared.leaving)

    def leaves(self) -> None:
        """From now on children that are told to end do so."""
        self._shared.leaving = 1

    def have_main_thread_leave(self, exit_code: int) -> None:
        """Raise SystemExit in the main thread, as soon as that runs Python."""
        self.leaves()
        self._exit_code = exit_code
        main = threading.main_thread().ident
        if main is not None:
            signal.pthread_kill(main, signal.SIGTERM)  # ends its sleep, too

    def _wait(self) -> None:
        while signal.SIGTERM not in os.read(self._reader, 256):
            pass  # another signal that Python handles
        self._shared.asked = 1
        self._on_request()

    def _wait_in_child(self) -> None:
        while signals := os.read(self._reader, 256):
            if signal.SIGTERM in signals and signal.getsignal(signal.SIGTERM) == self._handle:
                self._in_child()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:
            self._in_child()
            return
        with contextlib.suppress(BlockingIOError):
            os.write(self._writer, bytes([number]))
        if self._exit_code is not None:
            sys.exit(self._exit_code)

    def _in_child(self) -> None:
        """A launcher tells all processes of the rank at once, and the rank needs its helpers for the last save."""
        deadline = time.monotonic() + _CHILD_S
        while not self._shared.leaving and time.monotonic() < deadline:
            if self._shared.asked:
                return
            time.sleep(0.01)
        die()


_masks = threading.local()  # of the thread that forks, before it does


def _hold() -> None:
    """A child that is told to end at its very begin must not wake its parent."""
    _masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


def _let_go() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _masks.before)


def die() -> None:
    """End as SIGTERM ends a process that does not handle it. Any thread may call this."""
    ctypes.CDLL(None).signal(signal.SIGTERM, ctypes.c_void_p(0))  # SIG_DFL; Python's own is for the main thread
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    os.kill(os.getpid(), signal.SIGTERM)
