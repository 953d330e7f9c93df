"""Fork jobs and programs from one process that has imported torch and Megatron already.

    job_server.py FOLDER OWNER      listens on FOLDER/megatron, torch and plain until the process OWNER ends

Imports cost a torchrun start most of its 15 seconds on two cores; what is forked from here costs none. Who connects to
FOLDER/torch gets a process in which torch was imported, and nothing of Megatron; that is imported when the first client
connects to FOLDER/megatron. Behind FOLDER/plain is neither, but what the command line imports.

A connection is served by a process of its own, a lane, so that several run at once; the first line that a client gets
is {"lane": 1}, its process. Requests are JSON lines, one after the other:

    {"name": "dp2", "argv": ["--num-episodes", "2"], "log": "dp2.log"}

is a job: `argv` is the script's command line and `log` the file that gets what the ranks print; the rest of `Job` is
optional. When it is over the answer is

    {"name": "dp2", "code": 0, "codes": [0, 0], "seconds": 3.1, "timed_out": false}

`codes` holds each rank's exit code, negative for a signal; `code` is that of the rank that failed first, or 0. When one
rank fails, the others are ended as a launcher would.

    {"program": "script.py", "argv": [], "environ": {}, "cwd": "/"}

comes with three descriptors, and is one process; the answers are {"pid": 1}, and {"code": 0} when it has ended. It is
killed with its connection. What is neither is answered with {"error": "what is wrong with it"}.
"""

import argparse
import contextlib
import gc
import importlib
import json
import os
import pkgutil
import random
import select
import signal
import socket
import sys
import time
import traceback
import uuid
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parents[3]
EXAMPLE = ROOT / "examples" / "megatron"
sys.path += [folder for folder in (str(EXAMPLE), str(ROOT / "tests")) if folder not in sys.path]

from cpu.parents import end_with_parent  # noqa: E402

from support.programs import interpreter  # noqa: E402

if __name__ == "__mp_main__":  # in the helper processes that Megatron starts, which import this file again
    from cpu import stand_in

    stand_in.install()

TRAIN_RLHF = EXAMPLE / "entry" / "train_rlhf.py"
TERM_GRACE_S = 30.0  # as torchrun
WATCHDOG_S = 60.0  # of one that does not end
POLL_S = 0.02

# What Megatron, torch and we import when it is first needed.
IMPORTED_BY_RANKS = (
    "megatron.core.tokenizers.text.models",
    "megatron.core.models.mimo",
    "megatron.core.dist_checkpointing.gpt_checkpoint_interop",
    "megatron.core.dist_checkpointing.strategies.cached_metadata_filesystem_reader",
    "megatron.training.distillation",
    "torch.profiler._cupti_monitor",
    "torch.utils.serialization.config",
    "safetensors.numpy",
)

_port_names: list[socket.socket] = []


@dataclass(frozen=True)
class Job:
    """A request for the ranks of one job."""

    name: str
    argv: list[str]
    log: str
    num_ranks: int = 2
    env: dict[str, str | None] = field(default_factory=dict)  # on top of the server's; null unsets
    cwd: str | None = None
    timeout: float = 300.0  # seconds, after which all ranks are killed
    script: str = str(TRAIN_RLHF)
    # Fork the asynchronous checkpoint worker. Else it starts as a new process, as it does on a GPU
    # machine, and imports torch and Megatron again: some 5 seconds per rank.
    fork_helpers: bool = False


@dataclass(frozen=True)
class Program:
    """A request for a single process."""

    program: str
    argv: list[str]
    environ: dict[str, str]
    cwd: str


def serve(folder: Path, owner: int) -> None:
    """Import everything, and serve all kinds of connections until the process `owner` ends."""
    os.setsid()
    owner_ends = os.pidfd_open(owner)
    with_torch = os.fork()
    if with_torch == 0:
        end_with_parent()
        resource_tracker.ensure_running()  # else each rank that saves starts an interpreter for one of its own
        _import_torch()
        _listen({_listener(folder / "torch"): None, _listener(folder / "megatron"): _import_megatron}, owner_ends)
    _import_what_prints()
    _listen({_listener(folder / "plain"): None}, owner_ends, needed=with_torch)


def _import_what_prints() -> None:
    for module in ("status", "explain", "verify", "import_chatlearn"):
        importlib.import_module(f"megatron_resume.cli.{module}")


