"""This rank's side of the watch: it marks what it does, and starts the process that looks at the marks.

Without a launcher, or with MEGATRON_RESUME_NO_WATCH=1 (for a debugger), nobody looks.
"""

import atexit
import contextlib
import faulthandler
import logging
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import get_args

import msgspec

from ..checkpoint.failures import life_of
from ..checkpoint.launch_key import launch_key
from ..checkpoint.layout import PointName
from ..errors import REFUSALS, ConfigError
from ..policy import PHASES, Phase, policy_of_environ
from ..sources import nearest, show
from . import kernel
from .board import NO_PHASE, Board, new_board
from .hopeless import is_hopeless
from .known_secrets import message_of
from .peers import listen, tell
from .watched import PROGRAM, Watched, timeouts

logger = logging.getLogger("megatron_resume")

NO_WATCH = "MEGATRON_RESUME_NO_WATCH"
ENDINGS = "MEGATRON_RESUME_ENDINGS"
WATCHED = "MEGATRON_RESUME_WATCHED"  # in the environment of what a rank starts, which is not watched
_LEFT = "_megatron_resume_phase"  # attribute of an exception
_DUMP_SIGNAL = signal.SIGRTMAX - 2  # Python, NCCL and CUDA use none of the last ones

_board = Board()  # that nobody reads
_watched: Watched | None = None
_watchdog: subprocess.Popen[bytes] | None = None


def begin(environ: Mapping[str, str] = os.environ) -> None:
    """Have this process watched, where a launcher started it as a rank; a second call does nothing.

    Raises:
        ConfigError: The policy in the environment is wrong.
    """
    global _board, _watched, _watchdog
    if _watchdog is not None or not _is_rank(environ):
        return
    policy = policy_of_environ(environ)
    board, new = new_board()
    new.mark("setup")
    stacks = os.memfd_create("megatron_resume-stacks", os.MFD_CLOEXEC)
    faulthandler.register(_DUMP_SIGNAL, stacks, all_threads=True)
    life, rank = life_of(environ), _number(environ, "RANK")
    peers = listen(life, rank)
    watched = Watched(
        pid=os.getpid(),
        rank=rank,
        restart=_number(environ, "TORCHELASTIC_RESTART_COUNT"),
        num_ranks=_number(environ, "WORLD_SIZE"),
        num_local_ranks=_number(environ, "LOCAL_WORLD_SIZE"),
        host=socket.gethostname(),
        job=launch_key(environ).job,
        life=life,
        endings=environ.get(ENDINGS, ""),
        board=board,
        stacks=stacks,
        peers=peers.fileno(),
        dump_signal=_DUMP_SIGNAL,
        oom_kills=kernel.out_of_memory_kills(),
        timeouts=timeouts(policy),
    )
    os.environ[WATCHED] = str(os.getpid())
    try:
        with peers:
            _watchdog = _started(watched)
    except OSError as error:
        logger.warning("nobody watches rank %d: its watchdog cannot be started: %s", watched.rank, error)
        return
    _board, _watched = new, watched
    os.register_at_fork(after_in_child=_leave)
    atexit.register(leaves)
    reports = sys.excepthook

    def report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        fails_by(error)
        reports(kind, error, trace)

    sys.excepthook = report


def is_watched() -> bool:
    """Whether this process is a rank that somebody looks at."""
    return _watchdog is not None and os.environ.get(WATCHED) == str(os.getpid())


def is_in(name: Phase) -> bool:
    """Whether this rank is in the phase now."""
    return _board.phase_name == name


def _is_rank(environ: Mapping[str, str]) -> bool:
    me = str(os.getpid())  # the same where a rank replaces itself by another program
    is_helper = multiprocessing.parent_process() is not None or environ.get(WATCHED, me) != me
    return sys.platform == "linux" and "RANK" in environ and not is_helper and not _is_set(environ, NO_WATCH)


def _is_set(environ: Mapping[str, str], name: str) -> bool:
    return environ.get(name, "0") not in ("", "0")


def _number(environ: Mapping[str, str], name: str) -> int:
    text = environ.get(name, "")
    return int(text) if text.isdecimal() and len(text) < 10 else 0


