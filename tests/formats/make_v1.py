"""Write `v1/`: whole and damaged jobs as version 1 of the stored format has them, for all later readers.

    PYTHONPATH=tests python tests/formats/make_v1.py

What exists is left alone: a new version of the format adds a folder, and edits none.
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec

from megatron_resume.checkpoint import model_files
from megatron_resume.checkpoint.events import Failed
from megatron_resume.checkpoint.layout import (
    COMMITTED,
    DATA,
    START,
    PointName,
    attempt_path,
    digests_path,
    point_path,
)
from megatron_resume.checkpoint.records import DataCheckpoint, Moment, Receipt
from support.job_on_disk import TIME, JobOnDisk

HERE = Path(__file__).resolve().parent
NEWEST = PointName(4, 1)


def at(job: JobOnDisk) -> Path:
    return point_path(job.root, NEWEST)


def rewrite(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def fail_and_tear(job: JobOnDisk) -> None:
    for _ in range(2):
        job.tell(1, Failed(time=TIME, error="RuntimeError", message="NCCL timeout", exit_code=1))
    os.truncate(job.events(1), job.events(1).stat().st_size - 10)


def keep_digests(job: JobOnDisk) -> None:
    for iteration in (2, NEWEST.iteration):
        job.keep_digests(PointName(iteration, 1))
        for role in job.roles:  # as when it is cloned
            os.utime(job.model(role, iteration) / "__0_0.distcp")


def keep_digests_and_tear(job: JobOnDisk) -> None:
    keep_digests(job)
    os.truncate(digests_path(job.root, NEWEST, "value"), 100)


class Imported(JobOnDisk):
    """A job of which an import could not know everything."""

    def receipt(self, role: str, name: PointName, progress: Moment) -> Receipt:
        unknown = ("consumed_train_samples", "scheduler_steps", "versions", "arguments")
        return msgspec.structs.replace(super().receipt(role, name, progress), **dict.fromkeys(unknown, msgspec.UNSET))

    def data(self, name: PointName) -> DataCheckpoint:
        return msgspec.structs.replace(super().data(name), tracked=msgspec.UNSET)


class OfChatLearn(JobOnDisk):
    """A job whose data lies with a process of its own, so that its trained roles know of no episodes."""

    def receipt(self, role: str, name: PointName, progress: Moment) -> Receipt:
        return msgspec.structs.replace(super().receipt(role, name, progress), progress=msgspec.UNSET)


class OfListedTensors(JobOnDisk):
    """A job whose receipts say what tensors its models hold."""

    def receipt(self, role: str, name: PointName, progress: Moment) -> Receipt:
        held = {
            "model": {"decoder.weight": "tensor bfloat16 [64, 64]", "embedding.weight": "padded bfloat16 [256, 64]"},
            "optimizer": {
                "optimizer.state.exp_avg.decoder.weight": "tensor float32 [64, 64]",
                "optimizer/param_groups": "groups []",
            },
            "rest": {"rng_state": "object [1, 1]"},
        }
        return msgspec.structs.replace(super().receipt(role, name, progress), tensors=held)


JOBS: dict[str, Callable[[JobOnDisk], object]] = {
    "whole": lambda job: None,
    "torn_manifest": lambda job: os.truncate(at(job) / COMMITTED, 100),
    "manifest_of_version_2": lambda job: rewrite(at(job) / COMMITTED, version=2),
    "receipt_missing": lambda job: (at(job) / "value.json").unlink(),
    "data_changed": lambda job: rewrite(at(job) / DATA, tracked={}),
    "shard_missing": lambda job: (job.model("policy", 4) / "__0_0.distcp").unlink(),
    "shard_changed": lambda job: (job.model("policy", 4) / "__0_0.distcp").write_bytes(b"w" * 40),
    "start_torn": lambda job: os.truncate(attempt_path(job.root, 1) / START, 20),
    "never_committed": lambda job: (at(job) / COMMITTED).unlink(),
    "events_torn": fail_and_tear,
    "digests_kept": keep_digests,
    "digests_torn": keep_digests_and_tear,
    "imported": lambda job: None,
    "data_elsewhere": lambda job: None,
    "tensors_listed": lambda job: None,
    "all_damaged": lambda job: shutil.rmtree(job.save_folder("value")),
}

KINDS: dict[str, type[JobOnDisk]] = {
    "imported": Imported,
    "data_elsewhere": OfChatLearn,
    "tensors_listed": OfListedTensors,
}


OF_LARGE_FILES = ("digests_kept", "digests_torn")  # their receipts have no digest of a shard


def make(target: Path, damage: Callable[[JobOnDisk], object]) -> None:
    job = KINDS.get(target.name, JobOnDisk)(target, saved_at=Path("/shared/run1"))
    attempt = job.attempt()
    job.save(attempt, 2)
    job.save(attempt, NEWEST.iteration)
    damage(job)


if __name__ == "__main__":
    for name, damage in JOBS.items():
        if not (HERE / "v1" / name).exists():
            model_files.DIGEST_UP_TO = 30 if name in OF_LARGE_FILES else 16 << 20
            make(HERE / "v1" / name, damage)
            print(f"wrote v1/{name}")
