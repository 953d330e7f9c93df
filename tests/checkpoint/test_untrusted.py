"""Whoever can write the data checkpoint folder leads no reader out of it, hangs none, and speaks through none."""

import json
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from megatron_resume.checkpoint import fencing, leftovers
from megatron_resume.checkpoint.commit import open_point
from megatron_resume.checkpoint.events import Failed, Finished, append
from megatron_resume.checkpoint.layout import (
    ARRAYS,
    ATTEMPTS,
    COMMITTED,
    DATA,
    START,
    TRACKER,
    PointName,
    attempt_path,
)
from megatron_resume.checkpoint.leases import Lease, claim
from megatron_resume.checkpoint.model_files import record_files
from megatron_resume.checkpoint.plain_files import NotPlainError
from megatron_resume.checkpoint.records import MAX_NESTING, DataCheckpoint, encode
from megatron_resume.cli import main
from megatron_resume.errors import ConfigError
from megatron_resume.resume.choose import Resume
from megatron_resume.shown import Shown
from support import PROGRAMS, finds_support
from support.forger import Forger, set_to
from support.job_on_disk import JobOnDisk, contents
from support.pool import Pool, run

NAME, OLDER = PointName(4, 1), PointName(2, 1)


@pytest.fixture
def forger(job: JobOnDisk) -> Forger:
    attempt = job.attempt()
    job.save(attempt, OLDER.iteration)
    job.save(attempt, NAME.iteration)
    return Forger(job, NAME)


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


def deep(forger: Forger, file: str, field: str, depth: int) -> None:
    record = json.loads((forger.point / file).read_text()) | {field: {}}
    text = json.dumps(record).replace(f'"{field}": {{}}', f'"{field}": {{"x": {nested(depth).decode()}}}')
    forger.write(file, text.encode())


def fifo_with_time(forger: Forger) -> None:
    """In a model, with the size, time and inode that its forged receipt says."""
    shard = forger.job.model("policy", 4) / ".metadata"
    forger.replace_by(shard, os.mkfifo)
    stat = shard.stat()
    forger.model_file(size=0, mtime_ns=stat.st_mtime_ns, inode=stat.st_ino)


def folder_as_file(forger: Forger) -> None:
    stat = forger.job.model("policy", 4).joinpath("sub")
    stat.mkdir()
    forger.model_file(path="sub", size=stat.stat().st_size, mtime_ns=stat.stat().st_mtime_ns, inode=stat.stat().st_ino)


def linked(forger: Forger, path: Path) -> None:
    """What was at `path` lies outside, with a link to it in its place."""
    elsewhere = forger.job.base / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def shard_behind_a_linked_folder(forger: Forger) -> None:
    model = forger.job.model("policy", 4)
    (forger.job.base / "elsewhere").mkdir()
    (model / ".metadata").rename(forger.job.base / "elsewhere" / ".metadata")
    (model / "sub").symlink_to(forger.job.base / "elsewhere")
    forger.model_file(path="sub/.metadata")


def sparse(forger: Forger, file: str, size: int) -> None:
    with open(forger.point / file, "ab") as opened:
        opened.truncate(size)
    forger.sign(file, size, "0" * 64)


def shard_of_8_tb(forger: Forger) -> None:
    os.truncate(forger.job.model("policy", 4) / ".metadata", 8 << 40)
    forger.model_file(size=8 << 40)


def same_file_often(forger: Forger) -> None:
    os.utime(forger.job.model("policy", 4) / ".metadata")
    forger.change("policy.json", lambda receipt: receipt.update(files=receipt["files"][:1] * 100_000))


