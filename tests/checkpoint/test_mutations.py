"""Random mutations of a run folder: no traceback, no wrong resume, no fresh start while a commit is visible."""

import os
import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from stat import S_ISDIR

import pytest

from megatron_resume.checkpoint.endings import process_ends
from megatron_resume.checkpoint.events import Failed, Stopped
from megatron_resume.checkpoint.layout import COMMITTED, PointName, model_folder, parse_point
from megatron_resume.checkpoint.records import Request
from megatron_resume.errors import ConfigError
from megatron_resume.resume.choose import Fresh, Outcome, Refused, Resume
from support.job_on_disk import JobOnDisk

SEED = int(os.environ.get("MUTATION_SEED", "0")) or random.SystemRandom().randrange(1, 2**32)


Signature = tuple[int, ...]


class Spare:
    """The job, what it was when whole, and a copy of what it was earlier."""

    def __init__(self, job: JobOnDisk, older: Path):
        self.job, self.older = job, older
        self._seen = signatures(job.base)
        self.whole = {path: Path(path).read_bytes() if os.path.isfile(path) else None for path in self._seen}
        self.files = [Path(path) for path, data in self.whole.items() if data is not None]
        self.folders = [Path(path) for path, data in self.whole.items() if data is None]
        self.old = sorted(older.rglob("*"))

    def restore(self) -> None:
        """Put back what differs. Such a file is a copy, with another time and inode than its receipt says."""
        found = signatures(self.job.base)
        for path, signature in reversed(found.items()):  # what lies in a folder, then the folder
            if signature != self._seen.get(path):
                if S_ISDIR(signature[1]):
                    shutil.rmtree(path)
                else:
                    os.unlink(path)
        gone = {path for path, signature in self._seen.items() if found.get(path) != signature}
        for path, data in self.whole.items() if gone else ():
            if path not in gone and os.path.dirname(path) not in gone:
                continue
            gone.add(path)
            if data is None:
                os.mkdir(path)
            else:
                Path(path).write_bytes(data)
            self._seen[path] = signature_of(os.lstat(path))


def signature_of(stat: os.stat_result) -> Signature:
    folder = S_ISDIR(stat.st_mode)
    return (stat.st_ino, stat.st_mode, *(() if folder else (stat.st_size, stat.st_mtime_ns)))


def signatures(base: str | Path) -> dict[str, Signature]:
    """Everything below `base`, a folder before what lies in it; links are not followed."""
    found = {}
    with os.scandir(base) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            found[entry.path] = signature_of(entry.stat(follow_symlinks=False))
            if entry.is_dir(follow_symlinks=False):
                found |= signatures(entry.path)
    return found


@pytest.fixture(scope="module")
def spare(tmp_path_factory: pytest.TempPathFactory) -> Spare:
    """A run of three attempts: the second was rolled back into, the third goes on from it."""
    base = tmp_path_factory.mktemp("run")
    job = JobOnDisk(base / "job")
    first = job.attempt()
    for iteration in (2, 4):
        job.save(first, iteration)
    older = base / "older"
    shutil.copytree(job.base, older)
    job.save(first, 6)
    job.tell(first, Failed(error="RuntimeError", message="the network is down", exit_code=1))
    move_models_aside(job, 6)
    second = job.attempt(PointName(4, first), requested=Request(iteration=4))
    newest = job.save(second, 6)
    job.tell(second, Stopped(reason="SIGTERM", exit_code=0))
    third = job.attempt(newest)
    job.save(third, 8)
    job.save(third, 9, parts=("policy",))
    return Spare(job, older)


def move_models_aside(job: JobOnDisk, iteration: int) -> None:
    for role in job.roles:
        aside = job.save_folder(role) / "abandoned" / "a0002"
        aside.mkdir(parents=True)
        job.model(role, iteration).rename(aside / model_folder(iteration))


def random_bytes(spare: Spare, chance: random.Random) -> None:
    file = chance.choice(spare.files)
    data = file.read_bytes()
    begin = chance.randrange(len(data) + 1)
    end = min(len(data), begin + chance.randrange(20))
    file.write_bytes(data[:begin] + chance.randbytes(chance.randrange(20)) + data[end:])


def one_flipped_bit(spare: Spare, chance: random.Random) -> None:
    file = chance.choice(spare.files)
    data = bytearray(file.read_bytes())
    if data:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    file.write_bytes(data)


def one_changed_digit(spare: Spare, chance: random.Random) -> None:
    """The record still parses, and says something else."""
    file = chance.choice([path for path in spare.files if path.suffix == ".json" or path.name == COMMITTED])
    data = bytearray(file.read_bytes())
    digits = [at for at, byte in enumerate(data) if chr(byte).isdigit()]
    if digits:
        data[chance.choice(digits)] = ord(str(chance.randrange(10)))
    file.write_bytes(data)


def truncation(spare: Spare, chance: random.Random) -> None:
    file = chance.choice(spare.files)
    os.truncate(file, chance.randrange(file.stat().st_size + 1))


def growth(spare: Spare, chance: random.Random) -> None:
    file = chance.choice(spare.files)
    os.truncate(file, file.stat().st_size + chance.randrange(1, 1 << 16))


def deletion(spare: Spare, chance: random.Random) -> None:
    path = chance.choice(spare.files + spare.folders)
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def two_swapped_files(spare: Spare, chance: random.Random) -> None:
    one, other = chance.sample(spare.files, 2)
    aside = spare.job.base / f"aside {chance.randrange(10**9)}"
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


