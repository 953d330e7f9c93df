"""torchrun: an agent on each node, which restarts all ranks when one fails.

Measured with torch 2.13: after a restart ranks meet by the store that the agent made at the first start, in which the
addresses of the dead are still found, and no restart reached its first step. With the store not shared each did
(pytorch issues 135712 and 167288). torchrun sees no hangs and restarts whatever the exit code is.
"""

from ..policy import Policy
from .job import Job, Rendered, after_grace, by_the_job

ENVIRON = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
NOT_ITS_OWN = ("hang", "refill_after", "no_progress_limit", "retry", "fatal", "stop_signals")


def render(policy: Policy, job: Job) -> Rendered:
    """torchrun's command on each node."""
    command = [
        *(job.python, "-m", "torch.distributed.run"),
        *(f"--nnodes={job.nnodes}", f"--nproc-per-node={job.nproc_per_node}", *job.rendezvous),
        f"--max-restarts={policy.max_restarts}",
        f"--shutdown-timeout={after_grace(policy)}",
        *job.of_rank,
    ]
    return Rendered(tuple(command), dict(ENVIRON), {}, by_the_job(policy, *NOT_ITS_OWN))