ATTACKS: dict[str, tuple[Callable[[Forger], object], str]] = {
    "relative is absolute": (lambda f: f.receipt(relative="/etc"), "leads to '/etc'"),
    "relative holds a NUL": (lambda f: f.receipt(relative="a\0b", directory="/x\0y"), r"\\x00"),
    "directory is relative": (lambda f: f.receipt(relative="../nowhere", directory="etc"), "is no absolute path"),
    "role leads out": (
        lambda f: f.change(COMMITTED, set_to(roles=["policy", "value", "../../x"])),
        r"names the role '../../x'",
    ),
    "role with an escape sequence": (
        lambda f: f.change(COMMITTED, set_to(roles=["policy", "value", "\x1b[2J"])),
        r"names the role '\\x1b\[2J'",
    ),
    "shard leads out": (lambda f: f.model_file(path="../../../../etc/passwd"), "leads out of"),
    "shard is absolute": (lambda f: f.model_file(path="/etc/passwd"), "leads out of"),
    "shard holds a NUL": (lambda f: f.model_file(path="a\0b"), r"'a\\x00b' leads out of .*, or is no name"),
    "shard with a new line": (lambda f: f.model_file(path="a\nb"), r"/a\\nb cannot be read: No such file"),
    "shard with a bidi control": (lambda f: f.model_file(path="a\u202eb"), r"/a\\u202eb cannot be read"),
    "shard with an escape sequence": (lambda f: f.model_file(path="\x9b2J"), r"/\\x9b2J cannot be read"),
    "shard without a name": (lambda f: f.model_file(path=""), "'' leads out of"),
    "save folder with a new line": (
        lambda f: f.receipt(relative="../a\nb", directory="/c\x1bd\ne"),
        r"/c\\x1bd\\ne/iter_0000004 is missing",
    ),
    "one shard 100,000 times": (same_file_often, "twice"),
    "shard of negative size": (lambda f: f.model_file(size=-1), "-1"),
    "shard of 8 TB to be read": (shard_of_8_tb, "8796093022208 bytes"),
    "shard is a FIFO": (fifo_with_time, "is no plain file"),
    "shard is a folder": (folder_as_file, "is no plain file"),
    "shard behind a linked folder": (shard_behind_a_linked_folder, "symbolic link"),
    "model's folder is a link": (lambda f: linked(f, f.job.model("policy", 4)), "symbolic link"),
    "point's folder is a link": (lambda f: linked(f, f.point), "symbolic link"),
    "receipt is a FIFO": (lambda f: f.fifo("policy.json"), "policy.json is not a file"),
    "data is a FIFO": (lambda f: f.fifo(DATA), "data.json is not a file"),
    "manifest is a FIFO": (lambda f: f.replace_by(f.point / COMMITTED, os.mkfifo), "COMMITTED is not a file"),
    "data is a device": (
        lambda f: (f.replace_by(f.point / DATA, lambda path: path.symlink_to("/dev/zero")), f.sign(DATA, 0, "")),
        "data.json is not a file",
    ),
    "data of 8 TB": (lambda f: sparse(f, DATA, 8 << 40), "none of our records"),
    "arrays of 8 TB": (lambda f: (f.write(ARRAYS, b""), sparse(f, ARRAYS, 8 << 40)), "none of our"),
    "another file of 8 TB": (
        lambda f: (f.write("other", b""), sparse(f, "other", 8 << 40)),
        "names 'other', which is no file of a point",
    ),
    "arrays that nobody committed": (
        lambda f: (f.point / ARRAYS).write_bytes(b"x" * 100),
        "data.safetensors, which .*COMMITTED does not name",
    ),
    "arguments nested 500 deep": (lambda f: deep(f, "policy.json", "arguments", 500), "nested"),
    "tracked state nested 500 deep": (lambda f: deep(f, DATA, "tracked", 500), "nested"),
    "tracked state nested to death": (lambda f: deep(f, DATA, "tracked", 100_000), "damaged"),
    "negative samples": (lambda f: f.data(progress={"episode": 1, "consumed_samples": -7}), "consumed_samples"),
    "samples beyond any data": (lambda f: f.data(progress={"episode": 1, "consumed_samples": 1 << 70}), ">=|<|range"),
    "a number of 5,000 digits": (
        lambda f: f.write(COMMITTED, b'{"version":1,"iteration":' + b"9" * 5000 + b"}"),
        "COMMITTED is damaged",
    ),
    "unknown field with an escape sequence": (
        lambda f: f.receipt(**{"\x1b[31mred\u202e": 1}),
        r"unknown field `\\x1b\[31mred\\u202e`",
    ),
    "NaN": (lambda f: f.data(tracked={"kl": float("nan")}), "data.json is damaged"),
    "a bomb of small lists": (
        lambda f: f.write(DATA, b'{"version":1,"tracked":{"x":[' + b"[]," * (DataCheckpoint.max_bytes // 3) + b"[]]}}"),
        "none of our records",
    ),
}

SECONDS, GB = 20, 4
Reader = Callable[[JobOnDisk], str]


@pytest.fixture(scope="module")
def read_elsewhere() -> Iterator[Reader]:
    """Gives what a reader with a bound on time and memory says, which an attack may not end."""
    command = [sys.executable, str(PROGRAMS / "bounded_reader.py"), str(SECONDS), str(GB)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, env=finds_support()
    ) as reader:
        assert reader.stdin and reader.stdout
        asked, answers = reader.stdin, reader.stdout

        def read(job: JobOnDisk) -> str:
            asked.write(json.dumps(str(job.base)) + "\n")
            code, said = json.loads(answers.readline())
            assert code == 0, said
            return str(said)

        yield read
        asked.close()


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_forged_point_is_passed_over_with_its_reason_for_the_older_one(
    forger: Forger, attack: str, read_elsewhere: Reader
) -> None:
    forge, reason = ATTACKS[attack]
    forge(forger)
    first, passed = read_elsewhere(forger.job).splitlines()
    assert first == f"Resume {OLDER}"
    assert passed.startswith(f"{NAME} was passed over: ")
    assert re.search(reason, passed), passed
    assert passed.isprintable()


def test_the_attacks_are_on_a_point_that_would_be_taken(forger: Forger, read_elsewhere: Reader) -> None:
    forger.data(fingerprints={"x": 1})
    forger.receipt(versions={"torch": "0"})
    assert read_elsewhere(forger.job) == f"Resume {NAME}\n"


def test_an_attempts_folder_that_is_a_link_is_refused(forger: Forger) -> None:
    linked(forger, forger.job.root / ATTEMPTS)
    before = contents(forger.job.base)
    with pytest.raises(ConfigError, match="attempts is a symbolic link, by which this job would write elsewhere"):
        forger.job.choose()
    assert contents(forger.job.base) == before


def test_an_attempt_that_is_a_link_leads_nowhere(forger: Forger) -> None:
    linked(forger, attempt_path(forger.job.root, 1))
    assert forger.job.folder().damaged_starts == {1: "attempt 1 cannot be read: its folder is a symbolic link"}


def test_no_name_is_taken_from_another_job_through_a_link(forger: Forger, tmp_path: Path) -> None:
    other = JobOnDisk(tmp_path / "other")
    other.attempt()
    fencing.make_own_name(other.root, 1, "policy", str(tmp_path))
    attempt_path(forger.job.root, 2).symlink_to(attempt_path(other.root, 1))
    fencing.take_names(forger.job.root, "policy", before=3)
    assert fencing.lost_name(other.root, 1, "policy", str(tmp_path)) is None


@pytest.mark.parametrize("name", ["iter_9999999999999999.a0001", "iter_0000004.a9999999999"])
def test_a_point_with_an_absurd_number_is_not_ours(forger: Forger, name: str) -> None:
    (forger.job.root / name).mkdir()
    outcome = forger.job.choose()
    assert isinstance(outcome, Resume)
    assert (outcome.point.name, outcome.passed_over) == (NAME, ())


def test_a_last_attempt_number_that_is_taken_is_refused_by_name(forger: Forger) -> None:
    (forger.job.root / ATTEMPTS / "999999999").mkdir()
    with pytest.raises(ConfigError, match="names attempt 999999999, which nobody made; remove"):
        forger.job.attempt()


def test_a_copy_of_hard_links_is_whole_and_is_not_written_through(forger: Forger, tmp_path: Path) -> None:
    """As backups are made; what the job writes later are new files."""
    copy = JobOnDisk(tmp_path / "copy")
    shutil.copytree(forger.job.base / "data_checkpoint", copy.root, copy_function=os.link, dirs_exist_ok=True)
    shutil.copytree(forger.job.base / "checkpoints", copy.base / "checkpoints", copy_function=os.link)
    before = contents(forger.job.root)
    outcome = copy.choose()
    assert isinstance(outcome, Resume)
    assert outcome.point.name == NAME
    claim(copy.root, copy.attempt(NAME), "policy", Lease(holder=copy.launch(), start=""))
    leftovers.write_tracker(copy.save_folder("policy"), 2)
    assert contents(forger.job.root) == before
    assert (forger.job.save_folder("policy") / TRACKER).read_text() == "4"


def test_nothing_is_written_through_a_link_where_a_point_is_to_be(forger: Forger, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (forger.job.root / PointName(6, 1).folder).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError):
        open_point(forger.job.root, PointName(6, 1))


@pytest.mark.parametrize("kind", [os.mkfifo, lambda path: path.symlink_to("/dev/full")])
def test_events_are_written_to_a_plain_file_only(forger: Forger, kind: Callable[[Path], object]) -> None:
    kind(forger.job.events(1).with_name("value.events.jsonl"))
    with pytest.raises(OSError, match="it is no plain file|symbolic links"):
        append(forger.job.events(1).with_name("value.events.jsonl"), Finished())


def test_a_model_with_a_fifo_gets_no_receipt(forger: Forger) -> None:
    os.mkfifo(forger.job.model("policy", 4) / "__1_0.distcp")
    with pytest.raises(NotPlainError):
        record_files(forger.job.model("policy", 4))


def test_a_tracker_that_is_a_fifo_is_replaced(forger: Forger) -> None:
    tracker = forger.job.save_folder("policy") / TRACKER
    forger.replace_by(tracker, os.mkfifo)
    leftovers.write_tracker(tracker.parent, 4)
    assert tracker.read_text() == "4"


def test_what_no_reader_would_take_is_not_written(forger: Forger) -> None:
    deep: list[object] = []
    for _ in range(MAX_NESTING):
        deep = [deep]
    data = forger.job.data(PointName(6, 1))
    for tracked in ({"x": deep}, {"x": "x" * DataCheckpoint.max_bytes}):
        with pytest.raises(ConfigError, match="DataCheckpoint cannot be stored: .*; track or pass less"):
            encode(msgspec.structs.replace(data, tracked=tracked))


SPOKEN = "\x1b]0;owned\x07\u202eevil\u2066\x9b31m"


def talk(forger: Forger) -> None:
    """Say it wherever a text from disk is printed."""
    job = forger.job
    forger.receipt(directory=f"/{SPOKEN}", relative="../nowhere")
    job.tell(1, Failed(error=SPOKEN, message=SPOKEN, exit_code=1))
    launch = msgspec.structs.replace(job.launch(), host=SPOKEN)
    claim(job.root, job.attempt(OLDER), "policy", Lease(holder=launch, start=SPOKEN))
    start = attempt_path(job.root, 2) / START
    config = {"trained_roles": ["policy", "value", SPOKEN]}
    start.write_text(json.dumps({**json.loads(start.read_text()), "config": config}))
    damaged = job.attempt()
    (attempt_path(job.root, damaged) / START).write_text(json.dumps({"version": 1, SPOKEN: 1}))


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_status_shows_control_characters_and_obeys_none(
    forger: Forger, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    talk(forger)
    assert main(["status", str(forger.job.root), *options]) == 0
    out = capsys.readouterr().out
    assert all(line.isprintable() for line in out.splitlines())
    assert out.count("owned") >= 3
    if options:
        report = json.loads(out)
        assert SPOKEN in report["attempts"][0]["processes"][0]["event"]["message"], "it says the same"


def test_errors_of_the_command_line_are_shown_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(tmp_path / SPOKEN)]) == 78
    assert capsys.readouterr().err.rstrip("\n").isprintable()


def test_log_lines_are_shown(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("megatron_resume of a test")
    logger.addFilter(Shown())
    logger.warning("held by %s\nand 100%%", SPOKEN)
    (record,) = caplog.records
    assert record.getMessage() == "held by \\x1b]0;owned\\x07\\u202eevil\\u2066\\x9b31m\nand 100%"


def test_our_log_is_filtered(torch_pool: Pool, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import logging, megatron_resume.adapter.install as install; install._speak(); install._speak();"
        "print([type(one).__name__ for one in logging.getLogger('megatron_resume').filters])"
    )
    done = run(torch_pool, program)
    assert done.stdout == "['Shown']\n", done.stderr
