"""Slurm: a batch script that starts `launch` once on each node and requeues itself as the exit code says.

Options: sbatch(1) and srun(1) of Slurm 22.05. A job that is requeued keeps SLURM_JOB_ID and counts SLURM_RESTART_COUNT.
"""

import re

from ..errors import ConfigError
from ..policy import VARIABLE, Policy
from ..sources import show
from . import node
from .job import Job, Rendered, by_the_job, coarser, counted_by_the_job

FILE = "job.sbatch"
_NAME = re.compile(r"[\w.-]+")
_MAX_SIGNAL_S = 65_535  # sbatch(1)


def render(policy: Policy, job: Job) -> Rendered:
    """The batch script, and the command that submits it.

    Raises:
        ConfigError: The name of the job would not fit into one word.
    """
    if not _NAME.fullmatch(job.name):
        raise ConfigError(f"--name is {show(job.name)}; use letters, digits, `.`, `_` and `-`")
    return Rendered(
        ("sbatch", FILE),
        {},
        {FILE: "\n".join([*_options(policy, job), "", *_body(policy, job), ""])},
        (
            "grace_period: it begins by itself before the time limit; for scancel and preemption KillWait in "
            f"slurm.conf and GraceTime of the partition must be {policy.grace_period} or more",
            *counted_by_the_job(policy, "Slurm requeues without a limit"),
            *by_the_job(policy, "hang", "refill_after", "no_progress_limit", "retry", "fatal", "stop_signals"),
        ),
    )


def _options(policy: Policy, job: Job) -> list[str]:
    options = {
        "job-name": job.name,
        "nodes": job.nnodes,
        "ntasks-per-node": 1,
        **({"gpus-per-node": job.gpus} if job.gpus else {}),
        "signal": f"TERM@{min(coarser(policy, 0), _MAX_SIGNAL_S)}",
        "open-mode": "append",
    }
    given = [*(f"--{name}={value}" for name, value in options.items()), "--exclusive"]
    return ["#!/bin/bash", *(f"#SBATCH {option}" for option in (*given, f"--{_requeue(policy)}"))]


def _requeue(policy: Policy) -> str:
    return "requeue" if policy.max_restarts else "no-requeue"


def _body(policy: Policy, job: Job) -> list[str]:
    of_node = _of_node(job)
    end = _end_of(of_node)
    lines = [
        f"{VARIABLE}=$(cat <<'POLICY'",
        node.policy_text(policy),
        "POLICY",
        ")",
        "# One task per node, in which `megatron-resume launch` restarts the ranks.",
        f"NODE=$(cat <<'{end}'",
        *of_node,
        end,
        ")",
        'RDZV_HOST=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
        "RDZV_PORT=$((20000 + SLURM_JOB_ID % 10000))",
        f"export {VARIABLE} RDZV_HOST RDZV_PORT",
        "",
        *(['scontrol update "JobId=$SLURM_JOB_ID" Comment='] if job.nnodes > 1 else []),
        'srun --kill-on-bad-exit=1 --cpu-bind=none bash -c "$NODE"',
        "code=$?",
    ]
    # srun ends with the highest exit code of its tasks. Where one ended for good the others are killed, which would
    # count as 128 and up: so the first leaves its own in the comment of the job.
    said = "said=$(scontrol show job \"$SLURM_JOB_ID\" | sed -n 's/.*Comment=final_exit_code_\\([0-9]*\\).*/\\1/p')"
    return [
        *lines,
        *([said, "code=${said:-$code}"] if job.nnodes > 1 else []),
        "# Exit codes 1 to 127 are final, 128 and up mean: start again.",
        *(['[ "$code" -lt 128 ] || scontrol requeue "$SLURM_JOB_ID"'] if policy.max_restarts else []),
        'exit "$code"',
    ]


def _end_of(text: list[str]) -> str:
    """A line that stands nowhere in it: an argument of the script may have several, and one of them may be this."""
    lines, end = "\n".join(text).split("\n"), "END_OF_NODE"
    while end in lines:
        end += "_"
    return end


def _of_node(job: Job) -> list[str]:
    launch = node.command(job, endpoint="$RDZV_HOST:$RDZV_PORT", job_id="$SLURM_JOB_ID")
    if job.nnodes == 1:
        return [f"exec {launch}"]
    return [
        "trap : TERM # launch gets it as well, and is waited for",
        launch,
        "code=$?",
        '[ "$code" -eq 0 ] || [ "$code" -ge 128 ] || \\',
        '    scontrol update "JobId=$SLURM_JOB_ID" "Comment=final_exit_code_$code"',
        'exit "$code"',
    ]
