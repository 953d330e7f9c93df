"""Whether a helper process of a rank has ended, as far as its owner can tell."""

import multiprocessing
import os
import subprocess
from types import SimpleNamespace

import pytest

from megatron_resume.adapter import helper_deaths


@pytest.mark.parametrize("code", [0, 1])
def test_the_number_of_one_that_was_collected_is_another_childs_by_now(code: int) -> None:
    """As of a rank that starts thousands of programs, of which some fail."""
    helper = multiprocessing.get_context("fork").Process(target=os._exit, args=(code,))
    another = subprocess.Popen(["false"])
    os.waitid(os.P_PID, another.pid, os.WEXITED | os.WNOWAIT)
    helper._popen = SimpleNamespace(pid=another.pid, returncode=code)  # type: ignore[attr-defined]
    assert helper_deaths._end_of(helper) == code
    helper._popen.returncode = None  # type: ignore[attr-defined]
    assert helper_deaths._end_of(helper) == 1
    another.wait()