def two_swapped_folders(spare: Spare, chance: random.Random) -> None:
    one, other = chance.sample(spare.folders, 2)
    if one in other.parents or other in one.parents:
        return
    aside = spare.job.base / f"aside {chance.randrange(10**9)}"
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


def a_renamed_path(spare: Spare, chance: random.Random) -> None:
    path = chance.choice(spare.files + spare.folders)
    names = [other.name for other in spare.files + spare.folders]
    target = path.with_name(chance.choice([*names, "iter_0000007.a0001", "iter_0000010.a0003", "0004", "renamed"]))
    if not target.exists():
        path.rename(target)


def an_old_copy_put_back(spare: Spare, chance: random.Random) -> None:
    """Part of the folder comes from a backup, with or without its times."""
    source = chance.choice(spare.old)
    target = spare.job.base / source.relative_to(spare.older)
    copy = chance.choice([shutil.copy2, shutil.copyfile])
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        if chance.random() < 0.5:
            shutil.rmtree(target, ignore_errors=True)
        if not target.is_file():
            shutil.copytree(source, target, dirs_exist_ok=True, copy_function=copy)
    elif not target.is_dir():
        copy(source, target)


def another_copied_over(spare: Spare, chance: random.Random) -> None:
    source, target = chance.sample(spare.files, 2)
    chance.choice([shutil.copy2, shutil.copyfile])(source, target)


def a_link_in_its_place(spare: Spare, chance: random.Random) -> None:
    path = chance.choice(spare.files + spare.folders)
    elsewhere = spare.job.base / f"elsewhere {chance.randrange(10**9)}"
    target = chance.choice([elsewhere, chance.choice(spare.files), Path("/nowhere"), path])
    path.rename(elsewhere)
    path.symlink_to(target)


def a_folder_in_its_place(spare: Spare, chance: random.Random) -> None:
    file = chance.choice(spare.files)
    file.unlink()
    file.mkdir()


def a_file_in_its_place(spare: Spare, chance: random.Random) -> None:
    folder = chance.choice(spare.folders)
    shutil.rmtree(folder)
    folder.write_bytes(chance.randbytes(10))


MUTATION: list[Callable[[Spare, random.Random], None]] = [
    random_bytes,
    one_flipped_bit,
    one_changed_digit,
    truncation,
    growth,
    deletion,
    two_swapped_files,
    two_swapped_folders,
    a_renamed_path,
    an_old_copy_put_back,
    another_copied_over,
    a_link_in_its_place,
    a_folder_in_its_place,
    a_file_in_its_place,
]


def what_is_wrong(spare: Spare, outcome: Outcome) -> str | None:
    """Why a start on this folder may not end so; None when it may."""
    job = spare.job
    if isinstance(outcome, Refused):
        return None if outcome.reason else "it is refused without a reason"
    if isinstance(outcome, Fresh):
        visible = [path for path in job.root.glob("iter_*/COMMITTED") if parse_point(path.parent.name)]
        return f"it is fresh, while {visible} are there" if visible else None
    assert isinstance(outcome, Resume)
    point = outcome.point
    if point.data.progress != job.progress(point.name) or point.data.iteration != point.iteration:
        return f"the data is of {point.data.progress}, the point is {point.name}"
    for role in job.roles:
        expected = f"weights of {role} at {point.name}".encode()
        found = {path.name: path.read_bytes() for path in point.models[role].iterdir() if path.is_file()}
        if (found.get("__0_0.distcp"), found.get(".metadata")) != (expected, b"which tensor lies where"):
            return f"{role} at {point.name} would load {found}"
        if point.receipts[role].progress != point.data.progress:
            return f"{role} is of another moment than the data"
    return None


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_no_mutation_of_a_run_ends_in_a_traceback_a_wrong_resume_or_a_fresh_start(spare: Spare, count: int) -> None:
    chance = random.Random(SEED)
    ends = {Resume: 0, Refused: 0, Fresh: 0}
    damaged_events = 0
    for number in range(count):
        mutations = chance.choices(MUTATION, k=chance.choice([1, 1, 1, 2, 3]))
        what = f"mutation {number} of MUTATION_SEED={SEED}: {', '.join(one.__name__ for one in mutations)}"
        for mutate in mutations:
            with suppress(OSError, shutil.Error):  # an earlier one left no place for it
                mutate(spare, chance)
        request = chance.choice([Request(), Request(), Request(iteration=4), Request(attempt=1)])
        try:
            outcome = spare.job.choose(request)
            told = [process_ends(spare.job.root, attempt, spare.job.roles) for attempt in (1, 2, 3)]
        except ConfigError as error:
            # The folder itself is gone or no folder, or what holds the attempts is a link.
            assert "cannot be read" in str(error) or "is a symbolic link" in str(error), what
        except Exception as error:
            raise AssertionError(what) from error
        else:
            problem = what_is_wrong(spare, outcome)
            assert problem is None, f"{what}: {problem}"
            ends[type(outcome)] += 1
            damaged_events += any(end.damage for ends_of_attempt in told for end in ends_of_attempt)
        spare.restore()
    # Most mutations hit one point of several; a run that always resumed or never did would have tested nothing.
    assert ends[Resume] > count // 4, ends
    assert ends[Refused] > count // 100, ends
    assert damaged_events, "3 in a hundred"
