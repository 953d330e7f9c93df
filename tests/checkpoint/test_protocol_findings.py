"""What the protocol machine found, each as short as it can be told."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from megatron_resume.checkpoint.layout import PointName
from megatron_resume.checkpoint.records import Request
from megatron_resume.roles import TRAINED

if TYPE_CHECKING:
    from support.protocol_machine import Process, World

pytestmark = pytest.mark.torch


def world_of(job: Path) -> World:
    from support.protocol_machine import World

    return World(job)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with world_of(tmp_path / "job") as world:
        yield world


def point_of(process: Process) -> PointName | str:
    from support.protocol_machine import told

    return told(process.session.outcome)


def begin(world: World, job: str, request: Request | None = None, *, restart: int = 0, role: str = "") -> Process:
    process = world.launch((role,) if role else TRAINED, "A", job, restart, request or Request())
    world.begin(process)
    return process


def save(world: World, *processes: Process) -> None:
    for process in processes:
        world.train(process)
        for role in process.roles:
            world.save(process, role, asynchronous=False)
    for process in processes:
        world.settle(process)


def test_starting_over_loads_no_old_weights(world: World) -> None:
    first = begin(world, "first")
    save(world, first)
    world.kill(first)
    assert begin(world, "again", Request(start_over=True)).loaded == {"policy": {}, "value": {}}


def test_a_job_that_joined_moves_back_once_too(world: World) -> None:
    jobs = [begin(world, f"first {role}", role=role) for role in TRAINED]
    save(world, *jobs)
    save(world, *jobs)
    for job in jobs:
        world.kill(job)
    jobs = [begin(world, f"back {role}", Request(iteration=1), role=role) for role in TRAINED]
    save(world, *jobs)
    save(world, *jobs)
    assert world.points()[-1] == PointName(3, 2)
    world.kill(jobs[1])
    again = begin(world, "back value", Request(iteration=1), restart=1, role="value")
    assert point_of(again) == PointName(3, 2)


def test_a_role_that_joins_an_abandoned_line_gets_its_model_back(world: World) -> None:
    jobs = [begin(world, f"first {role}", role=role) for role in TRAINED]
    save(world, *jobs)
    save(world, *jobs)
    for job in jobs:
        world.kill(job)
    for job in [begin(world, f"back {role}", Request(iteration=1), role=role) for role in TRAINED]:
        world.kill(job)
    old = Request(attempt=1)
    policy, value = (begin(world, f"old {role}", old, role=role) for role in TRAINED)
    assert point_of(policy) == PointName(2, 1)
    assert (policy.code, value.code) == (None, None)


def test_a_fresh_start_that_died_anywhere_leaves_no_tracker_to_nowhere(tmp_path: Path) -> None:
    for steps in itertools.count():
        with world_of(tmp_path / f"{steps}") as world:
            first = begin(world, "first")
            world.train(first)
            world.save(first, "policy", asynchronous=False)
            world.kill(first)
            second = world.launch(TRAINED, "A", "second", 0, Request())
            world.begin(second, until=steps)
            if second.trains:
                break
            world.kill(second)
            assert begin(world, "third").trains
    assert steps > 20


def test_an_orphaned_worker_does_not_reach_the_save_of_a_newer_attempt(world: World) -> None:
    first = begin(world, "first")
    save(world, first)
    world.train(first)
    for role in TRAINED:
        world.save(first, role, asynchronous=True)
    world.kill(first)
    second = begin(world, "second")
    save(world, second)
    world.note_commits()
    assert world.is_whole(PointName(2, 2))
    for orphan in first.in_flight:
        world.work(orphan)
    assert world.is_whole(PointName(2, 2))
