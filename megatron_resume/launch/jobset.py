"""JobSet of kubernetes-sigs: one Job of a pod for each node, made anew as a whole when a pod fails.

A podFailurePolicy tells a final exit code from the others (JobSet v0.6 and newer: failurePolicy.rules). Its names for
pods and annotations: jobset sources, api/jobset/v1alpha2/jobset_types.go.
"""

from typing import Any

from ..checkpoint.launch_key import LAUNCH_ID, REQUEUES
from ..policy import Policy
from . import kubernetes, node
from .job import Job, Rendered, by_the_job, counted_by_the_job, engine_restarts

FILE = "jobset.yaml"
NODE = "node"  # the replicated job
FINAL = range(1, 128)  # exit codes
HEAD = """\
One pod per node, in which `megatron-resume launch` restarts the ranks. Exit codes 1 to 127 are final; after 128 and up
all pods are made anew, up to maxRestarts times. Type: kubectl create -f jobset.yaml"""


def render(policy: Policy, job: Job) -> Rendered:
    """The manifest, and the command that submits it."""
    shell = node.command(job, endpoint=f"$JOBSET_NAME-{NODE}-0-0.$JOBSET_NAME:{node.PORT}", job_id="$JOBSET_NAME")
    environ = {
        "JOBSET_NAME": _annotation("jobset-name"),
        LAUNCH_ID: "$(JOBSET_NAME)",
        REQUEUES: _annotation("restart-attempt"),
    }
    pod = {"restartPolicy": "Never", **kubernetes.pod(policy, job, NODE, f"exec {shell}\n", environ)}
    one_job = {
        "backoffLimit": 0,
        "completions": job.nnodes,
        "parallelism": job.nnodes,
        "podFailurePolicy": {
            "rules": [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": list(FINAL)}}]
        },
        "template": {"spec": pod},
    }
    final = {"name": "final", "action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}
    content = {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": kubernetes.metadata(job),
        "spec": {
            "network": {"enableDNSHostnames": True},
            "failurePolicy": {"maxRestarts": engine_restarts(policy), "rules": [final]},
            "replicatedJobs": [{"name": NODE, "replicas": 1, "template": {"spec": one_job}}],
        },
    }
    return Rendered(
        ("kubectl", "create", "-f", FILE),
        {},
        {FILE: kubernetes.manifest(HEAD, content)},
        (
            *counted_by_the_job(policy, "maxRestarts of a JobSet cannot be given back, so it is large"),
            *by_the_job(policy, "hang", "refill_after", "no_progress_limit", "retry", "fatal", "stop_signals"),
        ),
    )


def _annotation(name: str) -> dict[str, Any]:
    return {"fieldRef": {"fieldPath": f"metadata.annotations['jobset.sigs.k8s.io/{name}']"}}
