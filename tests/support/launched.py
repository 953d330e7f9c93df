"""The RLHF example under `megatron-resume launch`: real torchrun, as a person types it."""

import os

from .launch_command import LaunchCommand
from .pool import MEGATRON
from .runs import EXAMPLE, SMALL, TAMPERED, Run, arguments

ENTRY = EXAMPLE / "entry" / "train_rlhf.py"
# Faults come where no phase is; what trains and saves may be slow on a busy machine.
WATCHFUL = """
hang:
  timeout: 15s
  setup: 5m
  rollout: 5m
  train: 5m
  checkpoint: 5m
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
        forked: bool = False,
        committed: bool = False,
    ) -> None:
        """`hang` names how rank `rank` ends or hangs in the first lives of the run, before their train step `at`.

        Where rank 0 is to end once this life has `committed` a point, it does.

        `flags` are those of launch. `forked` spares the seconds in which torchrun and its ranks import Megatron.
        """
        run.output.mkdir(parents=True, exist_ok=True)
        self.hung = run.output / "hung"
        self.log = run.output / f"launch{len(list(run.output.glob('launch*.log')))}.log"
        (run.output / "policy.yaml").write_text(policy)
        faults = {"HANG": hang or "", "HUNG": str(self.hung), "HANG_TIMES": str(times)}
        environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("MEGATRON_RESUME_")},
            **(faults if hang else {}),
            **({"HANG_COMMITTED": str(run.data_checkpoint)} if committed else {}),
            "HANG_RANK": str(rank),
            "HANG_AT": str(at),
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
        }
        self._command = LaunchCommand(
            *("--nproc-per-node", str(ranks), *flags, "--policy", str(run.output / "policy.yaml"), "--"),
            *([str(TAMPERED), "hangs.rank"] if hang else [str(ENTRY)]),
            *(*arguments(run.output), *SMALL, "--num-episodes", str(episodes), *run.flags),
            output=self.log,
            environ=environ,
            pool=run.server.pool if forked else None,
            kind=MEGATRON,
        )

    @property
    def said(self) -> str:
        return self._command.said

    def end(self) -> int:
        """Its exit code."""
        return self._command.end(3600)  # of a test that fails

    def finish(self) -> None:
        """It must come to a good end, and leave nobody behind."""
        assert self.end() == 0, self.said[-6000:]
        assert self.living() == []

    def living(self) -> list[int]:
        """All that it started and that lives."""
        return self._command.living()

    def close(self) -> None:
        """End what a failed test left."""
        self._command.close()
