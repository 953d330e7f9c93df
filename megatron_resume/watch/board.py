"""What a rank shows of itself, in memory that it shares with its watchdog: written without a lock or a system call."""

import ctypes
import mmap
import os
import time

from ..policy import PHASES

NO_PHASE = "idle"  # between phases: the script does something that it did not name
_NAMES = (NO_PHASE, *PHASES)
NUMBERS = {name: number for number, name in enumerate(_NAMES)}
_PATH, _NAME, _MESSAGE = 4_096, 256, 4_000  # bytes


class Board(ctypes.Structure):
    """One rank at this moment. Texts are UTF-8; times are of the clock that all processes of a machine share."""

    _fields_ = (
        ("progress_ns", ctypes.c_int64),  # when it last came on
        ("phase", ctypes.c_int64),
        ("iteration", ctypes.c_int64),
        ("training_since_ns", ctypes.c_int64),  # end of the first train step; 0 before
        ("attempt", ctypes.c_int64),  # 0 until it is open
        ("loading_iteration", ctypes.c_int64),  # the resume point that is being loaded; 0 where none is
        ("loading_attempt", ctypes.c_int64),
        ("failed_ns", ctypes.c_int64),  # when it met its error, or was told to leave with an exit code; 0 before
        ("failed_in", ctypes.c_int64),  # the phase that this ended
        ("fatal", ctypes.c_int64),  # what ends it would only end the next life too
        ("exit_code", ctypes.c_int64),  # of the error, where it has one of its own
        ("root", ctypes.c_char * _PATH),  # the data checkpoint folder, once it is known
        ("error", ctypes.c_char * _NAME),  # class of the exception that ends it
        ("message", ctypes.c_char * _MESSAGE),
    )

    def mark(self, phase: str) -> None:
        """It came on, and is in `phase` now.

        Whoever looks reads the phase first and the time after it: so the end of a long phase is never measured by the
        limit of the short one that follows.
        """
        self.progress_ns = time.monotonic_ns()
        self.phase = NUMBERS[phase]

    def fail(self, phase: str) -> None:
        """What it did in `phase` failed; what comes is the end."""
        self.failed_in, self.failed_ns = NUMBERS[phase], time.monotonic_ns()

    @property
    def phase_name(self) -> str:
        return _NAMES[self.phase]

    @property
    def last_phase(self) -> str:
        """What it did when it failed, or does now."""
        return _NAMES[self.failed_in] if self.failed_ns else self.phase_name

    def copy(self) -> "Board":
        """As it is at this moment."""
        return Board.from_buffer_copy(self)

    def write(self, field: str, text: str) -> None:
        """Set one of the texts, cut to what has room."""
        room: int = getattr(Board, field).size
        setattr(self, field, text.encode("utf-8", "backslashreplace")[: room - 1].replace(b"\0", b"?"))

    def read(self, field: str) -> str:
        text: bytes = getattr(self, field)
        return text.decode("utf-8", "replace")


def new_board() -> tuple[int, Board]:
    """A board, and the descriptor of its memory, which dies with the last process that has it open."""
    descriptor = os.memfd_create("megatron_resume-board", os.MFD_CLOEXEC)
    os.truncate(descriptor, ctypes.sizeof(Board))
    return descriptor, board_at(descriptor)


def board_at(descriptor: int) -> Board:
    """The board in memory that another process made."""
    return Board.from_buffer(mmap.mmap(descriptor, ctypes.sizeof(Board)))
