"""What the processes of one machine tell each other's watchdogs: at once, and with no file that anybody leaves."""

import contextlib
import os
import socket
import struct
from typing import Literal

Word = Literal["hangs", "refused"]  # a rank hangs; this start is refused, whatever the other ranks end by

_MAX_BYTES = 16
_CREDENTIALS = struct.Struct("iII")  # process, user, group
_AT_ONCE = 64


def tell(life: str, word: Word, *, num_ranks: int, rank: int) -> None:
    """Say it to the watchdogs of all ranks but `rank` of this life of the job. Those on other machines miss it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as own:
        for other in range(num_ranks):
            if other != rank:
                with contextlib.suppress(OSError):
                    own.sendto(word.encode(), _name(life, other))


def _name(life: str, rank: int) -> str:
    return f"\0megatron_resume/{life}/{rank}"  # in no file system: it is gone with its process


def listen(life: str, rank: int) -> socket.socket:
    """Where the watchdog of `rank` will hear what is told from now on."""
    own = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    own.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    with contextlib.suppress(OSError):  # then it learns of a hang from the shared folder
        own.bind(_name(life, rank))
    return own


class Peers:
    """What the watchdog of one rank has heard of the others; `descriptor` is that of a socket that listens."""

    def __init__(self, descriptor: int) -> None:
        self._heard: set[str] = set()
        self._socket = socket.socket(fileno=descriptor)
        self.are_heard = bool(self._socket.getsockname())  # else somebody took the name

    def fileno(self) -> int:
        """Readable when somebody has told."""
        return self._socket.fileno()

    def have_told(self, word: Word) -> bool:
        """Whether a process of this user has, ever. Any user may send: what others say counts for nothing."""
        with contextlib.suppress(OSError):
            for _ in range(_AT_ONCE):  # else one who sends without end would be listened to for ever
                told, also, *_ = self._socket.recvmsg(_MAX_BYTES, socket.CMSG_SPACE(_CREDENTIALS.size))
                if os.geteuid() in _users(also):
                    self._heard.add(told.decode("ascii", "replace"))
        return word in self._heard


def _users(also: list[tuple[int, int, bytes]]) -> list[int]:
    """Who sent it, as the kernel says."""
    return [
        _CREDENTIALS.unpack(data)[1]
        for level, kind, data in also
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS) and len(data) == _CREDENTIALS.size
    ]
