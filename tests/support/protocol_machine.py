"""A whole job in one process: the real hooks and store on real folders, with a pretended Megatron and clock.

Each process of the job runs in threads that hand one baton around, so exactly one runs at a time. A thread
can be held at any crash point: held it is a process under SIGSTOP, that others take for dead or alive; when it
is never continued it was killed there, and its files lie as they lay. Only the environment is pretended:
process ids, boots, clocks, listings, fsync, and Megatron's writing and reading of model files.
"""

import errno
import itertools
import json
import os
import shutil
import sys
import threading
import types
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec

from megatron_resume import crash
from megatron_resume.adapter import (
    api,
    arguments,
    finalizing,
    gathering,
    lease_keeper,
    life,
    loading,
    ranks,
    save_folders,
    saving,
    serialization,
    session,
    start,
    writer,
)
from megatron_resume.checkpoint import commit, leases
from megatron_resume.checkpoint.failures import write_failure
from megatron_resume.checkpoint.layout import (
    COMMITTED,
    DATA,
    TRACKER,
    PointName,
    model_folder,
    parse_point,
    point_path,
    receipt_file,
)
from megatron_resume.checkpoint.records import Launch, Request
from megatron_resume.errors import DamagedError, ResumeError
from megatron_resume.resume.choose import Fresh, Outcome, Resume
from megatron_resume.roles import TRAINED

from .job_on_disk import FAILURE, contents

SAMPLES = 16
SHARDS = ("__0_0.distcp", "__1_0.distcp")


class Killed(BaseException):
    """Unwinds the thread of a killed process once its folder is gone."""


class LoadFailed(Exception):
    """What the pretended Megatron raises where options do not fit a checkpoint."""


class Ended(BaseException):
    """A process ends, with this exit code."""

    def __init__(self, code: int):
        self.code = code


class Fiber:
    """One thread of a process, that runs only while `run` waits for it."""

    def __init__(self, process: "Process", action: Callable[[], object]):
        self.process, self._action = process, action
        self._go, self._back = threading.Semaphore(0), threading.Semaphore(0)
        self.done, self.error = False, None  # type: bool, BaseException | None
        self._steps: int | None = None
        self._killed = False
        self._thread = threading.Thread(target=self._work, daemon=True)

    def run(self, steps: int | None) -> bool:
        """Continue for this many crash points, or to the end; returns whether it ended."""
        self._steps = steps
        if self._thread.ident is None:
            self._thread.start()
        else:
            self._go.release()
        self._back.acquire()
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        return self.done

    def at_crash_point(self) -> None:
        if self._steps is None:
            return
        if self._steps == 0:
            self._back.release()
            self._go.acquire()
            if self._killed:
                raise Killed
            return
        self._steps -= 1

    def unwind(self) -> None:
        if self._thread.ident is not None and not self.done:
            self._killed = True
            self._go.release()
            self._back.acquire()

    def _work(self) -> None:
        try:
            self._action()
        except Killed:
            pass
        except BaseException as error:
            self.error = None if self._killed else error
        self.done = True
        self._back.release()


@dataclass
class Weights:
    """What the pretended Megatron wrote for one role at one iteration in one attempt."""

    moment: tuple[int, int]  # episode and samples when the save began
    files: dict[str, bytes]


@dataclass
class Writing:
    """A save of the pretended Megatron: `files` are still to be written into `folder`."""

    folder: Path
    files: dict[str, bytes]
    finalizers: list[Callable[[], None]] = field(default_factory=list)
    lost: bool = False  # the worker found no folder

    def add_finalize_fn(self, action: Callable[[], None]) -> None:
        self.finalizers.append(action)


@dataclass(eq=False)
class Process:
    """One life of the process that holds `roles`, as a launcher started it."""

    number: int
    roles: tuple[str, ...]
    host: str
    launch: Launch
    request: Request
    alive: bool = True
    code: int | None = None  # its exit code, when it ended by itself
    iteration: int = 0
    args: Any = None  # Megatron's, at this moment
    loaded: dict[str, dict[str, Any]] = field(default_factory=dict)  # role -> what its model said
    in_flight: list[Writing] = field(default_factory=list)
    fibers: dict[str, Fiber] = field(default_factory=dict)  # held ones: "train", "writer"
    state: tuple[Any, Any, Any] = (None, None, None)  # the package's globals in this process
    hidden: set[str] = field(default_factory=set)  # names that its next listings do not show
    hidden_for: int = 0
    unreadable: bool = False  # the storage does not show it the leases of others
    asynchronous: bool = False
    load_fails: bool = False

    @property
    def runs(self) -> bool:
        return self.alive and self.code is None

    @property
    def trains(self) -> bool:
        return self.runs and not self.fibers and len(self.loaded) == len(self.roles)

    @property
    def session(self) -> session.Session:
        current: session.Session = self.state[1]
        return current

    @property
    def attempt(self) -> int:
        """The number of its attempt; 0 before it began."""
        begun = self.session is not None and self.session.lease_keeper is not None
        return self.session.attempt if begun else 0


