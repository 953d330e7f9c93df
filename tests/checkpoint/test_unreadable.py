"""What cannot be read is not damaged: no start goes back for it, or begins anew, without being told to."""

import ast
import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from megatron_resume.adapter.decision import decide, refusal
from megatron_resume.checkpoint import adopted, fencing, storage
from megatron_resume.checkpoint.layout import PointName
from megatron_resume.checkpoint.leases import Lease, claim
from megatron_resume.checkpoint.lives import failed_loads
from megatron_resume.checkpoint.model_files import record_files
from megatron_resume.checkpoint.records import Request
from megatron_resume.checkpoint.untrained import write_untrained
from megatron_resume.cli.verify import examine
from megatron_resume.config import ResumeConfig
from megatron_resume.errors import DeniedError, UnreadableError
from megatron_resume.resume.choose import Fresh, Refused, Resume
from support.failing_storage import failing
from support.job_on_disk import FAILURE, JobOnDisk, contents

SILENT = (errno.ESTALE, errno.EIO, errno.ETIMEDOUT, errno.EREMOTEIO, errno.ENOTCONN, errno.EHOSTDOWN, errno.EMFILE)
DENIED = (errno.EACCES, errno.EPERM)
DAMAGE = (errno.ENOENT, errno.EBADMSG, errno.EUCLEAN)
# All that is read of the newest point, iteration 4 of attempt 2, by the end of its path.
OF_THE_POINT = {
    "folder": "data_checkpoint/iter_0000004.a0002",
    "COMMITTED": "iter_0000004.a0002/COMMITTED",
    "receipt": "iter_0000004.a0002/policy.json",
    "data": "iter_0000004.a0002/data.json",
    "model": "value/iter_0000004",
    "shard": "value/iter_0000004/__0_0.distcp",
    "metadata": "policy/iter_0000004/.metadata",
}
OF_THE_JOB = {"attempts": "data_checkpoint/attempts", "root": "data_checkpoint"}
OF_THE_ATTEMPT = {"attempt": "attempts/0002", "start": "attempts/0002/start.json"}
POINT = PointName(4, 2)


@pytest.fixture
def two(job: JobOnDisk) -> JobOnDisk:
    """Attempt 1 saved 2, from where attempt 2 continued and saved 4."""
    job.attempt()
    parent = job.save(1, 2)
    job.attempt(parent)
    job.save(2, 4)
    return job


def chosen(job: JobOnDisk, **asked: object) -> Fresh | Resume | Refused:
    config = ResumeConfig(data_checkpoint_path=str(job.root), trained_roles=job.roles, **asked)  # type: ignore[arg-type]
    return decide(job.root, config, job.launch("a new job"))[1]


@pytest.mark.parametrize("what", [*OF_THE_POINT, *OF_THE_ATTEMPT])
@pytest.mark.parametrize("number", [errno.ESTALE, errno.EACCES])
def test_nothing_that_cannot_be_read_lets_a_start_go_back_or_begin_anew(two: JobOnDisk, what: str, number: int) -> None:
    before = contents(two.base)
    with failing((OF_THE_POINT | OF_THE_ATTEMPT)[what], number) as fault:
        outcome = chosen(two)
    assert fault.fired
    assert isinstance(outcome, Refused)
    error = refusal(outcome)
    assert error.exit_code == (203 if number == errno.ESTALE else 78)
    assert os.strerror(number) in str(error)
    assert (OF_THE_POINT | OF_THE_ATTEMPT)[what] in str(error)
    assert f"--load-data-checkpoint-iteration {2 if what in OF_THE_POINT else 4}" in str(error)
    assert contents(two.base) == before


@pytest.mark.parametrize("what", OF_THE_JOB)
@pytest.mark.parametrize("number", [errno.EIO, errno.EPERM])
def test_a_folder_that_cannot_be_listed_is_no_empty_one(two: JobOnDisk, what: str, number: int) -> None:
    with (
        failing(OF_THE_JOB[what], number, calls=("listdir",)) as fault,
        pytest.raises(UnreadableError, match=os.strerror(number)) as raised,
    ):
        chosen(two)
    assert fault.fired
    assert raised.value.exit_code == (203 if number == errno.EIO else 78)


@pytest.mark.parametrize("number", [*SILENT, *DENIED, *DAMAGE])
@pytest.mark.parametrize("call", ["open", "lstat"])
def test_each_errno_means_one_thing(two: JobOnDisk, number: int, call: str) -> None:
    with failing(OF_THE_POINT["COMMITTED"], number, calls=(call,)) as fault:
        outcome = chosen(two)
    assert fault.fired
    if number in DAMAGE:
        assert isinstance(outcome, Resume)
        assert outcome.point.name == PointName(2, 1)
        assert outcome.passed_over[0].point == POINT
    else:
        assert isinstance(outcome, Refused)
        assert refusal(outcome).exit_code == (78 if number in DENIED else 203)


