"""Curves of TensorBoard and W&B: those of a resumed run do not double back, and some tell how the job fares."""

from pathlib import Path
from typing import Any

from ..checkpoint.events import events_path, read_events
from ..checkpoint.folder import read_start
from . import background

_FILE_VERSION = "brain.Event:2"  # TensorBoard purges only in files that declare it


def continue_after(iteration: int) -> None:
    """Tell TensorBoard, through Megatron's writer, to drop what was logged after `iteration`.

    A killed attempt logged iterations that are now run again. This is the event that
    `SummaryWriter(purge_step=...)` writes; Megatron makes its writer without one.
    """
    from megatron.training import get_tensorboard_writer

    writer = get_tensorboard_writer()
    if writer is None or getattr(writer, "file_writer", None) is None:
        return
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog

    start = SessionLog(status=SessionLog.START)
    writer.file_writer.add_event(Event(file_version=_FILE_VERSION), step=iteration + 1)
    writer.file_writer.add_event(Event(session_log=start), step=iteration + 1)


def report(root: Path, attempt: int, role: str, iteration: int) -> None:
    """Plot how the job fares by now, on the rank that has Megatron's writers; training does not wait for it.

    `resume/attempt`, `resume/lost_iterations` (run again since the attempt before died) and `resume/commit_lag_s`
    (from the end of the last committed save until its commit).
    """
    from megatron.training import global_vars

    writers = [getattr(global_vars, f"get_{name}_writer", lambda: None)() for name in ("tensorboard", "wandb")]
    if any(writers):
        background.submit(lambda: _plot(writers, _scalars(root, attempt, role), iteration))


def _scalars(root: Path, attempt: int, role: str) -> dict[str, float]:
    found = {"resume/attempt": float(attempt)}
    found["resume/lost_iterations"] = float(read_start(root, attempt).lost_iterations)
    last = read_events(events_path(root, attempt, role)).last_commit
    if last is not None and last.lag_s is not None:
        found["resume/commit_lag_s"] = last.lag_s
    return found


def _plot(writers: list[Any], scalars: dict[str, float], iteration: int) -> None:
    tensorboard, wandb = writers
    for name, value in scalars.items() if tensorboard else ():
        tensorboard.add_scalar(name, value, iteration)
    if wandb:
        wandb.log(scalars, iteration)
