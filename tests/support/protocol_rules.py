"""What may happen to a job, for Hypothesis: the real hooks and store, many processes, one job's folders.

The invariants are those of the design: what is loaded is of one moment and as it was receipted, automatic starts
take the newest whole point, dead writers change nothing, requests count once, refused starts leave no trace.
"""

import json
import os
import random
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from string import ascii_lowercase
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from megatron_resume.checkpoint.layout import PointName, model_folder, parse_point, point_path, receipt_file
from megatron_resume.checkpoint.records import Request
from megatron_resume.resume import choose
from megatron_resume.roles import TRAINED

from .job_on_disk import contents
from .protocol_machine import SHARDS, Process, World, Writing, commit_without_looking, has_all_parts, told

number = st.integers(0, 11)
# Mostly to the end; else a process is held, or killed, after so many crash points.
stop = st.one_of(st.none(), st.none(), st.integers(0, 45))
asked = st.sampled_from(["iteration", "attempt", "both", "start_over", "fresh"])
requests = st.one_of(st.just(("none", 0)), st.just(("none", 0)), st.tuples(asked, number))
NOTHING = Request()
REFUSED = (65, 78)
IN_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # a disk would take most of the time


class Protocol(RuleBasedStateMachine):
    """One job; every step is something that a process, a launcher, a person or a bad disk does."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(folder_without_digits())
        self.world.__enter__()
        self.one_job_per_role = False
        self.settled = False
        self.next: PointName | str = "fresh"  # what a start without a request would do
        self.hurt: set[PointName] = set()  # points that a rule has damaged
        self.moved_back: set[tuple[str, Request]] = set()
        self.observer = self.world.launch((), "C", "observer", 0, NOTHING)
        self.observer.alive = False

    def teardown(self) -> None:
        self.world.__exit__()

    @initialize(
        one_job_per_role=st.booleans(),
        saves=st.integers(0, 3),
        lives=st.integers(1, 2),
        keep=st.sampled_from([None, None, 2, 3]),
        prunes_models=st.booleans(),
    )
    def begin_job(self, one_job_per_role: bool, saves: int, lives: int, keep: int | None, prunes_models: bool) -> None:
        """A job that went well so far, perhaps through more than one life."""
        self.one_job_per_role = one_job_per_role
        self.world.keep, self.world.prunes_models = keep, prunes_models and keep is not None
        for life in range(lives):
            for process in self._live(f"first {life}"):
                for _ in range(saves if process.roles[0] == TRAINED[0] else 0):
                    self._train_and_save(process)

    def _live(
        self, job: str, request: Request = NOTHING, *, restart: int = 0, host: str = "A", held: Process | None = None
    ) -> list[Process]:
        """Another life of the job, when every process but `held` is dead."""
        for process in self.world.processes:
            if process is not held:
                self.world.kill(process)
        groups = [(role,) for role in TRAINED] if self.one_job_per_role else [TRAINED]
        processes = [self.world.launch(roles, host, f"{job} {roles}", restart, request) for roles in groups]
        for process in processes:
            self._begin(process, False, None)
        return processes

    # Starts

    @rule(
        role=st.sampled_from(TRAINED),
        host=st.sampled_from("AB"),
        again=st.booleans(),
        request=requests,
        take_over=st.sampled_from([False, False, False, True]),
        stale=st.one_of(st.just(0), st.just(0), st.integers(1, 3)),
        unreadable=st.sampled_from([False, False, False, True]),
        until=stop,
    )
    def start(
        self,
        role: str,
        host: str,
        again: bool,
        request: tuple[str, int],
        take_over: bool,
        stale: int,
        unreadable: bool,
        until: int | None,
    ) -> None:
        """A launcher starts a process: the same launch again, or a new one. It may not be able to read leases."""
        roles = (role,) if self.one_job_per_role else TRAINED
        earlier = [p for p in self.world.processes if p.roles == roles]
        if again and earlier:
            last = earlier[-1]
            if not last.fibers:
                self.world.kill(last)
            process = self.world.launch(roles, host, last.launch.job, last.launch.restart + 1, last.request)
        else:
            job = f"job {len(self.world.processes)}"
            process = self.world.launch(roles, host, job, 0, self._request(*request))
        if stale:
            self._hide_newest(process, stale)
        process.unreadable = unreadable and not self.one_job_per_role
        self._begin(process, take_over, until)
        process.unreadable = False

    @rule(times=st.integers(1, 3), saves=st.integers(0, 1))
    def fail_to_load_and_be_mended(self, times: int, saves: int) -> None:
        """Somebody starts the job with options that no checkpoint can be loaded with, and then as it was."""
        roles = TRAINED[:1] if self.one_job_per_role else TRAINED
        for process in self.world.processes:
            self.world.kill(process)
        before = self.next
        for _ in range(times):
            process = self.world.launch(roles, "A", f"wrong {len(self.world.processes)}", 0, NOTHING)
            process.load_fails = True
            self.world.begin(process)
            self.world.kill(process)
        if times == 2 and isinstance(before, PointName) and not self.one_job_per_role:
            failed = [self.world.failed.get(attempt) for attempt in sorted(self.world.starts())[-2:]]
            if None not in failed and failed[0] == before:
                expected = self.world.expected(self.observer)  # or newer, where `before` had been gone back to
                assert isinstance(expected, PointName) and expected >= before, f"{before} was lost by options"
        for process in self._live(f"mended {len(self.world.processes)}") if saves else ():
            if process.trains:
                self._train_and_save(process)

    def _request(self, kind: str, pick: int) -> Request:
        points = self.world.points()
        point = points[pick % len(points)] if points else PointName(1, 1)
        if kind == "iteration":
            return Request(iteration=point.iteration)
        if kind == "attempt":
            return Request(attempt=point.attempt)
        if kind == "both":
            return Request(iteration=point.iteration, attempt=point.attempt)
        return Request(start_over=kind == "start_over", fresh=kind == "fresh")

    def _hide_newest(self, process: Process, listings: int) -> None:
        """Its first listings come from a cache: they miss the newest attempt and the newest point."""
        attempts = sorted(path.name for path in self.world.root.glob("attempts/*"))
        points = sorted(self._begun_points(), key=lambda point: (point.attempt, point.iteration))
        process.hidden = {*attempts[-1:], *(point.folder for point in points[-1:])}
        process.hidden_for = listings

    def _begun_points(self) -> list[PointName]:
        names = [path.name for path in self.world.root.glob("iter_*")]
        return sorted(point for name in names if (point := parse_point(name)) is not None)

    @rule(request=asked, pick=number, saves=st.integers(0, 2))
    def do_as_asked_and_be_restarted(self, request: str, pick: int, saves: int) -> None:
        """The restart goes on from where the request led, and does not do it again."""
        job, wanted = f"asked {len(self.world.processes)}", self._request(request, pick)
        for process in self._live(job, wanted):
            for _ in range(saves if process.trains else 0):
                self._train_and_save(process)
        self._live(job, wanted, restart=1)

    def _begin(self, process: Process, take_over: bool, until: int | None) -> None:
        world = self.world
        certain = until is None and not process.hidden and not any(p.fibers for p in world.processes if p.runs)
        wanted = self._expected_start(process, take_over)
        visible = set(world.points())
        refused = certain and wanted in ("held", "refused", "unknown")
        depends = certain and process.unreadable and self._asks_who_joined()
        before = without_leases(contents(world.base)) if refused or depends else {}
        world.begin(process, take_over=take_over, until=until)
        note = f"{process.launch} {process.request}: {wanted}, code {process.code}"
        if refused or (depends and process.code == 203):
            codes = (203,) if wanted == "unknown" else (*REFUSED, 203) if depends else REFUSED
            assert process.code in codes, note
            assert without_leases(contents(world.base)) == before, f"a refused start left a trace: {note}"
        elif certain:
            assert process.code is None, note
            assert told(process.session.outcome) == wanted, note
        if process.trains:
            self._check_loaded(process)
            self._check_fresh(process, visible & set(world.points()))
            self._check_moved_back_once(process)

    def _asks_who_joined(self) -> bool:
        """Whether a start looks for what its launch did before; which it does not know where leases cannot be read."""
        return any(Request(**start["requested"]) != NOTHING for start in self.world.starts().values())

    def _expected_start(self, process: Process, take_over: bool) -> PointName | str:
        world, starts = self.world, self.world.starts()
        choice = world.expected(process)
        if choice == "refused" or not starts:
            return choice
        newest = max(starts)
        if process.unreadable and not take_over:
            return "unknown"  # who holds it, so nobody takes it
        holders = {
            role: holder
            for holder in world.processes
            if holder.runs and holder.attempt == newest
            for role in holder.roles
        }
        place = world.root / "attempts" / f"{newest:04d}" / f"{process.roles[0]}.lease"
        if self.one_job_per_role and not place.exists() and holders:
            parent = PointName(*starts[newest]["parent"]) if starts[newest]["parent"] else "fresh"
            damaged = isinstance(parent, PointName) and not world.is_whole(parent)
            return "refused" if damaged else parent  # the others loaded it while it was whole
        for role in process.roles:
            holder = holders.get(role)
            if holder is None or take_over:
                continue
            same_launch = holder.launch.job == process.launch.job
            if holder.host == process.host or not same_launch:
                return "held"
        return choice

    def _check_loaded(self, process: Process) -> None:
        """Roles and data are of one point and one moment, and every byte is as it was saved."""
        outcome = process.session.outcome
        if not isinstance(outcome, choose.Resume):
            if not process.request.fresh and not process.hidden:
                assert not any(process.loaded.values()), f"a fresh start loaded {process.loaded}"
            return
        name, data = outcome.point.name, outcome.point.data
        for role in process.roles:
            written, said = self.world.written.get((role, name)), process.loaded[role]
            assert written is not None, f"{role} resumes from {name}, which it never saved"
            assert (said["role"], said["iteration"], said["attempt"]) == (role, *name), said
            assert {shard: said["files"][shard] for shard in SHARDS} == written.files
            assert (data.progress.episode, data.progress.consumed_samples) == written.moment
            receipt = json.loads(self.world.committed[name][receipt_file(role)])
            assert (receipt["progress"]["episode"], receipt["progress"]["consumed_samples"]) == written.moment

    def _check_fresh(self, process: Process, visible: set[PointName]) -> None:
        outcome = process.session.outcome
        if isinstance(outcome, choose.Resume) or process.hidden or not visible:
            return
        begun = self.world.starts()[process.session.attempt]
        asked = begun["requested"]["fresh"] or begun["requested"]["start_over"]
        assert asked or begun["launch"]["pid"] != process.number, (
            f"{visible} are visible, and {outcome} was not asked for"
        )

    def _check_moved_back_once(self, process: Process) -> None:
        outcome, key = process.session.outcome, (process.launch.job, process.request)
        asked = "was asked for" in outcome.reason
        joined = self.world.starts()[process.session.attempt]["launch"]["pid"] != process.number
        if process.request.once and asked and not joined and not process.hidden:
            starts = self.world.starts().values()
            committed = {point.attempt for point in self.world.points()}
            again = key in self.moved_back and any(
                s["attempt"] in committed for s in starts if s["launch"]["job"] == process.launch.job
            )
            assert not again, f"{key} moved back twice"
            self.moved_back.add(key)

    # Training and saving

    def _training(self, pick: int) -> Process:
        able = [process for process in self.world.processes if process.trains]
        return able[pick % len(able)]

    def _any_trains(self) -> bool:
        return any(process.trains for process in self.world.processes)

    @precondition(_any_trains)
    @rule(pick=number)
    def train(self, pick: int) -> None:
        self.world.train(self._training(pick))

    @precondition(_any_trains)
    @rule(pick=number)
    def advance_between_the_saves_of_two_roles(self, pick: int) -> None:
        self.world.train(self._training(pick), advance_only=True)

    @precondition(_any_trains)
    @rule(pick=number, first=st.booleans(), asynchronous=st.booleans(), until=stop)
    def save(self, pick: int, first: bool, asynchronous: bool, until: int | None) -> None:
        process = self._training(pick)
        if process.iteration == 0:
            self.world.train(process)
        role = process.roles[0 if first else -1]
        self._step(process, lambda: self.world.save(process, role, asynchronous=asynchronous, until=until))

    @precondition(_any_trains)
    @rule(pick=number, asynchronous=st.booleans(), late=st.booleans(), backwards=st.booleans())
    def train_and_save_all(self, pick: int, asynchronous: bool, late: bool, backwards: bool) -> None:
        """What a healthy job does; `late` leaves the work of the background to later steps."""
        self._train_and_save(self._training(pick), asynchronous=asynchronous, late=late, backwards=backwards)

    def _train_and_save(
        self, process: Process, *, asynchronous: bool = False, late: bool = False, backwards: bool = False
    ) -> None:
        every = [p for p in self.world.processes if p.trains and p.attempt == process.attempt]
        in_step(every)
        for one in every:
            self.world.train(one)
        saves = [(one, role) for one in every for role in one.roles]
        for one, role in reversed(saves) if backwards else saves:
            if one.trains:
                self._step(one, partial(self.world.save, one, role, asynchronous=asynchronous))
        for one in every:
            if one.trains and not late:
                self._settle(one)

    def _settle(self, process: Process) -> None:
        self._step(process, lambda: self.world.settle(process))

    @precondition(_any_trains)
    @rule(pick=number)
    def settle(self, pick: int) -> None:
        self._settle(self._training(pick))

    @precondition(_any_trains)
    @rule(pick=number)
    def save_roles_at_two_moments_and_commit_without_a_look(self, pick: int) -> None:
        """A script that advances between the saves of two roles, and a hand that commits what that left."""
        process = self._training(pick)
        self.world.train(process)
        for role in process.roles:
            if process.trains:
                self._step(process, partial(self.world.save, process, role, asynchronous=False))
            if process.trains:
                self.world.train(process, advance_only=True)
        if process.trains:
            self._settle(process)
        for point in self._uncommitted():
            commit_without_looking(self.world.root, point)

    @precondition(_any_trains)
    @rule(pick=number, blocking=st.booleans(), until=stop)
    def finalize(self, pick: int, blocking: bool, until: int | None) -> None:
        process = self._training(pick)
        self._step(process, lambda: self.world.finalize(process, blocking=blocking, until=until))

    def _any_writes(self) -> bool:
        return any(process.runs and self.world.writes(process) for process in self.world.processes)

    @precondition(_any_writes)
    @rule(pick=number, until=stop)
    def write(self, pick: int, until: int | None) -> None:
        able = [process for process in self.world.processes if process.runs and self.world.writes(process)]
        process = able[pick % len(able)]
        self._step(process, lambda: self.world.write(process, until=until))

    # Being held, dying, waking up late

    def _any_held(self) -> bool:
        return any(process.runs and process.fibers for process in self.world.processes)

    @precondition(_any_held)
    @rule(pick=number, until=stop)
    def continue_what_was_held(self, pick: int, until: int | None) -> None:
        held = [(p, thread) for p in self.world.processes if p.runs for thread in p.fibers]
        self._continue(*held[pick % len(held)], until)

    def _continue(self, process: Process, thread: str, until: int | None = None) -> None:
        loads = len(process.loaded) < len(process.roles)
        self._step(process, lambda: self.world.resume_thread(process, thread, until), was_held=True)
        if loads and process.trains:
            self._check_loaded(process)
            self._check_moved_back_once(process)

    @precondition(lambda self: any(p.runs for p in self.world.processes))
    @rule(pick=number)
    def kill(self, pick: int) -> None:
        alive = [process for process in self.world.processes if process.runs]
        self.world.kill(alive[pick % len(alive)])

    def _any_works(self) -> bool:
        return any(self._work())

    def _work(self) -> list[tuple[Process, Writing]]:
        """What Megatron's checkpoint workers have to do; they outlive processes that were killed."""
        return [(p, writing) for p in self.world.processes for writing in p.in_flight if writing.files]

    @precondition(_any_works)
    @rule(pick=number, shards=st.integers(1, len(SHARDS)))
    def let_a_worker_write(self, pick: int, shards: int) -> None:
        work = self._work()
        process, writing = work[pick % len(work)]
        self._step(process, lambda: self.world.work(writing, shards=shards))

    @precondition(_any_trains)
    @rule(
        pick=number,
        asynchronous=st.booleans(),
        held_in=st.sampled_from(["save", "write"]),
        until=st.integers(0, 30),
        saved=st.booleans(),
        killed=st.booleans(),
    )
    def wake_when_another_life_has_the_job(
        self, pick: int, asynchronous: bool, held_in: str, until: int, saved: bool, killed: bool
    ) -> None:
        """A process stands still in its save, or dies in it and leaves a worker; the next life may save the same."""
        process = self._training(pick)
        limit = {held_in: until}
        self.world.train(process)
        for role in process.roles:
            if process.trains:
                save = partial(self.world.save, process, role, asynchronous=asynchronous, until=limit.get("save"))
                self._step(process, save)
        if process.trains:
            self._step(process, partial(self.world.finalize, process, blocking=not asynchronous))
        while process.trains and self.world.writes(process):
            self._step(process, partial(self.world.write, process, until=limit.get("write")))
        if killed or not process.fibers:
            self.world.kill(process)
        nexts = self._live(f"next {len(self.world.processes)}", host="B", held=process)
        if saved and nexts[0].trains:
            self._train_and_save(nexts[0])
        for _, writing in [(p, writing) for p, writing in self._work() if p is process]:
            self._step(process, partial(self.world.work, writing))
        for thread in list(process.fibers) if process.runs else []:
            self._continue(process, thread)
        self.renew_leases(1)

    @rule(pick=number)
    def renew_leases(self, pick: int) -> None:
        """Whoever was superseded stops at its next renewal."""
        self.world._sleep(pick)
        for process in self.world.processes:
            if process.runs and not process.fibers and not process.hidden_for:
                assert not self.world.superseded(process), f"attempt {process.attempt} goes on, superseded"

    # Damage

    def _damageable(self) -> list[Path]:
        """Files of committed points and of their models, in place and moved aside."""
        points, found = self.world.points(), list[Path]()
        for point in points:
            found += sorted(point_path(self.world.root, point).iterdir())
            for role in TRAINED:
                save, name = self.world.save_folder(role), model_folder(point.iteration)
                if not self._is_being_saved(role, point.iteration):
                    for model in [save / name, *sorted(save.glob(f"abandoned/*/{name}*"))]:
                        found += sorted(model.glob("*"))
        return [path for path in dict.fromkeys(found) if path.is_file()]

    def _is_being_saved(self, role: str, iteration: int) -> bool:
        """Whether some model of this iteration has no receipt yet: what damages it then is receipted."""
        names = [name for other, name in self.world.written if other == role and name.iteration == iteration]
        paths = [point_path(self.world.root, name) / receipt_file(role) for name in names]
        return not all(path.exists() for path in paths)

    @precondition(lambda self: bool(self._damageable()))
    @rule(
        pick=st.integers(0, 99),
        other=st.integers(0, 999),
        kind=st.sampled_from(["delete", "cut", "flip", "swap", "old"]),
    )
    def damage(self, pick: int, other: int, kind: str) -> None:
        files = self._damageable()
        file, source = files[pick % len(files)], files[other % len(files)]
        data = file.read_bytes()
        if kind == "delete":
            file.unlink()
        elif kind == "cut":
            self.world.overwrite(file, data[: other % (len(data.rstrip()) or 1)])  # a last newline says nothing
        elif kind == "flip":
            self.world.overwrite(file, flipped(data, other % (len(data) or 1)))
        elif kind == "swap":
            self.world.overwrite(file, source.read_bytes())
            if source != file:
                self.world.overwrite(source, data)
        else:
            self.world.overwrite(file, source.read_bytes())
        for path in (file, source):
            point = parse_point(path.parent.name)
            if point is not None:
                self.hurt.add(point)

    @precondition(lambda self: isinstance(self.next, PointName))
    @rule(pick=number, line=st.integers(0, 99))
    def change_a_digit_of_a_record(self, pick: int, line: int) -> None:
        """The point that is next in turn has a record that still is one, of something that never was."""
        point = self.next
        assert isinstance(point, PointName)
        files = sorted(point_path(self.world.root, point).iterdir())
        file = files[pick % len(files)]
        # By line, for nonces and times have other digits each time, and an example must fail again.
        lines = file.read_bytes().splitlines(keepends=True)
        number = line % len(lines)
        digits = [at for at, byte in enumerate(lines[number]) if chr(byte).isdecimal()]
        if digits:
            lines[number] = flipped(lines[number], digits[-1])
        self.world.overwrite(file, b"".join(lines))
        self.hurt.add(point)

    def _uncommitted(self) -> list[PointName]:
        committed = set(self.world.points()) | self.hurt
        return [p for p in self._begun_points() if p not in committed and has_all_parts(self.world.root, p)]

    @precondition(lambda self: bool(self._uncommitted()))
    @rule(pick=number)
    def commit_without_a_look_at_the_parts(self, pick: int) -> None:
        points = self._uncommitted()
        commit_without_looking(self.world.root, points[pick % len(points)])

    # Settling

    @precondition(lambda self: self.one_job_per_role and not self.settled)
    @rule()
    def without_crashes_all_roles_settle_in_one_attempt(self) -> None:
        self.settled = True
        for process in self.world.processes:
            self.world.kill(process)
        if self.world.expected(self.observer) == "refused":
            return
        jobs: dict[str, Process] = {}
        for round in range(4):
            for role in TRAINED:
                if role not in jobs or not jobs[role].runs:
                    job = f"settling {len(self.world.processes)}"
                    jobs[role] = self.world.launch((role,), "A", job, round, NOTHING)
                    self._begin(jobs[role], False, None)
            self.world._sleep(10)
            if all(job.trains for job in jobs.values()):
                break
        assert [job.attempt for job in jobs.values()] == [max(self.world.starts())] * 2

    # Invariants

    def _step(self, process: Process, action: Callable[[], Any], *, was_held: bool = False) -> None:
        """Let `process` act; when it is superseded, that may not change what the next start takes.

        Nor does it commit then, unless it was held between the check for a newer attempt and the commit.
        """
        self.world.note_commits()
        before_line = self.world.live_line()
        if not self.world.superseded(process):
            action()
            self.world.note_commits()
            self._check_removed(before_line)
            return
        before, commits = self.world.expected(self.observer), self.world.points()
        action()
        self.world.note_commits()
        after = self.world.expected(self.observer)
        # A first commit may come late: whoever began fresh meanwhile, for want of it, has nothing to lose yet.
        late_first = (
            was_held and before == "fresh" and isinstance(after, PointName) and after.attempt == process.attempt
        )
        assert after == before or late_first, (
            f"attempt {process.attempt} was superseded and changed the choice {before} to {after}"
        )
        assert was_held or self.world.points() == commits, f"attempt {process.attempt} was superseded and commits"

    def _check_removed(self, line: list[PointName]) -> None:
        """What went of the live line was older than as many whole points as are to be kept, and those are there."""
        there = set(self.world.points())
        for gone in line:
            if gone not in there and not self._was_moved_aside(gone):
                newer = [p for p in self.world.live_line() if p > gone and (p in self.hurt or self.world.is_whole(p))]
                assert self.world.keep is not None, f"{gone} went, and nothing was to be removed"
                assert len(newer) >= self.world.keep, f"{gone} went, and only {newer} are newer"

    def _was_moved_aside(self, point: PointName) -> bool:
        return any(self.world.root.glob(f"abandoned/*/{point.folder}*"))

    @invariant()
    def all_holds(self) -> None:
        self.the_newest_whole_point_of_the_live_line_is_chosen()
        self.what_is_committed_stays_as_it_is()
        self.every_role_has_one_holder_and_one_parent()

    def the_newest_whole_point_of_the_live_line_is_chosen(self) -> None:
        self.world.note_commits()
        chosen, wanted = self.world.decide(self.observer), self.world.expected(self.observer)
        assert chosen == wanted, f"{chosen} was chosen, {wanted} is right"
        self.next = chosen

    def what_is_committed_stays_as_it_is(self) -> None:
        for point in set(self.world.points()) - self.hurt:
            path = point_path(self.world.root, point)
            for name, data in self.world.committed[point].items():
                assert (path / name).read_bytes() == data, f"{path / name} changed"

    def every_role_has_one_holder_and_one_parent(self) -> None:
        starts = self.world.starts()
        held: set[tuple[int, str]] = set()
        for process in self.world.processes:
            if not process.runs or process.attempt not in starts:
                continue
            begun = starts[process.attempt]
            outcome = told(process.session.outcome)
            parent = PointName(*begun["parent"]) if begun["parent"] else "fresh"
            assert outcome == parent, f"{process.launch} is at {outcome}, its attempt at {parent}"
            for role in process.roles:
                place = (process.attempt, role)
                assert place not in held, f"{place} is held twice"
                held.add(place)


def folder_without_digits() -> Path:
    """A new folder. Its name stands in records, where a digit of it would be one that a rule may change."""
    base = Path(IN_MEMORY or tempfile.gettempdir())
    while True:
        path = (
            base / f"protocol_{''.join(random.SystemRandom().choices(ascii_lowercase, k=12))}"
        )  # Hypothesis seeds random
        with suppress(FileExistsError):
            path.mkdir(mode=0o700)
            return path


def in_step(every: list[Process]) -> None:
    """Jobs of several roles agree on how far they are, as their scripts see to."""
    iteration = max(process.iteration for process in every)
    episode = max(process.session.episode for process in every)
    samples = max(process.session.consumed_samples for process in every)
    for process in every:
        process.iteration = iteration
        process.session.episode, process.session.consumed_samples = episode, samples


def flipped(data: bytes, at: int) -> bytes:
    """`data` with the lowest bit of one byte flipped: a digit stays a digit."""
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :] if data else b"x"


def without_leases(found: dict[str, bytes | None]) -> dict[str, bytes | None]:
    return {path: data for path, data in found.items() if not path.endswith(".lease")}
