"""Lives of a job, each in a process of its own, of which one system call fails; says what came of each.

faulted_job.py FIRST STEP ERRNO ..., with failing_calls.c preloaded: every STEPth call, from the FIRST of a life on.

After two saves that went well a life starts, loads, trains, saves twice, renews its leases and removes what is not to
be kept. Whatever of that fails, once: what was committed stays, and the next start goes on from the newest of it.
"""

import ctypes
import json
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from megatron_resume.checkpoint.layout import PointName
from megatron_resume.roles import TRAINED
from support.protocol_machine import SHARDS, Process, World, Writing, told
from support.protocol_rules import NOTHING, folder_without_digits

libc = ctypes.CDLL(None)
libc.faults_below.restype = ctypes.c_long
libc.faults_name.restype = ctypes.c_char_p
KEPT = 2
MAY_END_WITH = None, 78, 203  # where only a call failed; it runs on, or says what is needed


class OnStorage(World):
    """Only what the package does fails; Megatron's own reading and writing is not ours to test."""

    def __enter__(self) -> "OnStorage":
        fsync = os.fsync
        super().__enter__()
        os.fsync = fsync
        self.keep = KEPT
        return self

    def _megatron_load(self, ddp_model: Any, load_arg: str = "load") -> tuple[int, int]:
        loaded: tuple[int, int] = unfailing(partial(super()._megatron_load, ddp_model, load_arg))
        return loaded

    def _megatron_save(self, iteration: int, model: Any = None, release: bool = False) -> None:
        unfailing(partial(super()._megatron_save, iteration, model, release))

    def work(self, writing: Writing, *, shards: int = len(SHARDS)) -> None:
        unfailing(partial(super().work, writing, shards=shards))


def unfailing(act: Callable[[], Any]) -> Any:
    libc.faults_pause(1)
    try:
        return act()
    finally:
        libc.faults_pause(0)


def live(world: World, number: int, saves: int) -> Process:
    process = world.launch(TRAINED, "A", f"job {number}", 0, NOTHING)
    world.begin(process)
    for _ in range(saves):
        if not process.trains:
            break
        world.train(process)
        for role in process.roles:
            if process.trains:
                world.save(process, role, asynchronous=False)
        while process.runs and world.writes(process):
            world.write(process)
        if process.trains:
            with suppress(OSError):  # the thread that renews says so, and tries again
                world._renew(process)
    return process


def outcome(number: int, error: int) -> tuple[str, int, str]:
    """The call that failed, how many there were, and what is wrong: "" if nothing is."""
    with OnStorage(folder_without_digits()) as world:
        world.kill(live(world, 1, 2))
        world.note_commits()
        before = world.points()
        libc.faults_below(os.fsencode(world.base), number, error)
        try:
            process = live(world, 2, 2)
        finally:
            counted = libc.faults_below(b"", 0, 0) if not number else 0
            name = os.fsdecode(libc.faults_name())
            libc.faults_below(b"", 0, 0)
        world.kill(process)
        if process.code not in MAY_END_WITH:
            return name, counted, f"it ended with {process.code}"
        return name, counted, wrong(world, before)


def wrong(world: World, before: list[PointName]) -> str:
    world.note_commits()
    points = world.points()
    torn = [point for point in points if not world.is_whole(point)]
    if torn:
        return f"{torn} are not whole"
    if points[-1] < before[-1] or len(points) < min(KEPT, len(before)):
        return f"of {before} there are {points}"
    after = live(world, 3, 1)
    if not after.trains:
        return f"the next start ended with {after.code}"
    if told(after.session.outcome) != points[-1]:
        return f"the next start took {told(after.session.outcome)} of {points}"
    return "" if world.points()[-1].attempt == after.attempt else "the next life does not commit"


def main() -> None:
    first, step, *errors = map(int, sys.argv[1:])
    _, num_calls, said = in_a_process(partial(outcome, 0, 0))
    assert num_calls and not said, said
    for number in range(first, num_calls + 1, step):
        for error in errors:
            name, _, said = in_a_process(partial(outcome, number, error))
            print(json.dumps([number, error, name, said]), flush=True)


def in_a_process(act: Callable[[], Any]) -> Any:
    """What `act` returns in a child of this process, which has imported all."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            said = act()
        except BaseException:
            said = ("?", 0, traceback.format_exc()[-3000:])
        os.write(writer, json.dumps(said).encode())
        os.kill(os.getpid(), 9)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        said = json.loads(file.read() or b'["?", 0, "it died"]')
    os.waitpid(pid, 0)
    return said


if __name__ == "__main__":
    main()
