"""SIGTERM, noticed at once: also while the training thread waits in native code, where Python runs no handler.

The kernel's signal handler, which is Python's, writes into a pipe; a thread of ours reads it.
"""

import contextlib
import ctypes
import fcntl
import mmap
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

_HIGH = 200  # from this number on are descriptors of ours
_CHILD_S = 0.3  # how long a forked child looks whether the rank was told to end, too
_MEGATRON = "megatron.training.dist_signal_handler"


class _Shared(ctypes.Structure):
    """In memory that forked children share."""

    _fields_ = (("asked", ctypes.c_int64), ("leaving", ctypes.c_int64))


class _Pipe:
    """Both ends have high numbers, which a process that closed all of its files does not give to others at once."""

    def __init__(self) -> None:
        self.reader, self.writer = map(_moved, os.pipe())
        self._which = _identity(self.reader)
        os.set_blocking(self.writer, False)

    def close(self) -> None:
        """Close what still is this pipe: somebody may have closed it, and opened another file of its number."""
        for end in (self.reader, self.writer):
            with contextlib.suppress(OSError):
                if _identity(end) == self._which:
                    os.close(end)


def _moved(descriptor: int) -> int:
    try:
        high = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _HIGH)
    except OSError:  # this process may not have so many
        return descriptor
    os.close(descriptor)
    return high


def _identity(descriptor: int) -> tuple[int, int]:
    stat = os.fstat(descriptor)
    return stat.st_dev, stat.st_ino


class Listener:
    """Takes SIGTERM in this process. Make it in the main thread."""

    def __init__(self, on_request: Callable[[], None]) -> None:
        """`on_request` is called once, in a thread of its own, when somebody asks this process to end."""
        self._on_request, self._pid = on_request, os.getpid()
        self._shared = _Shared.from_buffer(mmap.mmap(-1, ctypes.sizeof(_Shared)))
        self._exit_code: int | None = None  # with which the main thread is to leave
        self._pipe: _Pipe | None = None
        self._listen(self._wait)
        os.register_at_fork(before=_hold, after_in_parent=_let_go, after_in_child=self._listen_in_child)

    def _listen(self, wait: Callable[[_Pipe], None]) -> None:
        """Have a thread of this process wait for signals."""
        self._pipe = _Pipe()
        self._wake(self._pipe)
        threading.Thread(target=wait, args=(self._pipe,), name="megatron_resume SIGTERM", daemon=True).start()

    def _listen_in_child(self) -> None:
        """A forked child waits by a pipe of its own: that of its parent would wake that.

        It needs the thread, too: a signal that comes just before a sleep does not end the sleep, and without us SIGTERM
        would end the child then. What subprocess forks is about to become another program, and stays as it is.
        """
        try:
            signal.set_wakeup_fd(-1)
            if self._pipe is not None:
                self._pipe.close()
                self._pipe = None
            if signal.getsignal(signal.SIGTERM) == self._handle and not _is_forked_by_subprocess():
                mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # the thread takes none
                try:
                    self._listen(self._wait_in_child)
                finally:
                    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        finally:
            _let_go()

    def _wake(self, pipe: _Pipe) -> None:
        before = signal.set_wakeup_fd(pipe.writer, warn_on_full_buffer=False)
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

    def _wait(self, pipe: _Pipe) -> None:
        while signal.SIGTERM not in os.read(pipe.reader, 256):
            pass  # another signal that Python handles
        self._shared.asked = 1
        self._on_request()

    def _wait_in_child(self, pipe: _Pipe) -> None:
        with contextlib.suppress(OSError):  # the child closed it
            while signals := os.read(pipe.reader, 256):
                if signal.SIGTERM in signals and signal.getsignal(signal.SIGTERM) == self._handle:
                    self._in_child()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:
            self._in_child()
            return
        with contextlib.suppress(BlockingIOError):
            if self._pipe is not None:
                os.write(self._pipe.writer, bytes([number]))
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


def _is_forked_by_subprocess() -> bool:
    """For a `preexec_fn`, which may need a process of one thread. Ask two calls below the hook."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code is Listener._listen_in_child.__code__:
        frame = frame.f_back
    return frame is not None and frame.f_globals.get("__name__") == "subprocess"


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
