"""Promise: `status` on a folder with 100 resume points takes at most 0.3 s, from start to exit."""

import json
import os
import sys
import tempfile
import time
from pathlib import Path

from megatron_resume.checkpoint import attempts, commit
from megatron_resume.checkpoint.layout import PointName, model_folder
from megatron_resume.checkpoint.model_files import record_files
from megatron_resume.checkpoint.records import DataCheckpoint, Launch, Progress, Receipt, Start
from promise import Result, compile_package, fresh_process, main, result

POINTS = 100
ROUNDS = 11
ROLES = ("policy", "value")
SHARDS = 16  # files of one model checkpoint, as 8 ranks write them
NONCE = "0" * 32


def build(root: Path) -> None:
    """A data checkpoint folder with `POINTS` committed points of one attempt, and the models beside it."""
    attempt = attempts.take_number(root)
    attempts.write_start(
        root,
        Start(
            attempt=attempt,
            nonce=NONCE,
            outcome="fresh",
            parent=None,
            ancestry=(),
            requested_iteration=None,
            requested_fresh=False,
            launch=Launch(job="bench", restart=0, host="bench", pid=1),
            versions={},
            config={},
            created="2026-01-01T00:00:00+00:00",
        ),
    )
    for iteration in range(1, POINTS + 1):
        save_point(root, PointName(iteration, attempt))


def save_point(root: Path, name: PointName) -> None:
    progress = Progress(episode=name.iteration, consumed_samples=32 * name.iteration)
    common = {"iteration": name.iteration, "attempt": name.attempt, "nonce": NONCE, "progress": progress}
    point = commit.open_point(root, name)
    for role in ROLES:
        save = root.parent / role
        model = save / model_folder(name.iteration)
        model.mkdir(parents=True)
        for shard in range(SHARDS):
            (model / f"__{shard}_0.distcp").write_bytes(os.urandom(64))
        receipt = Receipt(
            **common,
            role=role,
            directory=str(save),
            relative=f"../{role}",
            format="torch_dist",
            files=record_files(model),
            consumed_train_samples=progress.consumed_samples,
            versions={},
        )
        commit.write_receipt(point, receipt)
    commit.write_data(point, DataCheckpoint(**common, tracked={}, rng=None, fingerprints={}), None)
    commit.commit(point, name, nonce=NONCE, roles=ROLES)


def seconds(*arguments: str) -> float:
    begin = time.perf_counter()
    fresh_process(*arguments)
    return time.perf_counter() - begin


def measure() -> Result:
    compile_package()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "data_checkpoint"
        root.mkdir()
        build(root)
        status = ("-m", "megatron_resume", "status", str(root))
        report = json.loads(fresh_process(*status, "--json"))
        assert report["outcome"] == "resume", report
        assert len(report["points"]) == POINTS
        tables = [seconds(*status) for _ in range(ROUNDS)]
    bare = sorted(seconds("-c", "") for _ in range(ROUNDS))[ROUNDS // 2]
    return result(f"status of {POINTS} points", tables, 0.3, "s", python_itself=round(bare, 3))


if __name__ == "__main__":
    sys.exit(main(measure))
