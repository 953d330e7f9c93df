"""Runs of the RLHF example on real Megatron: started from one process that imported everything once."""

import contextlib
import fcntl
import functools
import io
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from megatron_resume.checkpoint.layout import COMMITTED, PointName, parse_point
from megatron_resume.cli import main as command_line

from . import ROOT
from .pool import Pool
from .waiting import PATIENCE_S

EXAMPLE = ROOT / "examples" / "megatron"
TAMPERED = ROOT / "tests" / "support" / "tampered" / "entry.py"
SCRIPT = EXAMPLE / "scripts" / "train_rlhf_llama.sh"

EPISODES = 3
ITERATIONS_PER_EPISODE = 2
# More layers and longer sequences show nothing more of a resume, and cost a quarter of the time.
SMALL_MODEL = ["--num-layers", "1", "--seq-length", "24", "--max-position-embeddings", "24"]
# Two iterations an episode: the first trace lines of a second iteration depend on optimizer and RNG. Two micro batches
# are added up by one rank, and by two that divide tensors or layers; two that divide the data have one each.
SMALL = ["--samples-per-episode", "16", "--global-batch-size", "16", "--micro-batch-size", "8", *SMALL_MODEL]
SMALL += ["--response-length", "2"]
RARE = ("--save-episode-interval", "3")  # of 3 episodes: a save comes only where one was asked for
SYNC: tuple[str, ...] = ()
ASYNC = ("--async-save", "--use-persistent-ckpt-worker")
TP2 = ("--tensor-model-parallel-size", "2")
SHAPES: dict[str, tuple[str, ...]] = {"dp2": (), "tp2": TP2}
ALONE = "alone"  # the shape of what one rank shows as well as two: a rank costs a second of CPU in each start


class Server:
    """Runs jobs, one after the other; each costs a fork instead of 15 seconds of imports."""

    def __init__(self, pool: Pool):
        self.pool, self._lane = pool, pool.connect()

    @property
    def pid(self) -> int:
        """The process whose children lead the jobs, each in a session of its own."""
        return self._lane.pid

    def run(self, **job: Any) -> dict[str, Any]:
        return self._lane.ask(job)

    def another(self) -> "Server":
        """One beside it, for jobs at the same time."""
        return Server(self.pool)

    def close(self) -> None:
        self._lane.close()


@dataclass
class Ended:
    """One start of a run that is over."""

    code: int  # of the rank that failed first; negative for a signal
    codes: list[int]
    log: str
    timed_out: bool
    seconds: float

    @property
    def refused_with(self) -> int:
        """The code with which ranks refused to start; the launcher may have ended the last ones first."""
        assert set(self.codes) <= {self.code, -15}, self.codes
        return self.code

    def line(self, pattern: str) -> str:
        """The one line of the log that matches, as rank 0 wrote it."""
        found = [line for line in self.log.splitlines() if re.search(pattern, line)]
        assert len(found) == 1, f"{pattern!r} matches {len(found)} lines of:\n{self.log[-6000:]}"
        return found[0]


def ended_start(log: Path) -> Ended:
    """A start that is over, from its log and the file beside it."""
    result = json.loads(log.with_suffix(".json").read_text())
    text = log.read_text(errors="replace")
    return Ended(result["code"], result["codes"], text, result["timed_out"], result["seconds"])


@dataclass
class Run:
    """One training job with its output folder: start it as often as it takes, always by the same command."""

    server: Server
    output: Path
    flags: tuple[str, ...] = ()
    num_ranks: int = 2
    starts: list[Ended] = field(default_factory=list)
    without: tuple[str, ...] = ()  # flags of the example's script to leave out, with their value

    @property
    def data_checkpoint(self) -> Path:
        return self.output / "data_checkpoint"

    def start(
        self,
        *flags: str,
        crash: str | None = None,
        script: Path | None = None,
        tamper: str | None = None,
        env: dict[str, str | None] | None = None,
        episodes: int = EPISODES,
    ) -> Ended:
        """Start the job; `crash` names the crash point where SIGKILL ends it, `tamper` what is spoiled in it."""
        self.output.mkdir(parents=True, exist_ok=True)
        log = self.output / f"start{len(self.starts) + 1}.log"
        script, named = (script, []) if tamper is None else (TAMPERED, [tamper])
        job: dict[str, Any] = {
            "name": log.name,
            "num_ranks": self.num_ranks,
            "argv": [*named, *self.arguments(), *SMALL, "--num-episodes", str(episodes), *self.flags, *flags],
            "log": str(log),
            "env": {"MEGATRON_RESUME_CRASH": crash, **(env or {})},
            "timeout": PATIENCE_S,
            "fork_helpers": True,
        }
        if script is not None:
            job["script"] = str(script)
        result = self.server.run(**job)
        log.with_suffix(".json").write_text(json.dumps(result))
        self.starts.append(ended_start(log))
        return self.starts[-1]

    def arguments(self) -> list[str]:
        given = arguments(self.output)
        for flag in self.without:
            at = given.index(flag)
            del given[at : at + 2]
        return given

    def tampered(self, how: str, *flags: str, **options: Any) -> Ended:
        """Start the job with one thing spoiled, named as module.function of support/tampered."""
        return self.start(*flags, tamper=how, **options)

    def finish(self, *flags: str, **options: Any) -> Ended:
        """Start the job, which must come to its end."""
        ended = self.start(*flags, **options)
        assert ended.code == 0, f"exit code {ended.code}\n{ended.log[-6000:]}"
        return ended

    def killed(self, crash: str, *flags: str, committed: int | None = None, **options: Any) -> Ended:
        """Start the job, which must die at its crash point.

        The iteration that is to be `committed` then is committed by a thread, while training goes on. On a busy machine
        the kill may come first, which is another case, and the run is begun anew.
        """
        for _ in range(10):
            ended = self.start(*flags, crash=crash, **options)
            assert f"crash point {crash.partition(':')[0]}" in ended.log, ended.log[-6000:]
            assert -9 in ended.codes, ended.codes  # another rank, which lost its peer, may be seen to end before it
            if committed is None or has_committed(self.data_checkpoint, committed):
                return ended
            assert len(self.starts) == 1, f"iteration {committed} was not committed before {crash}"
            shutil.rmtree(self.output)
            self.starts.clear()
        raise AssertionError(f"ten times iteration {committed} was not committed before {crash}")

    def trace(self) -> list[dict[str, Any]]:
        """The effective trace: of each iteration the line of the attempt that survived, without `attempt`."""
        survived: dict[int, dict[str, Any]] = {}
        for line in (self.output / "trace.jsonl").read_text().splitlines():
            record = json.loads(line)
            known = survived.get(record["iteration"])
            if known is None or record["attempt"] >= known["attempt"]:
                survived[record["iteration"]] = record
        return [{k: v for k, v in survived[i].items() if k != "attempt"} for i in sorted(survived)]

    def final_state(self) -> dict[str, Any]:
        """Digests of every weight and optimizer state of every rank at the end."""
        files = sorted(self.output.glob("final_state.json*"))
        assert len(files) == self.num_ranks
        return {path.name: json.loads(path.read_text()) for path in files}

    def status(self) -> dict[str, Any]:
        return status_of(self.data_checkpoint)


