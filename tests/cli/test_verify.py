"""`verify` says which points are whole; with `--deep` it reads all of them, and goes on where it stopped."""

import json
import math
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from megatron_resume.checkpoint import model_files
from megatron_resume.checkpoint.atomic import replace
from megatron_resume.checkpoint.digests import write_digests
from megatron_resume.checkpoint.layout import PointName, digests_path, point_path
from megatron_resume.checkpoint.leftovers import move_away
from megatron_resume.checkpoint.records import ModelDigests, Receipt, read
from megatron_resume.cli import main
from megatron_resume.cli.verified import Verified, state_path
from megatron_resume.cli.verify import examine
from megatron_resume.errors import DamagedError
from support.job_on_disk import JobOnDisk, contents
from support.waiting import PATIENCE_S, until

V1 = Path(__file__).parents[1] / "formats" / "v1"
NEWEST = PointName(4, 1)
HUGE = 1 << 40  # bytes, of a file without blocks: nobody reads that to its end


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture
def small(job: JobOnDisk) -> JobOnDisk:
    """Two points, whose receipts hold all digests."""
    attempt = job.attempt()
    for iteration in (2, 4):
        job.save(attempt, iteration)
    return job


@pytest.fixture
def large(job: JobOnDisk, monkeypatch: pytest.MonkeyPatch) -> JobOnDisk:
    """Two points, whose receipts have no digest of the shards."""
    monkeypatch.setattr(model_files, "DIGEST_UP_TO", 30)
    attempt = job.attempt()
    for iteration in (2, 4):
        job.save(attempt, iteration)
    return job


def shard(job: JobOnDisk, iteration: int, role: str = "policy") -> Path:
    return job.model(role, iteration) / "__0_0.distcp"


