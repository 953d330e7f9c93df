"""Saves as the training thread hands them to the writer."""

from megatron_resume.adapter.finished import FinishedSave
from megatron_resume.checkpoint import commit
from megatron_resume.checkpoint.fencing import make_own_name, own_name
from megatron_resume.checkpoint.layout import PointName
from megatron_resume.checkpoint.records import DataCheckpoint, Moment

from .job_on_disk import JobOnDisk


def finished(job: JobOnDisk, role: str, name: PointName, moment: Moment | None = None) -> FinishedSave:
    """What the training thread hands on after Megatron saved `role`; value's save completes the process's roles."""
    commit.open_point(job.root, name)
    job.save_model(role, name)
    reach_save_folder(job, role, name.attempt)
    moment = moment or job.progress(name)
    data = DataCheckpoint(
        iteration=name.iteration,
        attempt=name.attempt,
        nonce="n",
        progress=moment,
        tracked={},
        rng=None,
        fingerprints={},
    )
    return FinishedSave(
        name=name,
        nonce="n",
        role=role,
        save=str(job.save_folder(role)),
        format="torch_dist",
        progress=moment,
        consumed_train_samples=0,
        scheduler_steps=0,
        versions={},
        arguments={},
        data=data if role == "value" else None,
        arrays={},
    )


def reach_save_folder(job: JobOnDisk, role: str, attempt: int) -> None:
    link = own_name(job.root, attempt, role)
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink():
        make_own_name(job.root, attempt, role, str(job.save_folder(role)))
