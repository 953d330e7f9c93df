"""Telling the world how a rank ended: `launch` on this node, and the next lives of the job."""

import functools
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from ..checkpoint.attempts import newest_started
from ..checkpoint.failures import STACKS, Failure, How, life_named, life_path, write_failure
from ..checkpoint.layout import PointName
from ..checkpoint.leases import read_lease
from ..checkpoint.plain_files import make_private
from ..errors import REFUSALS
from ..installed import installed_versions
from ..roles import TRAINED
from ..shown import shown
from . import kernel
from .board import Board
from .endings import RankEnding, write_ending
from .stacks import Stacks
from .watched import Watched

_ARGUMENTS = 2  # exit code of argparse


class Ended(NamedTuple):
    """How a rank ended."""

    how: How
    error: str
    message: str
    exit_code: int | None  # None where a signal ended it, or nobody can tell
    signal: int | None
    silent_s: float  # since its last progress
    at_s: float  # on the clock that all processes of a machine share


class Place:
    """Where what concerns one rank is kept."""

    def __init__(self, watched: Watched, board: Board) -> None:
        self._watched, self._board = watched, board

    @property
    def root(self) -> Path | None:
        """The data checkpoint folder, once it is known."""
        text = self._board.read("root")
        return Path(text) if text else None

    def attempt(self, root: Path) -> int:
        """Also where rank 0 had begun it and could not say so any more; 0 where none had."""
        if self._board.attempt:
            return int(self._board.attempt)
        newest = newest_started(root)
        leases = [read_lease(root, newest, role) for role in TRAINED] if newest else []
        is_ours = any(lease and lease.start and life_named(lease.start) == self._watched.life for lease in leases)
        return newest if is_ours else 0

    @property
    def stacks(self) -> Stacks:
        """Where the stacks of this life of the job are kept."""
        root = self.root
        if root is None:
            return self._aside
        return Stacks(root, life_path(root, self.attempt(root), self._watched.life) / STACKS)

    @functools.cached_property
    def _aside(self) -> Stacks:
        """For ranks of this machine, where the data checkpoint folder is not known. Anybody may make a folder there."""
        temporary = Path(tempfile.gettempdir())
        folder = temporary / f"megatron_resume-{self._watched.life}"
        try:
            make_private(folder)
        except OSError:
            folder = Path(tempfile.mkdtemp(prefix="megatron_resume-"))
        return Stacks(temporary, folder / STACKS)


def tell_launch(watched: Watched, board: Board, ended: Ended) -> None:
    """Tell it to the `launch` of this machine, if one started the rank."""
    if watched.endings:
        root = Place(watched, board).root
        told = _for_launch(watched, ended, fatal=_is_fatal(board, ended), root=str(root or ""))
        write_ending(watched.endings, watched.pid, told)


def record(watched: Watched, board: Board, ended: Ended, *, is_refused: bool) -> None:
    """Keep it in the data checkpoint folder. What fails here is said, and no more.

    `is_refused`: another rank of this machine said that the start is.
    """
    place = Place(watched, board)
    root = place.root
    if root is None:
        return
    try:
        attempt = place.attempt(root)
        if attempt or not (is_refused or _leaves_no_trace(ended)):
            write_failure(root, watched.life, _for_the_next_lives(watched, board, ended, root, attempt))
    except OSError as error:
        say(f"how rank {watched.rank} ended cannot be recorded in {root}: {error.strerror}")


def _leaves_no_trace(ended: Ended) -> bool:
    """Where its attempt had not begun: it was refused, or told to end, as a launcher does when another one was."""
    return ended.exit_code in REFUSALS or ended.signal == signal.SIGTERM


def say(text: str) -> None:
    """One line into the log of the job."""
    at = time.strftime("%Y-%m-%d %H:%M:%S")
    sys.stderr.write(f"{at} megatron_resume: ERROR: {shown(text)}\n")  # files of other ranks are quoted
    sys.stderr.flush()


def _for_launch(watched: Watched, ended: Ended, *, fatal: bool, root: str) -> RankEnding:
    return RankEnding(
        rank=watched.rank,
        restart=watched.restart,
        exit_code=ended.exit_code if ended.exit_code is not None else 128 + (ended.signal or signal.SIGKILL),
        error=ended.error,
        message=ended.message,
        fatal=fatal,
        root=root,
        time_s=ended.at_s,
    )


def _is_fatal(board: Board, ended: Ended) -> bool:
    return bool(board.fatal) or (ended.exit_code == _ARGUMENTS and not board.training_since_ns and not ended.error)


def _for_the_next_lives(watched: Watched, board: Board, ended: Ended, root: Path, attempt: int) -> Failure:
    trained_ns = time.monotonic_ns() - board.training_since_ns if board.training_since_ns else 0
    return Failure(
        rank=watched.rank,
        host=watched.host,
        pid=watched.pid,
        job=watched.job,
        attempt=attempt,
        after=newest_started(root),
        how=ended.how,
        error=ended.error,
        message=ended.message,
        exit_code=ended.exit_code,
        signal=kernel.signal_name(ended.signal) if ended.signal else None,
        fatal=_is_fatal(board, ended),
        phase=board.last_phase,
        iteration=board.iteration,
        silent_s=round(ended.silent_s, 3),
        trained_s=round(trained_ns / 1e9, 3),
        loading=PointName(board.loading_iteration, board.loading_attempt) if board.loading_iteration else None,
        versions=installed_versions(),
        kernel=kernel.about_memory(watched.pid, watched.oom_kills) if ended.how == "killed" else None,
        time_s=time.time() - (time.monotonic() - ended.at_s),
    )