def _import_torch() -> None:
    """With the stand-in for CUDA, the launcher, and our modules: they do nothing before one imports `auto`."""
    warnings.filterwarnings("ignore")
    from cpu import stand_in

    stand_in.install()
    import torch.distributed.run  # noqa: F401

    import megatron_resume

    for module in pkgutil.walk_packages(megatron_resume.__path__, "megatron_resume."):
        if module.name not in ("megatron_resume.auto", "megatron_resume.__main__"):
            importlib.import_module(module.name)


def _import_megatron() -> None:
    """Everything slow."""
    import megatron.core.models.gpt.gpt_layer_specs
    import megatron.training.checkpointing
    import megatron.training.training  # noqa: F401
    import rich.progress  # noqa: F401
    import torch.distributed.checkpoint
    import torch.utils.tensorboard  # noqa: F401
    from cpu import megatron_gaps

    for name in IMPORTED_BY_RANKS:
        with contextlib.suppress(ImportError):  # an old Megatron has it elsewhere, or not at all
            importlib.import_module(name)
    megatron_gaps.fill()
    _remember_help_texts()


def _remember_help_texts() -> None:
    """Megatron parses its own sources for them whenever arguments are parsed: a seventh of a second each time."""
    try:
        from megatron.training.argument_utils import ArgumentGroupFactory as factory
        from megatron.training.arguments import add_megatron_arguments

        read = factory._get_field_docstrings
    except (ImportError, AttributeError):  # an old Megatron
        return
    texts: dict[type, dict[str, str]] = {}

    def remembered(self: Any, of: type) -> dict[str, str]:
        if of not in texts:
            texts[of] = read(self, of)
        return dict(texts[of])

    factory._get_field_docstrings = remembered
    add_megatron_arguments(argparse.ArgumentParser())


