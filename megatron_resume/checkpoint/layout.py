"""Where everything lies below `data_checkpoint_path`, and the names it has there."""

import re
from pathlib import Path
from typing import NamedTuple

ATTEMPTS = "attempts"
START = "start.json"
UNTRAINED = "untrained.json"
DATA = "data.json"
ARRAYS = "data.safetensors"
COMMITTED = "COMMITTED"
DIGESTS = "digests"
DIGEST_KEY = "digest.key"
ABANDONED = "abandoned"  # below the save folder of a role
PRUNED = "pruned"  # below data_checkpoint_path and the save folder of a role: what retention removes
TRACKER = "latest_checkpointed_iteration.txt"  # Megatron's

# Each number is written in one way only, so that no two names mean the same; beyond any sense, it is not ours.
_ITERATION, _NUMBER = "([0-9]{7}|[1-9][0-9]{7,14})", "([0-9]{4}|[1-9][0-9]{4,8})"
MAX_ATTEMPT = 10**9 - 1
_POINT = re.compile(rf"iter_{_ITERATION}\.a{_NUMBER}")
_POINTS = rf"(?<![^/]){_POINT.pattern}(?![^/])"
_ATTEMPT = re.compile(_NUMBER)
_MODEL = re.compile(f"iter_{_ITERATION}")


class PointName(NamedTuple):
    """One point: what attempt `attempt` saved at Megatron's iteration `iteration`."""

    iteration: int
    attempt: int

    def __str__(self) -> str:
        return f"iteration {self.iteration} of attempt {self.attempt}"

    @property
    def folder(self) -> str:
        return f"iter_{self.iteration:07d}.a{self.attempt:04d}"


def parse_point(folder: str) -> PointName | None:
    match = _POINT.fullmatch(folder)
    return PointName(int(match[1]), int(match[2])) if match else None


def parse_points(folders: list[str]) -> dict[int, list[int]]:
    """The points among `folders`, as iterations of each attempt. Thousands at once: one by one takes thrice as long."""
    found: dict[str, list[str]] = {}
    for iteration, attempt in re.findall(_POINTS, "/".join(folders)):  # no name holds a slash
        found.setdefault(attempt, []).append(iteration)
    return {int(attempt): list(map(int, iterations)) for attempt, iterations in found.items()}


def parse_attempt(folder: str) -> int | None:
    return int(folder) if _ATTEMPT.fullmatch(folder) else None


def parse_model(folder: str) -> int | None:
    """The iteration of one of Megatron's own folders, as in `iter_0000042`."""
    match = _MODEL.fullmatch(folder)
    return int(match[1]) if match else None


def model_folder(iteration: int) -> str:
    return f"iter_{iteration:07d}"


def attempt_path(root: Path, attempt: int) -> Path:
    return root / ATTEMPTS / f"{attempt:04d}"


def point_path(root: Path, point: PointName) -> Path:
    return root / point.folder


def digests_path(root: Path, point: PointName, role: str) -> Path:
    """Beside the points, since a committed one never changes but by vanishing whole."""
    return root / DIGESTS / point.folder / receipt_file(role)


def receipt_file(role: str) -> str:
    return f"{role}.json"
