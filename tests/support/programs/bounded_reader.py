"""Says what a reader makes of each job whose folder is named on a line, within bounds that hold for each job anew.

    bounded_reader.py SECONDS GB

The answer is a JSON line of the exit code and what was printed. Each job has a process of its own, which is forked.
"""

import json
import os
import resource
import signal
import sys
from pathlib import Path

from support.job_on_disk import JobOnDisk


def look(base: Path) -> None:
    outcome = JobOnDisk(base).choose()
    print(type(outcome).__name__, getattr(outcome, "point", outcome).name)
    for passed in outcome.passed_over:
        print(passed)


def answer(base: str, seconds: int) -> tuple[int, str]:
    output = os.memfd_create("output")
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.dup2(output, 1)
            os.dup2(output, 2)
            signal.alarm(seconds)  # also of one that waits
            look(Path(base))
            code = 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with os.fdopen(output, "rb") as file:
        file.seek(0)
        return code, file.read().decode(errors="replace")


if __name__ == "__main__":
    seconds, gb = map(int, sys.argv[1:])
    resource.setrlimit(resource.RLIMIT_AS, (gb << 30, gb << 30))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line), seconds)), flush=True)
