"""AIMaster of Alibaba PAI-DLC: a process beside the job that restarts it, and takes silence in all logs for a hang.

Flags and their meaning: PAI documentation, "AIMaster: Elastic automatic fault tolerance engine" (2026-05). They stand
in one string, `Settings.ErrorMonitoringArgs` of CreateJob.
"""

import json

from ..policy import Policy
from .job import Job, Rendered, by_the_job, coarser

SDK = """\
from alibabacloud_pai_dlc20201203.models import JobSettings

settings = JobSettings(
    enable_error_monitoring_in_aimaster=True,
    error_monitoring_args=ERROR_MONITORING_ARGS,
)
"""


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


def render(policy: Policy, job: Job) -> Rendered:
    """The arguments of the `dlc` command line that a job is created with, and the same for OpenAPI and for the SDK."""
    args = error_monitoring_args(policy)
    settings = {"Settings": {"EnableErrorMonitoringInAIMaster": True, "ErrorMonitoringArgs": args}}
    files = {
        "settings.json": json.dumps(settings, indent=2) + "\n",
        "settings.py": SDK.replace("ERROR_MONITORING_ARGS", repr(args)),
    }
    silence = (
        "hang: AIMaster takes silence of all logs for a hang; the job writes a line with each step, and none once it "
        "is stuck"
    )
    others = by_the_job(policy, "refill_after", "no_progress_limit", "retry", "fatal", "grace_period")
    return Rendered(("--aimaster_enable", "--aimaster_args", args), {}, files, (silence, *others))