def _listener(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{path}.new")
    listener.listen(64)
    os.rename(f"{path}.new", path)
    return listener


def _listen(listeners: dict[socket.socket, Callable[[], None] | None], owner_ends: int, needed: int = 0) -> NoReturn:
    """Fork a lane for each connection, as long as the child `needed` lives.

    One that needs more imports than were made so far has a process of its own, which begins with the first connection:
    nobody may ask for it, and what is forked here later would hold them.
    """
    gc.collect()
    gc.freeze()  # else each child looks through all of it, and copies its pages
    gc.set_threshold(20_000)  # jobs are short
    while True:
        ready, _, _ = select.select([*listeners, owner_ends], [], [], 1.0)
        if owner_ends in ready:
            os._exit(0)
        for listener in ready:
            import_more = listeners[listener]
            if import_more is None:
                _fork_a_lane(listener)
                continue
            if os.fork() == 0:
                end_with_parent()
                import_more()
                _listen({listener: None}, owner_ends)
            del listeners[listener]
            listener.close()
        with contextlib.suppress(ChildProcessError):
            while ended := os.waitpid(-1, os.WNOHANG)[0]:
                if ended == needed:
                    os._exit(1)


def _fork_a_lane(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    if os.fork() == 0:
        end_with_parent()
        listener.close()
        _be_a_lane(connection)
    connection.close()


def _be_a_lane(connection: socket.socket) -> NoReturn:
    """Do what one client asks for, until it leaves."""
    try:
        connection.sendall(json.dumps({"lane": os.getpid()}).encode() + b"\n")
        while request := _receive(connection):
            line, descriptors = request
            for answer in _answers(line, descriptors, connection):
                connection.sendall(json.dumps(answer).encode() + b"\n")
    except ConnectionError:
        pass
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(0)


def _receive(connection: socket.socket) -> tuple[bytes, list[int]] | None:
    """One line and the descriptors that came with it; None when the client has left."""
    line, descriptors = b"", []
    while not line.endswith(b"\n"):
        part, more, _, _ = socket.recv_fds(connection, 1 << 16, 3)
        if not part:
            return None
        line, descriptors = line + part, [*descriptors, *more]
    return line, descriptors


def _answers(line: bytes, descriptors: list[int], connection: socket.socket) -> Iterator[dict[str, Any]]:
    try:
        request = json.loads(line)
        asked: Job | Program = Program(**request) if "program" in request else Job(**request)
    except (TypeError, ValueError) as error:
        yield {"error": str(error)}
        return
    if isinstance(asked, Job):
        yield _run(asked)
        return
    pid = os.fork()
    if pid == 0:
        connection.close()
        _be_the_program(asked, descriptors)
    for descriptor in descriptors:
        os.close(descriptor)
    yield {"pid": pid}
    ended = os.pidfd_open(pid)
    ready, _, _ = select.select([ended, connection], [], [])
    if ended not in ready:  # the client has left
        _signal_group(pid, signal.SIGKILL)
    # It is not waited for before the client leaves: until then its number is its own.
    status = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert status is not None
    yield {"code": status.si_status if status.si_code == os.CLD_EXITED else -status.si_status}


def _be_the_program(asked: Program, descriptors: list[int]) -> NoReturn:
    code = 1
    try:
        end_with_parent()
        os.setsid()
        for number, descriptor in enumerate(descriptors):
            os.dup2(descriptor, number)
            os.close(descriptor)
        interpreter.make_streams()
        os.environ.clear()
        os.environ.update(asked.environ)
        os.chdir(asked.cwd)
        interpreter.find_modules_in(asked.environ.get("PYTHONPATH", ""))
        code = _run_script(asked.program, asked.argv)
    finally:
        interpreter.end(code)


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


def _let_watchdogs_write(ranks: list[int]) -> None:
    """Those of dead ranks record how these ended, and end: on a busy machine later than a launcher looks."""
    deadline = time.monotonic() + WATCHDOG_S
    while time.monotonic() < deadline and any(
        _watches(pid, ranks) for pid in filter(str.isdecimal, os.listdir("/proc"))
    ):
        time.sleep(POLL_S)


def _watches(pid: str, ranks: list[int]) -> bool:
    """Also where it may do so: a moment after exec a process has a program, but no command line yet."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
        if not words:
            return bool(os.readlink(f"/proc/{pid}/exe"))
    except OSError:
        return False
    return "megatron_resume.watch.watchdog" in words and any(f'"pid":{rank},' in words for rank in ranks)


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
    interpreter.make_streams()


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
        _prepare(job)
        code = _run_script(job.script, job.argv)
    finally:
        interpreter.end(code)


def _prepare(job: Job) -> None:
    """Megatron's helper processes are forked, too."""
    from cpu import megatron_gaps

    megatron_gaps.fork_the_result_queue()
    if job.fork_helpers:
        megatron_gaps.fork_every_helper()


def _run_script(script: str, argv: list[str]) -> int:
    """Run a script as the main program of this process; its exit code."""
    interpreter.arm_crash_points()
    sys.argv = [script, *argv]
    sys.path[0] = str(Path(script).parent)
    try:
        # Not runpy: sys.modules["__main__"] stays this file, so that helper processes import it and
        # not the job's whole script.
        code = compile(Path(script).read_text(), script, "exec")
        exec(code, {"__name__": "__main__", "__file__": script, "__builtins__": __builtins__})
    except SystemExit as error:
        return interpreter.exit_code(error.code)
    except BaseException:
        sys.excepthook(*sys.exc_info())  # what an interpreter calls
        return 1
    return 0


def _wait_for_ranks(pids: list[int]) -> tuple[list[int], int]:
    """Each rank's code, and that of the first that failed; one failure ends the other ranks."""
    codes: dict[int, int] = {}
    first, kill_at = 0, float("inf")
    while len(codes) < len(pids):
        ended = dict(_ended(set(pids) - codes.keys()))
        codes |= ended
        if not first and any(ended.values()):
            # Of those that ended since the last look a killed one (negative) is the cause, which the others follow.
            first, kill_at = min(filter(None, ended.values())), time.monotonic() + TERM_GRACE_S
            _signal_all(set(pids) - codes.keys(), signal.SIGTERM)
        if time.monotonic() > kill_at:
            _signal_all(set(pids) - codes.keys(), signal.SIGKILL)
        time.sleep(POLL_S)
    _let_watchdogs_write(pids)
    for pid in pids:
        os.waitpid(pid, 0)
    return [codes[pid] for pid in pids], first


def _ended(pids: set[int]) -> Iterator[tuple[int, int]]:
    """Process and exit code of each that has ended; none is collected yet, so that its watchdog sees the code, too."""
    for pid in pids:
        status = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if status is not None:
            yield pid, status.si_status if status.si_code == os.CLD_EXITED else -status.si_status


def _signal_all(pids: set[int], number: int) -> None:
    for pid in pids:
        os.kill(pid, number)


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]))