@pytest.mark.parametrize("what", [*OF_THE_POINT, *OF_THE_ATTEMPT, *OF_THE_JOB])
def test_a_storage_that_answers_again_in_time_costs_nothing(two: JobOnDisk, what: str) -> None:
    name = (OF_THE_POINT | OF_THE_ATTEMPT | OF_THE_JOB)[what]
    with failing(name, errno.ESTALE, times=2) as fault, storage.patience(30):
        outcome = chosen(two)
    assert fault.fired == 2
    assert isinstance(outcome, Resume)
    assert outcome.point.name == POINT


def test_a_storage_that_comes_back_and_forbids_or_lost_the_file_says_that(two: JobOnDisk) -> None:
    path = two.root / "iter_0000004.a0002" / "COMMITTED"
    for last, expected in ((errno.EACCES, DeniedError), (errno.ENOENT, FileNotFoundError)):
        answers = iter([errno.ESTALE, errno.ESTALE, last])

        def question(answers: Iterator[int] = answers) -> None:
            number = next(answers)
            raise OSError(number, os.strerror(number), str(path))

        with storage.patience(30), pytest.raises(expected):
            storage.ask(path, question)


def test_what_never_answers_is_waited_for_once(two: JobOnDisk) -> None:
    asked = 0

    def question() -> None:
        nonlocal asked
        asked += 1
        raise OSError(errno.EIO, "Input/output error")

    with storage.patience(0.05):
        for more in (True, False):
            before = asked
            with pytest.raises(UnreadableError, match="bad_sector cannot be read: Input/output error"):
                storage.ask("/bad_sector", question)
            assert (asked - before > 1) == more