def flip_a_byte(path: Path) -> None:
    """As a disk does: time, size and inode stay."""
    stat = path.stat()
    with open(path, "r+b") as file:
        file.seek(stat.st_size // 2)
        (byte,) = file.read(1)
        file.seek(stat.st_size // 2)
        file.write(bytes([byte ^ 1]))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def verdicts(report: dict[str, Any]) -> dict[tuple[int, int], bool]:
    return {(point["iteration"], point["attempt"]): point["whole"] for point in report["points"]}


def can_be_resumed_from(job: JobOnDisk, name: PointName) -> bool:
    try:
        return job.point(name) is not None
    except DamagedError:
        return False


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("stored", sorted(path.name for path in V1.iterdir()))
def test_a_point_is_whole_where_a_start_would_take_it(
    stored: str, deep: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = JobOnDisk(shutil.copytree(V1 / stored, tmp_path / "job"))
    wanted = {name: can_be_resumed_from(job, name) for name in job.folder().committed}
    code = main(["verify", str(job.root), "--json", *(["--deep"] if deep else [])])
    report = json.loads(capsys.readouterr().out)
    assert verdicts(report) == wanted
    assert (code, report["exit_code"]) == ((0, 0) if all(wanted.values()) else (65, 65))
    assert [bool(point["problems"]) for point in report["points"]] == [not point["whole"] for point in report["points"]]


def test_points_of_abandoned_lines_are_verified_where_a_roll_back_moved_them(small: JobOnDisk) -> None:
    second = small.attempt(PointName(2, 1))
    for role in small.roles:
        move_away(small.save_folder(role), attempt=second, beyond=2)
    small.save(second, 4)
    report = examine(small.root, deep=True)
    assert {(p["iteration"], p["attempt"]): (p["line"], p["whole"]) for p in report["points"]} == {
        (4, 2): ("live", True),
        (4, 1): ("abandoned", True),
        (2, 1): ("live", True),
    }
    assert report["read"]["files"] == 12


def test_a_flipped_byte_in_a_file_over_16_mib_is_found_by_reading_only(job: JobOnDisk) -> None:
    job.shard_size = model_files.DIGEST_UP_TO + 1
    job.keep_digests(job.save(job.attempt(), 2))
    assert examine(job.root, deep=True)["damaged"] == 0
    flip_a_byte(shard(job, 2))
    assert examine(job.root)["damaged"] == 0, "size and time are as ever"
    report = examine(job.root, deep=True, again=True)
    assert report["exit_code"] == 65
    assert report["points"][0]["problems"] == [f"policy: {shard(job, 2)} holds other bytes than were saved"]


def test_files_without_a_digest_are_said_to_be_vouched_for_by_size_and_time(
    large: JobOnDisk, capsys: pytest.CaptureFixture[str]
) -> None:
    large.keep_digests(PointName(2, 1))
    assert main(["verify", str(large.root), "--deep"]) == 0
    assert "2 files have no digest: they are vouched for by size and time only" in capsys.readouterr().out
    by_time = {point["iteration"]: point["by_size_and_time_only"] for point in examine(large.root)["points"]}
    assert by_time == {4: ["policy/__0_0.distcp", "value/__0_0.distcp"], 2: []}


def test_damaged_digests_damage_no_point_and_are_named(large: JobOnDisk) -> None:
    large.keep_digests(NEWEST)
    torn = digests_path(large.root, NEWEST, "value")
    os.truncate(torn, 40)
    report = examine(large.root, deep=True)
    assert report["exit_code"] == 0
    (remark,) = report["remarks"]
    assert f"{torn} is damaged" in remark


@pytest.fixture
def cut_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are interrupted after the last file."""
    monkeypatch.setattr(Verified, "end", lambda self: None)


@pytest.mark.usefixtures("cut_short")
def test_what_was_found_whole_is_not_read_again_after_an_interruption(small: JobOnDisk) -> None:
    assert examine(small.root, deep=True)["read"] == {"files": 8, "size": 2 * (23 + 45 + 23 + 44), "found_before": 0}
    assert examine(small.root, deep=True)["read"] == {"files": 0, "size": 0, "found_before": 8}
    assert examine(small.root, deep=True, again=True)["read"]["files"] == 8


@pytest.mark.usefixtures("cut_short")
def test_again_reads_all_anew_and_is_deep(small: JobOnDisk, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(small.root), "--deep"]) == 0
    capsys.readouterr()
    assert main(["verify", str(small.root), "--again", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["read"]["files"] == 8


@pytest.mark.parametrize(("copied", "code"), [("cp", 65), ("cp -a", 0), ("rsync -a", 0)])
def test_a_large_file_is_whole_again_when_it_is_restored_as_the_message_says(
    copied: str, code: int, large: JobOnDisk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a digest, as where the job died before it was computed: else its content would tell."""
    if shutil.which(copied.split()[0]) is None:
        pytest.skip(f"{copied.split()[0]} is not installed")
    lost, backup = shard(large, 4), tmp_path / "backup"
    subprocess.run(["cp", "-a", lost, backup], check=True)
    lost.unlink()
    assert main(["verify", str(large.root)]) == 65
    subprocess.run([*copied.split(), backup, lost], check=True)
    assert main(["verify", str(large.root)]) == code
    said = " ".join(capsys.readouterr().out.split())
    assert ("copy large files with their times: cp -a, rsync -a" in said) == (code != 0)


def test_a_run_that_came_to_its_end_is_followed_by_one_that_reads_all(small: JobOnDisk) -> None:
    assert examine(small.root, deep=True)["exit_code"] == 0
    flip_a_byte(shard(small, 2))  # and the time is as it was, as where the disk forgets
    report = examine(small.root, deep=True)
    assert (report["read"]["files"], report["exit_code"]) == (8, 65)


@pytest.mark.usefixtures("cut_short")
def test_a_file_that_changed_since_is_read_again(small: JobOnDisk) -> None:
    examine(small.root, deep=True)
    os.utime(shard(small, 2))
    assert examine(small.root, deep=True)["read"] == {"files": 1, "size": 45, "found_before": 7}


def test_what_is_damaged_stays_so_until_it_is_mended(small: JobOnDisk) -> None:
    flip_a_byte(shard(small, 2))
    for _ in range(2):
        assert verdicts(examine(small.root, deep=True)) == {(4, 1): True, (2, 1): False}
    flip_a_byte(shard(small, 2))
    assert examine(small.root, deep=True)["exit_code"] == 0


@pytest.mark.usefixtures("cut_short")
@pytest.mark.parametrize("damage", [b"nonsense\n", b'{"path": "x"}\n', b"\xff\xfe\n", b'{"path": "/a", "si'])
def test_a_damaged_state_is_ignored_with_a_word(small: JobOnDisk, damage: bytes) -> None:
    examine(small.root, deep=True)
    state = state_path(small.root)
    _, *others = state.read_bytes().splitlines(keepends=True)
    replace(state, b"".join([*others, damage]))
    report = examine(small.root, deep=True)
    assert report["read"]["found_before"] == 7
    assert report["remarks"] == [f"1 lines of {state} are damaged and ignored"]
    assert examine(small.root, deep=True)["read"]["found_before"] == 8, "what came after the damage was kept"


def test_a_state_that_cannot_be_kept_is_said_and_all_is_read(
    small: JobOnDisk, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (cache / "megatron_resume").touch()  # where a folder is due
    report = examine(small.root, deep=True)
    assert (report["read"]["files"], report["exit_code"]) == (8, 0)
    assert "XDG_CACHE_HOME" in report["remarks"][0]


def test_the_state_is_not_kept_in_what_is_verified(small: JobOnDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(small.root / "cache"))
    before = contents(small.base)
    assert "is not written" in examine(small.root, deep=True)["remarks"][0]
    assert contents(small.base) == before


def test_nor_by_another_name_of_it(small: JobOnDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = tmp_path / "link"
    link.symlink_to(small.root)
    monkeypatch.setenv("XDG_CACHE_HOME", str(small.root / "cache"))
    before = contents(small.base)
    assert "is not written" in examine(link, deep=True)["remarks"][0]
    assert contents(small.base) == before


def test_a_relative_cache_is_no_cache(small: JobOnDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", ".cache")
    monkeypatch.setenv("HOME", "/home of somebody")
    assert state_path(small.root).is_relative_to("/home of somebody/.cache")


@pytest.fixture
def stuck(job: JobOnDisk) -> JobOnDisk:
    """Points of iterations 2, 4 and 6, of which 4 has a file that takes for ever to be read."""
    attempt = job.attempt()
    job.save(attempt, 2)
    job.shard_size = HUGE
    vouch_for(job, job.save(attempt, 4))
    job.shard_size = None
    job.save(attempt, 6)
    return job


def vouch_for(job: JobOnDisk, name: PointName) -> None:
    """Record a digest of policy's huge shard, which nobody computed."""
    receipt = read(point_path(job.root, name) / "policy.json", Receipt)
    (file,) = [file for file in receipt.files if file.sha256 is None]
    digested = msgspec.structs.replace(file, sha256="0" * 64)
    of = {field: getattr(receipt, field) for field in ("role", "iteration", "attempt", "nonce")}
    write_digests(job.root, ModelDigests(files=(digested,), **of))


def begin_and_get_stuck(job: JobOnDisk) -> subprocess.Popen[str]:
    """Verify in a new process, which has read point 6, and of point 4 what comes before the huge file."""
    process = deep(job)
    until(lambda: lines_of(state_path(job.root)) == 5)
    return process


def let_end(path: Path) -> None:
    """Let the huge file end where it is."""
    os.truncate(path, 0)


def deep(job: JobOnDisk) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "megatron_resume", "verify", str(job.root), "--deep", "--json"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def lines_of(state: Path) -> int:
    return state.read_bytes().count(b"\n") if state.exists() else 0


def test_interrupted_it_says_how_to_go_on_and_goes_on_there(stuck: JobOnDisk) -> None:
    process = begin_and_get_stuck(stuck)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out) == (130, "")
    assert err == (
        "megatron-resume: stopped before all was verified; "
        f"`megatron-resume verify {stuck.root} --deep` goes on with the file at which it was\n"
    )
    shutil.rmtree(point_path(stuck.root, PointName(4, 1)))  # the rest can be read to its end
    assert examine(stuck.root, deep=True)["read"] == {"files": 4, "size": 23 + 45 + 23 + 44, "found_before": 4}


def test_a_point_that_vanishes_while_it_is_read_is_no_damage(stuck: JobOnDisk) -> None:
    process = begin_and_get_stuck(stuck)
    (point_path(stuck.root, PointName(4, 1)) / "COMMITTED").unlink()  # as retention begins
    let_end(shard(stuck, 4))
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, err) == (0, "")
    assert verdicts(json.loads(out)) == {(6, 1): True, (2, 1): True}


def test_a_model_that_is_moved_aside_meanwhile_is_read_where_it_is(stuck: JobOnDisk) -> None:
    process = begin_and_get_stuck(stuck)
    for role in stuck.roles:
        assert move_away(stuck.save_folder(role), attempt=2, beyond=0, only={2}) == [2]
    let_end(shard(stuck, 4))
    out, _ = process.communicate(timeout=PATIENCE_S)
    assert verdicts(json.loads(out)) == {(6, 1): True, (4, 1): False, (2, 1): True}


def test_a_point_that_is_committed_meanwhile_is_left_for_the_next_time(stuck: JobOnDisk) -> None:
    process = begin_and_get_stuck(stuck)
    stuck.save(1, 8)
    stuck.save(1, 10, parts=("policy",))
    let_end(shard(stuck, 4))
    out, _ = process.communicate(timeout=PATIENCE_S)
    assert [point["iteration"] for point in json.loads(out)["points"]] == [6, 4, 2]
    assert [point["iteration"] for point in examine(stuck.root)["points"]] == [8, 6, 4, 2]


def test_a_bar_shows_bytes_and_time_left_on_a_terminal(stuck: JobOnDisk) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "megatron_resume", "verify", str(stuck.root), "--deep"]
    environ = {**{k: v for k, v in os.environ.items() if k != "NO_COLOR"}, "TERM": "xterm-256color", "COLUMNS": "80"}
    process = subprocess.Popen(command, stdout=theirs, stderr=theirs, env=environ)
    os.close(theirs)
    said = ""
    while "TB" not in said or "left" not in said:
        said += os.read(ours, 65536).decode()
    sent = -math.inf
    while chunk := read_or_end(ours):
        said += chunk.decode()
        if time.monotonic() - sent > 20:  # Python drops one that falls into a finalizer; people then type it again
            process.send_signal(signal.SIGINT)
            sent = time.monotonic()
    assert process.wait(PATIENCE_S) == 130, said
    assert "goes on with the file at which it was" in said


def read_or_end(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux says so where the other side was closed
        return b""