def _started(watched: Watched) -> subprocess.Popen[bytes]:
    """The watchdog. In a session of its own it outlives what a launcher does to the rank, by a moment."""
    package_root = str(Path(__file__).resolve().parents[2])
    paths = [package_root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.Popen(
        [sys.executable, "-P", "-m", PROGRAM, msgspec.json.encode(watched).decode()],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        stdin=subprocess.DEVNULL,
        pass_fds=(watched.board, watched.stacks, watched.peers),
        start_new_session=True,
    )


def _leave() -> None:
    """In a forked child: its marks are not those of the rank."""
    global _board, _watched
    _board, _watched = Board(), None


@contextlib.contextmanager
def phase(name: Phase) -> Iterator[None]:
    """Say what this rank does inside the `with` block, so that it may be silent for as long as the policy allows.

    Phases may be nested; entering and leaving one is progress. Costs a microsecond.

    Raises:
        ConfigError: There is no such phase.
    """
    if name not in PHASES:
        raise ConfigError(f"the phase {show(name)} is not known; {nearest(name, get_args(Phase))}")
    outer = _board.phase_name
    _board.mark(name)
    try:
        yield
    except BaseException as error:
        _remember(error, name)
        raise
    finally:
        _back_to(outer)


def _remember(error: BaseException, phase: str) -> None:
    """That `error` left `phase`: when it comes to end the process, all phases are left. The innermost counts."""
    with contextlib.suppress(AttributeError):  # a class with slots
        vars(error).setdefault(_LEFT, phase)


def _phase_of(error: BaseException | None) -> str:
    phase: str = vars(error).get(_LEFT, _board.phase_name) if hasattr(error, "__dict__") else _board.phase_name
    return phase


def mark_progress() -> None:
    """Say that this rank comes on, in the midst of a phase that may last: its time begins anew. Any thread may."""
    _board.progress_ns = time.monotonic_ns()


def has_trained(iteration: int) -> None:
    """A train step is done, and with the first one the set-up is."""
    _board.iteration = iteration
    if not _board.training_since_ns:
        _board.training_since_ns = time.monotonic_ns()
    _back_to(_board.phase_name)


def _back_to(name: str) -> None:
    is_set_up = name == "setup" and _board.training_since_ns
    _board.mark(NO_PHASE if is_set_up else name)


def leaves(exit_code: int = 0, by: SystemExit | None = None) -> None:
    """The script is done; what is left is the end of the process."""
    if exit_code and not _board.failed_ns:
        _board.exit_code = exit_code
        _board.fail(_phase_of(by))
    _board.mark("exit")


def knows_root(root: Path) -> None:
    """From now on failures are recorded in this data checkpoint folder."""
    _board.write("root", os.fspath(root))


def is_in_attempt(attempt: int) -> None:
    _board.attempt = attempt


def is_at_iteration(iteration: int) -> None:
    _board.iteration = iteration


@contextlib.contextmanager
def loading(point: PointName) -> Iterator[None]:
    """What fails inside the `with` block failed while `point` was loaded."""
    _board.loading_iteration, _board.loading_attempt = point
    yield
    _board.loading_iteration = _board.loading_attempt = 0  # not where it failed


def has_failed() -> bool:
    """Whether something was told that ends this process."""
    return bool(_board.failed_ns)


def fails_by(error: BaseException) -> None:
    """What ends this process. The first that is told is the one that is recorded."""
    if _board.failed_ns:
        return
    _board.write("message", message_of(error))
    _board.exit_code = getattr(error, "exit_code", 0)
    _board.fatal = is_hopeless(error, in_setup=not _board.training_since_ns)
    _board.write("error", type(error).__qualname__)
    _board.fail(_phase_of(error))
    _board.mark("exit")
    if _watched is not None and _board.exit_code in REFUSALS and not _board.attempt:
        # Before this process ends, for its launcher then ends the others, in ways that look like failures.
        tell(_watched.life, "refused", num_ranks=_watched.num_ranks, rank=_watched.rank)