def status_of(data_checkpoint: Path) -> dict[str, Any]:
    """What `megatron-resume status --json` says, without a start of Python for it."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert command_line(["status", str(data_checkpoint), "--json"]) == 0
    report: dict[str, Any] = json.loads(printed.getvalue())
    return report


def newest_committed(data_checkpoint: Path) -> int:
    """The newest iteration that is; 0 for none."""
    points = [parse_point(path.parent.name) for path in data_checkpoint.glob(f"*/{COMMITTED}")]
    return max((point.iteration for point in points if point is not None), default=0)


def has_committed(data_checkpoint: Path, iteration: int) -> bool:
    """In the first attempt."""
    return (data_checkpoint / PointName(iteration, 1).folder / COMMITTED).exists()


def run_of_shape(server: Server, output: Path, shape: str, *flags: str) -> Run:
    return Run(server, output, (*SHAPES.get(shape, ()), *flags), num_ranks=1 if shape == ALONE else 2)


def undisturbed_runs(server: Server, folder: Path) -> Callable[[str], Run]:
    """Shape -> its run that nobody disturbed, made below `folder` when a worker first asks for it."""

    @functools.cache
    def of(shape: str) -> Run:
        run = run_of_shape(server, folder / "undisturbed" / shape, shape)
        once(run.output, run.finish)
        run.starts = [ended_start(run.output / "start1.log")]
        return run

    return of


def once(output: Path, make: Callable[[], object]) -> None:
    """Call `make` unless a worker has; the others wait for it."""
    output.parent.mkdir(parents=True, exist_ok=True)
    done = output.with_suffix(".done")
    with open(output.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            make()
            done.touch()


@functools.cache
def _dry_run(output: str) -> tuple[str, ...]:
    command = ["bash", str(SCRIPT), "--model-size", "tiny", "--output", output, "--dry-run"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    words = shlex.split(printed)
    entry = next(i for i, word in enumerate(words) if word.endswith("train_rlhf.py"))
    return tuple(words[entry + 1 :])


def arguments(output: Path) -> list[str]:
    """What the script of the example gives to its entry for the tiny model."""
    return [*_dry_run(str(output)), "--final-state-file", str(output / "final_state.json")]


def assert_identical(run: Run, reference: Run) -> None:
    """Nothing differs: not one number of the trace, not one weight, not one optimizer state."""
    for ours, theirs in zip(run.trace(), reference.trace(), strict=True):
        assert ours == theirs
    assert run.final_state() == reference.final_state()


OF_THE_EXAMPLE = ("--output", "--make-checkpoints", "--response-length", "--samples-per-episode", "--final-state-file",
                  "--rollout-batch-size", "--value-lr", "--gae-lambda", "--init-kl-coef", "--kl-target")  # fmt: skip


def megatron_flags(output: Path) -> list[str]:
    """The flags of the example that are Megatron's own."""
    flags: list[str] = []
    skipping = False
    for word in arguments(output):
        skipping = word in OF_THE_EXAMPLE if word.startswith("--") else skipping
        flags += [] if skipping else [word]
    return [*flags, *SMALL_MODEL, "--train-iters", "4", "--save-interval", "2", "--num-workers", "0"]


def killed_in_its_second_save(new_run: Callable[[str], Run]) -> Run:
    """Policy of the second episode is saved, value is not, and the first point is committed."""
    run = new_run("run")
    run.killed("save.begin@value:2", committed=ITERATIONS_PER_EPISODE)
    return run