class World:
    """The folders of one job, every process that it ever had, and what each one wrote."""

    def __init__(self, base: Path):
        self.base, self.root = base, base / "data_checkpoint"
        self.processes: list[Process] = []
        self.running: Process | None = None
        self.fiber: Fiber | None = None
        self.written: dict[tuple[str, PointName], Weights] = {}
        self.committed: dict[PointName, dict[str, bytes]] = {}  # every file of a point when its commit appeared
        self.now = 0.0
        self.writes_so_far = 0
        self.failed: dict[int, PointName] = {}  # attempt -> the point whose load failed in it
        self.keep: int | None = None  # --max-data-ckpt-nums of every process
        self.prunes_models = False
        self._environment = ExitStack()
        self._load = loading.wrap_load_checkpoint(self._megatron_load)
        self._save = saving.wrap_save_checkpoint(self._megatron_save)
        self._schedule = saving.wrap_schedule_async_save(self._megatron_schedule)
        self._finalize = saving.wrap_maybe_finalize_async_save(self._megatron_finalize)

    # The environment

    def __enter__(self) -> "World":
        try:
            self._replace_what_is_outside()
        except BaseException:
            self._environment.close()  # no process of the tests may be left without its own os._exit
            raise
        return self

    def _replace_what_is_outside(self) -> None:
        enter = self._environment.enter_context
        clock = types.SimpleNamespace(monotonic=lambda: self.now, sleep=self._sleep)
        no_thread = types.SimpleNamespace(Thread=mock.MagicMock(), Event=threading.Event, Lock=threading.Lock)
        training = types.ModuleType("megatron.training")
        training.get_args = lambda: self._process.args  # type: ignore[attr-defined]
        training.get_tensorboard_writer = lambda: None  # type: ignore[attr-defined]
        training.global_vars = types.SimpleNamespace()  # type: ignore[attr-defined]
        async_utils = types.ModuleType("megatron.training.async_utils")
        async_utils.maybe_finalize_async_save = self._finalize  # type: ignore[attr-defined]
        modules = {
            "megatron": types.ModuleType("megatron"),
            "megatron.training": training,
            "megatron.training.async_utils": async_utils,
        }
        enter(mock.patch.dict(sys.modules, modules))
        enter(mock.patch.object(os, "fsync", lambda _: None))  # processes die here, power does not
        enter(mock.patch.object(os, "_exit", self._exit))
        enter(mock.patch.object(crash, "_wanted", ("", None, 0)))
        enter(mock.patch.object(crash, "_die_if_wanted", self._at_crash_point))
        enter(mock.patch.object(start, "launch_key", lambda _: self._process.launch))
        enter(mock.patch.object(start, "shared_by_all_ranks", lambda _: self._launch_name()))
        enter(mock.patch.object(start, "installed_versions", dict))
        enter(mock.patch.object(saving, "installed_versions", dict))
        enter(mock.patch.object(start, "time", clock))
        enter(mock.patch.object(leases, "time", clock))
        enter(mock.patch.object(leases, "is_gone", self._is_gone))
        enter(mock.patch.object(leases, "open_plain", self._opening(leases.open_plain)))
        enter(mock.patch.object(life, "begin", lambda _: None))  # the endings of these processes are not Python's
        states = types.SimpleNamespace(unpack=lambda shared: (None, {}, {}), key="", unused=())
        enter(mock.patch.object(ranks, "data_parallel", lambda: (0, 1)))
        enter(mock.patch.object(gathering, "gather", lambda key, unused, of_loaders: states))
        enter(mock.patch.object(os, "listdir", self._listing(os.listdir)))
        enter(mock.patch.object(Path, "iterdir", lambda path: iter([path / name for name in os.listdir(path)])))
        enter(mock.patch.object(serialization, "before", lambda *_: nullcontext()))  # real Megatron's
        enter(mock.patch.object(finalizing, "EndOfProcess", mock.MagicMock()))
        for module in (lease_keeper, writer):
            enter(mock.patch.object(module, "threading", no_thread))
        for module in (lease_keeper, writer, save_folders):
            enter(mock.patch.object(module, "at_end", lambda _: None))
        for module in (saving, session):
            for name in ("_saves", "_session", "_begun_in"):
                if hasattr(module, name):
                    enter(mock.patch.object(module, name, getattr(module, name)))

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.base, ignore_errors=True)
        for process in self.processes:
            for fiber in process.fibers.values():
                with self._in(process, fiber):
                    fiber.unwind()
        self._environment.close()
        shutil.rmtree(self.base, ignore_errors=True)

    @property
    def _process(self) -> Process:
        assert self.running is not None
        return self.running

    @contextmanager
    def _in(self, process: Process, fiber: Fiber | None) -> Iterator[None]:
        """Let the package's globals be those of `process`."""
        before = (self.running, self.fiber, saving._saves, session._session, session._begun_in)
        saves, current, begun = process.state
        saving._saves = saves or saving.Saves()
        session._session, session._begun_in = current, begun
        self.running, self.fiber = process, fiber
        try:
            yield
        finally:
            process.state = (saving._saves, session._session, session._begun_in)
            self.running, self.fiber, saving._saves, session._session, session._begun_in = before

    def _at_crash_point(self, name: str, what: str | None) -> None:
        if self.fiber is not None:
            self.fiber.at_crash_point()

    def _exit(self, code: int) -> None:
        raise Ended(code)

    def _launch_name(self) -> str:
        return f"{self._process.launch.job}:{self._process.launch.restart}"

    def _is_gone(self, launch: Launch) -> bool | None:
        """As a process sees it that may look at those of its own machine."""
        return None if launch.boot != f"boot of {self._process.host}" else not self.processes[launch.pid].runs

    def _sleep(self, seconds: float) -> None:
        """Time passes: every process that is not held renews its leases."""
        self.now += seconds
        for process in self.processes:
            if process is not self.running and process.runs and not process.fibers and process.session is not None:
                self._renew(process)

    def _renew(self, process: Process) -> None:
        keeper = process.session.lease_keeper
        if keeper is None:
            return
        try:
            with self._in(process, None):
                keeper._renew()
        except Ended as end:
            process.code = end.code

    def _listing(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def listing(path: Any = ".") -> Any:
            names = original(path)
            process = self.running
            if process is None or process.hidden_for == 0 or Path(path) not in (self.root, self.root / "attempts"):
                return names
            process.hidden_for -= 1
            return [name for name in names if name not in process.hidden]

        return listing

    def _opening(self, original: Callable[[Path], Any]) -> Callable[[Path], Any]:
        def opening(path: Path) -> Any:
            if self.running is not None and self.running.unreadable:
                raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
            return original(path)

        return opening

    # The pretended Megatron

    def args_for(self, role: str | None, process: Process) -> Any:
        save = self.save_folder(role) if role else None
        args = types.SimpleNamespace(
            data_checkpoint_path=str(self.root),
            load_data_checkpoint_iteration=process.request.iteration,
            load_data_checkpoint_attempt=process.request.attempt,
            start_over=process.request.start_over or None,
            enable_resume_training=False if process.request.fresh else None,
            resume_role=role,
            trained_roles=",".join(TRAINED),
            save=str(save) if save else None,
            load=str(save) if save else None,
            ckpt_step=None,
            ckpt_format="torch_dist",
            consumed_train_samples=0,
            max_data_ckpt_nums=self.keep,
            resume_prune_models=self.prunes_models,
            resume_digests=False,  # read by a thread of its own, long after
        )
        if process.request.fresh:
            args.load = None  # where resuming is switched off, what to load is the script's own choice
        return args

    def save_folder(self, role: str) -> Path:
        return self.base / "checkpoints" / role

    def _megatron_load(self, ddp_model: Any, load_arg: str = "load") -> tuple[int, int]:
        process = self._process
        args = process.args
        current = session.current()
        assert current is not None
        if process.load_fails and isinstance(current.outcome, Resume):
            self._record_failure(process, current.attempt, current.outcome.point.name)
            raise LoadFailed
        iteration = args.ckpt_step
        if iteration is None:
            tracker = Path(args.load, TRACKER) if args.load else None
            if tracker is None or not tracker.exists():
                process.loaded[args.resume_role] = {}
                return 0, 0
            iteration = int(tracker.read_text())
        folder = Path(args.load, model_folder(iteration))
        missing = [shard for shard in SHARDS if not (folder / shard).exists()]
        assert not missing, f"{process.launch} is sent to {folder}, where {missing} are missing"
        shards = [json.loads((folder / shard).read_bytes()) for shard in SHARDS]
        args.consumed_train_samples = shards[0]["samples"]
        process.loaded[args.resume_role] = {**shards[0], "shards": shards, "files": contents(folder)}
        return iteration, 0

    def _record_failure(self, process: Process, attempt: int, loading: PointName) -> None:
        """As the watchdog of a rank does it."""
        failure = msgspec.structs.replace(FAILURE, attempt=attempt, after=attempt, loading=loading)
        write_failure(self.root, f"life {process.number}", failure)
        self.failed[attempt] = loading

    def _megatron_save(self, iteration: int, model: Any = None, release: bool = False) -> None:
        process, args = self._process, self._process.args
        current = process.session
        name = PointName(iteration, current.attempt)
        said = {
            "role": args.resume_role,
            "iteration": iteration,
            "attempt": name.attempt,
            "episode": current.episode,
            "samples": iteration * SAMPLES,
            "process": process.number,
        }
        files = {shard: json.dumps({**said, "shard": shard}).encode() for shard in SHARDS}
        moment = (current.episode, current.consumed_samples)
        self.written[args.resume_role, name] = Weights(moment, files)
        folder = Path(args.save, model_folder(iteration))
        assert not folder.exists(), f"{folder} stands where {process.launch} saves"
        folder.mkdir(parents=True)
        writing, tracker = Writing(folder, dict(files)), Path(args.save, TRACKER)
        writing.add_finalize_fn(lambda: tracker.write_text(str(iteration)))
        if process.asynchronous:
            process.in_flight.append(writing)
            self._schedule(writing)
            return
        for _ in SHARDS:
            crash.crash_point("megatron writes")
            self.work(writing, shards=1)
        crash.crash_point("megatron wrote")
        self._finish(writing)

    def _megatron_schedule(self, async_request: Writing) -> None:
        pass

    def _megatron_finalize(self, blocking: bool = False) -> None:
        in_flight = self._process.in_flight
        while in_flight:
            if blocking:
                self.work(in_flight[0])
            if in_flight[0].files and not in_flight[0].lost:
                return
            self._finish(in_flight.pop(0))

    def _finish(self, writing: Writing) -> None:
        if writing.lost or not writing.folder.exists():
            raise FileNotFoundError(writing.folder)
        for finalizer in writing.finalizers:
            finalizer()

    def work(self, writing: Writing, *, shards: int = len(SHARDS)) -> None:
        """Megatron's worker writes this many more shards, by name; it outlives its process."""
        for shard in list(writing.files)[:shards]:
            writing.lost = not writing.folder.exists()
            if writing.lost:
                return
            self.overwrite(writing.folder / shard, writing.files.pop(shard))

    def overwrite(self, path: Path, data: bytes) -> None:
        """Write a file at a time of its own, however coarse the clock of the file system is."""
        path.write_bytes(data)
        self.writes_so_far += 1
        os.utime(path, ns=(0, self.writes_so_far))

    # What a process does

    def launch(self, roles: tuple[str, ...], host: str, job: str, restart: int, request: Request) -> Process:
        number = len(self.processes)
        launch = Launch(
            job=job,
            restart=restart,
            counts=True,
            host=host,
            pid=number,
            boot=f"boot of {host}",
            started=f"ticks of {number}",
        )
        self.processes.append(Process(number, roles, host, launch, request))
        return self.processes[-1]

    def begin(self, process: Process, *, take_over: bool = False, until: int | None = None) -> None:
        """Start and load, up to this many crash points."""
        self._run(process, "train", lambda: self._begin(process, take_over), until)

    def _begin(self, process: Process, take_over: bool) -> None:
        args = self.args_for(process.roles[0] if len(process.roles) == 1 else None, process)
        args.take_over = take_over or None
        process.args = args
        assert session.begin(args) is not None
        api.progress()
        for role in process.roles:
            process.args = arguments.role_args(role, self.args_for(role, process))
            self._load([])
        process.iteration = max([0, *(said.get("iteration", 0) for said in process.loaded.values())])

    def train(self, process: Process, *, advance_only: bool = False) -> None:
        with self._in(process, None):
            api.advance(samples=SAMPLES)
        process.iteration += not advance_only

    def save(self, process: Process, role: str, *, asynchronous: bool, until: int | None = None) -> None:
        def action() -> None:
            process.args = self.args_for(role, process)
            process.args.consumed_train_samples = process.iteration * SAMPLES
            process.asynchronous = asynchronous
            self._save(process.iteration)

        self._run(process, "train", action, until)

    def finalize(self, process: Process, *, blocking: bool, until: int | None = None) -> None:
        self._run(process, "train", lambda: self._finalize(blocking=blocking), until)

    def writes(self, process: Process) -> bool:
        """Whether its writer thread has work."""
        pending = process.state[0] and process.state[0].writer
        return "writer" not in process.fibers and bool(pending) and not pending._queue.empty()

    def write(self, process: Process, *, until: int | None = None) -> None:
        pending = process.state[0].writer
        save, since = pending._queue.get_nowait()

        def action() -> None:
            with suppress(OSError, DamagedError):  # the writer says so and goes on with the next
                pending._write(save, since)

        self._run(process, "writer", action, until)

    def settle(self, process: Process) -> None:
        """All that a process does before it leaves: its saves are finalized, written and committed."""
        self.finalize(process, blocking=True)
        while process.runs and self.writes(process):
            self.write(process)

    def resume_thread(self, process: Process, thread: str, until: int | None = None) -> None:
        self._continue(process, thread, process.fibers[thread], until)

    def kill(self, process: Process) -> None:
        process.alive = False

    def _run(self, process: Process, thread: str, action: Callable[[], object], until: int | None) -> None:
        self._continue(process, thread, Fiber(process, action), until)

    def _continue(self, process: Process, thread: str, fiber: Fiber, until: int | None) -> None:
        process.fibers.pop(thread, None)
        try:
            with self._in(process, fiber):
                ended = fiber.run(until)
            if not ended:
                process.fibers[thread] = fiber
        except Ended as end:
            process.code = end.code
        except LoadFailed:
            process.code = 1
        except SystemExit as end:
            assert isinstance(end.code, int)
            process.code = end.code
        except ResumeError as error:
            process.code = error.exit_code
        except OSError as error:
            raise AssertionError(f"{process.launch} ended without a word: {error!r}") from error

    # What lies on disk, told without the package's readers

    def starts(self) -> dict[int, dict[str, Any]]:
        """Attempts that began, with their start.json, ascending."""
        attempts, found = str(self.root / "attempts"), {}
        for name in sorted(os.listdir(attempts)) if os.path.isdir(attempts) else []:
            with suppress(FileNotFoundError), open(f"{attempts}/{name}/start.json", "rb") as file:
                found[int(name)] = {**parsed(file.read()), "goes_on_at": None}
                found[int(name)]["goes_on_at"] = found[int(name)]["parent"]
            with suppress(FileNotFoundError), open(f"{attempts}/{name}/untrained.json", "rb") as file:
                if int(name) in found:
                    found[int(name)]["goes_on_at"] = parsed(file.read())["point"]
        return found

    def superseded(self, process: Process) -> bool:
        return 0 < process.attempt < max(self.starts(), default=0)

    def points(self) -> list[PointName]:
        """Points with a commit, ascending."""
        names = os.listdir(self.root) if self.root.exists() else []
        found = [point for name in names if (point := parse_point(name)) is not None]
        return sorted(point for point in found if os.path.exists(f"{self.root}/{point.folder}/{COMMITTED}"))

    def note_commits(self) -> None:
        """Remember every file of a point once its commit is there."""
        for point in self.points():
            if point not in self.committed:
                path = point_path(self.root, point)
                files = [file for file in path.iterdir() if file.suffix != ".tmp"]
                self.committed[point] = {file.name: file.read_bytes() for file in files}

    def is_whole(self, point: PointName) -> bool:
        """Whether every byte of the point and its models is as it was, and all of it is of one moment."""
        path, kept = point_path(self.root, point), self.committed.get(point, {})
        try:
            if any((path / name).read_bytes() != data for name, data in kept.items()):
                return False
        except OSError:
            return False
        progress = json.loads(kept[DATA])["progress"]
        moment = (progress["episode"], progress["consumed_samples"])
        return all(
            (role, point) in self.written
            and self.written[role, point].moment == moment
            and self._model_is_there(role, point)
            for role in TRAINED
        )

    def _model_is_there(self, role: str, point: PointName) -> bool:
        """Whether some folder holds the bytes that were receipted, in place or moved aside."""
        kept = self.written[role, point].files
        save, name = self.save_folder(role), model_folder(point.iteration)
        for folder in [save / name, *save.glob(f"abandoned/*/{name}*")]:
            try:
                if all((folder / shard).read_bytes() == data for shard, data in kept.items()):
                    return True
            except OSError:
                continue
        return False

    def live_line(self) -> list[PointName]:
        """Committed points of the live line, newest first."""
        starts, points = self.starts(), self.points()
        return line(starts, points, newest_that_counts(starts, points))

    def expected(self, process: Process) -> PointName | str:
        """What a start of `process` has to choose: a point, "fresh" or "refused"."""
        request, starts, points = process.request, self.starts(), self.points()
        plain = {"iteration": request.iteration, "attempt": request.attempt, "start_over": request.start_over}
        as_asked = [n for n in starts if {key: starts[n]["requested"][key] for key in plain} == plain]
        honoured = any(self._took_part(process.launch, number) for number in as_asked)
        if request.fresh or (request.start_over and not honoured):
            return "fresh"
        head = newest_that_counts(starts, points)
        if not honoured and (request.iteration is not None or request.attempt is not None):
            candidates = line(starts, points, head if request.attempt is None else request.attempt)
            fit = (p for p in candidates if request.iteration in (None, p.iteration) and self.is_whole(p))
            return next(fit, "refused")
        whole = (point for point in line(starts, points, head) if self.is_whole(point))
        newest = next(whole, None)
        if newest is not None:
            return next(whole, newest) if self._failed_lately(starts) == {newest} else newest
        if not points:
            return "refused" if head is not None and starts[head]["parent"] else "fresh"
        if head is None or head in {point.attempt for point in points} or starts[head]["goes_on_at"] is not None:
            return "refused"
        return "fresh" if began_anew(starts[head]) and self._took_part(process.launch, head) else "refused"

    def _failed_lately(self, starts: dict[int, dict[str, Any]]) -> set[PointName]:
        """Points whose load ended the newest attempts, back to the first that another thing ended."""
        found = itertools.takewhile(self.failed.__contains__, sorted(starts, reverse=True))
        return {self.failed[attempt] for attempt in found}

    def _took_part(self, launch: Launch, attempt: int) -> bool:
        """Whether the job of `launch` opened or joined the attempt before it was restarted."""
        folder = self.root / "attempts" / f"{attempt:04d}"
        launches = [json.loads((folder / "start.json").read_bytes())["launch"]]
        launches += [json.loads(lease.read_bytes())["holder"] for lease in folder.glob("*.lease")]
        return any(one["job"] == launch.job and one["restart"] < launch.restart for one in launches)

    def decide(self, process: Process) -> PointName | str:
        """What the package would choose for a start of `process` now, with nothing changed."""
        with self._in(process, None):
            config = session.resolve(vars(self.args_for(None, process)), {})
            return told(start.decide(self.root, config, process.launch)[1])


@cache
def parsed(data: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(data)
    return found


def began_anew(start: dict[str, Any]) -> bool:
    return bool(start["requested"]["fresh"] or start["requested"]["start_over"])


def newest_that_counts(starts: dict[int, dict[str, Any]], points: list[PointName]) -> int | None:
    """The attempt in which the live line ends."""
    with_commits = {point.attempt for point in points}
    counts = (n for n in starts if starts[n]["outcome"] == "resume" or began_anew(starts[n]) or n in with_commits)
    return max(counts, default=None)


def line(starts: dict[int, dict[str, Any]], points: list[PointName], attempt: int | None) -> list[PointName]:
    """Committed points of the line that ends in `attempt`, newest first."""
    found: list[PointName] = []
    newest: int | None = None
    while attempt in starts:
        own = [p for p in points if p.attempt == attempt and (newest is None or p.iteration <= newest)]
        found += sorted(own, reverse=True)
        newest, attempt = starts[attempt]["goes_on_at"] or (None, None)
    return found


def told(outcome: Outcome) -> PointName | str:
    if isinstance(outcome, Resume):
        return outcome.point.name
    return "fresh" if isinstance(outcome, Fresh) else "refused"


def commit_without_looking(root: Path, name: PointName) -> None:
    """As a careless hand, or a release with a bug, would commit a point: all parts, whatever they hold."""
    path = point_path(root, name)
    nonce = json.loads((path / DATA).read_bytes())["nonce"]
    commit.commit(path, name, nonce=nonce, roles=TRAINED)


def has_all_parts(root: Path, name: PointName) -> bool:
    path = point_path(root, name)
    return all((path / file).exists() for file in (DATA, *map(receipt_file, TRAINED)))
