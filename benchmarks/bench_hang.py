"""Promise: a rank that sleeps, holds the interpreter's lock or is stopped is ended within its timeout and a second.

What counts is the latest of all. Beside it: torchrun alone, which never ends it, and ft_launcher with its heartbeats,
where .venv-nvrx is.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from megatron_resume.processes import descendants
from megatron_resume.watch import kernel
from promise import Result, compile_package, main

RANK = Path(__file__).with_name("hanging_rank.py")
FT_LAUNCHER = Path(__file__).resolve().parents[1] / ".venv-nvrx" / "bin" / "ft_launcher"
TIMEOUT_S, ROUNDS = 3.0, 3
PATIENCE_S = 30.0  # after which it is taken for never
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1")


def measure() -> Result:
    compile_package()
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as policy:
        policy.write(f"{{max_restarts: 0, grace_period: 1s, hang: {{timeout: {TIMEOUT_S:g}s}}}}")
        policy.flush()
        launch = (sys.executable, "-m", "megatron_resume", "launch", "--policy", policy.name, "--")
        samples = [_lateness(launch, how) for how in ("sleep", "lock", "stop") for _ in range(ROUNDS)]
    beside = {"fastest": min(samples), "torchrun_has_not_after": _lateness(TORCHRUN, "sleep", patience_s=5.0)}
    if FT_LAUNCHER.exists():
        beside["ft_launcher"] = _lateness(_ft_launcher(), "heartbeat")
    return Result("a hang is ended after its timeout", max(samples), 1, "s", samples, beside)


def _ft_launcher() -> tuple[str, ...]:
    limits = [f"--ft-rank-heartbeat-timeout={TIMEOUT_S:g}", "--ft-initial-rank-heartbeat-timeout=60"]
    return (str(FT_LAUNCHER), "--standalone", "--nproc-per-node", "1", "--max-restarts", "0", *limits)


def _lateness(launcher: tuple[str, ...], how: str, patience_s: float = PATIENCE_S) -> float:
    """Seconds from the end of the timeout to that of the rank; at most `patience_s`."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report")
        command = [*launcher, str(RANK), how, str(report)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            while not report.exists():
                if process.poll() is not None:
                    raise SystemExit(f"no rank came up: {' '.join(command)}")
                time.sleep(0.01)
            pid, since = report.read_text().split()
            due_s = float(since) + TIMEOUT_S
            while kernel.state(int(pid)) not in ("gone", "ended") and time.monotonic() < due_s + patience_s:
                time.sleep(0.005)
            return round(time.monotonic() - due_s, 3)
        finally:
            for one in [process.pid, *descendants(process.pid)] if process.poll() is None else []:
                os.kill(one, 9)
            process.wait()


if __name__ == "__main__":
    sys.exit(main(measure))
