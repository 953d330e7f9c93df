"""Run the example's jobs from one process that has imported torch and Megatron already.

    python examples/megatron/cpu/fork_server.py < jobs.jsonl

Imports cost a torchrun start most of its 15 seconds on two cores; forking the ranks of each job from
here costs none. Jobs come as JSON lines on standard input and run one after the other:

    {"name": "dp2", "argv": ["--num-episodes", "2"], "log": "dp2.log"}

`argv` is the script's command line and `log` the file that gets what the ranks print; the rest of `Job`
is optional. For each finished job one JSON line goes to standard output:

    {"name": "dp2", "code": 0, "codes": [0, 0], "seconds": 3.1, "timed_out": false}

`codes` holds each rank's exit code, negative for a signal; `code` is that of the rank that failed first,
or 0. When one rank fails, the others are ended as a launcher would. The first line printed is
{"ready": true}; a line that is no job is answered with {"error": "what is wrong with it"}.
"""

import atexit
import contextlib
import json
import os
import random
import signal
import socket
import sys
import threading
import time
import traceback
import uuid
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TextIO

HERE = Path(__file__).resolve().parent
if str(HERE.parent) not in sys.path:
    sys.path.append(str(HERE.parent))

from cpu import stand_in  # noqa: E402
from cpu.parents import end_with_parent  # noqa: E402

# Also in the helper processes that Megatron starts: they import this file again as __mp_main__.
stand_in.install()

TRAIN_RLHF = HERE.parent / "entry" / "train_rlhf.py"
TERM_GRACE_S = 5.0
POLL_S = 0.02

_port_names: list[socket.socket] = []


@dataclass(frozen=True)
class Job:
    """One line of standard input."""

    name: str
    argv: list[str]
    log: str
    num_ranks: int = 2
    env: dict[str, str | None] = field(default_factory=dict)  # on top of the server's; null unsets
    cwd: str | None = None
    timeout: float = 120.0  # seconds, after which all ranks are killed
    script: str = str(TRAIN_RLHF)
    # Fork the asynchronous checkpoint worker. Else it starts as a new process, as it does on a GPU
    # machine, and imports torch and Megatron again: some 5 seconds per rank.
    fork_helpers: bool = False


def serve() -> None:
    """Import everything, then run jobs until standard input ends."""
    answers = _take_standard_output()
    _import_what_jobs_need()
    _say(answers, {"ready": True})
    for line in iter(sys.stdin.readline, ""):
        if line.strip():
            _say(answers, _answer(line))


def _take_standard_output() -> TextIO:
    """Standard output for our answers alone; what anybody prints goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers


def _say(answers: TextIO, record: dict[str, Any]) -> None:
    answers.write(json.dumps(record) + "\n")
    answers.flush()


def _answer(line: str) -> dict[str, Any]:
    try:
        job = Job(**json.loads(line))
    except (TypeError, ValueError) as error:
        return {"error": str(error)}
    return _run(job)


def _import_what_jobs_need() -> None:
    """Everything slow, but nothing of ours: jobs see the package and the example as they are on disk."""
    warnings.filterwarnings("ignore")
    import megatron.core.models.gpt.gpt_layer_specs
    import megatron.training.checkpointing
    import megatron.training.training
    import rich.progress  # noqa: F401
    import torch.utils.tensorboard  # noqa: F401

    from cpu import megatron_gaps

    with contextlib.suppress(ImportError):  # an old Megatron has them elsewhere
        import megatron.core.tokenizers.text  # noqa: F401
    megatron_gaps.fill()


def _run(job: Job) -> dict[str, Any]:
    """Fork the job's leader, wait for it, and leave nothing of its session behind."""
    started = time.monotonic()
    reader, writer = os.pipe()
    leader = os.fork()
    if leader == 0:
        os.close(reader)
        _lead(job, writer)
    os.close(writer)
    timed_out = not _wait(leader, started + job.timeout)
    # The leader is dead but not reaped, so its number still means this job's session alone.
    _signal_group(leader, signal.SIGKILL)
    os.waitpid(leader, 0)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    result = json.loads(text) if text else {"code": -signal.SIGKILL, "codes": [-signal.SIGKILL] * job.num_ranks}
    return {
        "name": job.name,
        **result,
        "seconds": round(time.monotonic() - started, 2),
        "timed_out": timed_out,
    }


def _wait(pid: int, deadline: float) -> bool:
    """Whether `pid` ended before the deadline; after it, its whole group is killed."""
    in_time = True
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if in_time and time.monotonic() > deadline:
            in_time = False
            _signal_group(pid, signal.SIGKILL)
        time.sleep(POLL_S)
    return in_time


