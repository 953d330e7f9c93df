"""Removing points: a reader finds each one whole or not at all, also when the remover dies at any step."""

import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from megatron_resume import crash
from megatron_resume.checkpoint import leftovers, model_files
from megatron_resume.checkpoint.folder import save_folder
from megatron_resume.checkpoint.layout import COMMITTED, DIGESTS, PointName, point_path
from megatron_resume.checkpoint.records import Receipt
from megatron_resume.checkpoint.removal import Removed, finish, hidden, remove
from megatron_resume.errors import ConfigError, RejoinError
from megatron_resume.resume.choose import Refused, Resume
from support.job_on_disk import JobOnDisk, contents

STEPS = [
    *(f"{step}@iter_0000002.a0001" for step in ("move.begin", "move.renamed", "move.end")),
    "prune.hidden",
    *(f"{step}@iter_0000002:{nth}" for nth in (1, 2) for step in ("move.begin", "move.renamed", "move.end")),
    "prune.model@policy",
    "prune.model@value",
    "prune.end",
]


@pytest.fixture
def job(tmp_path: Path) -> JobOnDisk:
    """One attempt with points 2, 4 and 6."""
    made = JobOnDisk(tmp_path)
    made.attempt()
    for iteration in (2, 4, 6):
        made.save(1, iteration)
    return made


def save_of(job: JobOnDisk, receipt: Receipt) -> Path:
    return save_folder(job.root, receipt)


def remove_points(job: JobOnDisk, *iterations: int, models: bool = True, attempt: int = 1) -> list[Removed]:
    names = [PointName(iteration, 1) for iteration in iterations]
    return list(remove(job.root, names, lambda r: save_of(job, r), attempt=attempt, models=models))


def finish_all(job: JobOnDisk, *, models: bool = True) -> list[Removed]:
    return list(finish(job.root, lambda r: save_of(job, r), attempt=1, models=models))


def left_of(job: JobOnDisk, iteration: int) -> list[str]:
    return [path for path in contents(job.base) if f"iter_{iteration:07d}" in path]


def test_the_digests_of_a_removed_point_go_with_it(job: JobOnDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_files, "DIGEST_UP_TO", 30)
    for name in (job.save(1, 8), job.save(1, 10)):
        job.keep_digests(name)
    os.utime(job.model("policy", 8) / "__0_0.distcp")  # so that only they vouch for it
    (removed,) = remove_points(job, 8)
    assert removed.left == ()
    assert left_of(job, 8) == []
    assert os.listdir(job.root / DIGESTS) == [PointName(10, 1).folder]


def test_a_removed_point_leaves_nothing_and_the_others_stay_as_they_are(job: JobOnDisk) -> None:
    before = contents(job.base)
    sizes = sum(path.stat().st_size for role in job.roles for path in job.model(role, 2).iterdir())
    assert remove_points(job, 2) == [Removed(PointName(2, 1), sizes)]
    assert left_of(job, 2) == []
    after = contents(job.base)
    assert {path: data for path, data in before.items() if "iter_0000002" not in path}.items() <= after.items()


def test_without_models_they_stay_and_so_does_what_says_whose_they_are(job: JobOnDisk) -> None:
    remove_points(job, 2, models=False)
    assert [path for path in left_of(job, 2) if "checkpoints" in path], "the models went"
    assert job.folder().points == [PointName(4, 1), PointName(6, 1)]
    assert leftovers.iterations_of_job(job.root) == {2, 4, 6}
    finish_all(job, models=False)
    assert hidden(job.root) == [PointName(2, 1)]
    finish_all(job, models=True)
    assert left_of(job, 2) == []


def lost(receipt: Path) -> None:
    receipt.unlink()


def torn(receipt: Path) -> None:
    os.truncate(receipt, 20)


def of_another_role(receipt: Path) -> None:
    shutil.copyfile(receipt.with_name("value.json"), receipt)


def all_lost(receipt: Path) -> None:
    receipt.unlink()
    receipt.with_name("value.json").unlink()


