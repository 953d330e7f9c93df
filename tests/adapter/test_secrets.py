"""No record, stack or report holds a secret, however it is spelled; and a start still sees that an argument changed."""

import os
import stat
import sys
import threading
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from megatron_resume.adapter import life
from megatron_resume.adapter.configuration import _table
from megatron_resume.adapter.sealing import Sealer, key_for_comparing
from megatron_resume.adapter.writer import Writer
from megatron_resume.checkpoint.digest_key import KeyRefusedError, made_key, read_key
from megatron_resume.checkpoint.events import append, read_events
from megatron_resume.checkpoint.failures import write_failure
from megatron_resume.checkpoint.layout import DIGEST_KEY, PointName, attempt_path, point_path, receipt_file
from megatron_resume.checkpoint.records import Receipt, read
from megatron_resume.cli import main
from megatron_resume.resume.differences import Configuration, Difference, differences
from megatron_resume.resume.recorded import Arguments, plain, recorded
from megatron_resume.resume.sealed import DIGEST, as_recorded, incomparable, is_sealed, sealed
from megatron_resume.withheld import without_secrets
from support.finished_saves import finished
from support.job_on_disk import FAILURE, JobOnDisk
from support.spelled_secrets import MESSAGES, PASSWORD, SPELLINGS, files_with_secrets

NAME = PointName(2, 1)


def saved(job: JobOnDisk, arguments: Arguments) -> Receipt:
    """The receipt of policy after a save of both roles, started with `arguments`."""
    made = Writer(job.root, job.roles, stop_if_superseded=lambda: None)
    for role in job.roles:
        made.enqueue(replace(finished(job, role, NAME), arguments=arguments))
    made.wait()
    assert job.folder().committed == [NAME]
    return read(point_path(job.root, NAME) / receipt_file("policy"), Receipt)


def test_forty_spellings_are_forty() -> None:
    assert len(SPELLINGS) >= 40


def test_no_spelling_of_a_secret_is_stored_and_what_is_compared_is(job: JobOnDisk) -> None:
    job.attempt()
    receipt = saved(job, plain({**SPELLINGS, "clip_grad": 1.0, "optimizer": "adam", "data_path": ["0.5", "/data/a"]}))
    assert files_with_secrets(job.base) == []
    assert isinstance(receipt.arguments, dict)
    assert [name for name in SPELLINGS if not is_sealed(receipt.arguments[name])] == []
    assert receipt.arguments["clip_grad"] == 1.0
    assert receipt.arguments["optimizer"] == "adam"
    assert receipt.arguments["data_path"] == ["0.5", "/data/a"]


def compared(job: JobOnDisk, then: Arguments, **now: Any) -> tuple[Difference, ...]:
    """What a start with `now` on top of what was saved sees, given the arguments of a receipt."""
    alike = as_recorded(plain({**SPELLINGS, **now}), then, key_for_comparing(job.root))
    return differences(Configuration(then, {}), Configuration(alike, {}))


def test_a_changed_secret_shows_and_its_value_does_not(job: JobOnDisk) -> None:
    job.attempt()
    receipt = saved(job, plain(SPELLINGS))
    assert isinstance(receipt.arguments, dict)
    assert compared(job, receipt.arguments) == ()
    for name in [name for name in SPELLINGS if name != "load"]:  # which a resume sets itself
        found = compared(job, receipt.arguments, **{name: f"https://host?{name}=another{PASSWORD}"})
        assert [one.name for one in found] == [name]
        assert "changed (value not recorded)" in _table(found)
        assert PASSWORD not in _table(found)


def test_what_was_given_where_nothing_was_and_the_other_way_round_shows_too(job: JobOnDisk) -> None:
    made_key(job.root)
    then = Sealer(job.root).sealed({"hftoken": None, "passwd": PASSWORD, "lr": 1.0})
    alike = as_recorded({"hftoken": PASSWORD, "passwd": None, "lr": 1.0}, then, read_key(job.root))
    found = differences(Configuration(then, {}), Configuration(alike, {}))
    assert {one.name: (one.then, one.now) for one in found} == {
        "hftoken": (None, "(value not recorded)"),
        "passwd": ("(value not recorded)", None),
    }