def _signal_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


def _lead(job: Job, writer: int) -> NoReturn:
    """Be the leader of the job's session: fork its ranks, wait, report their codes."""
    try:
        end_with_parent()
        os.setsid()
        _redirect(job.log)
        environment = {**_like_torchrun(job.num_ranks), **job.env}
        for name in [name for name, value in environment.items() if value is None]:
            os.environ.pop(name, None)
        os.environ.update({name: value for name, value in environment.items() if value is not None})
        if job.cwd:
            os.chdir(job.cwd)
        pids = [_fork_rank(job, rank, writer) for rank in range(job.num_ranks)]
        codes, first = _wait_for_ranks(pids)
        os.write(writer, json.dumps({"code": first, "codes": codes}).encode())
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(0)


def _redirect(log: str) -> None:
    """Send what the job prints to its log, and give it no standard input."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(file, 1)
    os.dup2(file, 2)


def _free_port() -> int:
    """A port that nobody takes before the ranks do.

    It lies below those that the kernel gives to outgoing connections; and against the other job servers of this
    machine the leader holds a name for it, as long as it lives.
    """
    while True:
        port = random.randrange(20_000, 32_000)
        name = socket.socket(socket.AF_UNIX)
        with socket.socket() as probe:
            try:
                name.bind(f"\0megatron_resume job server, port {port}")
                probe.bind(("", port))
            except OSError:
                name.close()
                continue
        _port_names.append(name)
        return port


def _like_torchrun(num_ranks: int) -> dict[str, str | None]:
    port = _free_port()
    return {
        "WORLD_SIZE": str(num_ranks),
        "LOCAL_WORLD_SIZE": str(num_ranks),
        "GROUP_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": uuid.uuid4().hex,
        "TORCHELASTIC_RESTART_COUNT": "0",
        "TORCHELASTIC_MAX_RESTARTS": "0",
    }


def _fork_rank(job: Job, rank: int, leaders_pipe: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    os.close(leaders_pipe)  # else the server would wait for whoever outlives the job
    end_with_parent()
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
    code = 1
    try:
        code = _run_script(job)
    finally:
        _end_like_an_interpreter(code)


def _run_script(job: Job) -> int:
    """Run the job's script as the main program of this rank; its exit code."""
    from cpu import megatron_gaps

    megatron_gaps.fork_the_result_queue()
    if job.fork_helpers:
        megatron_gaps.fork_every_helper()
    script = job.script
    sys.argv = [script, *job.argv]
    sys.path[0] = str(Path(script).parent)
    try:
        # Not runpy: sys.modules["__main__"] stays this file, so that helper processes import it and
        # not the job's whole script.
        code = compile(Path(script).read_text(), script, "exec")
        exec(code, {"__name__": "__main__", "__file__": script, "__builtins__": __builtins__})
    except SystemExit as error:
        return _exit_code(error.code)
    except BaseException:
        sys.excepthook(*sys.exc_info())  # what an interpreter calls
        return 1
    return 0


def _exit_code(code: object) -> int:
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    print(code, file=sys.stderr)
    return 1


def _end_like_an_interpreter(code: int) -> NoReturn:
    """Join threads and run atexit handlers, which commit pending checkpoints, then leave."""
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
    except BaseException:
        traceback.print_exc()
        code = code or 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _wait_for_ranks(pids: list[int]) -> tuple[list[int], int]:
    """Each rank's code, and that of the first that failed; one failure ends the other ranks."""
    codes: dict[int, int] = {}
    first, kill_at = 0, float("inf")
    while len(codes) < len(pids):
        ended = {pid: os.waitstatus_to_exitcode(status) for pid, status in _ended(set(pids) - codes.keys())}
        codes |= ended
        if not first and any(ended.values()):
            # Of those that ended since the last look a killed one (negative) is the cause, which the others follow.
            first, kill_at = min(filter(None, ended.values())), time.monotonic() + TERM_GRACE_S
            _signal_all(set(pids) - codes.keys(), signal.SIGTERM)
        if time.monotonic() > kill_at:
            _signal_all(set(pids) - codes.keys(), signal.SIGKILL)
        time.sleep(POLL_S)
    return [codes[pid] for pid in pids], first


def _ended(pids: set[int]) -> list[tuple[int, int]]:
    """Process and wait status of each that has ended."""
    return [(pid, status) for pid in pids for ended, status in [os.waitpid(pid, os.WNOHANG)] if ended]


def _signal_all(pids: set[int], number: int) -> None:
    for pid in pids:
        os.kill(pid, number)


if __name__ == "__main__":
    serve()
