"""What lies in a model's folder only for a moment is no part of the model: a point outlives it."""

import os
import shutil
from pathlib import Path

import pytest

from megatron_resume.checkpoint.digests import undigested
from megatron_resume.checkpoint.layout import PointName
from megatron_resume.checkpoint.model_files import DIGEST_UP_TO, record_files
from megatron_resume.checkpoint.momentary import is_momentary
from megatron_resume.cli.verify import examine
from megatron_resume.resume.choose import Resume
from support.job_on_disk import JobOnDisk

MOMENTARY = [
    ".nfs000000000000abcd00000012",
    ".fuse_hidden0000004200000001",
    ".__0_0.distcp.Xy3bZ9",
    ".~tmp~/__0_0.distcp",
    ".rsync-partial/__0_0.distcp",
    ".metadata.tmp",
    "__0_0.distcp.part",
    "__0_0.distcp.filepart",
    ".goutputstream-AB12CD",
    ".common.pt.swp",
    "common.pt~",
    "common.pt._COPYING_",
    "._common.pt",
]
LASTING = [
    ".metadata",
    "metadata.json",
    "common.pt",
    "__0_0.distcp",
    "mp_rank_00/model_optim_rng.pt",
    "model.pickle",
    ".hidden.config",
    "template/weights.bin",
    "nfs0001",
    "train_dataloader_dprank000.pt",
]


@pytest.mark.parametrize("name", MOMENTARY)
def test_a_point_is_whole_after_what_was_there_for_a_moment_is_gone_or_grew(job: JobOnDisk, name: str) -> None:
    attempt = job.attempt()
    path = job.model("policy", 4) / name
    save_model = job.save_model

    def save_with_it(role: str, point: PointName) -> Path:
        folder = save_model(role, point)
        if role == "policy":
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"half of it")
        return folder

    job.save_model = save_with_it  # type: ignore[method-assign]
    point = job.save(attempt, 4)
    path.write_bytes(b"half of it, and more")
    assert chosen(job) == point
    path.unlink()
    if path.parent != job.model("policy", 4):
        path.parent.rmdir()
    assert chosen(job) == point
    assert examine(job.root, deep=True)["damaged"] == 0


def chosen(job: JobOnDisk) -> PointName | None:
    outcome = job.choose()
    return outcome.point.name if isinstance(outcome, Resume) else None


def test_a_receipt_of_an_older_release_that_names_one_is_still_of_a_whole_point(
    job: JobOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    from megatron_resume.checkpoint import model_files

    attempt = job.attempt()
    with monkeypatch.context() as older:
        older.setattr(model_files, "is_momentary", lambda path: False)
        save_model = job.save_model

        def save_with_it(role: str, point: PointName) -> Path:
            folder = save_model(role, point)
            (folder / ".nfs000000000000abcd00000012").write_bytes(b"deleted, and open")
            os.truncate(folder / ".nfs000000000000abcd00000012", DIGEST_UP_TO + 1)
            return folder

        job.save_model = save_with_it  # type: ignore[method-assign]
        point = job.save(attempt, 4)
    receipt = job.point(point).receipts["policy"]
    assert [record.path for record in receipt.files if record.path.startswith(".nfs")]
    assert undigested(receipt) == []
    for role in job.roles:
        (job.model(role, 4) / ".nfs000000000000abcd00000012").unlink()
    assert chosen(job) == point
    assert examine(job.root)["damaged"] == 0


@pytest.mark.parametrize("name", LASTING)
def test_what_megatron_or_a_script_writes_is_recorded_and_missed(tmp_path: Path, name: str) -> None:
    assert not is_momentary(name)
    path = tmp_path / "model" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"weights")
    assert [record.path for record in record_files(tmp_path / "model")] == [name]


def test_models_that_were_moved_are_found_where_they_were_or_beside_by_what_is_there(job: JobOnDisk) -> None:
    """The data checkpoint folder moved to a storage where an empty save folder stands beside it."""
    point = job.save(job.attempt(), 4)
    elsewhere = job.base / "other storage"
    for role in job.roles:
        (elsewhere / "checkpoints" / role).mkdir(parents=True)
    shutil.move(job.root, elsewhere / "data_checkpoint")
    moved = JobOnDisk(elsewhere)
    found = moved.point(point)
    assert found.directories == {role: job.save_folder(role) for role in job.roles}


def test_a_save_folder_that_is_mounted_elsewhere_is_taken_again_after_what_the_message_says(job: JobOnDisk) -> None:
    import shlex

    from megatron_resume.resume.choose import Refused

    point = job.save(job.attempt(), 4)
    place, new = job.save_folder("value"), job.base / "mounted elsewhere"
    place.rename(new)
    outcome = job.choose()
    assert isinstance(outcome, Refused)
    advice = outcome.passed_over[0].reason
    typed = shlex.join(["ln", "-s", "NEW_PLACE", str(place)])
    assert typed in advice
    assert outcome.reason.index("mounted") < outcome.reason.index("--start-over")
    os.system(typed.replace("NEW_PLACE", shlex.quote(str(new))))
    assert chosen(job) == point
    assert job.point(point).directories["value"] == new, "so that --save may name either"


def test_a_mount_point_with_nothing_mounted_is_named(job: JobOnDisk) -> None:
    job.save(job.attempt(), 4)
    shutil.rmtree(job.model("value", 4))
    outcome = job.choose()
    assert f"{job.save_folder('value')} holds no model at all: is its storage mounted?" in outcome.passed_over[0].reason


def test_a_fresh_start_names_the_folder_in_which_nothing_was_found(tmp_path: Path) -> None:
    outcome = JobOnDisk(tmp_path).choose()
    assert outcome.reason == f"nothing was committed yet in {tmp_path / 'data_checkpoint'}"
