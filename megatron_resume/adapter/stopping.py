"""SIGTERM in a job that trains: what was trained is committed and the process ends with 202, or it ends as told.

A rank that was told knows it alone. So ranks agree where all of them come by: in `should_stop`, when a save is
finished, or where Megatron's loop asks. A rank leaves by itself only where nothing would be lost, whatever others do.
"""

import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any, NoReturn

from ..checkpoint import commit
from ..checkpoint.events import Stopped
from ..checkpoint.failures import Failure, failures_path, life_of, read_failures
from ..checkpoint.layout import PointName, point_path
from ..errors import STOPPED
from ..hooks import AnyFunction
from ..policy import VARIABLE, policy_of_environ
from ..watch import marks
from ..watch.endings import VARIABLE as ENDINGS
from ..watch.endings import asked_to_stop_by
from ..watch.sigterm import Listener, die
from . import helper_processes, life, ranks
from .session import Session, current

logger = logging.getLogger("megatron_resume")

SIGTERM = 128 + 15  # exit code
LOOK_S = 0.2
SURE_S = 2.0  # after which a rank that failed has been recorded, and its launcher is not ending us for that
LEAVE_S = 5.0  # for the main thread to leave, before it is not asked any more

_listener: Listener | None = None
_agreed = False  # by all ranks
_in_megatrons_loop = False  # which saves and leaves by itself
_exits: Any = None  # sys.exit, where it is replaced


def listen(session: Session) -> None:
    """From now on SIGTERM means: save what was trained. Again where Megatron took the signal since."""
    global _listener
    if not marks.is_watched() or threading.current_thread() is not threading.main_thread():
        return
    if _listener is None:
        grace_s = float(policy_of_environ(os.environ).grace_period)
        _listener = Listener(lambda: _count_down(session, grace_s))
    if not _listener.take() and ranks.rank() == 0:
        logger.debug("the script handles SIGTERM itself")


def forget() -> None:
    """For `uninstall`, which also ends the session."""
    global _agreed, _in_megatrons_loop, _exits
    _agreed = _in_megatrons_loop = False
    if _exits is not None:
        sys.exit, _exits = _exits, None


def _was_asked() -> bool:
    return _listener is not None and _listener.was_asked


def should_stop(session: Session) -> bool:
    """Whether any rank was asked to end. Call on every rank, at the same place of the loop.

    Raises:
        SystemExit: 202, where it was and all that was trained is committed.
    """
    global _agreed
    if not _agreed:
        _agreed = not ranks.everywhere(not _was_asked())
        _say_that_it_stops()
    if _agreed:
        from megatron.training import async_utils

        async_utils.maybe_finalize_async_save(blocking=True)  # nothing else may do so in time
        if ranks.from_rank_0([int(_is_all_committed(session))])[0]:
            _leave(session)
    return _agreed


def is_agreed() -> bool:
    return _agreed and not _in_megatrons_loop


def is_in_megatrons_loop() -> bool:
    """Whether a rank was told to end, and Megatron's own loop saves and leaves for it."""
    return _in_megatrons_loop


def ask_before_save() -> Callable[[], bool] | None:
    """Ask all ranks whether any was told to end. Call on every rank when a save begins that completes a point.

    The answer is there when the save is finished: to ask then would make the training wait for the slowest rank. What
    was trained while an asynchronous save was finished is done again: the next one may come too late. The
    question costs each save 0.2 ms (on a CPU), so jobs that nobody gave a policy do without: they call `should_stop`.
    """
    if _agreed or _in_megatrons_loop or VARIABLE not in os.environ:  # the same on every rank
        return None
    return ranks.everywhere_soon(not _was_asked())


def saved_all(session: Session, name: PointName, nobody_was_asked: Callable[[], bool] | None) -> None:
    """Call on every rank when the last save of what this process holds is finished.

    Raises:
        SystemExit: 202, where any rank was asked to end before that save and `name` is committed now.
    """
    global _agreed
    if _in_megatrons_loop:
        return
    if not _agreed and nobody_was_asked is not None:
        _agreed = not nobody_was_asked()
        _say_that_it_stops()
    if _agreed and ranks.from_rank_0([int(_comes_to_be_committed(session, name))])[0]:
        _leave(session)


def _say_that_it_stops() -> None:
    if _agreed and ranks.rank() == 0:
        logger.warning("asked to stop: the process ends with %d as soon as what was trained is committed", STOPPED)


def _comes_to_be_committed(session: Session, name: PointName) -> bool:
    """On rank 0: wait for the commit, of another role's job where there is one."""
    if ranks.rank() != 0:
        return False
    session.wait_for_commits()
    deadline = time.monotonic() + LEAVE_S
    while not (found := commit.is_committed(point_path(session.root, name))) and time.monotonic() < deadline:
        if len(session.save_folders) == len(session.config.trained_roles):
            break  # all of it was here
        time.sleep(LOOK_S)
    if not found:
        logger.warning("asked to stop, but %s is not committed; the next save tries again", name)
    return found


def _is_all_committed(session: Session) -> bool:
    """Whether a restart would lose no train step of this process."""
    if not session.trained:
        return True
    saved = session.saved_at
    if not saved or set(saved) != set(session.save_folders) or len(set(saved.values())) > 1:
        return False
    iteration, trained = next(iter(saved.values()))
    return trained == session.trained and commit.is_committed(
        point_path(session.root, PointName(iteration, session.attempt))
    )


def _leave(session: Session) -> NoReturn:
    from megatron.training import async_utils

    _close_workers(async_utils)
    _record(session, STOPPED)
    sys.exit(STOPPED)


