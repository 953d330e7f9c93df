"""Who ends by os._exit while Megatron's RL shuts its inference down."""

import os

import pytest

from megatron_resume.adapter import hard_exit


def test_a_forked_child_ends_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hard_exit, "_end", lambda status: 99)
    with hard_exit._exits_as_python():
        child = os.fork()
        if child == 0:
            os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
