"""The watchdog: one small process beside each rank, which needs nothing of it but its marks.

It finds a rank that sleeps, holds the interpreter's lock or was stopped; keeps stacks; ends the rank; and records how
a rank ended, since the rank itself may not be able to.
"""

import contextlib
import os
import select
import signal
import sys
import time
from datetime import datetime, timezone

import msgspec

from ..errors import STOPPED
from ..processes import descendants
from . import kernel
from .board import Board, board_at
from .ended import Ended, Place, record, say, tell_launch
from .leftover import end_session, leads_a_session
from .peers import Peers, tell
from .stacks import Stacks, stacks_of
from .storage import Storage
from .watched import POLL_S, Watched

HANG = 201  # exit code
_ERROR = 1  # with which Python ends by an exception
_GAP_S = 1.0  # a watchdog that was not run for so long: the machine slept, or all of us were stopped
_LOOK_S = 0.5  # for storage to answer, where a rank may begin to hang meanwhile
_STACKS_S = 0.4  # in which ranks that run keep their stacks


class Watchdog:
    """Watches one rank, its parent process, until that has ended."""

    def __init__(self, watched: Watched, board: Board) -> None:
        self._watched, self._board, self._place = watched, board, Place(watched, board)
        self._mark_ns, self._paused_ns = board.progress_ns, 0  # last mark, and time since in which nobody was run
        self._polled_s = self._looked_s = time.monotonic()
        self._has_kept_stacks, self._storage = False, Storage()
        self._stacks: Stacks | None = None
        self._peers = Peers(watched.peers)
        self._events = select.poll()
        self._events.register(self._peers, select.POLLIN)
        self._leads = leads_a_session(watched.pid)
        self._rank = _end_of(watched.pid)
        if self._rank is not None:
            self._events.register(self._rank, select.POLLIN)

    def run(self) -> None:
        """Until the rank has ended, by us or by others, or has become another program."""
        while not self._ended_within_a_poll():
            if self._is_another_program():
                return
            phase = self._board.phase_name  # before the time: see Board.mark
            if self._silent_s() > self._watched.timeout(phase):
                self._hangs()
                return
            if self._hears_of_a_hang():
                self._keep_stacks(self._board.copy())
        self._has_ended()

    def _ended_within_a_poll(self) -> bool:
        ready = [descriptor for descriptor, _ in self._events.poll(POLL_S * 1000)]
        now_s = time.monotonic()
        if now_s - self._polled_s > _GAP_S:
            self._paused_ns += int((now_s - self._polled_s) * 1e9)
        self._polled_s = now_s
        return self._rank in ready if self._rank is not None else os.getppid() != self._watched.pid

    def _is_another_program(self) -> bool:
        """Whether the rank replaced itself with `exec`: then nobody marks this board any more."""
        pid = self._watched.pid
        return not kernel.has_open(pid, self._watched.board) and kernel.has_open(pid)  # one that ends has none

    def _silent_s(self) -> float:
        """Seconds without progress in which there could have been some."""
        mark = self._board.progress_ns
        if mark != self._mark_ns:
            self._mark_ns, self._paused_ns = mark, 0
        return float(time.monotonic_ns() - mark - self._paused_ns) / 1e9

    def _hears_of_a_hang(self) -> bool:
        """Whether another rank of this life hangs: at once on this machine, from others by the folder they share."""
        told = self._peers.have_told("hangs")
        is_told = self._watched.is_on_one_node and self._peers.are_heard
        if told or self._has_kept_stacks or is_told:
            return told and not self._has_kept_stacks
        now_s = time.monotonic()
        if now_s - self._looked_s < self._watched.look_s:
            return False
        self._looked_s = now_s
        return self._storage.ask(self._is_told_by_the_folder, False, limit_s=_LOOK_S)

    def _is_told_by_the_folder(self) -> bool:
        return self._place.root is not None and self._place.stacks.folder.exists()

    def _hangs(self) -> None:
        watched, board, at_s, silent_s = self._watched, self._board.copy(), time.monotonic(), self._silent_s()
        state = kernel.state(watched.pid)
        said = f"no progress in {board.phase_name} for {silent_s:.1f} s (limit {watched.timeout(board.phase_name):g} s)"
        said += f"; the process was {state}" if state in kernel.HALTED else ""
        self._keep_stacks(board)
        tell(watched.life, "hangs", num_ranks=watched.num_ranks, rank=watched.rank)
        self._record(board, Ended("hang", "hang", said, HANG, None, silent_s, at_s), is_refused=False)
        heads = self._heads_of_all_ranks()
        where = f" Stacks: {self._stacks.folder}" if self._stacks else ""
        say(f"{_first(heads)}rank {watched.rank} on {watched.host}: {said}. It is ended.{where}")
        for pid in [watched.pid, *descendants(watched.pid)]:
            if pid != os.getpid():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self._end_what_is_left()

    def _heads_of_all_ranks(self) -> list[str]:
        """Other ranks learn of it and keep their stacks, before the launcher ends them too."""
        if self._stacks is None:
            return []
        stacks, num_ranks, found = self._stacks, self._watched.num_ranks, list[str]()
        look_s = 0.0 if self._watched.is_on_one_node else 2 * self._watched.look_s
        deadline = time.monotonic() + look_s + _STACKS_S
        while len(found) < num_ranks and time.monotonic() < deadline:
            time.sleep(POLL_S / 5)
            found = self._storage.ask(lambda: stacks.heads(num_ranks), found, limit_s=self._watched.store_s)
        return found

    def _record(self, board: Board, ended: Ended, *, is_refused: bool) -> None:
        """How the rank ended, where that can be stored within some time: it is ended all the same."""

        def store() -> bool:
            record(self._watched, board, ended, is_refused=is_refused)
            return True

        tell_launch(self._watched, board, ended)
        if not self._storage.ask(store, False, limit_s=self._watched.store_s):
            say(f"how rank {self._watched.rank} ended is not recorded: {self._no_answer}")

    def _keep_stacks(self, board: Board) -> None:
        if self._has_kept_stacks:
            return
        self._has_kept_stacks = True
        watched, state = self._watched, kernel.state(self._watched.pid)
        since = datetime.fromtimestamp(time.time() - self._silent_s(), timezone.utc).isoformat(timespec="milliseconds")
        head = (
            f"rank {watched.rank} on {watched.host}, process {watched.pid}: last progress {since}, in "
            f"{board.phase_name} at iteration {board.iteration}{f', {state}' if state in kernel.HALTED else ''}"
        )
        try:
            # Tells the other ranks, before what follows takes its time.
            self._stacks = self._storage.ask(self._begin_stacks, None, limit_s=self._watched.store_s)
            found = stacks_of(watched.pid, watched.dump_signal, watched.stacks)
            if not self._storage.ask(lambda: self._write_stacks(head, found), False, limit_s=self._watched.store_s):
                say(f"stacks are not kept: {self._no_answer}. {head}")
        except OSError as error:
            say(f"{error.filename or self._place.root} cannot be written: {error.strerror}. {head}")

    @property
    def _no_answer(self) -> str:
        root = self._place.root or "the folder for temporary files"
        return f"{root} gives no answer within {self._watched.store_s:g} s"

    def _begin_stacks(self) -> Stacks:
        stacks = self._place.stacks
        stacks.begin()
        return stacks

    def _write_stacks(self, head: str, found: str) -> bool:
        if self._stacks is not None:
            self._stacks.write(self._watched.rank, head, found)
        return self._stacks is not None

    def _has_ended(self) -> None:
        """By itself, or somebody killed it."""
        status, board, now_s = kernel.wait_status(self._watched.pid, self._rank), self._board.copy(), time.monotonic()
        code = None if status is None else os.waitstatus_to_exitcode(status)
        error, said = board.read("error"), int(board.exit_code)
        if code == 0 or (code is None and board.phase_name == "exit" and not error and not said):
            return
        exit_code = said or (code if code is not None and code > 0 else None) or (_ERROR if error else None)
        ended = Ended(
            how="stopped" if exit_code == STOPPED else "error" if exit_code else "killed",
            error=error,
            message=board.read("message"),
            exit_code=exit_code,
            signal=-code if code is not None and code < 0 and not exit_code else None,
            silent_s=self._silent_s(),
            at_s=board.failed_ns / 1e9 if board.failed_ns and exit_code else now_s,
        )
        self._record(board, ended, is_refused=self._peers.have_told("refused"))
        if ended.how != "stopped":
            self._end_what_is_left()

    def _end_what_is_left(self) -> None:
        """Under `launch` that does it, also for what is below other ranks."""
        if self._leads and not self._watched.endings:
            end_session(self._watched.pid, self._watched.by_itself_s)


def _first(heads: list[str]) -> str:
    """Whose last progress lies back the longest: the culprit, where the others only wait for it."""
    others = sorted(heads, key=lambda head: head.partition("last progress ")[2])
    return f"hang, begun by {others[0]}; " if len(others) > 1 else ""


def _end_of(pid: int) -> int | None:
    """A descriptor that is readable once process `pid` has ended; None where Linux (before 5.3) has no such thing."""
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def main(argument: str) -> None:
    """What a rank starts: `argument` is its `Watched` as JSON."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends when its rank has
    watched = msgspec.json.decode(argument, type=Watched)
    Watchdog(watched, board_at(watched.board)).run()


if __name__ == "__main__":
    main(sys.argv[1])
