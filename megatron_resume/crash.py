"""Named places where a test or the demo can end this process as a power cut would.

`MEGATRON_RESUME_CRASH=point[@what][:nth]` sends SIGKILL to the process when it comes to that place for the
nth time (the first when not given). `what` is a role, the name of the file that is written, or the kind of
an event. Unset, a crash point is one comparison.
"""

import os
import signal
import sys

from .errors import ConfigError

VARIABLE = "MEGATRON_RESUME_CRASH"

POINTS = {
    "train_step": "before Megatron's train step (of a role)",
    "save.begin": "before Megatron's save (of a role), with its moment captured",
    "save.end": "after Megatron's save returned (of a role)",
    "model.synced": "after the files of a role's model were made durable and recorded",
    "data.end": "after the data of a point was written by a process that trains no role",
    "write.begin": "before a file is written under its temporary name",
    "write.written": "after that, before its fsync",
    "write.synced": "after its fsync, before it gets its name",
    "write.named": "after it was linked or renamed to its name",
    "write.end": "after its folder's fsync",
    "move.begin": "before a file or folder is moved aside or back",
    "move.renamed": "after that, before its folders' fsync",
    "move.end": "after their fsync",
    "name.taken": "after an earlier attempt's name for a role's save folder was taken away",
    "name.made": "after this attempt's own was made, before a newer attempt is looked for",
    "commit.end": "after COMMITTED is durable, before anybody is told",
    "event.begin": "before an event (of a kind) is added to its file",
    "event.torn": "with half of its line written",
    "event.end": "after its fsync",
    "attempt.numbered": "after an attempt's folder was made, before it is begun",
    "attempt.held": "after the places of its roles are taken",
    "attempt.begun": "after start.json is durable, before save folders are put in order",
    "lineage.claimed": "after an attempt that went back became the lineage, before it moves newer models aside",
    "prune.hidden": "after a point that is to be removed is out of readers' sight",
    "prune.model": "after the model of a removed point (of a role) is deleted, or left",
    "prune.end": "after all files of a removed point are deleted",
    "start.end": "after the save folders were put in order, before Megatron loads",
}

_wanted: tuple[str, str | None, int] | None = None
_seen = 0


def _parse(text: str) -> tuple[str, str | None, int]:
    place, _, nth = text.partition(":")
    name, _, what = place.partition("@")
    if name not in POINTS or not (nth or "1").isdecimal():
        raise ConfigError(f"{VARIABLE} is {text!r}; write point[@what][:nth] with one of {', '.join(POINTS)}")
    return name, what or None, int(nth or 1)


def arm(text: str | None) -> None:
    """Crash at the place that `text` names, counted from now; `None` or "" disarms."""
    global _wanted, _seen
    _wanted = _parse(text) if text else None
    _seen = 0


def is_armed(name: str) -> bool:
    """Whether this place was asked for: one that has to break something first asks before it does."""
    return _wanted is not None and _wanted[0] == name


def crash_point(name: str, what: str | None = None) -> None:
    """Die here if this place was asked for."""
    if _wanted is None:
        return
    _die_if_wanted(name, what)


def _die_if_wanted(name: str, what: str | None) -> None:
    global _seen
    assert _wanted is not None
    wanted_name, wanted_what, nth = _wanted
    if name != wanted_name or (wanted_what is not None and what != wanted_what):
        return
    _seen += 1
    if _seen == nth:
        at = f"{name}@{what}" if what else name
        print(f"megatron_resume: crash point {at} (time {nth}): SIGKILL", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)


arm(os.environ.get(VARIABLE))