def test_a_storage_that_is_away_is_waited_for_once_however_many_files_are_wanted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Past ten minutes the other ranks would end first, and name another cause."""
    now = [0.0]
    clock = SimpleNamespace(monotonic=lambda: now[0], sleep=lambda s: now.__setitem__(0, now[0] + s))
    monkeypatch.setattr(storage, "time", clock)

    def question() -> None:
        raise OSError(errno.EIO, "Input/output error")

    with storage.patience(60):
        for number in range(30):
            with pytest.raises(UnreadableError):
                storage.ask(f"/{number}", question)
    assert 60 <= now[0] < 65


@pytest.mark.parametrize("at", ["", "mp_rank_01"])
@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO, errno.EACCES])
def test_a_folder_of_a_model_that_cannot_be_listed_is_not_recorded_as_empty(
    tmp_path: Path, at: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for rank in ("mp_rank_00", "mp_rank_01"):
        (tmp_path / rank).mkdir()
        (tmp_path / rank / "model_optim_rng.pt").write_bytes(b"weights")
    scandir = os.scandir

    def fails(path: str | int) -> object:
        if isinstance(path, int):  # how pytest removes the folder
            return scandir(path)
        if os.fspath(path) == str(tmp_path / at):
            raise OSError(number, os.strerror(number), path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", fails)
    with pytest.raises(OSError, match=os.strerror(number)):
        record_files(tmp_path)


@pytest.mark.parametrize("what", [*OF_THE_POINT, "start"])
@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES])
def test_a_start_may_go_back_on_purpose_from_what_can_never_be_read_again(
    two: JobOnDisk, what: str, number: int
) -> None:
    with failing((OF_THE_POINT | OF_THE_ATTEMPT)[what], number):
        outcome = chosen(two, load_data_checkpoint_iteration=2)
        assert isinstance(outcome, Resume), outcome
        assert outcome.point.name == PointName(2, 1)
        if what == "start":  # which is not needed to read the points of the attempt
            newest = chosen(two, load_data_checkpoint_iteration=4)
            assert isinstance(newest, Resume)
            assert newest.point.name == POINT
        # What the attempt then saved is found, and restarts of that launch go on from there.
        attempt = two.attempt(outcome.point.name, requested=Request(iteration=2), job="a new job")
        two.save(attempt, 3)
        again = chosen(two, load_data_checkpoint_iteration=2)
        assert isinstance(again, Resume)
        assert again.point.name == PointName(3, attempt)
        later = chosen(two)
        assert isinstance(later, Resume)
        assert later.point.name == PointName(3, attempt)


def test_a_roll_back_that_was_honoured_is_not_done_twice_for_a_start_that_cannot_be_read(two: JobOnDisk) -> None:
    attempt = two.attempt(PointName(2, 1), requested=Request(iteration=2), job="a new job")
    claim(two.root, attempt, "policy", Lease(holder=two.launch("a new job"), start=""))
    two.save(attempt, 3)
    with failing(f"attempts/{attempt:04d}/start.json", errno.ESTALE) as fault:
        outcome = chosen(two, load_data_checkpoint_iteration=2)
    assert fault.fired
    assert isinstance(outcome, Refused)
    assert refusal(outcome).exit_code == 203


def test_an_old_attempt_that_cannot_be_read_matters_to_no_start_that_does_not_need_it(two: JobOnDisk) -> None:
    with failing("attempts/0001/start.json", errno.EIO) as fault:
        outcome = chosen(two)
    assert fault.fired
    assert isinstance(outcome, Resume)
    assert outcome.point.name == POINT


def test_points_of_an_attempt_that_cannot_be_read_stay_on_the_line_of_one_that_continued_it(two: JobOnDisk) -> None:
    attempt = two.attempt(POINT)
    with failing("attempts/0002/start.json", errno.EIO) as fault:
        outcome = chosen(two)
    assert fault.fired
    assert isinstance(outcome, Resume)
    assert (outcome.point.name, attempt) == (POINT, 3)


def test_an_old_attempt_that_is_needed_and_cannot_be_read_is_no_end_of_the_line(two: JobOnDisk) -> None:
    two.attempt(POINT)
    (two.root / "iter_0000004.a0002" / "COMMITTED").unlink()
    with failing("attempts/0002/start.json", errno.EIO) as fault:
        outcome = chosen(two)
    assert fault.fired
    assert isinstance(outcome, Refused)
    assert refusal(outcome).exit_code == 203


def test_one_commit_that_cannot_be_looked_up_does_not_make_a_fresh_attempt_the_newest(job: JobOnDisk) -> None:
    job.attempt()
    job.save(1, 2)
    with failing("iter_0000002.a0001/COMMITTED", errno.EIO) as fault:
        outcome = chosen(job)
    assert fault.fired
    assert isinstance(outcome, Refused)


def test_whether_an_attempt_that_went_back_has_trained_is_not_guessed(two: JobOnDisk) -> None:
    attempt = two.attempt(PointName(2, 1), requested=Request(iteration=2))
    write_untrained(two.root, attempt, POINT)
    with failing(f"attempts/{attempt:04d}/untrained.json", errno.EIO) as fault:
        outcome = chosen(two)
        named = chosen(two, load_data_checkpoint_attempt=2)
    assert fault.fired
    assert isinstance(outcome, Refused)
    assert refusal(outcome).exit_code == 203
    assert isinstance(named, Resume)
    assert named.point.name == POINT


def test_models_to_adopt_that_cannot_be_looked_at_are_not_none(tmp_path: Path) -> None:
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("7")
    with failing("latest_checkpointed_iteration.txt", errno.EIO), pytest.raises(UnreadableError):
        adopted.iteration_in(tmp_path)
    with failing("latest_checkpointed_iteration.txt", errno.EACCES), pytest.raises(DeniedError):
        adopted.iteration_in(tmp_path)


def test_digests_that_cannot_be_read_are_not_missing_ones(two: JobOnDisk) -> None:
    from megatron_resume.checkpoint.digests import digests_of

    receipt = two.point(POINT).receipts["policy"]
    with failing("digests/iter_0000004.a0002/policy.json", errno.EIO), pytest.raises(UnreadableError):
        digests_of(two.root, receipt)(receipt.files[0])


def test_a_name_of_a_save_folder_that_cannot_be_read_is_not_lost(two: JobOnDisk) -> None:
    fencing.make_own_name(two.root, 2, "policy", "/save")
    with failing("policy.save", errno.ESTALE), pytest.raises(UnreadableError):
        fencing.lost_name(two.root, 2, "policy", "/save")


@pytest.mark.parametrize(
    "message",
    [
        "[Errno 116] Stale file handle: '/save/iter_0000004/__0_0.distcp'",
        "ranks:dict_keys([0])\nTraceback ...\nOSError: [Errno 5] Input/output error",
        "[Errno 110] Connection timed out: '/save'",
        "[Errno 13] Permission denied: '/save'",
    ],
)
def test_a_load_that_the_storage_failed_is_no_reason_to_pass_the_point_over(two: JobOnDisk, message: str) -> None:
    from megatron_resume.checkpoint.failures import write_failure

    failure = msgspec.structs.replace(FAILURE, attempt=2, error="CheckpointException", message=message, loading=POINT)
    write_failure(two.root, "life", failure)
    assert failed_loads(two.root) == {}
    write_failure(two.root, "life", msgspec.structs.replace(failure, message="[Errno 2] No such file or directory"))
    assert POINT in failed_loads(two.root)


def test_commands_that_look_say_what_cannot_be_read_and_do_not_wait(two: JobOnDisk) -> None:
    from megatron_resume.cli import explain, status

    os.environ.pop("RANK", None)
    with failing(OF_THE_POINT["receipt"], errno.EIO) as fault:
        told = status.examine(two.root)
        assert told["outcome"] == "refused"
        assert "policy.json cannot be read: Input/output error" in told["reason"]
        assert [point["iteration"] for point in told["points"]] == [4, 2]
        foretold = explain.examine(two.root, asked={})
        assert (foretold["outcome"], foretold["exit_code"]) == ("refused", 203)
        found = examine(two.root)
        assert (found["whole"], found["damaged"], found["exit_code"]) == (1, 0, 203)
        assert [Path(what.split(" cannot")[0]).name for what in found["unreadable"]] == ["policy.json"]
    assert fault.fired
    with failing("attempts/0002/start.json", errno.EACCES):
        told = status.examine(two.root)
        assert ["start.json cannot be read: Permission denied" in what for what in told["unreadable"]] == [True]
        assert explain.examine(two.root, asked={})["exit_code"] == 78


def test_a_role_that_is_held_is_not_free_because_its_attempt_cannot_be_read(two: JobOnDisk) -> None:
    """Not even for one who goes back on purpose."""
    from megatron_resume.adapter.decision import check_free
    from megatron_resume.checkpoint.folder import read_folder
    from megatron_resume.errors import HeldError

    config = ResumeConfig(data_checkpoint_path=str(two.root), trained_roles=two.roles)
    claim(two.root, 2, "policy", Lease(holder=two.launch(), start=""))
    with failing("attempts/0002/start.json", errno.EIO):
        folder = read_folder(two.root)
    with pytest.raises(HeldError):
        check_free(folder, config, lambda attempt, role: attempt == 2)


WRAPPER = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

ssize_t read(int fd, void *to, size_t size) {
    static ssize_t (*real)(int, void *, size_t);
    char link[64], path[4096];
    if (!real) real = dlsym(RTLD_NEXT, "read");
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    const char *bad = getenv("BAD_SECTOR");
    if (length > 0 && bad) {
        path[length] = 0;
        if (strstr(path, bad)) { errno = EIO; return -1; }
    }
    return real(fd, to, size);
}
"""


