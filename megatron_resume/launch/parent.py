"""`launch`: a thin parent that runs an engine, speaks for the job, and takes everything with it when it dies.

It is two processes. The first waits for the second and forwards signals; the second starts the engine and watches it.
Each adopts what the other leaves behind, so whichever is killed, the other one ends the whole tree. The engine dies
with the second process by the kernel's own hand.
"""

import contextlib
import errno
import itertools
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from ..checkpoint.launch_key import ENGINE_STARTS, LAUNCH_ID, launch_key
from ..checkpoint.lives import lives
from ..errors import STOPPED, ConfigError, CrashLoopError, ResumeError
from ..policy import FATAL, STOP_SIGNALS, VARIABLE, Policy, as_json
from ..processes import Abandoned, adopt_orphans, die_with_parent, end_descendants
from ..resume.budget import budget
from ..watch.endings import VARIABLE as ENDINGS
from ..watch.endings import RankEnding, ask_to_stop, read_endings
from ..watch.watched import is_watchdog
from .job import Rendered

logger = logging.getLogger("megatron_resume")

_POLL_S = 0.1
_NO_PROGRAM = (errno.ENOENT, errno.EACCES, errno.ENOEXEC)
_SIGNALS = [signal.Signals[name] for name in STOP_SIGNALS]  # which would end a process that does not handle them


def launch(policy: Policy, rendered: Rendered, *, job_id: str | None = None) -> int:
    """Run the engine until the job ends, and return the job's own exit code. Call in a process without children.

    After it no process that it started lives; also where this process is killed, within seconds.

    Args:
        job_id: names the job on each of its nodes, which all launch it; None where there is one node.
    """
    adopt_orphans()
    parent = os.getpid()
    sys.stdout.flush()
    watcher = os.fork()
    if watcher == 0:
        os._exit(_watch(policy, rendered, parent, job_id))
    for number in _SIGNALS:
        signal.signal(number, lambda number, _: _tell(watcher, number))
    _, status = os.waitpid(watcher, 0)
    _end_all()
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _watch(policy: Policy, rendered: Rendered, parent: int, job_id: str | None) -> int:
    """In the second process, which nothing but its exit code leaves."""
    try:
        return _Watcher(policy, rendered, parent, job_id).run()
    except ResumeError as error:
        logger.error("%s", error)
        return error.exit_code
    except BaseException:
        logger.exception("the job is ended, since `launch` itself failed")
        return 1


def _end_all(grace_s: float = 0) -> None:
    """Watchdogs are the last to go, so that they can tell how their ranks ended."""
    end_descendants(grace_s=grace_s, last=is_watchdog)


