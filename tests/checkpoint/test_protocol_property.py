"""The protocol under whatever Hypothesis thinks of: the real hooks and store, many processes, one job's folders.

The invariants are those of the design: what is loaded is of one moment and as it was receipted, automatic starts
take the newest whole point, dead writers change nothing, requests count once, refused starts leave no trace.
"""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from job_on_disk import contents
from protocol_machine import SHARDS, Process, World, commit_without_looking, has_all_parts, told

from megatron_resume.checkpoint import folder, leftovers
from megatron_resume.checkpoint.layout import PointName, model_folder, parse_point, point_path, receipt_file
from megatron_resume.checkpoint.records import Request
from megatron_resume.resume import choose
from megatron_resume.roles import TRAINED

number = st.integers(0, 11)
# Mostly to the end; else a process is held, or killed, after so many crash points.
stop = st.one_of(st.none(), st.none(), st.integers(0, 45))
requests = st.one_of(
    st.just(("none", 0)),
    st.just(("none", 0)),
    st.tuples(st.sampled_from(["iteration", "attempt", "both", "start_over", "fresh"]), number),
)
REFUSED = (65, 78)


class Protocol(RuleBasedStateMachine):
    """One job; every step is something that a process, a launcher, a person or a bad disk does."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(Path(tempfile.mkdtemp(prefix="protocol")))
        self.world.__enter__()
        self.one_job_per_role = False
        self.hurt: set[PointName] = set()  # points that a rule has damaged
        self.moved_back: set[tuple[str, Request]] = set()
        self.observer = self.world.launch((), "C", "observer", 0, Request())
        self.observer.alive = False
        self.chosen: PointName | str = "fresh"

    def teardown(self) -> None:
        self.world.__exit__()

    @initialize(one_job_per_role=st.booleans(), saves=st.integers(0, 3), lives=st.integers(1, 2))
    def begin_job(self, one_job_per_role: bool, saves: int, lives: int) -> None:
        """A job that went well so far, perhaps through more than one life."""
        self.one_job_per_role = one_job_per_role
        for life in range(lives):
            for process in self.world.processes:
                self.world.kill(process)
            for role in TRAINED if one_job_per_role else TRAINED[:1]:
                roles = (role,) if one_job_per_role else TRAINED
                self._begin(self.world.launch(roles, "A", f"first {roles} {life}", 0, Request()), False, None)
            for _ in range(saves):
                self.train_and_save_all(0, False, False)

    # Starts

    @rule(
        role=st.sampled_from(TRAINED),
        host=st.sampled_from("AB"),
        again=st.booleans(),
        request=requests,
        take_over=st.sampled_from([False, False, False, True]),
        stale=st.one_of(st.just(0), st.just(0), st.integers(1, 3)),
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
        until: int | None,
    ) -> None:
        """A launcher starts a process: the same launch again, or a new one."""
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
        self._begin(process, take_over, until)

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
        points = sorted(self.world.root.glob("iter_*"), key=lambda path: path.stat().st_mtime_ns)
        process.hidden = {*attempts[-1:], *(path.name for path in points[-1:])}
        process.hidden_for = listings

    def _begin(self, process: Process, take_over: bool, until: int | None) -> None:
        world = self.world
        certain = until is None and not process.hidden and not any(p.fibers for p in world.processes if p.runs)
        wanted = self._expected_start(process, take_over)
        visible = set(world.points())
        before = contents(world.base)
        world.begin(process, take_over=take_over, until=until)
        note = f"{process.launch} {process.request}: {wanted}, code {process.code}"
        if process.code in REFUSED and certain and not self._has_begun(process):
            assert without_leases(contents(world.base)) == without_leases(before), (
                f"a refused start left a trace: {note}"
            )
        if certain:
            if wanted in ("held", "refused"):
                assert process.code in REFUSED, note
            else:
                assert process.code is None, note
                assert told(process.session.outcome) == wanted, note
        if process.trains:
            self._check_loaded(process)
            self._check_fresh(process, visible & set(world.points()))
            self._check_moved_back_once(process)

    def _has_begun(self, process: Process) -> bool:
        current = process.state[1]
        return current is not None and current.lease_keeper is not None

    def _expected_start(self, process: Process, take_over: bool) -> PointName | str:
        world, starts = self.world, self.world.starts()
        choice = world.expected(process)
        if choice == "refused" or not starts:
            return choice
        newest = max(starts)
        holders = {
            role: holder
            for holder in world.processes
            if holder.runs and self._has_begun(holder) and holder.session.attempt == newest
            for role in holder.roles
        }
        place = world.root / "attempts" / f"{newest:04d}" / f"{process.roles[0]}.lease"
        if self.one_job_per_role and not place.exists() and holders:
            parent = starts[newest]["parent"]
            return PointName(*parent) if parent else "fresh"
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
            # After a start over old models stay where they are loaded from: see test_protocol_findings.py.
            started_over = (self.world.root / "abandoned").exists()
            if not process.request.fresh and not process.hidden and not started_over:
                assert not any(process.loaded.values()), f"a fresh start loaded {process.loaded}"
            return
        name, data = outcome.point.name, outcome.point.data
        for role in process.roles:
            written = self.world.written[role, name]
            said = process.loaded[role]
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
        if process.request.once and asked and not joined:
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
    @rule(pick=number, asynchronous=st.booleans(), late=st.booleans())
    def train_and_save_all(self, pick: int, asynchronous: bool, late: bool) -> None:
        """What a healthy job does; `late` leaves the work of the background to later steps."""
        process = self._training(pick)
        every = [p for p in self.world.processes if p.trains and p.session.attempt == process.session.attempt]
        for one in every:
            one.iteration = max(p.iteration for p in every)
            with_same_moment(one, every)
            self.world.train(one)
        for one in every:
            for role in one.roles:
                if one.trains:
                    self._step(one, lambda one=one, role=role: self.world.save(one, role, asynchronous=asynchronous))
        for one in every:
            if one.trains and not late:
                self._step(one, lambda one=one: self.world.settle(one))

    @precondition(_any_trains)
    @rule(pick=number)
    def save_roles_at_two_moments_and_commit_without_a_look(self, pick: int) -> None:
        """A script that advances between the saves of two roles, and a hand that commits what that left."""
        process = self._training(pick)
        self.world.train(process)
        for role in process.roles:
            if process.trains:
                self._step(process, lambda role=role: self.world.save(process, role, asynchronous=False))
            if process.trains:
                self.world.train(process, advance_only=True)
        if process.trains:
            self._step(process, lambda: self.world.settle(process))
        for point in self._uncommitted():
            commit_without_looking(self.world.root, point)

    @precondition(_any_trains)
    @rule(pick=number, until=stop)
    def finalize(self, pick: int, until: int | None) -> None:
        process = self._training(pick)
        self._step(process, lambda: self.world.finalize(process, until=until))

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
        process, thread = held[pick % len(held)]
        visible = set(self.world.points())
        loads = not process.loaded or len(process.loaded) < len(process.roles)
        self._step(process, lambda: self.world.resume_thread(process, thread, until))
        if loads and process.trains:
            self._check_loaded(process)
            self._check_moved_back_once(process)
            del visible

    @precondition(lambda self: any(p.runs for p in self.world.processes))
    @rule(pick=number)
    def kill(self, pick: int) -> None:
        alive = [process for process in self.world.processes if process.runs]
        self.world.kill(alive[pick % len(alive)])

    @precondition(lambda self: any(not p.runs and p.in_flight for p in self.world.processes))
    @rule(pick=number)
    def let_an_orphaned_worker_write(self, pick: int) -> None:
        """Megatron's checkpoint worker outlives the process that was killed."""
        orphans = [process for process in self.world.processes if not process.runs and process.in_flight]
        process = orphans[pick % len(orphans)]
        self._step(process, lambda: self.world.write_shards(process.in_flight.pop(0)))

    @rule(pick=number)
    def renew_leases(self, pick: int) -> None:
        self.world._sleep(pick)

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
        other=st.integers(0, 99),
        kind=st.sampled_from(["delete", "cut", "flip", "swap", "old"]),
    )
    def damage(self, pick: int, other: int, kind: str) -> None:
        files = self._damageable()
        file, source = files[pick % len(files)], files[other % len(files)]
        data = file.read_bytes()
        if kind == "delete":
            file.unlink()
        elif kind == "cut":
            file.write_bytes(data[: other % (len(data) or 1)])
        elif kind == "flip":
            at = other % (len(data) or 1)
            file.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :] if data else b"x")
        elif kind == "swap":
            file.write_bytes(source.read_bytes())
            if source != file:
                source.write_bytes(data)
        else:
            file.write_bytes(source.read_bytes())
        for path in (file, source):
            point = parse_point(path.parent.name)
            if point is not None:
                self.hurt.add(point)

    def _uncommitted(self) -> list[PointName]:
        names = [path.name for path in self.world.root.glob("iter_*")]
        points = sorted(point for name in names if (point := parse_point(name)) is not None)
        committed = set(self.world.points()) | self.hurt
        return [p for p in points if p not in committed and has_all_parts(self.world.root, p)]

    @precondition(lambda self: bool(self._uncommitted()))
    @rule(pick=number)
    def commit_without_a_look_at_the_parts(self, pick: int) -> None:
        points = self._uncommitted()
        commit_without_looking(self.world.root, points[pick % len(points)])

    # Settling

    @precondition(lambda self: self.one_job_per_role)
    @rule()
    def without_crashes_all_roles_settle_in_one_attempt(self) -> None:
        for process in self.world.processes:
            self.world.kill(process)
        if self.world.expected(self.world.launch(("policy",), "A", "look", 0, Request())) == "refused":
            return
        jobs: dict[str, Process] = {}
        for round in range(4):
            for role in TRAINED:
                if role not in jobs or not jobs[role].runs:
                    job = f"settling {len(self.world.processes)}"
                    jobs[role] = self.world.launch((role,), "A", job, round, Request())
                    self._begin(jobs[role], False, None)
            self.world._sleep(10)
            if all(job.trains for job in jobs.values()):
                break
        assert [job.session.attempt for job in jobs.values()] == [max(self.world.starts())] * 2

    # Invariants

    def _step(self, process: Process, action: Callable[[], Any]) -> None:
        """Let `process` act; when it is superseded, that may not change what the next start takes."""
        self.world.note_commits()
        attempt = process.session.attempt if self._has_begun(process) else None
        superseded = attempt is not None and attempt < max(self.world.starts(), default=0)
        before = self.world.expected(self.observer)
        action()
        self.world.note_commits()
        if superseded:
            after = self.world.expected(self.observer)
            assert after == before, f"attempt {attempt} was superseded and changed the choice {before} to {after}"

    @invariant()
    def all_holds(self) -> None:
        self.the_newest_whole_point_of_the_live_line_is_chosen()
        self.what_is_committed_stays_as_it_is()
        self.every_role_has_one_holder_and_one_parent()

    def the_newest_whole_point_of_the_live_line_is_chosen(self) -> None:
        self.world.note_commits()
        chosen, wanted = self.world.decide(self.observer), self.world.expected(self.observer)
        assert chosen == wanted, f"{chosen} was chosen, {wanted} is right"

    def what_is_committed_stays_as_it_is(self) -> None:
        for point in set(self.world.points()) - self.hurt:
            path = point_path(self.world.root, point)
            for name, data in self.world.committed[point].items():
                assert (path / name).read_bytes() == data, f"{path / name} changed"

    def every_role_has_one_holder_and_one_parent(self) -> None:
        starts = self.world.starts()
        held: set[tuple[int, str]] = set()
        for process in self.world.processes:
            if not process.runs or not self._has_begun(process) or process.session.attempt not in starts:
                continue
            begun = starts[process.session.attempt]
            outcome = told(process.session.outcome)
            parent = PointName(*begun["parent"]) if begun["parent"] else "fresh"
            assert outcome == parent, f"{process.launch} is at {outcome}, its attempt at {parent}"
            for role in process.roles:
                place = (process.session.attempt, role)
                assert place not in held, f"{place} is held twice"
                held.add(place)


