"""What Kubernetes is told the same way whatever creates the pods."""

import re
from typing import Any

from ..errors import ConfigError
from ..policy import VARIABLE, Policy
from ..sources import show
from . import node
from .job import Job, after_grace

_NAME = re.compile(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?")  # of 63, five for the random end, the rest for that of a pod
_FILLED_IN = re.compile(r"\$(?=[$(])")  # by Kubernetes: $(NAME) becomes a value, and $$ a single $
GPU = "nvidia.com/gpu"


def metadata(job: Job) -> dict[str, str]:
    """A new name for each `kubectl create`: under it the job counts its failures and honours requests once.

    Raises:
        ConfigError: Kubernetes accepts no such name.
    """
    if not _NAME.fullmatch(job.name):
        raise ConfigError(
            f"--name is {show(job.name)}; Kubernetes needs 1 to 40 lower case letters, digits and `-`, with a letter "
            "first and no `-` at the end"
        )
    return {"generateName": f"{job.name}-"}


def pod(policy: Policy, job: Job, container: str, shell: str, environ: dict[str, Any]) -> dict[str, Any]:
    """The spec of a pod which is one node; `environ` maps variables to text, or to where Kubernetes finds it.

    Raises:
        ConfigError: There is no image, or a mount is not `CLAIM:/PATH`.
    """
    given = {VARIABLE: node.policy_text(policy) + "\n", **environ}
    claims = [_mount(text) for text in job.mounts]
    limits = {"resources": {"limits": {GPU: job.gpus}}} if job.gpus else {}
    return {
        "terminationGracePeriodSeconds": after_grace(policy),
        "containers": [
            {
                "name": container,
                "image": node.image(job),
                "command": ["bash", "-c", _FILLED_IN.sub("$$", shell)],
                "env": [
                    {"name": name, "value" if isinstance(value, str) else "valueFrom": value}
                    for name, value in given.items()
                ],
                **limits,
                "volumeMounts": [
                    {"name": "shm", "mountPath": "/dev/shm"},
                    *({"name": claim, "mountPath": path} for claim, path in claims),
                ],
            }
        ],
        "volumes": [
            {"name": "shm", "emptyDir": {"medium": "Memory"}},
            *({"name": claim, "persistentVolumeClaim": {"claimName": claim}} for claim, _ in dict(claims).items()),
        ],
    }


def _mount(text: str) -> tuple[str, str]:
    claim, _, path = text.partition(":")
    if not (_NAME.fullmatch(claim) and path.startswith("/")):
        raise ConfigError(
            f"--mount is {show(text)}; write the name of a volume claim and where to mount it, CLAIM:/PATH"
        )
    return claim, path


def manifest(head: str, content: dict[str, Any]) -> str:
    """The YAML file, with `head` as a comment above it."""
    import yaml  # 40 ms, and `launch` needs none of it

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: object) -> bool:
            return True

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)

    def sequence(dumper: yaml.SafeDumper, value: list[object]) -> yaml.SequenceNode:
        is_flow = bool(value) and all(isinstance(item, int) for item in value)
        return dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=is_flow)

    Dumper.add_representer(str, text)
    Dumper.add_representer(list, sequence)
    comment = "".join(f"# {line}\n" for line in head.splitlines())
    return comment + yaml.dump(content, Dumper=Dumper, sort_keys=False, width=10_000)
