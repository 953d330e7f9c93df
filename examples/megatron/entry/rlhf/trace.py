"""The trace of a run: one JSON line per iteration, appended and never cut by a restart."""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from .experience import Experience


@dataclass(frozen=True)
class Iteration:
    """What one iteration did, over all data-parallel ranks."""

    attempt: int
    episode: int
    iteration: int
    prompt_ids: list[int]  # positions of the prompts in the run
    prompt_rows: list[int]  # their rows in the file
    tokens_sha256: str
    reward: float
    policy_loss: float
    value_loss: float
    kl: float
    lr: float

    def line(self) -> str:
        """One JSON line, with floats as hexadecimal: equal text means equal bits."""
        record = {key: v.hex() if isinstance(v, float) else v for key, v in asdict(self).items()}
        return json.dumps(record) + "\n"


def tokens_digest(minibatch: Experience) -> str:
    """SHA-256 of a minibatch's token ids in their order."""
    return hashlib.sha256(minibatch.tokens.cpu().numpy().tobytes()).hexdigest()


def append(path: Path, iteration: Iteration) -> None:
    """Add a line and flush it. Call on one process only.

    A run that was killed while writing may have left half a line; a new one then starts after a line
    feed, so that only the half line is lost.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab+") as file:
        if file.seek(0, os.SEEK_END) and not _ends_whole(file.fileno(), file.tell()):
            file.write(b"\n")
        file.write(iteration.line().encode())


def _ends_whole(descriptor: int, size: int) -> bool:
    return os.pread(descriptor, 1, size - 1) == b"\n"
