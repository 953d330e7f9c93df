"""Save folders from which nothing could ever be resumed are refused before any work."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from megatron_resume.adapter.session import Session, check_resumable
from megatron_resume.config import ResumeConfig
from megatron_resume.errors import ConfigError
from megatron_resume.resume.choose import Fresh


@pytest.mark.parametrize(
    ("save", "said"),
    [
        (None, "policy has no --save"),
        ("s3://bucket/policy", "s3://bucket/policy'; resume points need a POSIX folder"),
        ("msc://profile/policy", "shared by all nodes: change --save"),
        ("/runs/\udcff/policy", r"'/runs/\udcff/policy', a name that is not UTF-8"),
    ],
)
def test_such_a_save_folder_is_refused(save: str | None, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        check_resumable("policy", SimpleNamespace(save=save))
    assert said in str(refused.value)


def test_a_folder_is_not() -> None:
    check_resumable("policy", SimpleNamespace(save="/runs/größer/policy"))


def session_of(tmp_path: Path, role_of_command: str | None) -> Session:
    session = Session(ResumeConfig(), tmp_path, role_of_command=role_of_command)
    session.adopt(Fresh("nothing was committed yet"))
    return session


def test_the_save_folder_of_the_only_role_is_that_of_the_command_where_the_next_start_looks(tmp_path: Path) -> None:
    session = session_of(tmp_path, "policy")
    session.hold("policy", SimpleNamespace(save=str(tmp_path)))
    session.hold("policy", SimpleNamespace(save=f"{tmp_path}/"))
    with pytest.raises(ConfigError, match=f"--save said {tmp_path}, where .*: give --save {tmp_path}/policy, and let"):
        session.hold("policy", SimpleNamespace(save=f"{tmp_path}/policy"))
    assert session.save_folders == {"policy": str(tmp_path)}


def test_a_process_of_several_roles_gives_each_its_own(tmp_path: Path) -> None:
    session = session_of(tmp_path, None)
    for folder in ("first", "second"):
        session.hold("policy", SimpleNamespace(save=str(tmp_path / folder)))
    assert session.save_folders == {"policy": str(tmp_path / "second")}
