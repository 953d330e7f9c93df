"""Whoever may write where we do plants what they like under our names: nothing outside changes, nothing waits.

`WRITERS` is all that this package writes. Each is run once as it should be, to learn its names; and then once more for
each of them, and each kind of thing that can stand there.
"""

import ast
import os
import shutil
import signal
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from megatron_resume.checkpoint import (
    adopted,
    attempts,
    commit,
    failures,
    fencing,
    leases,
    leftovers,
    removal,
    untrained,
)
from megatron_resume.checkpoint.digests import compute, write_digests
from megatron_resume.checkpoint.events import Finished
from megatron_resume.checkpoint.layout import PointName
from megatron_resume.checkpoint.plain_files import make_private
from megatron_resume.cli import main
from megatron_resume.data.jsonl import JsonlPrompts
from megatron_resume.errors import ResumeError
from megatron_resume.patching.patch import apply, revert
from megatron_resume.watch.endings import RankEnding, ask_to_stop, write_ending
from megatron_resume.watch.stacks import Stacks
from support.job_on_disk import FAILURE, JobOnDisk
from support.waiting import PATIENCE_S

PACKAGE = Path(__file__).parents[1] / "megatron_resume"
SCRIPT = 'from megatron.training import pretrain\nif __name__ == "__main__":\n    pretrain(1)\n'
OLD, NEW, LATEST = PointName(2, 1), PointName(4, 1), PointName(6, 1)


class Stage:
    """A job of one role with two points, and what else there is to write: below `base`, where strangers may write, too.

    Each name is tried seven times on a new stage, and those of a second role are written by the same lines.
    """

    def __init__(self, base: Path) -> None:
        self.job = JobOnDisk(base, roles=("policy",))
        self.root = self.job.root
        self.attempt = self.job.attempt()
        for point in (OLD, NEW):
            self.job.save(self.attempt, point.iteration)
        self.receipts = [self.job.receipt(role, LATEST, self.job.progress(LATEST)) for role in self.job.roles]
        self.save = self.job.save_folder("policy")
        self.megatron = base / "megatron"
        (self.megatron / "megatron" / "training").mkdir(parents=True)
        (self.megatron / "pretrain_gpt.py").write_text(SCRIPT)
        self.lease = leases.Lease(holder=self.job.launch(), start="")

    def held(self) -> leases.Lease:
        leases.claim(self.root, self.attempt, "policy", self.lease)
        return self.lease

    def removed(self, *, models: bool) -> None:
        list(removal.remove(self.root, [OLD], lambda _: self.save, attempt=self.attempt, models=models))


def with_arrays(stage: Stage) -> None:
    folder = commit.open_point(stage.root, LATEST)
    for receipt in stage.receipts:
        commit.write_receipt(folder, receipt)
    commit.write_data(folder, stage.job.data(LATEST), b"arrays")
    commit.commit(folder, LATEST, nonce="nonce of 1", roles=stage.job.roles)


def digested(stage: Stage) -> None:
    receipt = stage.receipts[0]
    write_digests(stage.root, compute(stage.job.model("policy", LATEST.iteration), receipt, lambda _: None))


def prompts(stage: Stage) -> None:
    data = stage.job.base / "prompts.jsonl"
    if not data.exists():
        data.write_text('{"prompt": "a"}\n')
        os.utime(data, ns=(1, 1))
    JsonlPrompts(data, cache_dir=stage.job.base / "cache")


def verified(stage: Stage) -> None:
    os.environ["XDG_CACHE_HOME"] = str(stage.job.base / "cache of the user")
    main(["verify", str(stage.root), "--deep"])


def launched(stage: Stage) -> None:
    folder = stage.job.base / "endings"
    with suppress(FileExistsError):
        folder.mkdir()
    ending = RankEnding(rank=0, restart=0, exit_code=1, error="", message="", fatal=False, root="", time_s=0.0)
    write_ending(str(folder), 7, ending)
    ask_to_stop(folder, "SIGTERM")


def stacks(stage: Stage) -> None:
    kept = Stacks(stage.root, failures.life_path(stage.root, stage.attempt, "life") / failures.STACKS)
    kept.begin()
    kept.write(0, "rank 0", "thread")
    kept.heads(4)


def stacks_of_no_attempt(stage: Stage) -> None:
    kept = Stacks(stage.root, failures.life_path(stage.root, 0, "life") / failures.STACKS)
    kept.begin()
    kept.write(0, "rank 0", "thread")
    kept.heads(4)


def given_back(stage: Stage) -> None:
    number = attempts.take_number(stage.root)
    leases.claim(stage.root, number, "policy", stage.lease)
    attempts.give_back(stage.root, number)


def went_back(stage: Stage) -> None:
    untrained.write_untrained(stage.root, stage.attempt, NEW)
    untrained.take_back(stage.root, stage.attempt)


