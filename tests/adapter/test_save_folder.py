"""Save folders from which nothing could ever be resumed are refused before any work."""

from types import SimpleNamespace

import pytest

from megatron_resume.adapter.session import check_resumable
from megatron_resume.errors import ConfigError


@pytest.mark.parametrize(
    ("save", "said"),
    [
        (None, "policy has no --save"),
        ("s3://bucket/policy", "s3://bucket/policy'; resume points need a POSIX folder"),
        ("msc://profile/policy", "shared by all nodes: change --save"),
        ("/runs/\udcff/policy", r"'/runs/\udcff/policy'; resume points need a POSIX folder with a UTF-8 name"),
    ],
)
def test_such_a_save_folder_is_refused(save: str | None, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        check_resumable("policy", SimpleNamespace(save=save))
    assert said in str(refused.value)


def test_a_folder_is_not() -> None:
    check_resumable("policy", SimpleNamespace(save="/runs/größer/policy"))