def test_a_bad_sector_under_a_real_process_ends_it_with_203_and_changes_nothing(two: JobOnDisk, tmp_path: Path) -> None:
    """The error comes from read() itself, after the file was opened."""
    source, library = tmp_path / "bad_sector.c", tmp_path / "bad_sector.so"
    source.write_text(WRAPPER)
    try:
        subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no C compiler: {error}")
    environ = {**os.environ, "LD_PRELOAD": str(library), "BAD_SECTOR": OF_THE_POINT["data"]}
    before = contents(two.base)
    command = [sys.executable, "-m", "megatron_resume", "explain", str(two.root), "--json"]
    said = subprocess.run(command, env=environ, capture_output=True, text=True)
    assert said.returncode == 203, said.stderr
    assert "data.json cannot be read: Input/output error" in json.loads(said.stdout)["reason"]
    back = subprocess.run(
        [*command, "--load-data-checkpoint-iteration", "2"], env=environ, capture_output=True, text=True
    )
    assert (back.returncode, json.loads(back.stdout)["point"]["iteration"]) == (0, 2), back.stderr
    assert contents(two.base) == before


# Reading and looking without `storage`, whose answers would be taken for damage, or for nothing there.
ASKING = {"lexists", "exists", "isfile", "isdir", "islink", "is_file", "is_dir", "is_symlink", "iterdir", "glob"}
ASKING |= {"rglob", "listdir", "scandir", "readlink", "read_text", "read_bytes", "lstat", "access", "walk"}
# Elsewhere, or of what this process wrote just now; a folder that is about to be made.
OTHERWISE = {
    "atomic.py": {"is_dir"},
    "launch_key.py": {"readlink"},
    "model_files.py": {"lstat"},  # of a save that just ended, whose failure costs that save; through `ask`
    "folder.py": {"lstat"},
    "fencing.py": {"readlink"},
    "storage.py": {"lstat", "listdir", "walk"},
    "imported.py": {"is_symlink", "is_file", "rglob", "walk", "glob"},  # of another project, by a command
    "chatlearn.py": {"listdir", "is_symlink"},
}


def test_every_reader_of_the_store_asks_in_the_one_place_that_knows_what_errors_mean() -> None:
    found: dict[str, set[str]] = {}
    for path in sorted(Path(storage.__file__).parent.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in ASKING:
                found.setdefault(path.name, set()).add(node.attr)
    assert {name: used for name, used in found.items() if used - OTHERWISE.get(name, set())} == {}
    assert {name: known for name, known in OTHERWISE.items() if known - found.get(name, set())} == {}