def ran_by_its_name(stage: Stage) -> None:
    fencing.make_own_name(stage.root, stage.attempt, "policy", str(stage.save))
    fencing.take_names(stage.root, "policy", before=9)


def renewed(stage: Stage) -> None:
    with suppress(FileExistsError):
        stage.held()
    leases.renew(stage.root, stage.attempt, "policy", stage.lease)
    leases.release(stage.root, stage.attempt, "policy", stage.lease)


def count_anew(stage: Stage) -> None:
    from megatron_resume.adapter import lives_before  # imports torch

    lives_before.count_anew(stage.root, "token")


def rendered(stage: Stage) -> None:
    script = stage.job.base / "train.py"
    script.write_text("")
    folder = str(stage.job.base / "rendered")
    main(["render", "--engine", "slurm", "--nproc-per-node", "1", "--to", folder, "--", str(script)])


WRITERS: dict[str, Callable[[Stage], object]] = {
    "start": lambda stage: stage.job.attempt(),
    "withdrawn start": lambda stage: attempts.withdraw(stage.root, stage.attempt),
    "start given back": given_back,
    "lease": renewed,
    "untrained": went_back,
    "adopted": lambda s: adopted.write(s.root, 1, adopted.Adopted(role="policy", iteration=3, directory="/x")),
    "events": lambda stage: stage.job.tell(1, Finished()),
    "failure": lambda stage: failures.write_failure(stage.root, "life", FAILURE),
    "failure without attempt": lambda s: failures.write_failure(s.root, "life", _without_attempt()),
    "new budget": count_anew,
    "stacks": stacks,
    "stacks without attempt": stacks_of_no_attempt,
    "point": with_arrays,
    "digests": digested,
    "own name": ran_by_its_name,
    "pruned": lambda stage: stage.removed(models=False),
    "pruned with models": lambda stage: stage.removed(models=True),
    "abandoned models": lambda stage: leftovers.move_away(stage.save, attempt=2, beyond=2),
    "abandoned points": lambda stage: leftovers.move_points_away(stage.root, attempt=2),
    "tracker": lambda stage: leftovers.write_tracker(stage.save, 2),
    "retired tracker": lambda stage: leftovers.retire_tracker(stage.save, attempt=2, beyond=0),
    "index": prompts,
    "verify": verified,
    "endings": launched,
    "rendered": rendered,
    "policy": lambda stage: main(["policy", "init", str(stage.job.base / "policy.yaml")]),
    "report": lambda stage: main(["report", str(stage.root), "--to", str(stage.job.base / "report.html")]),
    "patch": lambda stage: apply(stage.megatron),
    "patch taken back": lambda stage: (apply(stage.megatron), revert(stage.megatron)),
}


def _without_attempt() -> failures.Failure:
    return failures.msgspec.structs.replace(FAILURE, attempt=0)


def link_to_a_file(path: Path, outside: Path) -> None:
    path.symlink_to(outside / "secret")


def link_to_nowhere(path: Path, outside: Path) -> None:
    path.symlink_to(outside / "new")


def link_to_a_folder(path: Path, outside: Path) -> None:
    """With what stood there, so that whoever follows the link finds all as it was."""
    path.symlink_to(outside / "what stood there")


def fifo(path: Path, outside: Path) -> None:
    os.mkfifo(path)


def bound_socket(path: Path, outside: Path) -> None:
    here = os.open(path.parent, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as own:
        own.bind(f"/proc/self/fd/{here}/{path.name}")  # the whole path may be too long
    os.close(here)


def device(path: Path, outside: Path) -> None:
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 7))  # /dev/full
    except PermissionError:
        pytest.skip("only root may make a device")


def folder(path: Path, outside: Path) -> None:
    path.mkdir()
    (path / "of a stranger").write_text("mine")


KINDS = (link_to_a_file, link_to_nowhere, link_to_a_folder, fifo, bound_socket, device, folder)


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "")  # put back at the end, whatever a writer sets
    monkeypatch.setattr(os, "fsync", lambda _: None)  # which takes most of the time, and shows nothing here
    monkeypatch.setattr("megatron_resume.cli.report.can_draw", lambda: False)  # written as the page is


@contextmanager
def hangs_never(what: str) -> Iterator[None]:
    def too_long(*_: object) -> None:
        raise AssertionError(f"{what} waits")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE_S / 10)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def names(base: Path) -> dict[str, tuple[int, int, int]]:
    """Every path, and what tells that it was written."""
    found = {}
    for directory, folders, files in os.walk(base):
        for name in [*folders, *files]:
            info = os.lstat(os.path.join(directory, name))
            found[os.path.relpath(os.path.join(directory, name), base)] = (info.st_ino, info.st_mtime_ns, info.st_size)
    return found


def image(base: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(base)): (path.lstat().st_mode, path.read_bytes() if path.is_file() else b"")
        for path in sorted(base.rglob("*"))
    }


