"""How the ranks on this node ended: what a launch engine does not pass on.

torchrun turns every failure into exit code 1. `launch` makes a folder for each start of its engine and names it in the
environment; the watchdog of each rank writes into it what ended its rank.
"""

import contextlib
from pathlib import Path

import msgspec

from ..checkpoint.atomic import replace
from ..checkpoint.plain_files import open_plain

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
    with contextlib.suppress(OSError):  # the folder is gone with `launch`
        replace(Path(folder, f"{pid}{_SUFFIX}"), msgspec.json.encode(ending))


def read_endings(folder: Path) -> list[RankEnding]:
    """All that were written so far, the earliest first: the first one is the cause of the others."""
    found = []
    for path in folder.glob(f"*{_SUFFIX}"):
        try:
            with open_plain(path) as file:
                found.append(msgspec.json.decode(file.read(_MAX_BYTES), type=RankEnding))
        except (OSError, msgspec.MsgspecError):
            continue
    return sorted(found, key=lambda ending: ending.time_s)


def ask_to_stop(folder: Path, signal: str) -> None:
    """`launch` tells its ranks that the job is to end, before it has them signalled: no rank failed.

    Args:
        signal: that came to `launch`; its ranks get SIGTERM.
    """
    replace(folder / _STOP, signal.encode())


def asked_to_stop_by(folder: str) -> str:
    """The signal that came to `launch`; "" where none did. `folder` is "" where nothing launched us."""
    if not folder:
        return ""
    try:
        with open_plain(Path(folder, _STOP)) as file:
            return file.read(_MAX_BYTES).decode(errors="replace")
    except OSError:
        return ""
