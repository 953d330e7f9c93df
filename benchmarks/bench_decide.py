"""Promise: to decide among 10,000 committed points where to continue takes at most 30 ms."""

import sys
import tempfile
import time
from pathlib import Path

from megatron_resume.adapter.decision import decide
from megatron_resume.config import ResumeConfig
from megatron_resume.resume.choose import Resume
from points import JobOnDisk, save_points
from promise import Result, main, result

POINTS = 10_000
ATTEMPTS = 10
ROUNDS = 31


def measure() -> Result:
    with tempfile.TemporaryDirectory() as folder:
        job = JobOnDisk(Path(folder))
        newest = save_points(job, POINTS, ATTEMPTS)
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