def _close_workers(async_utils: ModuleType) -> None:
    close = async_utils.maybe_finalize_async_save
    try:
        close(blocking=True, terminate=True)
    except TypeError:  # up to 0.11 there is none to terminate
        close(blocking=True)


def _record(session: Session, exit_code: int) -> None:
    if _listener is not None:
        _listener.leaves()
    life.ends_with(Stopped(reason=_signal(), exit_code=exit_code))
    marks.leaves(exit_code)


# The thread of the listener, on a rank that was told itself.


def _count_down(session: Session, grace_s: float) -> None:
    """Leave as soon as nothing would be lost; end at the end of the grace period, before somebody kills us."""
    assert _listener is not None
    asked_s = time.monotonic()
    deadline = asked_s + grace_s - min(2.0, grace_s / 10)
    _tell_megatron()
    has_said = False
    while time.monotonic() < deadline:
        if (failed := _another_failed(session)) is not None:
            _say("rank %d failed; this rank is ended with it, and committed points stay", failed.rank)
            _die()
        if not has_said and _is_the_job_asked(asked_s):
            has_said = True
            _say("asked to stop (%s); there are %.0f s to save", _signal(), deadline - time.monotonic())
        if not _listener.is_leaving and _may_leave(asked_s) and _could_leave(session):
            logger.warning(
                "asked to stop: rank %d ends with %d; all that was trained is committed", ranks.rank(), STOPPED
            )
            marks.leaves(STOPPED)  # a launcher may collect the exit code before the watchdog sees it
            _listener.have_main_thread_leave(STOPPED)
            time.sleep(min(LEAVE_S, max(0.0, deadline - time.monotonic())))
            _end_now(session, STOPPED)  # it waits for somebody
        time.sleep(LOOK_S)
    if _listener.is_leaving:
        _end_now(session, STOPPED)
    logger.warning("rank %d was asked to stop and came to no save in time; committed points stay", ranks.rank())
    _record(session, SIGTERM)
    _release(session)
    _die()


def _say(text: str, *values: object) -> None:
    if ranks.rank() == 0:
        logger.warning(text, *values)


def _die() -> None:
    helper_processes.kill_all()
    die()


def _could_leave(session: Session) -> bool:
    """Whether nothing would be lost now, and no copy of a checkpoint be left half written."""
    return not marks.is_in("checkpoint") and _is_all_committed(session)


def _end_now(session: Session, exit_code: int) -> None:
    _record(session, exit_code)
    session.wait_for_commits()
    _release(session)
    helper_processes.kill_all()
    sys.stderr.flush()
    os._exit(exit_code)


def _release(session: Session) -> None:
    if session.lease_keeper is not None:
        session.lease_keeper.release()


def _another_failed(session: Session) -> Failure | None:
    """The rank because of whose end a launcher ends this one: without it nothing can be saved."""
    found = read_failures(failures_path(session.root, session.attempt, life_of(os.environ)))
    others = [one for one in found if one.rank != ranks.rank() and one.how != "stopped" and one.signal != "SIGTERM"]
    return min(others, key=lambda failure: failure.time_s, default=None)


def _may_leave(asked_s: float) -> bool:
    """Whether it is sure that it is the job that is asked to end, and not this rank after the death of another."""
    is_one_node = os.environ.get("WORLD_SIZE") == os.environ.get("LOCAL_WORLD_SIZE")
    return _was_launch_asked() or (is_one_node and _is_the_job_asked(asked_s))


def _is_the_job_asked(asked_s: float) -> bool:
    """As far as this machine can know: another one may be slow to record that a rank of it failed."""
    return _was_launch_asked() or time.monotonic() - asked_s > SURE_S


def _was_launch_asked() -> bool:
    return bool(asked_to_stop_by(os.environ.get(ENDINGS, "")))


def _signal() -> str:
    """What somebody sent: to `launch`, or to this process."""
    return asked_to_stop_by(os.environ.get(ENDINGS, "")) or "SIGTERM"


# Megatron's own loop, `pretrain`, looks after each step whether a rank got a signal, saves, and leaves with 0.


def _tell_megatron() -> None:
    handler = getattr(sys.modules.get("megatron.training.global_vars"), "_GLOBAL_SIGNAL_HANDLER", None)
    if handler is not None:
        handler._signal_received = True


def have_megatron_look(args: Any) -> None:
    """Under a policy: as `--exit-signal-handler` does. Call on every rank, in the first train step."""
    from megatron.training import dist_signal_handler, global_vars

    if VARIABLE not in os.environ or _listener is None or getattr(args, "exit_signal_handler", True):
        return
    handler = dist_signal_handler.DistributedSignalHandler()
    handler._signal_received = False
    global_vars._GLOBAL_SIGNAL_HANDLER = handler
    args.exit_signal_handler = True


def wrap_signals_received(original: AnyFunction) -> AnyFunction:
    """Megatron asks all ranks; where one was told, it saves and leaves."""

    def signals_received(self: Any, *args: Any, **kwargs: Any) -> Any:
        global _agreed, _in_megatrons_loop, _exits
        found = original(self, *args, **kwargs)
        session = current()
        if session is not None and any(found) and not _in_megatrons_loop:
            _agreed = _in_megatrons_loop = True
            _exits, sys.exit = sys.exit, lambda status=None, /: _exit(session, status)
        return found

    return signals_received


def _exit(session: Session, status: Any) -> NoReturn:
    """What Megatron calls on every rank: 0 would tell the launcher that the job is done."""
    forget()
    if status in (None, 0):
        status = STOPPED if ranks.from_rank_0([int(_is_committed_by_now(session))])[0] else SIGTERM
        _record(session, status)
    sys.exit(status)


def _is_committed_by_now(session: Session) -> bool:
    session.wait_for_commits()
    return _is_all_committed(session)
