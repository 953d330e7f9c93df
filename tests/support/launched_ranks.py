"""`megatron-resume launch` of two small ranks that end as they are told, without Megatron. Real launch engines."""

import os
from collections.abc import Sequence
from pathlib import Path

from . import TESTS
from .launch_command import LaunchCommand
from .pool import Pool
from .waiting import until

RANK = TESTS / "launch" / "rank.py"


class Launched:
    """`megatron-resume launch` of two ranks that end as `how` says; forked where there is a `pool`."""

    def __init__(
        self, folder: Path, how: str, policy: str = "", options: Sequence[str] = (), pool: Pool | None = None
    ) -> None:
        self.folder = folder
        (folder / "policy.yaml").write_text(policy)
        of_policy = ("--policy", str(folder / "policy.yaml"))
        arguments = (*options, "--nproc-per-node", "2", *of_policy, "--", str(RANK), how, str(folder))
        self.process = LaunchCommand(*arguments, output=folder / "output", environ=os.environ, pool=pool)

    def end(self) -> tuple[int, str]:
        """Exit code and output."""
        return self.process.end(), self.process.said

    def until_all_sleep(self) -> None:
        until(lambda: all((self.folder / f"asleep{rank}").exists() for rank in range(2)))

    @property
    def ranks_done(self) -> list[str]:
        return sorted(path.name for path in self.folder.glob("done*"))

    @property
    def pids(self) -> list[int]:
        return [int(path.name[3:]) for path in self.folder.glob("pid*")]

    def nobody_lives(self) -> bool:
        """Of all that was started: agents, ranks, their children, watchdogs."""
        return not self.process.living()
