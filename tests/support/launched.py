"""The RLHF example under `megatron-resume launch`: real torchrun, as a person types it."""

import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

from . import ROOT
from .runs import EXAMPLE, SMALL, TAMPERED, Run, arguments

ENTRY = EXAMPLE / "entry" / "train_rlhf.py"
MARKER = "TEST_LAUNCH"  # in the environment of all that a launch starts
WATCHFUL = """
hang:
  timeout: 15s
  setup: 2m
  exit: 1m
grace_period: 10s
"""


class Launched:
    """One `launch` of a run."""

    def __init__(
        self,
        run: Run,
        *flags: str,
        policy: str = WATCHFUL,
        hang: str | None = None,
        times: int = 1,
        at: int = 5,
        rank: int = 1,
        ranks: int = 2,
        episodes: int = 3,
    ) -> None:
        """`hang` names how rank `rank` ends or hangs in the first lives of the run, before their train step `at`.

        `flags` are those of launch.
        """
        run.output.mkdir(parents=True, exist_ok=True)
        self.hung, self._token = run.output / "hung", uuid.uuid4().hex
        self.log = run.output / f"launch{len(list(run.output.glob('launch*.log')))}.log"
        (run.output / "policy.yaml").write_text(policy)
        faults = {"HANG": hang or "", "HUNG": str(self.hung), "HANG_TIMES": str(times)}
        environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("MEGATRON_RESUME_")},
            **(faults if hang else {}),
            "HANG_RANK": str(rank),
            "HANG_AT": str(at),
            MARKER: self._token,
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
        }
        command = [
            *(sys.executable, "-m", "megatron_resume", "launch", "--nproc-per-node", str(ranks), *flags),
            *("--policy", str(run.output / "policy.yaml"), "--"),
            *([str(TAMPERED), "hangs.rank"] if hang else [str(ENTRY)]),
            *(*arguments(run.output), *SMALL, "--num-episodes", str(episodes), *run.flags),
        ]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=log, stderr=subprocess.STDOUT)

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def end(self) -> int:
        """Its exit code."""
        return self.process.wait(3600)  # of a test that fails

    def finish(self) -> None:
        """It must come to a good end, and leave nobody behind."""
        assert self.end() == 0, self.said[-6000:]
        assert self.living() == []

    def living(self) -> list[int]:
        """All that it started and that lives."""
        return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal() and self._started(path)]

    def _started(self, process: Path) -> bool:
        try:
            environ = (process / "environ").read_bytes()
        except OSError:
            return False
        return f"{MARKER}={self._token}".encode() in environ

    def close(self) -> None:
        """End what a failed test left."""
        for pid in self.living():
            os.kill(pid, signal.SIGKILL)
        self.process.wait()
