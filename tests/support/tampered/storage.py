"""Storage that fails, takes no events, or tells what is durable."""

import json
import os
import subprocess
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

from rlhf import job

from megatron_resume.adapter import life, saving


def storage_fails_at_the_second_save():
    """What `STORAGE` names is done to the file system `AT` while iteration 4 is saved, and undone when it is over.

    With `FOR_GOOD` nothing is undone.
    """
    if os.environ["RANK"] != "0":
        return
    faults = {"full": (fill, empty), "read-only": (remounted("ro"), remounted("rw"))}
    begin, end = faults[os.environ["STORAGE"]]

    def save_on_bad_storage(iteration, *args, **kwargs):
        if iteration == 4 and save.count == 0:
            begin(Path(os.environ["AT"]))
        save.count += iteration == 4
        result = original(iteration, *args, **kwargs)
        if save.count == 2 and "FOR_GOOD" not in os.environ:
            saving._saves.writer.wait()
            end(Path(os.environ["AT"]))
            save.count = 3
        return result

    save, original, job.save_checkpoint = SimpleNamespace(count=0), job.save_checkpoint, save_on_bad_storage


def fill(folder):
    with suppress(OSError), open(folder / "filler", "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def empty(folder):
    (folder / "filler").unlink()


def remounted(mode):
    return lambda folder: subprocess.run(["mount", "-o", f"remount,{mode}", str(folder)], check=True)


def events_cannot_be_written():
    """In the place of the one file of its kind stands a FIFO, on whose reader one could wait for ever."""
    begin = life.begin

    def begin_with_a_fifo(path):
        os.mkfifo(path)
        begin(path)

    life.begin = begin_with_a_fifo


def notes_what_is_durable():
    """Appends a line for each fsync to the file DURABLE: the inode, then a folder's names or a file's size."""
    original = os.fsync

    def fsync(descriptor):
        original(descriptor)
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        holds = sorted(os.listdir(path)) if path.is_dir() else os.fstat(descriptor).st_size
        with open(os.environ["DURABLE"], "a") as file:
            file.write(json.dumps([os.fstat(descriptor).st_ino, holds]) + "\n")

    os.fsync = fsync


def does_not_answer():
    """Looks at paths that end with FAULT fail with ERRNO, the first TIMES times in a process."""
    original, fired = os.lstat, SimpleNamespace(count=0)

    def lstat(path, **kwargs):
        if fired.count < int(os.environ["TIMES"]) and os.fsdecode(path).endswith(os.environ["FAULT"]):
            fired.count += 1
            raise OSError(int(os.environ["ERRNO"]), os.strerror(int(os.environ["ERRNO"])), os.fsdecode(path))
        return original(path, **kwargs)

    os.lstat = lstat
