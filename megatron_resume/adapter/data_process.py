"""The process that owns the data where trained roles live in others: what it continues from, its part of a point."""

import functools
import logging
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..checkpoint import attempts, commit, leases
from ..checkpoint.events import Committed, append, events_path
from ..checkpoint.folder import start_of
from ..checkpoint.launch_key import launch_key
from ..checkpoint.layout import PointName, point_path
from ..checkpoint.records import DataCheckpoint, Moment, Start
from ..checkpoint.storage import be_patient
from ..config import ResumeConfig
from ..crash import crash_point
from ..errors import ConfigError, DamagedError, RejoinError, UnreadableError
from ..resume.choose import Fresh, Resume
from . import decision
from .committer import Committer, after_commits, with_path
from .lease_keeper import superseded

logger = logging.getLogger("megatron_resume")

EVENTS = "data"  # instead of a role: whose events these are


class DataProcess:
    """Holds no role and no place in an attempt, so that it can be made before the trained roles begin.

    It chooses by their rule from the same folder, which gives the same before and after they began; and it writes into
    the attempt that they began under the name of this start, or nowhere.
    """

    def __init__(self, config: ResumeConfig, name: str):
        self.config, self._name = config, name
        be_patient(config.resume_read_timeout)
        self.root = Path(os.path.abspath(str(config.data_checkpoint_path)))

    @functools.cached_property
    def outcome(self) -> Fresh | Resume:
        """What this start does.

        Raises:
            ResumeError: It is refused.
        """
        return decision.accepted(decision.decide(self.root, self.config, launch_key(os.environ))[1])

    def check_continues_with_roles(self) -> None:
        """Raises RejoinError where the trained roles of this start did not begin with the same point."""
        _ = self._start

    def save(self, iteration: int, moment: Moment, tracked: dict[str, Any]) -> None:
        """Write the data of a point whose models were saved before, and commit it where it is the last part.

        Where the storage fails a WARNING says so, and training goes on.

        Raises:
            RejoinError: The trained roles of this start are in no attempt that continues from where this one does,
                or a newer attempt began.
        """
        since = time.monotonic()
        with suppress(UnreadableError):  # looked for again before the commit
            self._check_not_superseded()
        name = PointName(iteration, self._start.attempt)
        try:
            self._save(name, moment, tracked, since)
        except (OSError, DamagedError, ConfigError, UnreadableError) as error:
            reason = with_path(error, point_path(self.root, name))
            logger.warning("data of %s is not committed: %s; the next save tries again", name, reason)

    def _save(self, name: PointName, moment: Moment, tracked: dict[str, Any], since: float) -> None:
        point, nonce, roles = commit.open_point(self.root, name), self._start.nonce, self.config.trained_roles
        data = DataCheckpoint(
            iteration=name.iteration,
            attempt=name.attempt,
            nonce=nonce,
            progress=moment,
            tracked=tracked,
            rng=None,
            fingerprints={},
        )
        commit.make_name_durable(point)
        try:
            commit.write_data(point, data, None)
        except FileExistsError:
            logger.info("the data of %s is saved already and not saved again", name)
            return
        crash_point("data.end")
        if commit.missing_parts(point, roles):
            return  # whoever writes the last part commits
        differing = commit.differing_parts(point, roles)
        if differing:
            raise DamagedError(f"its parts are of different moments: {'; '.join(differing)}")
        self._committer.commit(name, nonce, since)

    @functools.cached_property
    def _start(self) -> Start:
        """The attempt of this start's trained roles."""
        number = max(attempts.started(self.root), default=0)
        held = [leases.read_lease(self.root, number, role) for role in self.config.trained_roles]
        start, outcome = start_of(self.root, number), self.outcome
        if start is None or self._name not in [lease.start for lease in held if lease is not None]:
            raise RejoinError(
                f"attempt {number} of {self.root} is not of this start, whose data is to be saved; restart to join it"
            )
        ours = outcome.point.name if isinstance(outcome, Resume) else None
        if start.parent != ours:
            raise RejoinError(
                f"attempt {number} continues from {start.parent or 'nothing'}, its data from {ours or 'nothing'}: "
                "another resume point was committed while this start was under way; restart to take it"
            )
        return start

    @functools.cached_property
    def _committer(self) -> Committer:
        follows = after_commits(self.root, self._start.attempt, self.config)
        return Committer(self.root, self.config.trained_roles, self._check_not_superseded, follows, self._tell)

    def _tell(self, event: Committed) -> None:
        path = events_path(self.root, self._start.attempt, EVENTS)
        try:
            append(path, event)
        except OSError as error:
            logger.warning("%s cannot be written: %s", path, error.strerror)

    def _check_not_superseded(self) -> None:
        newer = attempts.newer_than(self.root, self._start.attempt)
        if newer is not None:
            raise superseded(self._start.attempt, newer)
