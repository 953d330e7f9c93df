"""What a cluster starts once on each of its nodes: `launch`, with the policy in its environment."""

import json
from collections.abc import Callable, Iterable

from ..errors import ConfigError
from ..policy import Policy, as_json
from .job import Job
from .shell import joined

PORT = 29400


def command(job: Job, *, endpoint: str, job_id: str, join: Callable[[Iterable[str]], str] = joined) -> str:
    """A line for a shell, which is bash unless `join` quotes for another. `endpoint` and `job_id` are text of that
    shell, in which its variables are filled in."""
    meet = [f'--rdzv-endpoint="{endpoint}"', f'--rdzv-id="{job_id}"'] if job.nnodes > 1 else []
    return " ".join(
        [
            *(join([job.python]), "-m", "megatron_resume", "launch"),
            *(f"--nnodes={job.nnodes}", f"--nproc-per-node={job.nproc_per_node}", *meet),
            *("--", join(job.command)),
        ]
    )


def policy_text(policy: Policy) -> str:
    """The policy as `launch` finds it in its environment, one field on each line."""
    return json.dumps(json.loads(as_json(policy)), indent=2)


def image(job: Job) -> str:
    """Raises ConfigError where none was given."""
    if not job.image:
        raise ConfigError("a container needs an image with Megatron and megatron_resume in it; give --image IMAGE")
    return job.image
