"""ft_launcher of NVIDIA Resiliency Extension (NVRx): torchrun with a monitor beside each rank that reports to it.

Flags: `ft_launcher --help` of 0.4.1, 0.5.0, 0.6.0 and 0.7.0. Those of 0.4 and 0.5 are the same, as are those of 0.6 and
0.7 that are used here. Every timeout is given, since their defaults flipped: 3600 and 2700 s in 0.4, none in 0.6.

Its limits count from the beginning of a section or from one heartbeat to the next, where the policy's count from the
last sign of progress. So each is the sum of all that may happen in between.
"""

from pathlib import PurePosixPath
from typing import Literal, get_args

from ..errors import ConfigError
from ..policy import Policy
from ..sources import show
from .job import Job, Rendered, after_grace, by_the_job, coarser

Version = Literal["0.4", "0.7"]
VERSIONS: tuple[Version, ...] = get_args(Version)
_SAME_FLAGS: dict[str, Version] = {"0.4": "0.4", "0.5": "0.4", "0.6": "0.7", "0.7": "0.7"}
NO_RESTART = 93  # exit code of 0.7 where it saw no progress
TRACKER = "latest_checkpointed_iteration.txt"  # Megatron's

_NEEDS_REPORTS = (
    "hang: ft_launcher watches only ranks that report to it (Megatron's --enable-ft-package, or heartbeats in the "
    "script); megatron_resume finds the hangs of all ranks inside the job, and earlier"
)
_NEEDS_SAVE = (
    "no_progress_limit: the command names no --save whose tracker ft_launcher could read; megatron_resume counts "
    "inside the job"
)


def version_of(text: str) -> Version:
    """The set of flags of the release `text`, such as 0.4.1. Raises ConfigError for one that nobody has looked at."""
    found = _SAME_FLAGS.get(".".join(text.split(".")[:2]))
    if found is None:
        raise ConfigError(
            f"nvidia-resiliency-ext is {show(text)}, whose flags are not known; known are "
            f"{', '.join(_SAME_FLAGS)}; give --nvrx-version {' or '.join(VERSIONS)} to try those"
        )
    return found


def render(policy: Policy, job: Job) -> Rendered:
    """ft_launcher's command on each node; `job.nvrx_version` is that of a release."""
    if job.nvrx_version is None:
        raise ConfigError(f"the version of ft_launcher is not known; give --nvrx-version {' or '.join(VERSIONS)}")
    tracks = version_of(job.nvrx_version) == "0.7"
    command = [
        job.ft_launcher,
        *(f"--nnodes={job.nnodes}", f"--nproc-per-node={job.nproc_per_node}", *job.rendezvous),
        f"--max-restarts={policy.max_restarts}",
        *(f"--term-timeout={after_grace(policy)}", f"--workers-stop-timeout={after_grace(policy)}"),
        *_timeouts(policy),
        *(_progress(policy, job) if tracks else ()),
        # ft_launcher lives in an environment of its own, in which no rank could run.
        *("--no-python", job.python, "-u", *job.of_rank),
    ]
    own = ("refill_after", "retry", "fatal", "stop_signals", *(() if tracks else ("no_progress_limit",)))
    warnings = (_NEEDS_REPORTS, *(() if not tracks or _save(job) else (_NEEDS_SAVE,)), *by_the_job(policy, *own))
    return Rendered(tuple(command), {}, {}, warnings, (NO_RESTART,) if tracks else ())


def _timeouts(policy: Policy) -> tuple[str, ...]:
    """Sections are those of Megatron's ft_integration: `setup` lasts to the first step, `step` is one step or
    evaluation, and rollouts lie in none of them."""
    hang = policy.hang
    setup = hang.of("setup") + hang.of("checkpoint") + hang.of("rollout")
    between_steps = hang.of("rollout") + hang.of("train") + hang.of("checkpoint") + hang.of("evaluate")
    sections = {
        "setup": coarser(policy, setup),
        "step": coarser(policy, max(hang.of("train"), hang.of("evaluate"))),
        "checkpointing": coarser(policy, hang.of("checkpoint")),
    }
    outside = max(hang.of("rollout") + hang.timeout, hang.of("exit"))
    return (
        f"--ft-initial-rank-heartbeat-timeout={coarser(policy, setup)}",
        f"--ft-rank-heartbeat-timeout={coarser(policy, between_steps)}",
        f"--ft-rank-section-timeouts={','.join(f'{name}:{seconds}' for name, seconds in sections.items())}",
        f"--ft-rank-out-of-section-timeout={coarser(policy, outside)}",
    )


def _progress(policy: Policy, job: Job) -> tuple[str, ...]:
    """One life more than the job allows itself by any of its limits: ft_launcher counts those that saved nothing new,
    wherever they failed. Without a file to read it would end jobs that come on.
    """
    save = _save(job)
    if save is None:
        return ("--ft-max-no-progress-cycles=0",)
    return (
        f"--ft-max-no-progress-cycles={max(policy.no_progress_limit, policy.max_restarts + 1) + 1}",
        f"--ft-checkpoint-iteration-file={PurePosixPath(save, TRACKER)}",
    )


def _save(job: Job) -> str | None:
    """Megatron's --save in the command."""
    for word, following in zip(job.command, (*job.command[1:], ""), strict=True):
        name, _, value = word.partition("=")
        if name == "--save":
            return value or following or None
    return None
