"""Whether a helper process of a rank has ended, as far as its owner can tell."""

import multiprocessing
import os
import signal
import subprocess
import time
from types import SimpleNamespace

import pytest

from megatron_resume.adapter import helper_deaths
from support.waiting import until


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


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGKILL, -signal.SIGKILL), (None, 0)], ids=["killed", "ended by itself"]
)
def test_the_end_of_a_helper_is_seen_however_it_was_started(
    method: str, number: int | None, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child of the server of multiprocessing is nobody's that could be waited for here."""
    monkeypatch.setattr(helper_deaths, "at_end", lambda _: None)
    monkeypatch.setattr(helper_deaths._Guard, "_work", lambda _: None)
    guard = helper_deaths._Guard()
    helper = multiprocessing.get_context(method).Process(target=time.sleep, args=(600 if number else 0,))
    helper.start()
    if number is not None:
        assert guard._end_of(helper) is None
        os.kill(helper.pid or 0, number)
    until(lambda: guard._end_of(helper) is not None)
    assert guard._end_of(helper) == status
    helper.join()
    assert helper.exitcode == status, "its owner sees it too"
