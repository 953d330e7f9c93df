"""Commit a point whose last part this process wrote, and what follows a commit."""

import logging
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from ..checkpoint import commit
from ..checkpoint.events import Committed
from ..checkpoint.layout import PointName, point_path
from ..config import ResumeConfig
from . import life
from .digester import Digester
from .pruning import Pruning

logger = logging.getLogger("megatron_resume")


AfterCommit = Callable[[PointName], None]


class Committer:
    """Makes whole points of one job visible to readers."""

    def __init__(
        self,
        root: Path,
        roles: Collection[str],
        stop_if_superseded: Callable[[], None],
        after_commit: Sequence[AfterCommit] = (),
        tell: Callable[[Committed], None] = life.tell,
    ):
        """`tell` records the commit for people, in the events of this process."""
        self.root, self.roles, self._tell = root, roles, tell
        self._stop_if_superseded, self._after_commit = stop_if_superseded, after_commit

    def commit(self, name: PointName, nonce: str, since: float) -> None:
        """Commit the point, of which nothing is missing and nothing differs.

        Args:
            since: when its last save began, of `time.monotonic`.

        Raises:
            OSError: The storage refused; the point is not committed.
        """
        self._stop_if_superseded()
        point = point_path(self.root, name)
        self._commit(point, name, nonce)
        lag_s, size, moment = time.monotonic() - since, commit.model_bytes(point, self.roles), commit.moment_of(point)
        logger.info(
            "committed %s (%s, %.1f MB; next episode %d, %d samples consumed) %.2f s after the save",
            name,
            ", ".join(self.roles),
            size / 1e6,
            moment.episode,
            moment.consumed_samples,
            lag_s,
        )
        self._tell(Committed(iteration=name.iteration, lag_s=round(lag_s, 3), bytes=size))
        self._act_on(name)

    def _commit(self, point: Path, name: PointName, nonce: str) -> None:
        try:
            commit.commit(point, name, nonce=nonce, roles=self.roles)
        except OSError as error:
            if not commit.is_committed(point):
                raise
            # Its content was fsynced before it got its name; readers see it, so the job goes on from it.
            logger.warning("%s is committed, but may not outlive a power cut: %s", name, with_path(error, point))

    def _act_on(self, committed: PointName) -> None:
        """Whatever goes wrong here, the point is committed."""
        for action in self._after_commit:
            try:
                action(committed)
            except Exception:
                logger.exception("%s is committed, but what follows a commit failed", committed)


def with_path(error: Exception, path: Path) -> str:
    """What went wrong and where: writing and fsync name no file of their own."""
    nameless = isinstance(error, OSError) and error.filename is None
    return f"{path}: {error}" if nameless else str(error)


def after_commits(root: Path, attempt: int, config: ResumeConfig) -> list[AfterCommit]:
    """What follows a commit in a running job: retention and digests, as far as they were asked for."""
    roles, follows = config.trained_roles, list[AfterCommit]()
    if config.max_data_ckpt_nums is not None:
        follows.append(Pruning(root, attempt, roles, config.max_data_ckpt_nums, config.resume_prune_models).committed)
    if config.resume_digests:
        follows.append(Digester(root, roles).committed)
    return follows
