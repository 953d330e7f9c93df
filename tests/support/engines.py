"""The jobs and policies that goldens are rendered for; executed, it writes them anew (`make golden`)."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from megatron_resume.cli.launch import ENGINES
from megatron_resume.launch.job import Job, Rendered
from megatron_resume.policy import Policy, policy_of

from . import TESTS

GOLDEN = TESTS / "launch" / "golden"

SCRIPT = ("train.py", "--save", "/ckpt/run 1", "--lr", "1e-5")
ONE_NODE = Job(SCRIPT, nproc_per_node=8, image="registry.example/megatron:1", mounts=("ckpt:/ckpt",))
TWO_NODES = ONE_NODE._replace(nnodes=2, name="rlhf", endpoint="node0:29400", job_id="run1")
DEFAULT = Policy()
EVERY_FIELD = policy_of(
    {
        "max_restarts": 5,
        "hang": {
            "timeout": "20m",
            "setup": "30m",
            "rollout": "2h",
            "train": "10m",
            "checkpoint": "15m",
            "evaluate": "25m",
            "exit": "5m",
        },
        "refill_after": {"commits": 3, "health": "6h"},
        "no_progress_limit": 3,
        "retry": [1, "ConnectionError"],
        "fatal": [66, "torch.OutOfMemoryError"],
        "grace_period": "2m30s",
    },
    "every field",
)
NO_RESTARTS = policy_of({"max_restarts": 0}, "no restarts")


class Case(NamedTuple):
    """What is rendered into one file."""

    name: str
    engine: str
    policy: Policy
    job: Job

    @property
    def golden(self) -> Path:
        return GOLDEN / f"{self.name}.txt"

    def rendered(self) -> Rendered:
        return ENGINES[self.engine](self.policy, self.job)

    def text(self) -> str:
        """All of it: the line to type, files, warnings."""
        rendered = self.rendered()
        files = "".join(f"\n--- {name}\n{text}" for name, text in rendered.files.items())
        warnings = "".join(f"warning: {warning}\n" for warning in rendered.warnings)
        return f"{rendered.as_shell()}\n{files}\n{warnings}"


def cases() -> Iterator[Case]:
    for engine in ENGINES:
        for version in ("0.4", "0.7") if engine == "nvrx" else (None,):
            name = f"{engine}_{version}" if version else engine
            one, two = (job._replace(nvrx_version=version) for job in (ONE_NODE, TWO_NODES))
            yield Case(f"{name}.default", engine, DEFAULT, one)
            yield Case(f"{name}.every_field", engine, EVERY_FIELD, two)
            yield Case(f"{name}.no_restarts", engine, NO_RESTARTS, one._replace(gpus_per_node=0, mounts=()))


CASES = list(cases())

if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for path in GOLDEN.glob("*.txt"):
        path.unlink()
    for case in CASES:
        case.golden.write_text(case.text(), encoding="utf-8")
