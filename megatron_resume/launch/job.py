"""What is launched, and what a launch engine is told for it."""

import math
from typing import NamedTuple

from ..checkpoint.launch_key import MAX_NAME
from ..config import is_utf8
from ..errors import ConfigError
from ..policy import Policy
from ..sources import show
from .shell import joined, quoted

RESTART_S = 120  # from the death of the ranks to the first line of the next ones, on a slow file system
MAX_NODES, MAX_RANKS = 100_000, 4_096  # beyond any machine: a slip of the keyboard
_STOP_S = 15  # that an engine waits longer than the job before it kills
# An engine cannot give restarts back, and a job of weeks needs more than the policy allows in a row. So an engine that
# asks before each restart gets as many as weeks need, and the job ends it by a final exit code.
ENGINE_RESTARTS = 1_000


class Job(NamedTuple):
    """A training script, the ranks that run it, and where a cluster finds what it needs."""

    command: tuple[str, ...]  # SCRIPT ARGS
    nnodes: int = 1
    nproc_per_node: int = 1
    endpoint: str | None = None  # HOST:PORT where several nodes meet
    job_id: str | None = None  # names this launch on all nodes, and over its restarts
    python: str = "python"  # executes the ranks
    ft_launcher: str = "ft_launcher"
    nvrx_version: str | None = None
    name: str = "megatron-resume"  # of the job on a cluster
    image: str | None = None
    mounts: tuple[str, ...] = ()  # CLAIM:/PATH of volumes
    gpus_per_node: int | None = None  # one per rank where nothing else is said

    def check(self) -> "Job":
        """Raises ConfigError for what no engine can launch."""
        if not self.command:
            raise ConfigError("no SCRIPT is given; write it and its arguments after `--`")
        for name, count, least, most in (
            ("--nnodes", self.nnodes, 1, MAX_NODES),
            ("--nproc-per-node", self.nproc_per_node, 1, MAX_RANKS),
            ("--gpus-per-node", self.gpus, 0, MAX_RANKS),
        ):
            if count < least:
                raise ConfigError(f"{name} is {count}; give {least} or more")
            if count > most:
                raise ConfigError(f"{name} is {show(count)}; give {most} or less")
        if len(self.job_id or "") > MAX_NAME:
            raise ConfigError(f"--rdzv-id has {len(self.job_id or '')} characters; give a name of {MAX_NAME} or less")
        return self

    def check_text(self) -> "Job":
        """Raises ConfigError for what no file can hold; an engine on this machine is given bytes."""
        others = (self.name, self.image, self.endpoint, self.job_id, *self.mounts)
        for text in (*self.command, *filter(None, others)):
            if not is_utf8(text):
                raise ConfigError(f"{show(text)} is not UTF-8, and no description of a job can hold it; rename it")
        return self

    @property
    def gpus(self) -> int:
        """On each node."""
        return self.nproc_per_node if self.gpus_per_node is None else self.gpus_per_node

    @property
    def of_rank(self) -> tuple[str, ...]:
        """What an engine executes with Python for each rank: the script, with the hooks installed before it."""
        return ("-m", "megatron_resume", "run", *self.command)

    @property
    def rendezvous(self) -> tuple[str, ...]:
        """Where the ranks of torchrun, and of all that descends from it, meet. Raises ConfigError where nobody said."""
        if self.nnodes == 1:
            return ("--standalone",)
        if not (self.endpoint and self.job_id):
            raise ConfigError(
                f"{self.nnodes} nodes need a place to meet and a name that they share; give --rdzv-endpoint HOST:PORT "
                "and --rdzv-id NAME, the same on every node"
            )
        return ("--rdzv-backend=c10d", f"--rdzv-endpoint={self.endpoint}", f"--rdzv-id={self.job_id}")


class Rendered(NamedTuple):
    """What to execute, in which environment; files that it needs, by name; and what it will not do."""

    command: tuple[str, ...]
    environ: dict[str, str]
    files: dict[str, str]
    warnings: tuple[str, ...]
    gave_up: tuple[int, ...] = ()  # exit codes by which the engine says that no restart helps

    def as_shell(self) -> str:
        """One line to type, or to put into a script."""
        return " ".join([*(f"{name}={quoted(value)}" for name, value in self.environ.items()), joined(self.command)])


def coarser(policy: Policy, seconds: float) -> int:
    """An engine's limit for what the job itself finds after `seconds`: late enough that both never fire."""
    return math.ceil(seconds + policy.grace_period + RESTART_S)


def after_grace(policy: Policy) -> int:
    """Seconds from an engine's SIGTERM to its SIGKILL: later than the job's own."""
    return math.ceil(policy.grace_period) + _STOP_S


def engine_restarts(policy: Policy) -> int:
    """For an engine that the job ends by a final exit code once its own count says so."""
    return ENGINE_RESTARTS if policy.max_restarts else 0


def counted_by_the_job(policy: Policy, how: str) -> tuple[str, ...]:
    """A warning that an engine restarts without the policy's count; `how` says what it does instead."""
    said = f"max_restarts: {how}; megatron_resume counts inside the job, and ends it with 70"
    return (said,) if policy.max_restarts else ()


def by_the_job(policy: Policy, *fields: str) -> tuple[str, ...]:
    """A warning for each of the policy's `fields` that differs from the default and that an engine cannot express."""
    default = Policy()
    return tuple(
        f"{field}: the engine has no such setting; megatron_resume does this inside the job"
        for field in fields
        if getattr(policy, field) != getattr(default, field)
    )
