"""How the watchdogs of one machine tell each other that a rank hangs: at once, and with no file that anybody leaves."""

import contextlib
import socket

_WORD = b"hang"


class Peers:
    """The watchdogs of all ranks of this life of the job that run on this machine."""

    def __init__(self, life: str, rank: int, num_ranks: int) -> None:
        self._life, self._rank, self._num_ranks = life, rank, num_ranks
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        with contextlib.suppress(OSError):  # then this one learns of it from the shared folder
            self._socket.bind(self._name(rank))

    def _name(self, rank: int) -> str:
        return f"\0megatron_resume/{self._life}/{rank}"  # in no file system: it is gone with its process

    def fileno(self) -> int:
        """Readable when somebody has told."""
        return self._socket.fileno()

    def tell(self) -> None:
        """Say that a rank hangs. Of those on other machines nobody listens here."""
        for rank in range(self._num_ranks):
            if rank != self._rank:
                with contextlib.suppress(OSError):
                    self._socket.sendto(_WORD, self._name(rank))

    def have_told(self) -> bool:
        """Whether somebody has, since this was asked last."""
        told = False
        with contextlib.suppress(OSError):
            while self._socket.recv(len(_WORD)):
                told = True
        return told
