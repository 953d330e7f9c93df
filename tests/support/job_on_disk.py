"""A job's folders as the package itself writes them, without Megatron: for tests of what is on disk."""

import os
from pathlib import Path

from megatron_resume.checkpoint import commit
from megatron_resume.checkpoint.attempts import take_number, write_start
from megatron_resume.checkpoint.digests import compute, write_digests
from megatron_resume.checkpoint.events import Committed, Event, append, events_path
from megatron_resume.checkpoint.failures import Failure
from megatron_resume.checkpoint.folder import Folder, ResumePoint, read_folder, read_point
from megatron_resume.checkpoint.layout import PointName, attempt_path, model_folder, point_path, receipt_file
from megatron_resume.checkpoint.model_files import record_files
from megatron_resume.checkpoint.records import DataCheckpoint, Launch, Moment, Receipt, Request, Start, read
from megatron_resume.resume.choose import Outcome, choose
from megatron_resume.roles import TRAINED

SAMPLES = 16  # consumed per iteration
TIME = "2026-01-01T00:00:00+00:00"
FAILURE = Failure(
    rank=1,
    host="node7",
    pid=1,
    job="job",
    attempt=1,
    after=0,
    how="error",
    error="RuntimeError",
    message="the network is down",
    exit_code=1,
    signal=None,
    fatal=False,
    phase="train",
    iteration=0,
    silent_s=0.0,
    trained_s=0.0,
    loading=None,
    versions={},
    kernel=None,
    time_s=0.0,
)


class JobOnDisk:
    """One job below `base`; every number is derived from iteration and attempt, so tests can foretell them."""

    def __init__(self, base: Path, roles: tuple[str, ...] = TRAINED, saved_at: Path | None = None):
        """`saved_at` is where the receipts say that `base` was, for jobs that were moved since."""
        self.base, self.roles, self.saved_at = base, roles, saved_at or base
        self.num_shards = 1  # of each model
        self.shard_size: int | None = None  # bytes of a shard of policy; most of them in no block on the disk
        self.root = base / "data_checkpoint"
        self.root.mkdir(parents=True, exist_ok=True)

    def launch(self, job: str = "job") -> Launch:
        return Launch(job=job, restart=0, counts=False, host="node0", pid=1, boot="", started="")

    def attempt(
        self,
        parent: PointName | None = None,
        *,
        requested: Request | None = None,
        job: str = "job",
        created: str = TIME,
        number: int | None = None,
    ) -> int:
        """Begin the next attempt; `number` spares a look at all before it."""
        if number is None:
            number = take_number(self.root)
        else:
            attempt_path(self.root, number).mkdir(parents=True)
        start = Start(
            attempt=number,
            nonce=f"nonce of {number}",
            outcome="resume" if parent else "fresh",
            parent=parent,
            ancestry=(parent.attempt,) if parent else (),
            requested=requested or Request(),
            launch=self.launch(job),
            versions={},
            config={"trained_roles": list(self.roles), "resume_lease_time": 30},
            created=created,
        )
        write_start(self.root, start)
        return number

    def save_folder(self, role: str) -> Path:
        return self.base / "checkpoints" / role

    def model(self, role: str, iteration: int) -> Path:
        return self.save_folder(role) / model_folder(iteration)

    def save_model(self, role: str, name: PointName) -> Path:
        """What Megatron would write."""
        folder = self.model(role, name.iteration)
        folder.mkdir(parents=True)
        for shard in range(self.num_shards):
            (folder / f"__{shard}_0.distcp").write_bytes(f"weights of {role} at {name}".encode())
        if role == "policy" and self.shard_size is not None:
            os.truncate(folder / "__0_0.distcp", self.shard_size)
        (folder / ".metadata").write_bytes(b"which tensor lies where")
        (self.save_folder(role) / "latest_checkpointed_iteration.txt").write_text(str(name.iteration))
        return folder

    def write_receipt(self, role: str, name: PointName, progress: Moment | None = None) -> None:
        commit.write_receipt(point_path(self.root, name), self.receipt(role, name, progress or self.progress(name)))

    def receipt(self, role: str, name: PointName, progress: Moment) -> Receipt:
        files = record_files(self.save_model(role, name))
        return Receipt(
            role=role,
            iteration=name.iteration,
            attempt=name.attempt,
            nonce=f"nonce of {name.attempt}",
            directory=str(self.saved_at / "checkpoints" / role),
            relative=f"../checkpoints/{role}",
            format="torch_dist",
            files=files,
            progress=progress,
            consumed_train_samples=name.iteration * SAMPLES,
            scheduler_steps=name.iteration * SAMPLES,
            versions={},
            arguments={},
        )

    def progress(self, name: PointName) -> Moment:
        return Moment(episode=name.iteration, consumed_samples=name.iteration * SAMPLES)

    def write_data(self, name: PointName) -> None:
        commit.write_data(point_path(self.root, name), self.data(name), None)

    def data(self, name: PointName) -> DataCheckpoint:
        return DataCheckpoint(
            iteration=name.iteration,
            attempt=name.attempt,
            nonce=f"nonce of {name.attempt}",
            progress=self.progress(name),
            tracked={"kl": {"coefficient": 0.1}},
            rng=None,
            fingerprints={},
        )

    def save(
        self, attempt: int, iteration: int, *, parts: tuple[str, ...] | None = None, time: str = TIME
    ) -> PointName:
        """Save a point; `parts` leaves some out: roles, "data", "commit"."""
        name = PointName(iteration, attempt)
        point = commit.open_point(self.root, name)
        parts = parts if parts is not None else (*self.roles, "data", "commit")
        for role in self.roles:
            if role in parts:
                self.write_receipt(role, name)
        if "data" in parts:
            self.write_data(name)
        if "commit" in parts:
            commit.commit(point, name, nonce=f"nonce of {attempt}", roles=self.roles)
            self.tell(attempt, Committed(iteration=iteration, time=time))
        return name

    def keep_digests(self, name: PointName) -> None:
        """Record the digests of large files, as a running job does after the commit."""
        for role in self.roles:
            receipt = read(point_path(self.root, name) / receipt_file(role), Receipt)
            write_digests(self.root, compute(self.model(role, name.iteration), receipt, lambda size: None))

    def events(self, attempt: int) -> Path:
        return events_path(self.root, attempt, self.roles[0])

    def tell(self, attempt: int, event: Event) -> None:
        """Add an event to those of the one process that holds all roles."""
        append(self.events(attempt), event)

    def folder(self) -> Folder:
        return read_folder(self.root)

    def point(self, name: PointName) -> ResumePoint:
        return read_point(self.root, name, self.roles)

    def choose(self, request: Request | None = None, job: str = "a new job") -> Outcome:
        return choose(self.folder(), request or Request(), self.launch(job), self.point)


def contents(base: Path) -> dict[str, bytes | None]:
    """Every path below `base` with its bytes: to show that nothing changed."""
    found: dict[str, bytes | None] = {}
    for folder, folders, files in os.walk(base):
        for name in [*folders, *files]:
            path = os.path.join(folder, name)
            found[os.path.relpath(path, base)] = Path(path).read_bytes() if os.path.isfile(path) else None
    return found