@pytest.mark.parametrize(
    ("then", "now"), [(1, 1.0), ((1, 2), [1, 2]), (Path("/x y"), "/x y"), ({"b": 1, "a": 2.0}, {"a": 2, "b": 1})]
)
def test_a_value_that_is_written_otherwise_is_no_change(job: JobOnDisk, then: object, now: object) -> None:
    key = made_key(job.root)
    stored = sealed(plain({"of_the_script": then}), key)
    assert is_sealed(stored["of_the_script"])
    assert as_recorded(plain({"of_the_script": now}), stored, key) == stored


def test_a_path_that_moved_with_the_save_folder_or_stayed_is_no_change(job: JobOnDisk) -> None:
    key = made_key(job.root)
    then = sealed({"save": "/old/save", "of_the_script": "/old/data"}, key)
    assert is_sealed(then["of_the_script"])
    moved = as_recorded({"save": "/new/save", "of_the_script": "/new/data"}, then, key)
    away = as_recorded({"save": "/new/save", "of_the_script": "/elsewhere/data"}, then, key)
    stayed = as_recorded({"save": "/new/save", "of_the_script": "/old/data"}, then, key)
    for now in (moved, stayed):
        assert differences(Configuration(then, {}), Configuration(now, {})) == ()
    assert [one.name for one in differences(Configuration(then, {}), Configuration(away, {}))] == ["of_the_script"]


def test_a_point_of_an_older_release_compares_as_it_did(job: JobOnDisk) -> None:
    made_key(job.root)  # by a later save
    args = {**SPELLINGS, "kl_target": 6.0, "of_the_script": "x", "login": {"password": PASSWORD, "user": "me"}}
    then = recorded(args)  # as it was stored
    now = {**args, "hf_token": "another", "of_the_script": "y", "kl_target": 3.0}
    alike = as_recorded(plain(now), then, key_for_comparing(job.root))
    assert alike == recorded(now)
    found = differences(Configuration(then, {}), Configuration(alike, {}))
    assert {one.name: (one.then, one.now) for one in found} == {
        "kl_target": (6.0, 3.0),
        "of_the_script": ("changed (value not recorded)", ""),
    }


def test_a_digest_of_one_folder_tells_nothing_to_another(job: JobOnDisk, tmp_path: Path) -> None:
    other = JobOnDisk(tmp_path / "other")
    ours, theirs = (Sealer(one.root).sealed({"passwd": PASSWORD}) for one in (job, other))
    assert ours["passwd"][DIGEST] != theirs["passwd"][DIGEST]
    both = sealed({"passwd": PASSWORD, "auth": PASSWORD}, made_key(job.root))
    assert both["passwd"][DIGEST] != both["auth"][DIGEST]


def test_without_its_key_nothing_is_called_changed_and_it_is_said_what_cannot_be_told(job: JobOnDisk) -> None:
    then = Sealer(job.root).sealed(plain(SPELLINGS))
    (job.root / DIGEST_KEY).unlink()
    for key in (key_for_comparing(job.root), made_key(job.root)):
        assert set(incomparable(then, key)) == set(SPELLINGS)
        assert as_recorded(plain({**SPELLINGS, "passwd": "another"}), then, key) == then


def test_the_key_is_private_and_one_for_all_who_come_at_once(job: JobOnDisk) -> None:
    found: list[bytes] = []
    barrier = threading.Barrier(8)

    def make() -> None:
        barrier.wait()
        found.append(made_key(job.root))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(found), len(set(found))) == (8, 1)
    assert stat.S_IMODE((job.root / DIGEST_KEY).stat().st_mode) == 0o600
    assert [path.name for path in job.root.iterdir()] == [DIGEST_KEY], "nothing temporary is left"


def planted(kind: str, path: Path, elsewhere: Path) -> None:
    key = "00" * 32 + "\n"
    if kind == "link":
        elsewhere.write_text(key)
        elsewhere.chmod(0o600)
        path.symlink_to(elsewhere)
    elif kind == "dangling link":
        path.symlink_to(elsewhere)
    elif kind == "FIFO":
        os.mkfifo(path, 0o600)
    elif kind == "folder":
        path.mkdir()
    else:
        path.write_text("short\n" if kind == "no key" else key)
        path.chmod(0o644 if kind == "readable by all" else 0o600)
        if kind == "of another user":
            os.chown(path, 65534, 65534)


