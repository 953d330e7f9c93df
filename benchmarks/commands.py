"""How long a command that looks at a job takes, from start to exit of its process."""

import json
import resource
import statistics
import tempfile
import time
from pathlib import Path

from points import JobOnDisk, save_points
from promise import Result, compile_package, fresh_process, result

ROUNDS = 11
FILES_PER_POINT = 10  # of its models


def measure_command(command: str, *, points: int, attempts: int, promised_s: float) -> Result:
    """Measure `megatron-resume COMMAND` with its tables, on a job of so many points and attempts."""
    compile_package()
    with tempfile.TemporaryDirectory() as folder:
        job = JobOnDisk(Path(folder))
        job.num_shards = FILES_PER_POINT // len(job.roles) - 1  # beside their metadata
        newest = save_points(job, points, attempts)
        arguments = ("-m", "megatron_resume", command, str(job.root))
        report = json.loads(fresh_process(*arguments, "--json"))
        assert report["point"] == newest._asdict(), report
        assert points_in(report) == points
        tables, cpu = zip(*(seconds(*arguments) for _ in range(ROUNDS)), strict=True)
    beside = {"of_that_cpu_time": cpu, "python_itself": [seconds("-c", "")[0] for _ in range(ROUNDS)]}
    medians = {name: round(statistics.median(of_one), 3) for name, of_one in beside.items()}
    return result(f"{command} of {points:,} points", tables, promised_s, "s", **medians)


def points_in(report: dict[str, list[dict[str, list[int]]]]) -> int:
    """How many points a report tells of."""
    return len(report.get("points", [])) + sum(len(one["committed"]) for one in report.get("line", []))


def seconds(*arguments: str) -> tuple[float, float]:
    """What a new Python takes, by the clock and of a core."""
    begin, cpu = time.perf_counter(), cpu_of_children()
    fresh_process(*arguments)
    return time.perf_counter() - begin, cpu_of_children() - cpu


def cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
