"""What is kept between starts lies in a folder of this user, and nowhere for a user who has none."""

import logging
import os
import pwd
from pathlib import Path

import pytest

from megatron_resume.checkpoint.user_cache import user_cache
from megatron_resume.cli.verify import examine
from megatron_resume.data.jsonl import JsonlPrompts
from support.job_on_disk import JobOnDisk


@pytest.fixture
def homeless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of a user whose home nobody knows, as in a container that runs under any number."""

    def unknown(uid: int) -> pwd.struct_passwd:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_prompts_are_indexed_in_memory_and_no_folder_is_made(homeless: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = homeless / "prompts.jsonl"
    data.write_text('{"prompt": "a"}\n')
    assert list(JsonlPrompts(data)) == ["a"]
    assert os.listdir(homeless) == ["prompts.jsonl"]
    (line,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "cannot be kept in the home of this user (it has none)" in line
    assert "set XDG_CACHE_HOME" in line


def test_verify_says_what_to_set_and_makes_no_folder(homeless: Path, job: JobOnDisk) -> None:
    job.save(job.attempt(), 2)
    (remark,) = examine(job.root, deep=True)["remarks"]
    assert remark.startswith("this user has no home to keep what was read") and "set XDG_CACHE_HOME" in remark
    assert os.listdir(homeless) == []


@pytest.mark.parametrize("relative", ["cache", "~/cache", "~"])
def test_a_relative_cache_is_none(homeless: Path, monkeypatch: pytest.MonkeyPatch, relative: str) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", relative)
    assert user_cache() is None
    monkeypatch.setenv("HOME", str(homeless))
    assert user_cache() == homeless / ".cache" / "megatron_resume"
