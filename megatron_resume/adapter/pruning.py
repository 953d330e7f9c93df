"""Retention in a running job: after a commit, its writer removes what the newest points make needless."""

import logging
from pathlib import Path

import msgspec

from ..checkpoint.events import Pruned
from ..checkpoint.fencing import own_name
from ..checkpoint.folder import read_folder, read_point
from ..checkpoint.layout import PointName
from ..checkpoint.records import Receipt
from ..checkpoint.removal import Removed, finish, remove
from ..errors import ConfigError, DamagedError, MismatchError, RejoinError, UnreadableError
from ..resume.retention import surplus
from . import life

logger = logging.getLogger("megatron_resume")


class Pruning(msgspec.Struct):
    """Keeps the newest `keep` points of the live line."""

    root: Path
    attempt: int
    roles: tuple[str, ...]
    keep: int
    models: bool  # whether the models of a removed point go, too
    looked_back: bool = False  # at what earlier attempts left unfinished

    def committed(self, name: PointName) -> None:
        """Remove the surplus. Never raises: training goes on, and the next commit tries again."""
        try:
            self._remove_surplus()
        except RejoinError:
            return  # this process ends at its next look for newer attempts
        except (OSError, ConfigError, UnreadableError) as error:
            logger.warning("resume points in %s cannot be removed: %s; the next commit tries again", self.root, error)

    def _remove_surplus(self) -> None:
        names = surplus(read_folder(self.root), self.keep, self._is_whole)
        for removed in remove(self.root, names, self._save_of, attempt=self.attempt, models=self.models):
            _tell(removed)
        if not self.looked_back:
            for removed in finish(self.root, self._save_of, attempt=self.attempt, models=self.models):
                _tell(removed)
            self.looked_back = True

    def _is_whole(self, name: PointName) -> bool:
        try:
            read_point(self.root, name, self.roles)
        except (DamagedError, MismatchError):
            return False
        return True

    def _save_of(self, receipt: Receipt) -> Path:
        """By the name that a newer attempt takes away."""
        return own_name(self.root, self.attempt, receipt.role)


def _tell(removed: Removed) -> None:
    logger.info("pruned %s (%.1f MB of models)", removed.point, removed.bytes / 1e6)
    name = removed.point
    life.tell(Pruned(iteration=name.iteration, attempt=name.attempt, bytes=removed.bytes))
    for reason in removed.left:
        logger.warning("a model of %s is left where it stands: %s", removed.point, reason)