def written(what: str, base: Path) -> list[str]:
    """The names that a writer makes, replaces or takes away, and the folders above them."""
    stage = Stage(base)
    before = names(base)
    WRITERS[what](stage)
    after = names(base)
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    changed |= {os.path.dirname(name) for name in changed}
    ours = [name for name in changed if name and not name.endswith((".tmp", "prompts.jsonl", "train.py"))]
    named_by_a_person = {"data_checkpoint", "checkpoints", "checkpoints/policy", "megatron", "cache", "rendered"}
    return sorted(set(ours) - named_by_a_person - {"cache of the user", "endings"})


@pytest.mark.parametrize(
    "what",
    [pytest.param(what, marks=pytest.mark.torch) if writer is count_anew else what for what, writer in WRITERS.items()],
)
def test_nothing_outside_changes_and_nothing_waits(what: str, tmp_path: Path) -> None:
    ours = written(what, tmp_path / "clean")
    assert ours or what == "start given back"
    fooled = []
    for at, name in enumerate(ours):
        for kind in KINDS:
            base, outside = tmp_path / f"{at} {kind.__name__}", tmp_path / f"outside {at} {kind.__name__}"
            stage = Stage(base)
            (outside / "what stood there").mkdir(parents=True)
            (outside / "secret").write_text("secret")
            plant(kind, base / name, outside)
            before = image(outside)
            with hangs_never(f"{what} at {name}, a {kind.__name__}"), suppress(OSError, ResumeError, EOFError):
                WRITERS[what](stage)
            if image(outside) != before:
                fooled.append((name, kind.__name__))
            shutil.rmtree(base)
    assert fooled == []


def plant(kind: Callable[[Path, Path], None], path: Path, outside: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(path):
        aside = outside / "what stood there"
        aside.rmdir()
        path.rename(aside)
    kind(path, outside)


def test_a_private_folder_of_another_user_is_not_used(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root may give a folder away")
    os.chown(foreign, 65534, 65534)
    with pytest.raises(OSError, match="it belongs to another user"):
        make_private(foreign)


def test_a_private_folder_is_closed_to_others_also_if_it_was_open(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    for name in ("new", "open"):
        make_private(tmp_path / name)
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o700
    (tmp_path / "link").symlink_to(tmp_path / "open")
    with pytest.raises(OSError, match="symbolic link"):
        make_private(tmp_path / "link")


# Where files are opened, made, moved or removed: all else goes through these.
PLACES = {
    "checkpoint/atomic.py": "writes",
    "checkpoint/plain_files.py": "opens",
    "checkpoint/attempts.py": "in a folder from folder_below",
    "checkpoint/fencing.py": "in a folder from folder_below",
    "checkpoint/untrained.py": "in a folder from folder_below",
    "checkpoint/removal.py": "in a folder from folder_below",
    "checkpoint/commit.py": "makes a folder in the one that was named; a link there is refused",
    "checkpoint/launch_key.py": "/proc",
    "processes.py": "/proc",
    "watch/board.py": "memory",
    "watch/kernel.py": "/proc and /dev/kmsg",
    "watch/ended.py": "a folder of mkdtemp",
    "launch/parent.py": "a folder of mkdtemp",
    "cli/policy.py": "a file that a person named",
    "cli/script.py": "a file that a person named",
    "plain_yaml.py": "a file that a person named",
    "checkpoint/links.py": "new files under names that nobody can know",
    "cli/environment.py": "files of installed packages",
    "cli/chatlearn_calls.py": "a file that a person named",
    "cli/launch.py": "/dev/null",
    "cli/__init__.py": "/dev/null",
    "cli/verified.py": "a file in a private folder",
    "data/index_cache.py": "files in a private folder",
    "patching/record.py": "a file of the tree that was named",
    "patching/writing.py": "the tree that was named",
}
ACTS = {"open", "mkdir", "makedirs", "mkfifo", "link", "symlink", "rename", "unlink", "rmdir", "touch", "rmtree"}
ACTS |= {"write_text", "write_bytes", "read_text", "read_bytes", "symlink_to", "hardlink_to", "mkdtemp", "mkstemp"}
ACTS |= {"NamedTemporaryFile", "TemporaryFile", "mktemp", "copyfile", "copytree", "chmod", "chown"}
WHOLE = {"open", "os.remove", "os.truncate", "os.renames", "shutil.copy", "shutil.copy2", "shutil.move"}
OTHERS = {"records.read_bytes", "current.open", "self.open"}  # no calls of the kind


def opens(path: Path) -> bool:
    calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    return any(
        ast.unparse(call) in WHOLE or (isinstance(call, ast.Attribute) and call.attr in ACTS)
        for call in calls
        if ast.unparse(call) not in OTHERS
    )


def test_files_are_opened_where_it_is_known_what_may_stand_there() -> None:
    found = {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if opens(path)}
    assert sorted(found - PLACES.keys()) == []
    assert sorted(PLACES.keys() - found) == []
