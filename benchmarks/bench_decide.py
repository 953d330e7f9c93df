"""Promise: to decide among 10,000 committed points where to continue takes at most 30 ms."""

import os
import sys
import tempfile
import time
from pathlib import Path

from promise import Result, main, result

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

from job_on_disk import JobOnDisk

from megatron_resume.adapter.decision import decide
from megatron_resume.checkpoint.layout import PointName, point_path
from megatron_resume.config import ResumeConfig
from megatron_resume.resume.choose import Resume

POINTS = 10_000
ATTEMPTS = 10  # each continues from the last point of the one before
ROUNDS = 31


def save_points(job: JobOnDisk) -> PointName:
    """Save `POINTS` points, whose newest is given back. The others are links to it: nobody is to read them."""
    each, newest = POINTS // ATTEMPTS, None
    for first in range(1, POINTS, each):
        attempt = job.attempt(newest)
        newest = job.save(attempt, first + each - 1)
        files = list(point_path(job.root, newest).iterdir())
        for iteration in range(first, newest.iteration):
            point = point_path(job.root, PointName(iteration, attempt))
            point.mkdir()
            for file in files:
                os.link(file, point / file.name)
    assert newest is not None
    return newest


def measure() -> Result:
    with tempfile.TemporaryDirectory() as folder:
        job = JobOnDisk(Path(folder))
        newest = save_points(job)
        config, launch = ResumeConfig(), job.launch("another")
        samples, cpu = [], []
        for _ in range(ROUNDS):
            begin, cpu_begin = time.perf_counter(), time.process_time()
            found, outcome = decide(job.root, config, launch)
            samples.append(1e3 * (time.perf_counter() - begin))
            cpu.append(1e3 * (time.process_time() - cpu_begin))
            assert isinstance(outcome, Resume), outcome
            assert outcome.point.name == newest
        assert len(found.committed) == POINTS
    name = f"decision among {POINTS:,} points"
    return result(name, samples, 30, "ms", of_that_cpu_time=round(sorted(cpu)[ROUNDS // 2], 1))


if __name__ == "__main__":
    sys.exit(main(measure))
