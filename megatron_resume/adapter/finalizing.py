"""Asynchronous saves that a loop leaves unfinished: Megatron is asked to finish them, by all ranks together."""

import logging
import os
import sys
from collections.abc import Callable
from typing import NoReturn

import msgspec
import torch.distributed as dist

from ..errors import DivergedError, ResumeError, UncommittedError
from ..watch import marks
from . import helper_processes, life, ranks, session
from .at_end import at_end_of_helper
from .end_of_process import EndOfProcess
from .finished import FinishedSave
from .handed_in import HandedIn

logger = logging.getLogger("megatron_resume")


class Save(msgspec.Struct):
    """A save that Megatron has begun; on an asynchronous one its requests finish later."""

    role: str
    iteration: int
    finished: FinishedSave | None = None  # on rank 0: what the writer gets
    tensors: HandedIn = msgspec.field(default_factory=HandedIn)
    completes: bool = False  # all that this process holds; the same on every rank
    nobody_was_asked: Callable[[], bool] | None = None  # to end, on any rank, when a save that completes began
    requests: int = 0  # asynchronous requests scheduled for it
    finalized: int = 0  # of these, how many ran their finalizers
    returned: bool = False
    calls: int = 0  # by the loop, of maybe_finalize_async_save, until it began

    @property
    def done(self) -> bool:
        return self.returned and self.finalized == self.requests


class Finalizing:
    """Who asks Megatron to finish asynchronous saves: the loop, or these hooks if it does not. Equal on every rank.

    Args:
        diverged: on rank 0, why the last save is not committed, if no later one would mend that.
    """

    def __init__(self, diverged: Callable[[], DivergedError | None]) -> None:
        self._diverged = diverged
        self.in_flight: list[Save] = []  # in the order in which they were begun
        self.calls = 0  # of maybe_finalize_async_save by the loop
        self._calls_at_step = 0  # of these, until the last train step ended
        self._is_ours = False  # the call that is under way
        self._end: EndOfProcess | None = None  # from the first save on
        self._last_words: ResumeError | None = None

    def watch_end(self) -> None:
        """Whatever is not finished before is, if possible, at the end of the process."""
        if self._end is None:
            self._end = EndOfProcess(self._finish_the_last, self._leave, self._give_up)
            at_end_of_helper(self.end_if_unfinished)

    def called(self) -> None:
        """Note that Megatron was asked."""
        self.calls += not self._is_ours

    def ask(self, *, blocking: bool) -> None:
        """Let Megatron finish what is written, or wait for all of it. Call on every rank."""
        from megatron.training import async_utils

        self._is_ours = True
        try:
            async_utils.maybe_finalize_async_save(blocking=blocking)
        finally:
            self._is_ours = False

    def after_step(self) -> None:
        """Ask, unless the loop did since the last step. Call on every rank."""
        loop_asks, self._calls_at_step = self.calls > self._calls_at_step, self.calls
        if self.in_flight and not loop_asks:
            self.ask(blocking=False)

    def before_save(self, role: str, limit: int) -> None:
        """Wait for earlier saves of `role`, unless the loop asked for them and they are few. Call on every rank.

        Raises:
            UncommittedError: None of the last `limit` was ever finished.
        """
        earlier = [save for save in self.in_flight if save.role == role]
        # A storage that is slower than the steps makes the job wait, and does not end it.
        if len(earlier) >= limit or any(save.calls == self.calls for save in earlier):
            self.ask(blocking=True)
        unfinished = [save.iteration for save in self.in_flight if save.role == role]
        if len(unfinished) >= limit:
            raise UncommittedError(
                f"the last saves of {role} came to no resume point ({len(unfinished)} in a row, from iteration "
                f"{unfinished[0]} on; the limit is {limit}): Megatron did not finish them. The next failure would cost "
                "all that work: call maybe_finalize_async_save(blocking=False) in each iteration, or drop "
                "--async-save; or allow more with --max-uncommitted-saves"
            )

    def forget(self) -> None:
        """For `uninstall`."""
        if self._end is not None:
            self._end.forget()

    # At the end of the process.

    def warn(self) -> None:
        """Name what was not finished, in a process that fails for another reason."""
        if self._last_words is not None:
            return
        for save in self.in_flight:
            logger.warning(
                "%s of iteration %d is not committed: its asynchronous save was never finished; call "
                "maybe_finalize_async_save(blocking=True) before leaving",
                save.role,
                save.iteration,
            )

    def end_if_unfinished(self) -> None:
        """Call last: rank 0, that was to end with 0, does not if the last saves will never be committed.

        Alone, since a launcher ends the others at once, perhaps before they have said anything.
        """
        if self._last_words is not None and ranks.rank() == 0:
            _end_process(self._last_words)

    def _finish_the_last(self) -> None:
        if self.in_flight and self._end is not None and dist.is_initialized():
            try:
                with self._end.in_time():
                    self.ask(blocking=True)
            except Exception as error:  # of a group that lost a rank
                logger.warning("the last asynchronous saves could not be finished: %r", error)

    def _give_up(self) -> None:
        """In a thread, while the main one waits for ranks that do not come."""
        self._leave()
        if self._last_words is not None:
            _end_process(self._last_words)

    def _leave(self) -> None:
        current = session.current()
        if current is not None:
            current.wait_for_commits()
        error = self._last_words = self._error()
        if error is not None and ranks.rank() == 0:
            life.ends_by(error)
            marks.fails_by(error)

    def _error(self) -> ResumeError | None:
        if not self.in_flight:
            return self._diverged()
        named = ", ".join(f"{save.role} of iteration {save.iteration}" for save in self.in_flight)
        return UncommittedError(
            f"{named} will never be committed: Megatron did not finish these asynchronous saves, and the next start "
            "goes back behind them. Let all ranks end together, or call maybe_finalize_async_save(blocking=True) "
            "on all of them after the last save"
        )


def _end_process(error: ResumeError) -> NoReturn:
    logger.error("rank %d: %s", ranks.rank(), error)
    helper_processes.kill_all()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(error.exit_code)