def _tell(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


class _Watcher:
    """The second process. Each start of the engine has a folder, in which ranks say how they ended."""

    def __init__(self, policy: Policy, rendered: Rendered, parent: int, job_id: str | None) -> None:
        self._policy, self._rendered, self._parent, self._is_one_node = policy, rendered, parent, job_id is None
        self._job = job_id or launch_key(os.environ).job  # before anything is forked: it names this launch
        self._root: Path | None = None  # the data checkpoint folder, once a rank that ended has told
        self._story: tuple[str, ...] = ()  # of the lives, when the engine had ended before
        self._without_a_life = 0  # engines in a row that came to none
        self._restarts = 0  # counted here only as long as no data checkpoint folder is known
        self._abandoned = Abandoned()
        self._asked_to_stop = ""  # the first signal that did
        os.setsid()  # an interrupt typed at a terminal reaches the first process only
        adopt_orphans()
        for number in _SIGNALS:
            signal.signal(number, self._stop)

    def _stop(self, number: int, _: object) -> None:
        name = signal.Signals(number).name
        if name in self._policy.stop_signals:
            self._asked_to_stop = self._asked_to_stop or name

    def run(self) -> int:
        folder = Path(tempfile.mkdtemp(prefix="megatron_resume-"))
        try:
            for start in itertools.count():
                endings = folder / str(start)
                endings.mkdir()
                ended = self._run_engine(endings, start)
                over = ended.code if ended.is_final else self._code_if_over(endings, ended)
                if over is not None:
                    return over
                why = "was killed" if ended.was_killed else "gave up, and the policy has restarts left"
                logger.warning("the launch engine %s; it is started again", why)
            raise AssertionError
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _code_if_over(self, endings: Path, ended: "_EngineEnd") -> int | None:
        """The job's exit code where no more life is due, after the engine was killed or gave up."""
        said = read_endings(endings)
        self._root = next((Path(one.root) for one in said if one.root), self._root)
        if self._root is None:  # nothing tells of the lives before
            self._restarts += 1 + max((one.restart for one in said), default=0)
            return ended.code if self._restarts > self._policy.max_restarts else None
        left = budget(self._policy, lives(self._root), self._job)
        if left.over is not None:
            logger.error("%s", left.over)
            return left.over.exit_code
        self._without_a_life = self._without_a_life + 1 if left.story == self._story else 0
        self._story = left.story
        return ended.code if self._without_a_life > self._policy.max_restarts or not self._policy.max_restarts else None

    def _run_engine(self, endings: Path, start: int) -> "_EngineEnd":
        me = os.getpid()
        try:
            engine = subprocess.Popen(
                self._rendered.command,
                env={**os.environ, **self._rendered.environ, **self._told_to_ranks(endings, start)},
                preexec_fn=lambda: die_with_parent(me),
            )
        except OSError as error:
            if error.errno == errno.E2BIG:
                raise ConfigError(
                    "the command and its environment are too long for this machine; let the script read its arguments "
                    "from a file"
                ) from None
            if error.errno not in _NO_PROGRAM:
                raise
            program = self._rendered.command[0]
            raise ConfigError(f"{program} cannot be started: {error.strerror}; give the path of a program") from None
        while engine.poll() is None:
            if os.getppid() != self._parent:
                _end_all()
                return _EngineEnd(1, is_final=True)
            if self._asked_to_stop or self._has_stopped(endings):
                return self._end_on_request(engine, endings)
            if fatal := self._fatal(endings):
                return self._end_by(fatal)
            self._abandoned.end(but=engine.pid)
            time.sleep(_POLL_S)
        _end_all()
        said = read_endings(endings)
        if fatal := self._fatal(endings):
            return self._end_by(fatal)
        if engine.returncode in self._rendered.gave_up:
            logger.error("given up: the launch engine saw no progress (exit code %d)", engine.returncode)
            return _EngineEnd(CrashLoopError.exit_code, is_final=True)
        if self._has_stopped(endings):
            return _EngineEnd(STOPPED, is_final=True)
        if engine.returncode <= 0:
            was_killed = engine.returncode < 0
            return _EngineEnd(128 - engine.returncode if was_killed else 0, not was_killed, was_killed)
        last = [one for one in said if one.restart == max(other.restart for other in said)]
        return _EngineEnd(last[0].exit_code if last else engine.returncode, is_final=False)

    def _told_to_ranks(self, endings: Path, start: int) -> dict[str, str]:
        told = {ENDINGS: str(endings), VARIABLE: as_json(self._policy), LAUNCH_ID: self._job}
        return told | {ENGINE_STARTS: str(start)} if self._is_one_node else told  # else each node would tell another

    def _has_stopped(self, endings: Path) -> bool:
        """Whether a rank that was told to end, and not by us, left with everything saved."""
        return any(one.exit_code == STOPPED for one in read_endings(endings))

    def _end_on_request(self, engine: subprocess.Popen[bytes], endings: Path) -> "_EngineEnd":
        by_whom = self._asked_to_stop or "a rank"  # which was told, and left with everything saved
        logger.warning("asked to stop by %s; ranks have %s to save and end", by_whom, self._policy.grace_period)
        ask_to_stop(endings, self._asked_to_stop or "SIGTERM")
        # The engine alone: it tells its ranks, and what they need for a last save is not told.
        engine.terminate()
        engine.send_signal(signal.SIGCONT)  # one that is stopped would take SIGTERM only then
        deadline = time.monotonic() + self._policy.grace_period
        while engine.poll() is None and os.getppid() == self._parent and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        _end_all()
        if fatal := self._fatal(endings):
            return self._end_by(fatal)
        if engine.returncode == 0:
            return _EngineEnd(0, is_final=True)
        return _EngineEnd(STOPPED if self._has_stopped(endings) else 128 + signal.SIGTERM, is_final=True)

    def _fatal(self, endings: Path) -> RankEnding | None:
        return next((one for one in read_endings(endings) if self._is_fatal(one)), None)

    def _is_fatal(self, one: RankEnding) -> bool:
        is_retried = one.exit_code in self._policy.retry or one.error in self._policy.retry
        return self._policy.is_fatal(one.exit_code, one.error) or (one.fatal and not is_retried)

    def _end_by(self, fatal: RankEnding) -> "_EngineEnd":
        what = f"{fatal.error} (exit code {fatal.exit_code})" if fatal.error else f"exit code {fatal.exit_code}"
        said = f": {fatal.message}" if fatal.message else ""
        logger.error("rank %d ended with %s, which no restart mends%s", fatal.rank, what, said)
        _end_all(float(self._policy.grace_period))
        is_named = fatal.exit_code in (*FATAL, *self._policy.fatal)
        return _EngineEnd(fatal.exit_code if is_named else ConfigError.exit_code, is_final=True)


class _EngineEnd(NamedTuple):
    code: int  # the job's own, where a rank has told it
    is_final: bool  # done, asked to stop, or by what no restart mends
    was_killed: bool = False  # the engine itself
