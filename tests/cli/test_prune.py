"""`prune` removes what a job would, says what it did, and refuses what would leave no net."""

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from megatron_resume.checkpoint.layout import PointName
from megatron_resume.cli import main
from megatron_resume.errors import ConfigError
from support.job_on_disk import JobOnDisk, contents


@pytest.fixture
def job(tmp_path: Path) -> JobOnDisk:
    """One attempt with points 2, 4, 6 and 8; of 6 somebody deleted the model of policy."""
    made = JobOnDisk(tmp_path)
    made.attempt()
    for iteration in (2, 4, 6, 8):
        made.save(1, iteration)
    shutil.rmtree(made.model("policy", 6))
    return made


def prune(job: JobOnDisk, *flags: str) -> int:
    return main(["prune", str(job.root), *flags])


def test_the_newest_whole_points_stay_and_the_damaged_one_is_named(
    job: JobOnDisk, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    assert prune(job, "--keep", "2") == 0
    removed, damaged = capsys.readouterr().out.splitlines()
    assert removed == "iteration 2 of attempt 1: removed (0.0 MB of models)"
    assert damaged.startswith("iteration 6 of attempt 1 counts for none of the 2 and stays: policy: ")
    assert job.folder().points == [PointName(i, 1) for i in (4, 6, 8)]
    assert job.model("policy", 2).exists(), "models go only when asked for"


def test_models_go_when_asked_for_also_those_of_points_that_are_gone(job: JobOnDisk) -> None:
    prune(job, "--keep", "2")
    prune(job, "--keep", "2", "--models")
    assert not [path for path in contents(job.base) if "iter_0000002" in path]
    assert job.model("policy", 4).exists()


@pytest.mark.parametrize("flags", [(), ("--models",)], ids=["", "models"])
def test_a_dry_run_says_the_same_and_changes_nothing(
    job: JobOnDisk, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...]
) -> None:
    before = contents(job.base)
    assert prune(job, "--keep", "2", "--dry-run", "--json", *flags) == 0
    assert contents(job.base) == before
    foretold = json.loads(capsys.readouterr().out)
    prune(job, "--keep", "2", "--json", *flags)
    done = json.loads(capsys.readouterr().out)
    for row in (*foretold["removed"], *done["removed"]):
        row.pop("done")
    assert foretold == done


def test_fewer_than_two_are_refused_before_anything_is_removed(
    job: JobOnDisk, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(job.base)
    assert prune(job, "--keep", "1") == ConfigError.exit_code
    assert "type 2 or more" in capsys.readouterr().err
    assert contents(job.base) == before


def test_a_folder_that_is_none_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prune", str(tmp_path / "typo"), "--keep", "2"]) == ConfigError.exit_code
    assert "name the one given as --data-checkpoint-path" in capsys.readouterr().err


def test_nothing_to_remove_is_said(job: JobOnDisk, capsys: pytest.CaptureFixture[str]) -> None:
    assert prune(job, "--keep", "9") == 0
    assert "Nothing is older than the newest 9 whole points of the live line." in capsys.readouterr().out


def test_times_and_folders_of_others_decide_nothing_and_stay(job: JobOnDisk) -> None:
    for name in ("replica0_step9", "iter_0000009", "iter_0000003.a0001.bak", "iter_0000001.a1"):
        (job.root / name).mkdir()
        (job.root / name / "meta.pkl").write_bytes(b"of somebody else")
    (job.save_folder("policy") / "iter_0000001").mkdir()
    others = {
        path: data for path, data in contents(job.base).items() if "_step9" in path or data == b"of somebody else"
    }
    for age, path in enumerate(sorted(job.base.rglob("*iter_*"))):  # the newest was written first
        os.utime(path, (4e9 - 1000 * age, 4e9 - 1000 * age))
    prune(job, "--keep", "2", "--models")
    assert job.folder().points == [PointName(i, 1) for i in (4, 6, 8)]
    assert others.items() <= contents(job.base).items()
    assert (job.save_folder("policy") / "iter_0000001").is_dir()


def test_many_folders_of_few_points_are_few_points(job: JobOnDisk) -> None:
    """Attempts, parts never committed and roles are folders, too."""
    for iteration in (10, 12, 14):
        attempt = job.attempt(PointName(8, 1))
        job.save(attempt, iteration, parts=("policy",))
    prune(job, "--keep", "3")
    assert job.folder().committed == [PointName(i, 1) for i in (2, 4, 6, 8)]


def test_a_removal_that_a_death_left_is_foretold_too(job: JobOnDisk, capsys: pytest.CaptureFixture[str]) -> None:
    (job.root / "pruned").mkdir()
    (job.root / "iter_0000002.a0001").rename(job.root / "pruned" / "iter_0000002.a0001")
    rows = []
    for flags in (("--dry-run",), ()):
        assert prune(job, "--keep", "2", "--json", *flags) == 0
        rows.append([row["iteration"] for row in json.loads(capsys.readouterr().out)["removed"]])
    assert rows == [[2], [2]]


@pytest.mark.parametrize("flags", [(), ("--dry-run",)], ids=["", "dry run"])
def test_nothing_is_removed_while_the_newest_attempt_cannot_be_read(
    job: JobOnDisk, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...]
) -> None:
    attempt = job.attempt(PointName(8, 1))
    (job.root / "attempts" / f"{attempt:04d}" / "start.json").write_text("{")
    before = contents(job.base)
    assert prune(job, "--keep", "2", *flags) == 65
    assert "what attempt 2 continues from is unknown, so nothing is removed" in capsys.readouterr().err
    assert contents(job.base) == before


def test_what_was_removed_before_something_failed_is_said(
    job: JobOnDisk, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    job.save(1, 10)
    shutil.copy(job.root / "iter_0000004.a0001" / "policy.json", job.base / "of somebody else")
    (job.root / "pruned" / "iter_0000004.a0001").mkdir(parents=True)
    (job.base / "of somebody else").rename(job.root / "pruned" / "iter_0000004.a0001" / "of somebody else")
    with suppress(OSError):
        prune(job, "--keep", "2", "--json")
    assert "iteration 2 of attempt 1: removed" in capsys.readouterr().err
