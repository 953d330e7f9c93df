"""Arguments for receipts and from them: sealed with the key of the job's folder."""

import logging
import secrets
from pathlib import Path

from ..checkpoint.digest_key import KeyRefusedError, made_key, read_key
from ..resume.recorded import Arguments
from ..resume.sealed import needs_key, sealed

logger = logging.getLogger("megatron_resume")


class Sealer:
    """Seals the arguments of one process's receipts. For the writer's thread: it may wait for the disk."""

    def __init__(self, root: Path) -> None:
        self._root, self._key, self._has_warned = root, b"", False

    def sealed(self, arguments: Arguments) -> Arguments:
        """`arguments` as a receipt may hold them. What needs no key makes none."""
        if not needs_key(arguments):
            return arguments
        return sealed(arguments, self._key or self._made_key())

    def _made_key(self) -> bytes:
        """The folder's key; else one that nobody keeps: no save fails for it, and no value is stored."""
        try:
            self._key = made_key(self._root)
        except (OSError, KeyRefusedError) as error:
            if not self._has_warned:
                logger.warning(
                    "%s; later starts will not see whether the arguments change that are stored by it", error
                )
            self._has_warned = True
            return secrets.token_bytes(32)
        return self._key


def key_for_comparing(root: Path) -> bytes | None:
    """The folder's key, if there is one that can be used; the writer says why not."""
    try:
        return read_key(root)
    except (OSError, KeyRefusedError):
        return None
