"""How the ranks on this node ended: what a launch engine does not pass on.

torchrun turns every failure into exit code 1. `launch` makes a folder for each start of its engine and names it in the
environment; the watchdog of each rank writes into it what ended its rank.
"""

import contextlib
import os
from pathlib import Path

import msgspec

VARIABLE = "MEGATRON_RESUME_ENDINGS"
_MAX_BYTES = 64 << 10
_SUFFIX = ".ending.json"
_STOP = "asked_to_stop"


class RankEnding(msgspec.Struct, frozen=True, kw_only=True):
    """A rank of this node ended, and not well."""

    rank: int
    restart: int  # how often the engine had restarted the ranks before
    exit_code: int  # 201 for a hang, 128 and the signal's number for a signal
    error: str  # class of the exception, "hang", or ""
    message: str
    fatal: bool  # no restart would mend it
    root: str  # the data checkpoint folder; "" where it was not known yet
    time_s: float  # on the clock that all processes of a machine share


def write_ending(folder: str, pid: int, ending: RankEnding) -> None:
    """Tell `launch`; process `pid` was the rank. Whatever fails here is no reason to end otherwise."""
    path = Path(folder, f"{pid}{_SUFFIX}")
    new = path.with_suffix(".tmp")
    with contextlib.suppress(OSError):  # the folder is gone with `launch`
        new.write_bytes(msgspec.json.encode(ending))
        os.replace(new, path)


def read_endings(folder: Path) -> list[RankEnding]:
    """All that were written so far, the earliest first: the first one is the cause of the others."""
    found = []
    for path in folder.glob(f"*{_SUFFIX}"):
        try:
            found.append(msgspec.json.decode(path.read_bytes()[:_MAX_BYTES], type=RankEnding))
        except (OSError, msgspec.MsgspecError):
            continue
    return sorted(found, key=lambda ending: ending.time_s)


def ask_to_stop(folder: Path, signal: str) -> None:
    """`launch` tells its ranks that the job is to end, before it has them signalled: no rank failed.

    Args:
        signal: that came to `launch`; its ranks get SIGTERM.
    """
    new = folder / f"{_STOP}.tmp"
    new.write_text(signal)
    os.replace(new, folder / _STOP)


def asked_to_stop_by(folder: str) -> str:
    """The signal that came to `launch`; "" where none did. `folder` is "" where nothing launched us."""
    if not folder:
        return ""
    try:
        return Path(folder, _STOP).read_text()
    except OSError:
        return ""
