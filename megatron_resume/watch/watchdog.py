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

from ..processes import descendants
from . import kernel
from .board import Board, board_at
from .ended import Ended, Place, record, say
from .stacks import heads, stacks_of, write_stacks
from .watched import POLL_S, Watched

HANG = 201  # exit code
_GAP_S = 5.0  # a watchdog that was not run for so long: the machine slept, or all of us were stopped


class Watchdog:
    """Watches one rank, its parent process, until that has ended."""

    def __init__(self, watched: Watched, board: Board) -> None:
        self._watched, self._board, self._place = watched, board, Place(watched, board)
        self._mark_ns, self._paused_ns = board.progress_ns, 0  # last mark, and time since in which nobody was run
        self._looked_s = time.monotonic()
        self._has_kept_stacks = False

    def run(self) -> None:
        if os.getppid() != self._watched.pid:
            return  # gone before anybody watched
        rank = select.poll()
        rank.register(os.pidfd_open(self._watched.pid), select.POLLIN)
        polled_s = time.monotonic()
        while not rank.poll(POLL_S * 1000):
            now_s = time.monotonic()
            if now_s - polled_s > _GAP_S:
                self._paused_ns += int((now_s - polled_s) * 1e9)
            polled_s = now_s
            if self._silent_s() > self._watched.timeout(self._board.phase_name):
                self._hangs()
                return
            if not self._has_kept_stacks and now_s - self._looked_s >= self._watched.look_s:
                self._looked_s = now_s
                if self._place.stacks.exists():  # another rank of this life hangs
                    self._keep_stacks()
        self._has_ended()

    def _silent_s(self) -> float:
        """Seconds without progress in which there could have been some."""
        mark = self._board.progress_ns
        if mark != self._mark_ns:
            self._mark_ns, self._paused_ns = mark, 0
        return float(time.monotonic_ns() - mark - self._paused_ns) / 1e9

    def _hangs(self) -> None:
        watched, phase, silent_s, time_s = self._watched, self._board.phase_name, self._silent_s(), time.time()
        state = kernel.state(watched.pid)
        self._keep_stacks()
        said = f"no progress in {phase} for {silent_s:.1f} s (limit {watched.timeout(phase):g} s)"
        said += f"; the process was {state}" if state in ("stopped", "traced") else ""
        record(watched, self._board, Ended("hang", "hang", said, HANG, None, silent_s, time_s))
        self._wait_for_other_ranks()
        say(f"rank {watched.rank} on {watched.host}: {said}. It is ended. Stacks: {self._place.stacks}{self._oldest()}")
        for pid in [watched.pid, *descendants(watched.pid)]:
            if pid != os.getpid():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def _wait_for_other_ranks(self) -> None:
        """They learn of it and keep their stacks, before the launcher ends them too."""
        is_on_other_nodes = self._watched.num_ranks > self._watched.num_local_ranks
        time.sleep(2 * self._watched.look_s if is_on_other_nodes else 3 * POLL_S)

    def _oldest(self) -> str:
        """Whose last progress lies back the longest: the culprit, where this rank only waited for it."""
        others = sorted(heads(self._place.stacks), key=lambda head: head.partition("last progress ")[2])
        return f". Oldest: {others[0]}" if len(others) > 1 else ""

    def _keep_stacks(self) -> None:
        self._has_kept_stacks = True
        watched, board, folder = self._watched, self._board, self._place.stacks
        since = datetime.fromtimestamp(time.time() - self._silent_s(), timezone.utc).isoformat(timespec="milliseconds")
        head = (
            f"rank {watched.rank} on {watched.host}, process {watched.pid}: last progress {since}, in "
            f"{board.phase_name} at iteration {board.iteration}"
        )
        try:
            folder.mkdir(parents=True, exist_ok=True)  # tells the other ranks, before what follows takes its time
            write_stacks(folder, watched.rank, head, stacks_of(watched.pid, watched.dump_signal, watched.stacks))
        except OSError as error:
            say(f"{error.filename or folder} cannot be written: {error.strerror}. {head}")

    def _has_ended(self) -> None:
        """By itself, or somebody killed it."""
        status, time_s = kernel.wait_status(self._watched.pid), time.time()
        code = None if status is None else os.waitstatus_to_exitcode(status)
        error, said = self._board.read("error"), int(self._board.exit_code)
        if code == 0 or (code is None and self._board.phase_name == "exit" and not error):
            return
        exit_code = said or (code if code is not None and code > 0 else None)
        record(
            self._watched,
            self._board,
            Ended(
                how="error" if error or exit_code else "killed",
                error=error,
                message=self._board.read("message"),
                exit_code=exit_code,
                signal=-code if code is not None and code < 0 else None,
                silent_s=self._silent_s(),
                time_s=time_s,
            ),
        )


def main(argument: str) -> None:
    """What a rank starts: `argument` is its `Watched` as JSON."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends when its rank has
    watched = msgspec.json.decode(argument, type=Watched)
    Watchdog(watched, board_at(watched.board)).run()


if __name__ == "__main__":
    main(sys.argv[1])