def without_the_roles(receipt: Path) -> None:
    torn(receipt)
    torn(receipt.with_name(COMMITTED))


@pytest.mark.parametrize("models", [True, False], ids=["with models", "without"])
@pytest.mark.parametrize("damage", [lost, torn, of_another_role, all_lost, without_the_roles])
def test_the_model_of_a_removed_point_whose_receipt_is_damaged_stays_known_as_the_jobs(
    job: JobOnDisk, damage: Callable[[Path], None], models: bool
) -> None:
    """Else a start over would leave it where it stands, and Megatron load it instead of beginning anew."""
    damage(point_path(job.root, PointName(2, 1)) / "policy.json")
    (removed,) = remove_points(job, 2, models=models)
    assert ("nobody else knows where its model stands" in str(removed.left)) == models
    for _ in range(2):
        finish_all(job, models=models)
        assert job.model("policy", 2).exists()
        assert 2 in leftovers.iterations_of_job(job.root)


@pytest.mark.parametrize("models", [True, False], ids=["with models", "without"])
@pytest.mark.parametrize("step", STEPS)
def test_killed_at_any_step_no_reader_is_deceived_and_the_next_one_finishes(
    job: JobOnDisk, step: str, models: bool
) -> None:
    if not models and "iter_0000002:" in step:
        return_code = killed_at(job, step, models=False)
        assert return_code == 0, "no model was to move"
    else:
        assert killed_at(job, step, models=models) == -signal.SIGKILL
    for name in job.folder().committed:
        job.point(name)
    outcome = job.choose()
    assert isinstance(outcome, Resume)
    assert outcome.point.name == PointName(6, 1)
    remove_points(job, 2, models=models)
    finish_all(job, models=models)
    assert PointName(2, 1) not in job.folder().points
    assert [path for path in left_of(job, 2) if models or path.endswith((".tmp", "COMMITTED", "data.json"))] == []


def killed_at(job: JobOnDisk, step: str, *, models: bool) -> int | None:
    process = multiprocessing.get_context("fork").Process(target=remove_and_die, args=(job, step, models))
    process.start()
    process.join(60)
    return process.exitcode


def remove_and_die(job: JobOnDisk, step: str, models: bool) -> None:
    crash.arm(step)
    remove_points(job, 2, models=models)


def test_a_model_that_is_not_the_one_that_was_saved_is_left_and_named(job: JobOnDisk) -> None:
    (job.model("policy", 2) / "__0_0.distcp").write_bytes(b"somebody else's weights")
    [removed] = remove_points(job, 2)
    assert "__0_0.distcp has 23 bytes" in removed.left[0]
    assert (job.model("policy", 2) / "__0_0.distcp").read_bytes() == b"somebody else's weights"
    assert not job.model("value", 2).exists()


def test_files_that_nobody_receipted_are_never_deleted(job: JobOnDisk) -> None:
    (job.model("policy", 2) / "notes.txt").write_text("mine")
    (point_path(job.root, PointName(2, 1)) / "notes.txt").write_text("mine, too")
    remove_points(job, 2)
    kept = [path for path, data in contents(job.base).items() if path.endswith("notes.txt") and data]
    assert len(kept) == 2


