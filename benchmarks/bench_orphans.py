"""Promise: when `launch` itself is killed, no process that it started lives 10 s later; whichever of its two it is."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from megatron_resume.processes import descendants
from megatron_resume.watch import kernel
from promise import Result, compile_package, main, result

RANK = Path(__file__).resolve().parents[1] / "tests" / "launch" / "rank.py"
ROUNDS = 3


def measure() -> Result:
    compile_package()
    times = [_time_to_die(whose) for _ in range(ROUNDS) for whose in (0, 1)]
    worst = result("nobody outlives launch", times, 10, "s")
    return Result(worst.name, max(worst.samples), worst.promised, worst.unit, worst.samples, worst.beside)


def _time_to_die(whose: int) -> float:
    """Seconds from the kill of launch's first or second process to the end of the last of all."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "megatron_resume", "launch", "--nproc-per-node", "2", "--"]
        launch = subprocess.Popen(
            [*command, str(RANK), "sleep", folder], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while len(list(Path(folder).glob("asleep*"))) < 2:
            if launch.poll() is not None:
                raise SystemExit("the ranks did not come up")
            time.sleep(0.05)
        everybody = [launch.pid, *descendants(launch.pid)]
        begin = time.monotonic()
        os.kill(everybody[whose], signal.SIGKILL)
        while any(kernel.state(pid) not in ("gone", "ended") for pid in everybody):
            time.sleep(0.01)
        launch.wait()
        return time.monotonic() - begin


if __name__ == "__main__":
    sys.exit(main(measure))
