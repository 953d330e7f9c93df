"""The thread on rank 0 that makes finished saves durable, writes their receipts, and commits."""

import logging
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import msgspec

from ..checkpoint import arrays as codec
from ..checkpoint import commit
from ..checkpoint.fencing import lost_name, own_name
from ..checkpoint.layout import PointName, model_folder, point_path
from ..checkpoint.model_files import record_files
from ..checkpoint.records import Receipt
from ..crash import crash_point
from ..errors import ConfigError, DamagedError, DivergedError, UncommittedError, UnreadableError
from . import sharing
from .at_end import at_end
from .committer import Committer, with_path
from .finished import FinishedSave
from .gathering import keys_of
from .orders import PROOF
from .sealing import Sealer

logger = logging.getLogger("megatron_resume")


class Writer:
    """Commits finished saves in the background, in order; leaving the process waits for it."""

    def __init__(
        self,
        root: Path,
        roles: Collection[str],
        stop_if_superseded: Callable[[], None],
        after_commit: Sequence[Callable[[PointName], None]] = (),
    ):
        self.root, self.roles = root, roles
        self._sealer = Sealer(root)
        self._committer = Committer(root, roles, stop_if_superseded, after_commit)
        self._queue: queue.Queue[tuple[FinishedSave, float]] = queue.Queue()
        self._pid = os.getpid()
        self._incomplete: dict[PointName, list[str]] = {}  # points that still lack parts
        self._failed: dict[PointName, str] = {}  # since the last commit: points that came to nothing, and why
        self.diverged: DivergedError | None = None  # why the last save is not committed; no later one would mend it
        self._refused_in: int | None = None  # the last episode of which a save was refused
        self._unused: deque[str] = deque()  # keys of what ranks handed in for saves that failed
        threading.Thread(target=self._work, name="megatron_resume writer", daemon=True).start()
        at_end(self.wait)

    def enqueue(self, save: FinishedSave) -> None:
        """All that the training thread pays."""
        self._queue.put((save, time.monotonic()))

    def refuse(self, name: PointName, episode: int, reason: str) -> None:
        """Count a save that will not be committed, once in an episode: others in it may be."""
        if episode != self._refused_in:
            self._refused_in = episode
            self._failed[name] = reason

    def check(self, limit: int) -> None:
        """Raises UncommittedError when the last `limit` points or more came to nothing."""
        if len(self._failed) >= limit:
            self._forget_failures_before_other_commits()
        failed = dict(self._failed)
        if len(failed) >= limit:
            last, reason = list(failed.items())[-1]
            raise UncommittedError(
                f"the last saves came to no resume point ({len(failed)} in a row; the limit is {limit}), "
                f"{last} because: {reason}. The next failure would cost all that work: repair what is named here and "
                "start again, or allow more with --max-uncommitted-saves"
            )

    def _forget_failures_before_other_commits(self) -> None:
        """In a job per role, points are also committed by the other role's process."""
        known = {*list(self._failed), *list(self._incomplete)}
        committed = [name for name in known if commit.is_committed(point_path(self.root, name))]
        self._forget_failures_until(max(committed, default=None))

    def _forget_failures_until(self, committed: PointName | None) -> None:
        for name in list(self._failed):
            if committed is not None and name <= committed:
                self._failed.pop(name, None)

    def waiting(self) -> dict[PointName, list[str]]:
        """Points that nobody committed yet, since parts of other processes are still to come; call after `wait`."""
        unseen = list(self._incomplete.items())
        return {name: missing for name, missing in unseen if not commit.is_committed(point_path(self.root, name))}

    def take_unused(self) -> tuple[str, ...]:
        """Keys under which ranks left what no point will hold, once each; for the next that is gathered to delete."""
        return tuple(self._unused.popleft() for _ in range(len(self._unused)))

    def wait(self) -> None:
        """Return when everything enqueued is written, or was given up with a warning."""
        if os.getpid() == self._pid:  # a forked child has no such thread
            self._queue.join()

    def _work(self) -> None:
        while True:
            save, since = self._queue.get()
            try:
                self._write(save, since)
            except (OSError, DamagedError, ConfigError, UnreadableError) as error:
                self.diverged = error if isinstance(error, DivergedError) else None
                reason = with_path(error, point_path(self.root, save.name))
                if save.loses_work:
                    self._failed[save.name] = reason
                logger.warning("%s of %s is not committed: %s; the next save tries again", save.role, save.name, reason)
                self._unused.extend(keys_of(save.states))
            except Exception as error:
                logger.exception("%s of %s is not committed", save.role, save.name)
                self._failed[save.name] = repr(error)
                self._unused.extend(keys_of(save.states))
            finally:
                self._queue.task_done()

    def _write(self, save: FinishedSave, since: float) -> None:
        if save.problem:
            raise DamagedError(save.problem)
        point = point_path(self.root, save.name)
        commit.make_name_durable(point)
        receipt = self._receipt(save)
        crash_point("model.synced", save.role)
        commit.write_receipt(point, receipt)
        logger.info("saved %s of %s (%.1f MB)", save.role, save.name, sum(file.size for file in receipt.files) / 1e6)
        if save.data is not None:
            _write_data(point, save)
        missing = commit.missing_parts(point, self.roles)
        if missing:
            self._warn_of_older_than(save)
            self._incomplete[save.name] = missing  # the other roles are still to come
            return
        self._incomplete.pop(save.name, None)
        differing = commit.differing_parts(point, self.roles)
        if differing:
            logger.warning(
                "%s is not committed: its parts are of different moments: %s; save all roles before the next advance()",
                save.name,
                "; ".join(differing),
            )
            self._failed[save.name] = "; ".join(differing)
            return
        self._committer.commit(save.name, save.nonce, since)
        self._failed.clear()

    def _warn_of_older_than(self, save: FinishedSave) -> None:
        for name in [name for name in self._incomplete if name < save.name]:
            if commit.is_committed(point_path(self.root, name)):  # by the other role's process
                del self._incomplete[name]
                self._forget_failures_until(name)
                continue
            missing = ", ".join(self._incomplete.pop(name))
            self._failed[name] = f"{missing} not saved at that iteration"
            logger.warning(
                "%s was not committed when %s of iteration %d was saved: %s not saved at that iteration. All of %s "
                "must be saved at the same iterations (a job of one role alone: --trained-roles %s)",
                name,
                save.role,
                save.name.iteration,
                missing,
                ", ".join(self.roles),
                save.role,
            )

    def _receipt(self, save: FinishedSave) -> Receipt:
        lost = lost_name(self.root, save.name.attempt, save.role, save.save)
        if lost:
            raise DamagedError(lost)
        folder = own_name(self.root, save.name.attempt, save.role) / model_folder(save.name.iteration)
        files = record_files(folder)
        if not files:  # as Megatron leaves it if nothing of the model was to be saved
            raise DamagedError(f"no file is in {save.save}/{folder.name}, so nothing could be loaded from it")
        return Receipt(
            role=save.role,
            iteration=save.name.iteration,
            attempt=save.name.attempt,
            nonce=save.nonce,
            directory=save.save,
            relative=os.path.relpath(save.save, self.root),
            format=save.format,
            files=files,
            progress=save.progress,
            consumed_train_samples=save.consumed_train_samples,
            scheduler_steps=save.scheduler_steps,
            versions=save.versions,
            arguments=self._sealer.sealed(save.arguments),
            tensors=save.tensors.collect(),
        )


def _write_data(point: Path, save: FinishedSave) -> None:
    data, arrays = save.data, save.arrays
    assert data is not None and isinstance(data.tracked, dict)
    if save.states is not None:
        random_states, of_ranks, arrays_of_ranks = save.states.unpack(sharing.Captured(data.tracked, arrays))
        data = msgspec.structs.replace(data, rng=random_states, tracked={**data.tracked, **of_ranks})
        arrays = {**arrays, **arrays_of_ranks}
    data = msgspec.structs.replace(data, fingerprints={name: {PROOF: prove()} for name, prove in save.proofs.items()})
    commit.write_data(point, data, codec.dump(arrays) if arrays else None)