def test_a_link_in_the_place_of_a_model_is_not_followed(job: JobOnDisk, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    shutil.move(job.model("policy", 2), elsewhere)
    os.symlink(elsewhere, job.model("policy", 2))
    remove_points(job, 2)
    assert len(list(elsewhere.iterdir())) == 2


def test_a_point_is_put_back_when_a_newer_attempt_began(job: JobOnDisk) -> None:
    job.attempt(PointName(2, 1))
    before = contents(job.base)
    with pytest.raises(RejoinError, match="attempt 2 began"):
        remove_points(job, 2)
    assert {p: d for p, d in contents(job.base).items() if p != "data_checkpoint/pruned"} == before


def test_a_start_that_asks_for_a_removed_point_is_told_so(job: JobOnDisk) -> None:
    job.attempt(PointName(2, 1))
    remove_points(job, 2, models=False, attempt=2)
    outcome = job.choose()
    assert isinstance(outcome, Refused)
    assert "retention removed it" in str(outcome.passed_over[0])


def test_an_attempt_that_loses_its_way_to_the_models_does_not_forget_whose_they_are(job: JobOnDisk) -> None:
    """A newer one began, and took its name for the save folder away, while it removed a point."""
    lost = job.base / "no longer there"
    name = PointName(2, 1)
    steps = remove(job.root, [name], lambda r: begin_another(job) or lost, attempt=1, models=False)
    with pytest.raises(RejoinError, match="attempt 2 began"):
        list(steps)
    assert job.model("policy", 2).exists()
    assert 2 in leftovers.iterations_of_job(job.root)


def begin_another(job: JobOnDisk) -> None:
    if len(job.folder().starts) == 1:
        job.attempt(PointName(6, 1))


def restore(job: JobOnDisk, backup: Path, iteration: int) -> None:
    shutil.copytree(backup / f"iter_{iteration:07d}.a0001", job.root / f"iter_{iteration:07d}.a0001")


def test_a_point_that_was_restored_from_a_backup_is_no_leftover_and_keeps_its_models(
    job: JobOnDisk, tmp_path: Path
) -> None:
    shutil.copytree(job.root, tmp_path / "backup")
    remove_points(job, 2, models=False)
    restore(job, tmp_path / "backup", 2)
    assert finish_all(job) == []
    assert job.folder().points == [PointName(i, 1) for i in (2, 4, 6)]
    assert job.point(PointName(2, 1))


def test_a_point_that_was_restored_can_be_removed_again(job: JobOnDisk, tmp_path: Path) -> None:
    shutil.copytree(job.root, tmp_path / "backup")
    remove_points(job, 2, models=False)
    restore(job, tmp_path / "backup", 2)
    (removed,) = remove_points(job, 2)
    assert removed.point == PointName(2, 1)
    assert [path for path in left_of(job, 2) if not path.startswith("backup")] == [], "with its models"
    assert hidden(job.root) == []


def test_a_receipt_of_another_point_takes_no_model_with_it(job: JobOnDisk) -> None:
    remove_points(job, 2, models=False)
    copied = point_path(job.root, PointName(6, 1)) / "policy.json"
    shutil.copy(copied, job.root / "pruned" / "iter_0000002.a0001" / "policy.json")
    finish_all(job)
    assert job.point(PointName(6, 1))


def test_models_that_were_imported_are_not_ours_to_delete(job: JobOnDisk) -> None:
    start = job.root / "attempts" / "0001" / "start.json"
    start.write_text(start.read_text().replace('"config": {', '"config": {"imported": {"step": 2},'))
    (removed,) = remove_points(job, 2)
    assert all("it was imported" in reason for reason in removed.left)
    assert job.model("policy", 2).exists()
    assert PointName(2, 1) not in job.folder().points


def test_a_model_whose_folder_cannot_be_reached_now_is_not_forgotten(job: JobOnDisk) -> None:
    def save(receipt: Receipt) -> Path:
        return save_of(job, receipt) if receipt.role == "policy" else job.root / "attempts" / "0001" / "value.save"

    (removed,) = remove(job.root, [PointName(2, 1)], save, attempt=1, models=True)
    assert "value.save leads nowhere" in removed.left[0]
    assert hidden(job.root) == [PointName(2, 1)]
    finish_all(job)
    assert left_of(job, 2) == []


@pytest.mark.parametrize("act", [lambda job: remove_points(job, 2), finish_all])
def test_nothing_leaves_the_folder_by_a_link(job: JobOnDisk, tmp_path: Path, act: Any) -> None:
    (tmp_path / "elsewhere").mkdir()
    (job.root / "pruned").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="is a link, by which points would leave"):
        act(job)
    assert job.point(PointName(2, 1))