def with_same_moment(one: Process, every: list[Process]) -> None:
    """Jobs of two roles agree on how far they are, as their scripts see to."""
    one.session.episode = max(p.session.episode for p in every)
    one.session.consumed_samples = max(p.session.consumed_samples for p in every)


def without_leases(found: dict[str, bytes | None]) -> dict[str, bytes | None]:
    return {path: data for path, data in found.items() if not path.endswith(".lease")}


def budget(examples: int, steps: int, **more: Any) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
        **more,
    )


def test_the_invariants_hold_whatever_happens() -> None:
    run_state_machine_as_test(Protocol, settings=budget(12, 20))


@pytest.mark.slow
def test_the_invariants_hold_whatever_happens_for_long() -> None:
    run_state_machine_as_test(Protocol, settings=budget(1000, 40))


def every_point(found: folder.Folder, _: object) -> Any:
    return iter(sorted(found.points, reverse=True))


MUTANTS: dict[str, tuple[object, str, object]] = {
    "every point is on the live line": (choose, "live_line", every_point),
    "files of models are not checked": (folder, "problem_with_files", lambda *_: None),
    "nothing is moved away": (leftovers, "move_away", lambda *_, **__: []),
    "roles may be of two moments": (folder, "_check_one_moment", lambda *_: None),
}


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_machine_sees_that(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where, name, instead = MUTANTS[mutant]
    monkeypatch.setattr(where, name, instead)
    with pytest.raises((AssertionError, KeyError, OSError)):
        run_state_machine_as_test(
            Protocol, settings=budget(60, 20, phases=[Phase.generate], report_multiple_bugs=False)
        )
