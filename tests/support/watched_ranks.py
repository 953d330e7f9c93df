"""Ranks that are watched, each a small process that does what a function of watch/rank.py says."""

import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

from megatron_resume.policy import VARIABLE
from megatron_resume.processes import command
from megatron_resume.watch import kernel
from megatron_resume.watch.endings import VARIABLE as ENDINGS
from megatron_resume.watch.endings import RankEnding, read_endings
from megatron_resume.watch.watched import is_watchdog

from . import TESTS
from .waiting import PATIENCE_S, until

RANK = TESTS / "watch" / "rank.py"


def until_it_has_run(pid: int) -> None:
    """Until a process that sleeps between its looks has looked twice more."""
    before = _times_run(pid)
    until(lambda: _times_run(pid) >= before + 3)


def _times_run(pid: int) -> int:
    """How often it went to wait."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])


def _ignores_sigterm(pid: int) -> bool:
    """The first thing that a watchdog does."""
    ignored = Path(f"/proc/{pid}/status").read_text().partition("\nSigIgn:")[2].split()[0]
    return bool(int(ignored, 16) >> (signal.SIGTERM - 1) & 1)


def _may_be_a_watchdog(pid: int) -> bool:
    """Also a moment after exec, when a process has no command line yet."""
    return is_watchdog(pid) or (not any(command(pid)) and kernel.state(pid) not in ("ended", "gone"))


class Rank:
    """One of them."""

    def __init__(self, folder: Path, what: str, number: int, environ: dict[str, str], *, apart: bool = False) -> None:
        self._folder, self.number = folder, number
        self._output = folder / f"output{number}"
        with self._output.open("w") as output:
            self.process = subprocess.Popen(
                [*(("unshare", "--net") if apart else ()), sys.executable, str(RANK), what, str(folder)],
                env={**os.environ, **environ, "RANK": str(number)},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # as torchrun does
            )
        self._told(f"begun{number}", "")

    def _told(self, name: str, text: str) -> None:
        (self._folder / name).write_text(text)

    def until(self, said: str) -> None:
        """Until it has told so."""
        until((self._folder / f"{said}{self.number}").exists)

    def watchdog(self) -> int | None:
        """Its process, unless nobody watches."""
        told = self._folder / f"watchdog{self.number}"
        return int(told.read_text()) if told.exists() else None

    def until_watched(self) -> int:
        """Until its watchdog has looked at it."""
        watchdog = self.watchdog()
        assert watchdog is not None
        until(lambda: _ignores_sigterm(watchdog))
        until_it_has_run(watchdog)
        return watchdog

    def go(self) -> int:
        """Let one that waits go on; its exit code."""
        assert self.process.poll() is None, self.said
        self._told(f"go{self.number}", "")
        return self.process.wait(PATIENCE_S)

    def end(self) -> int:
        """Its exit code, which nobody collects before its watchdog has recorded it."""
        os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)
        watchdog = self.watchdog()
        until(lambda: watchdog is None or not _may_be_a_watchdog(watchdog))
        return self.process.wait()

    @property
    def said(self) -> str:
        """It and its watchdog."""
        return self._output.read_text()


class Ranks:
    """The ranks of one life of a job on this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.root = folder, folder / "data_checkpoint"
        self.root.mkdir(exist_ok=True)
        self.endings_folder = folder / "endings"
        self.endings_folder.mkdir()
        self.started: list[Rank] = []
        self._life = uuid.uuid4().hex

    def start(self, *whats: str, policy: str = "{}", nodes: bool = False, **environ: str) -> list[Rank]:
        """One rank for each of `whats`, on a node of its own where they are on `nodes`; `policy` is JSON."""
        told = {
            VARIABLE: policy,
            ENDINGS: str(self.endings_folder),
            "ROOT": str(self.root),
            "WORLD_SIZE": str(len(whats)),
            "LOCAL_WORLD_SIZE": "1" if nodes else str(len(whats)),
            "TORCHELASTIC_RUN_ID": self._life,
            "TORCHELASTIC_RESTART_COUNT": "0",
            **environ,
        }
        found = [Rank(self.folder, what, number, told, apart=nodes) for number, what in enumerate(whats)]
        self.started += found
        return found

    @property
    def endings(self) -> list[RankEnding]:
        return read_endings(self.endings_folder)
