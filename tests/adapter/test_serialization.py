"""Who sees what Megatron's dist_checkpointing is called with."""

import functools
from pathlib import Path
from typing import Any

import pytest
from megatron.core.dist_checkpointing import serialization as megatrons

from megatron_resume.adapter import serialization


def test_what_a_script_put_around_the_save_is_called_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called, seen, save = [], [], megatrons.save

    @functools.wraps(save)
    def timed(*args: Any, **kwargs: Any) -> None:
        called.append(args)
        assert save

    monkeypatch.setattr(megatrons, "save", timed)
    with serialization.before("save", lambda *args: seen.append(args)):
        megatrons.save({}, str(tmp_path))
    assert (called, seen) == ([({}, str(tmp_path))], [])
