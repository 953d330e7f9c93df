"""Events are whole lines or none, whatever lies in the file; they never stand in the way of anything."""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from megatron_resume.checkpoint import events
from megatron_resume.checkpoint.attempts import take_number
from megatron_resume.checkpoint.endings import process_ends
from megatron_resume.checkpoint.events import Committed, Events, Failed, Finished, Stopped, append, read_events
from megatron_resume.checkpoint.launch_key import launch_key
from megatron_resume.checkpoint.leases import Lease, claim, release
from megatron_resume.resume.choose import Resume
from support.job_on_disk import JobOnDisk

ONE_LIFE = (
    Committed(iteration=2),
    Failed(error="RuntimeError", message='CUDA error:\n"an illegal\u2028access"', exit_code=1),
    Stopped(reason="SIGTERM", exit_code=0),
    Finished(),
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "policy.events.jsonl"


def test_each_event_is_one_line_and_is_read_as_written(path: Path) -> None:
    for event in ONE_LIFE:
        append(path, event)
    assert read_events(path) == Events(ONE_LIFE)
    assert path.read_bytes().count(b"\n") == len(ONE_LIFE)


def test_the_ending_is_the_last_and_a_commit_is_none(path: Path) -> None:
    append(path, Committed(iteration=2))
    assert read_events(path).ending is None
    append(path, ONE_LIFE[1])
    append(path, Committed(iteration=4))  # was pending when the process failed
    assert read_events(path).ending == ONE_LIFE[1]


def test_a_torn_last_line_costs_that_line_alone(path: Path) -> None:
    for event in ONE_LIFE[:2]:
        append(path, event)
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for size in range(first, len(whole)):
        os.truncate(path, size)
        assert read_events(path) == Events(ONE_LIFE[:1]), size
        path.write_bytes(whole)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"", "damaged"),
        (b"\x00" * 9, "damaged"),
        (b"\xff\xfe", "damaged"),
        (b"[" * 100_000, "damaged"),
        (b'{"kind":"resumed"}', "Invalid value 'resumed'"),
        (b'{"kind":"committed"}', "required field"),
        (b'{"kind":"finished","version":2,"time":""}', "it has version 2; this release reads version 1"),
    ],
)
def test_a_damaged_line_is_named_and_the_others_are_read(path: Path, line: bytes, problem: str) -> None:
    append(path, ONE_LIFE[0])
    path.write_bytes(path.read_bytes() + line + b"\n")
    append(path, ONE_LIFE[1])
    told = read_events(path)
    assert told.events == ONE_LIFE[:2]
    assert f"line 2 of {path}" in str(told.damage)
    assert problem in str(told.damage)


def test_a_file_that_is_none_or_not_ours_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_events(path) == Events()
    path.mkdir()
    assert "is not a file" in str(read_events(path).damage)
    path.rmdir()
    path.symlink_to(path.with_name("elsewhere"))
    assert "is a symbolic link" in str(read_events(path).damage)
    path.unlink()
    append(path, Finished())
    monkeypatch.setattr(events, "MAX_BYTES", 10)
    assert "none of our records has over 10" in str(read_events(path).damage)


@contextmanager
def no_file_may_grow_beyond(size: int) -> Iterator[None]:
    """As on a full disk: the kernel writes what still fits, and then nothing."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_line_that_did_not_fit_leaves_no_part_of_it(path: Path) -> None:
    append(path, ONE_LIFE[0])
    with no_file_may_grow_beyond(path.stat().st_size + 20), pytest.raises(OSError):
        append(path, ONE_LIFE[1])
    append(path, ONE_LIFE[3])
    assert read_events(path) == Events((ONE_LIFE[0], ONE_LIFE[3]))


APPEND = """
import sys
from pathlib import Path
from megatron_resume.checkpoint.events import Committed, append
append(Path(sys.argv[1]), Committed(iteration=2))
append(Path(sys.argv[1]), Committed(iteration=4))
"""


@pytest.mark.parametrize(("point", "left"), [("event.begin", 1), ("event.torn", 1), ("event.end", 2)])
def test_killed_on_the_way_the_earlier_lines_stand(path: Path, point: str, left: int) -> None:
    env = {**os.environ, "MEGATRON_RESUME_CRASH": f"{point}@committed:2"}
    ended = subprocess.run([sys.executable, "-c", APPEND, str(path)], env=env, capture_output=True, text=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    told = read_events(path)
    assert [event.iteration for event in told.events if isinstance(event, Committed)] == [2, 4][:left]
    assert told.damage is None
    assert path.read_bytes().endswith(b"\n") == (point != "event.torn")


def test_events_decide_nothing(job: JobOnDisk) -> None:
    attempt = job.attempt()
    name = job.save(attempt, 2)
    for damage in (b"", b"nonsense\n", b'{"kind":"committed","iteration":9}\n'):
        job.events(attempt).write_bytes(damage)
        outcome = job.choose()
        assert isinstance(outcome, Resume)
        assert outcome.point.name == name


def state_of(job: JobOnDisk) -> list[tuple[tuple[str, ...], str]]:
    return [(end.roles, end.state) for end in process_ends(job.root, 1, job.roles)]


def test_without_an_ending_the_lease_tells_who_runs_and_who_was_killed(job: JobOnDisk) -> None:
    attempt = take_number(job.root)
    ours = Lease(holder=launch_key({}), start="")
    for role in job.roles:
        claim(job.root, attempt, role, ours)
    assert state_of(job) == [(("policy", "value"), "running")]
    release(job.root, attempt, "policy", ours)
    assert state_of(job) == [(("policy", "value"), "released")]
    job.tell(attempt, Finished())
    assert state_of(job) == [(("policy", "value"), "finished")]


def test_processes_of_one_role_each_end_each_for_itself(job: JobOnDisk) -> None:
    attempt = take_number(job.root)
    here, process = launch_key({}), subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    claim(job.root, attempt, "policy", Lease(holder=here, start=""))
    assert state_of(job) == [(("policy",), "running")]
    gone = type(here)(**{field: getattr(here, field) for field in here.__struct_fields__} | {"pid": process.pid})
    claim(job.root, attempt, "value", Lease(holder=gone, start=""))
    assert state_of(job) == [(("policy",), "running"), (("value",), "killed")]


def test_a_holder_on_another_machine_may_have_been_killed_or_not(job: JobOnDisk) -> None:
    claim(job.root, take_number(job.root), "policy", Lease(holder=job.launch(), start=""))
    assert state_of(job) == [(("policy",), "unknown")]
