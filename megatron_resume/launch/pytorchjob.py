"""PyTorchJob v1 of the Kubeflow training operator: a pod for each node, restarted by its exit code.

Under restartPolicy ExitCode the operator recreates a pod that ended with 128 or more, and fails the job for 1 to 127;
runPolicy.backoffLimit is not looked at then (kubeflow trainer issue 2045). It gives each pod MASTER_ADDR and
MASTER_PORT: operator sources, pkg/controller.v1/pytorch/envvar.go.
"""

from ..policy import Policy
from . import kubernetes, node
from .job import Job, Rendered, by_the_job, counted_by_the_job

FILE = "pytorchjob.yaml"
CONTAINER = "pytorch"  # the operator looks for it by this name
HEAD = """\
One pod per node, in which `megatron-resume launch` restarts the ranks. Exit codes 1 to 127 are final; after 128 and up
the operator starts the pod again, where restartPolicy is ExitCode. Type: kubectl create -f pytorchjob.yaml"""


def render(policy: Policy, job: Job) -> Rendered:
    """The manifest, and the command that submits it."""
    shell = node.command(job, endpoint="$MASTER_ADDR:$MASTER_PORT", job_id="$MASTER_ADDR")
    named = f'export MEGATRON_RESUME_LAUNCH_ID="$MASTER_ADDR"\nexec {shell}\n'
    replica = {
        "restartPolicy": "ExitCode" if policy.max_restarts else "Never",
        "template": {"spec": kubernetes.pod(policy, job, CONTAINER, named, {})},
    }
    replicas = {"Master": {"replicas": 1, **replica}}
    if job.nnodes > 1:
        replicas["Worker"] = {"replicas": job.nnodes - 1, **replica}
    content = {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": kubernetes.metadata(job),
        "spec": {"runPolicy": {"cleanPodPolicy": "Running"}, "pytorchReplicaSpecs": replicas},
    }
    return Rendered(
        ("kubectl", "create", "-f", FILE),
        {},
        {FILE: kubernetes.manifest(HEAD, content)},
        (
            *counted_by_the_job(policy, "the operator restarts a pod as long as it exits with 128 or more"),
            *by_the_job(policy, "hang", "refill_after", "no_progress_limit", "retry", "fatal", "stop_signals"),
        ),
    )