KINDS = ("link", "dangling link", "FIFO", "folder", "no key", "readable by all", "of another user")


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_that_somebody_planted_is_not_used_and_no_save_fails_for_it(
    job: JobOnDisk, tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    if kind == "of another user" and os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    job.attempt()
    planted(kind, job.root / DIGEST_KEY, tmp_path / "elsewhere")
    receipt = saved(job, plain(SPELLINGS))
    assert isinstance(receipt.arguments, dict)
    stored = receipt.arguments["passwd"][DIGEST]
    assert stored not in sealed({"passwd": PASSWORD}, bytes(32))["passwd"][DIGEST]
    assert caplog.text.count("later starts will not see whether the arguments change") == 1
    assert (tmp_path / "elsewhere").exists() == (kind == "link"), "nothing is written through it"
    with pytest.raises((OSError, KeyRefusedError)):
        read_key(job.root)
    assert key_for_comparing(job.root) is None


def test_arguments_without_a_secret_make_no_key(job: JobOnDisk) -> None:
    assert Sealer(job.root).sealed({"lr": 0.1, "bf16": True}) == {"lr": 0.1, "bf16": True}
    assert not (job.root / DIGEST_KEY).exists()


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The command line that has all spellings; the environment holds one, too."""
    argv = [f"--{name.replace('_', '-')}={value}" for name, value in SPELLINGS.items()]
    monkeypatch.setattr("sys.argv", ["train.py", *argv])
    monkeypatch.setenv("HF_TOKEN", PASSWORD)
    yield argv


@pytest.mark.parametrize("message", MESSAGES)
def test_no_event_quotes_a_secret(job: JobOnDisk, given: list[str], message: str) -> None:
    attempt = job.attempt()
    text = message.format(argv=" ".join(given), secret=PASSWORD)
    for error in (RuntimeError(text), SystemExit(text)):
        append(job.events(attempt), life.ending_by(error))
    assert len(read_events(job.events(attempt)).events) == 2
    assert files_with_secrets(job.base) == []


def test_secrets_of_arguments_that_were_never_typed_are_known_too(
    job: JobOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = Namespace(auth={"value": PASSWORD})  # as from a file of Megatron's --yaml-cfg
    monkeypatch.setitem(sys.modules, "megatron.training.global_vars", Namespace(_GLOBAL_ARGS=args))
    assert life.ending_by(RuntimeError(f"no: {PASSWORD}")).message == "no: ***"  # type: ignore[union-attr]


def test_no_report_shows_what_an_older_record_quotes(job: JobOnDisk, tmp_path: Path) -> None:
    attempt = job.attempt()
    write_failure(job.root, "life", replace(FAILURE, attempt=attempt, message=f"401: passwd={PASSWORD}"))
    page = tmp_path / "report.html"
    assert main(["report", str(job.root), "--to", str(page)]) == 0
    assert "passwd=***" in page.read_text()
    assert files_with_secrets(attempt_path(job.root, attempt)) != [], "as it was"
    assert PASSWORD not in page.read_text()


@pytest.mark.parametrize(
    "text",
    [
        "Missing key 'model.weight' and unexpected key(s) in state_dict: 'a'",
        "KeyError: 'prompt'",
        "[Errno 2] No such file or directory: '/data/author/x-1.json'",
        "tcp://10.0.0.1:29500 timed out after 600 s",
        "tokenizer_type: GPT2, max_tokens=5, num_tokens: 7",
        "NCCL error in: ProcessGroupNCCL.cpp:3699, unhandled system error, NCCL version 2.27.5",
    ],
)
def test_a_message_without_a_secret_stays_as_it_is(text: str) -> None:
    assert without_secrets(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "Command '['curl', '--oss-sk', 'hunter2 x']' returned non-zero exit status 1",
        'password="a\\"hunter2"',
        "passphrase => hunter2",
    ],
)
def test_a_secret_that_another_program_quotes_is_taken_out(text: str) -> None:
    """Also one that this process was never given."""
    assert "hunter2" not in without_secrets(text)
