"""How a real process ends is what its events file says, however it ends."""

import multiprocessing
import resource
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from megatron_resume.adapter import life
from megatron_resume.checkpoint.events import Committed, Ending, Event, Failed, Finished, Stopped, read_events

BEGIN = """
import os, signal, sys, threading
from pathlib import Path
from megatron_resume.adapter import life
from megatron_resume.checkpoint.events import Committed
from megatron_resume.errors import ConfigError, RejoinError
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
path = Path(sys.argv[1])
life.begin(path)
"""

ENDS: dict[str, tuple[str, int, Ending | None]] = {
    "comes to its last line": ("", 0, Finished()),
    "says that all is well": ("sys.exit(0)", 0, Finished()),
    "raises": (
        "raise RuntimeError('the network is down')",
        1,
        Failed(error="RuntimeError", message="the network is down", exit_code=1),
    ),
    "raises what cannot be printed": (
        "class Odd(Exception):\n    def __str__(self): raise ValueError\nraise Odd",
        1,
        Failed(error="Odd", message="its message raises ValueError", exit_code=1),
    ),
    "raises what is no text": (
        "raise OSError('\\udc80')",
        1,
        Failed(error="OSError", message="\\udc80", exit_code=1),
    ),
    "exits with a code": ("sys.exit(17)", 17, Failed(error="SystemExit", message="17", exit_code=17)),
    "exits with a reason": ("sys.exit('no data')", 1, Failed(error="SystemExit", message="no data", exit_code=1)),
    "changes its mind": (
        "try:\n    sys.exit(1)\nexcept SystemExit:\n    sys.exit(0)",
        0,
        Finished(),
    ),
    "exits in a thread": ("thread = threading.Thread(target=sys.exit, args=(1,)); thread.start()", 0, Finished()),
    "ends truthfully": (
        "from megatron_resume.adapter.ending import truthful_end\n"
        "with truthful_end():\n    raise ConfigError('type --save DIR')",
        78,
        Failed(error="ConfigError", message="type --save DIR", exit_code=78),
    ),
    "is superseded": (
        "life.ends_by(RejoinError('attempt 2 began')); os._exit(203)",
        203,
        Stopped(reason="attempt 2 began", exit_code=203),
    ),
    "is interrupted": (
        "os.kill(os.getpid(), signal.SIGINT); signal.pause()",
        -signal.SIGINT,
        Stopped(reason="SIGINT", exit_code=130),
    ),
    "leaves when its handler is called": (
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); os.kill(os.getpid(), signal.SIGTERM)",
        0,
        Stopped(reason="SIGTERM", exit_code=0),
    ),
    "is killed": ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL, None),
    "is terminated without a handler": ("os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM, None),
    "forks a child that fails": (
        "if os.fork() == 0:\n    sys.exit(1)\nos.wait()",
        0,
        Finished(),
    ),
    "took its attempt back": ("life.forget(); assert sys.exit.__name__ == 'exit'; sys.exit(1)", 1, None),
    "lost its folder": ("path.unlink(); path.parent.rmdir()", 0, None),
}


@pytest.mark.parametrize("how", ENDS)
def test_the_ending_is_recorded_once_as_it_was(tmp_path: Path, how: str) -> None:
    program, code, ending = ENDS[how]
    path = tmp_path / "attempt" / "policy.events.jsonl"
    path.parent.mkdir()
    program = f"{BEGIN}life.tell(Committed(iteration=2))\n{program}\n"
    ended = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True)
    assert ended.returncode == code, ended.stderr
    if how == "lost its folder":
        assert f"{path} cannot be written: No such file or directory" in ended.stderr
        return
    told = read_events(path)
    expected = [Committed(iteration=2), *([ending] if ending else [])]
    assert [without_time(event) for event in told.events] == [without_time(event) for event in expected]
    assert told.damage is None


def without_time(event: Event) -> Event:
    return msgspec.structs.replace(event, time="")


def begin_and_fail(path: Path) -> None:
    life.begin(path)
    raise RuntimeError("the network is down")


def test_a_process_that_multiprocessing_made_fails_as_it_does(tmp_path: Path) -> None:
    path = tmp_path / "policy.events.jsonl"
    process = multiprocessing.get_context("forkserver").Process(target=begin_and_fail, args=(path,))
    process.start()
    process.join(60)
    assert process.exitcode == 1
    (event,) = read_events(path).events
    assert isinstance(event, Failed)
    assert event.message == "the network is down"


def test_a_file_that_cannot_grow_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As a full disk is; the limit of the process is one that a test can set."""
    path = tmp_path / "policy.events.jsonl"
    before = sys.exit, sys.excepthook
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    life.begin(path)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        life.tell(Committed(iteration=2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        life.forget()
    assert f"{path} cannot be written: File too large" in caplog.text
    assert (sys.exit, sys.excepthook) == before
    assert path.read_bytes() == b""
