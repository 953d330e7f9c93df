"""AIMaster of Alibaba PAI-DLC: a process beside the job that restarts it, and takes silence in all logs for a hang.

Flags and their meaning: PAI documentation, "AIMaster: Elastic automatic fault tolerance engine" (2026-05). They stand
in one string, `Settings.ErrorMonitoringArgs` of CreateJob. `dlc submit pytorchjob`: PAI documentation, "Commands used
to submit jobs"; a PyTorch job has MASTER_ADDR and MASTER_PORT in the environment of each node.
"""

import json
import shlex

from ..policy import VARIABLE, Policy, as_json
from . import node
from .job import Job, Rendered, after_grace, by_the_job, coarser


def error_monitoring_args(policy: Policy) -> str:
    """The string `Settings.ErrorMonitoringArgs`."""
    restarts = policy.max_restarts > 0
    flags = {
        "--job-execution-mode": "Sync",
        "--enable-job-restart": str(restarts),
        "--max-num-of-job-restart": str(policy.max_restarts),
        "--enable-job-hang-detection": str(restarts),
        "--job-hang-interval": str(coarser(policy, policy.hang.longest)),
        "--enable-job-exit-hang-detection": str(restarts),
        "--job-exit-hang-interval": str(coarser(policy, policy.hang.of("exit"))),
        "--fault-tolerant-policy": "OnFailure",
    }
    return " ".join(f"{flag} {value}" for flag, value in flags.items())


def user_command(policy: Policy, job: Job) -> str:
    """What DLC starts on each node."""
    policy_of_job = f"export {VARIABLE}={shlex.quote(as_json(policy))}"
    # By any shell: which one is not documented.
    launch = node.command(job, endpoint="$MASTER_ADDR:$MASTER_PORT", job_id="$MASTER_ADDR", join=shlex.join)
    return "\n".join([policy_of_job, 'export MEGATRON_RESUME_LAUNCH_ID="$MASTER_ADDR"', f"exec {launch}"])


def render(policy: Policy, job: Job) -> Rendered:
    """The `dlc` command line that creates the job, and the same settings for OpenAPI and for the SDK."""
    args, of_node, grace = error_monitoring_args(policy), user_command(policy, job), after_grace(policy)
    settings = {
        "EnableErrorMonitoringInAIMaster": True,
        "ErrorMonitoringArgs": args,
        "TerminationGracePeriodSeconds": grace,
    }
    command = (
        *("dlc", "submit", "pytorchjob", "--name", job.name),
        *("--workers", str(job.nnodes), "--worker_gpu", str(job.gpus), "--worker_image", node.image(job)),
        *("--aimaster_enable", "--aimaster_args", args, "--command", of_node),
    )
    files = {
        "settings.json": json.dumps({"Settings": settings}, indent=2) + "\n",
        "settings.py": _with_the_sdk(args, grace, job.name, of_node),
    }
    return Rendered(command, {}, files, _warnings(policy))


def _with_the_sdk(args: str, grace: int, name: str, of_node: str) -> str:
    """Python that makes the same settings."""
    return f"""\
from alibabacloud_pai_dlc20201203.models import CreateJobRequest, JobSettings

settings = JobSettings(
    enable_error_monitoring_in_aimaster=True,
    error_monitoring_args={args!r},
    termination_grace_period_seconds={grace!r},
)
# Add the rest of the job: job_specs, workspace_id, resource_id, data_sources.
request = CreateJobRequest(
    display_name={name!r},
    job_type="PyTorchJob",
    user_command={of_node!r},
    settings=settings,
)
"""


def _warnings(policy: Policy) -> tuple[str, ...]:
    silence = (
        "hang: AIMaster takes silence of all logs for a hang; the job writes a line with each step, and none once it "
        "is stuck"
    )
    whole_life = (
        "max_restarts: AIMaster counts over the whole life of the job and whatever the exit code is; megatron_resume "
        "counts inside the job, and ends a start at once that has no chance"
    )
    grace = "grace_period: stands in the settings for OpenAPI and SDK; no flag of the dlc command line is known for it"
    others = by_the_job(policy, "refill_after", "no_progress_limit", "retry", "fatal", "stop_signals")
    return (*((silence, whole_life) if policy.max_restarts else ()), grace, *others)
