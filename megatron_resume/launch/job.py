"""What is launched, and what a launch engine is told for it."""

import math
import shlex
import sys
from typing import NamedTuple

from ..errors import ConfigError
from ..policy import Policy

RESTART_S = 120  # from the death of the ranks to the first line of the next ones, on a slow file system


class Job(NamedTuple):
    """A training script, and the ranks that run it."""

    command: tuple[str, ...]  # SCRIPT ARGS
    nnodes: int = 1
    nproc_per_node: int = 1
    endpoint: str | None = None  # HOST:PORT where several nodes meet
    job_id: str | None = None  # names this launch on all nodes, and over its restarts

    def check(self) -> "Job":
        """Raises ConfigError for what no engine can launch."""
        if not self.command:
            raise ConfigError("no SCRIPT is given; write it and its arguments after `--`")
        for name, count in (("--nnodes", self.nnodes), ("--nproc-per-node", self.nproc_per_node)):
            if count < 1:
                raise ConfigError(f"{name} is {count}; give 1 or more")
        if self.nnodes > 1 and not (self.endpoint and self.job_id):
            raise ConfigError(
                f"{self.nnodes} nodes need a place to meet and a name that they share; give --rdzv-endpoint HOST:PORT "
                "and --rdzv-id NAME, the same on every node"
            )
        return self

    @property
    def of_rank(self) -> tuple[str, ...]:
        """What an engine executes with Python for each rank: the script, with the hooks installed before it."""
        return ("-m", "megatron_resume", "run", *self.command)


class Rendered(NamedTuple):
    """What to execute, in which environment; files that it needs, by name; and what it will not do."""

    command: tuple[str, ...]
    environ: dict[str, str]
    files: dict[str, str]
    warnings: tuple[str, ...]

    def as_shell(self) -> str:
        """One line to type, or to put into a script."""
        return " ".join(
            [*(f"{name}={shlex.quote(value)}" for name, value in self.environ.items()), shlex.join(self.command)]
        )


def python() -> str:
    """The interpreter that ranks are started with."""
    return sys.executable or "python"


def coarser(policy: Policy, seconds: float) -> int:
    """An engine's limit for what the job itself finds after `seconds`: late enough that both never fire."""
    return math.ceil(seconds + policy.grace_period + RESTART_S)


def by_the_job(policy: Policy, *fields: str) -> tuple[str, ...]:
    """A warning for each of the policy's `fields` that differs from the default and that an engine cannot express."""
    default = Policy()
    return tuple(
        f"{field}: the engine has no such setting; megatron_resume does this inside the job"
        for field in fields
        if getattr(policy, field) != getattr(default, field)
    )
