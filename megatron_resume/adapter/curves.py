"""TensorBoard curves that continue after a resume instead of doubling back."""

import logging

logger = logging.getLogger("megatron_resume")

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
