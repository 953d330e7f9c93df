"""Promise: `status` on a folder with 100 resume points takes at most 0.3 s, from start to exit."""

import json
import sys
import tempfile
import time
from pathlib import Path

from promise import Result, compile_package, fresh_process, main, result

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

from job_on_disk import JobOnDisk

POINTS = 100
ROUNDS = 11


def seconds(*arguments: str) -> float:
    begin = time.perf_counter()
    fresh_process(*arguments)
    return time.perf_counter() - begin


def measure() -> Result:
    compile_package()
    with tempfile.TemporaryDirectory() as folder:
        job = JobOnDisk(Path(folder))
        attempt = job.attempt()
        for iteration in range(1, POINTS + 1):
            job.save(attempt, iteration)
        status = ("-m", "megatron_resume", "status", str(job.root))
        report = json.loads(fresh_process(*status, "--json"))
        assert report["outcome"] == "resume", report
        assert len(report["points"]) == POINTS
        tables = [seconds(*status) for _ in range(ROUNDS)]
    bare = sorted(seconds("-c", "") for _ in range(ROUNDS))[ROUNDS // 2]
    return result(f"status of {POINTS} points", tables, 0.3, "s", python_itself=round(bare, 3))


if __name__ == "__main__":
    sys.exit(main(measure))
