"""Jobs with very many points, most of them links to others: for benchmarks that look at a folder."""

import os
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

from megatron_resume.checkpoint.layout import PointName, point_path
from support.job_on_disk import JobOnDisk


def save_points(job: JobOnDisk, points: int, attempts: int) -> PointName:
    """Save `points` points of `attempts` attempts, each continuing from the last point of the one before.

    Returns the newest. The last point of each attempt is real; the others are links to it: nobody is to read them.
    """
    each, newest = points // attempts, None
    for first in range(1, points, each):
        attempt = job.attempt(newest)
        newest = job.save(attempt, first + each - 1)
        for iteration in range(first, newest.iteration):
            _link(point_path(job.root, newest), point_path(job.root, PointName(iteration, attempt)))
            for role in job.roles:
                _link(job.model(role, newest.iteration), job.model(role, iteration))
    assert newest is not None
    return newest


def _link(folder: Path, copy: Path) -> None:
    """Make `copy` with links to the files of `folder`."""
    os.mkdir(copy)
    for file in os.listdir(folder):
        os.link(folder / file, copy / file)
