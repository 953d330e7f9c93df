"""Named places where a test or the demo can end this process as a power cut would.

`MEGATRON_RESUME_CRASH=point[@role][:nth]` sends SIGKILL to the process when it comes to that place
for the nth time (the first when not given). Unset, a crash point is one comparison.
"""

import os
import signal
import sys

VARIABLE = "MEGATRON_RESUME_CRASH"

_wanted: tuple[str, str | None, int] | None = None
_seen = 0


def _parse(text: str) -> tuple[str, str | None, int]:
    name, _, nth = text.partition(":")
    name, _, role = name.partition("@")
    return name, role or None, int(nth or 1)


def arm(text: str | None) -> None:
    """Crash at the place that `text` names, counted from now; `None` or "" disarms."""
    global _wanted, _seen
    _wanted = _parse(text) if text else None
    _seen = 0


def crash_point(name: str, role: str | None = None) -> None:
    """Die here if this place was asked for."""
    if _wanted is None:
        return
    _die_if_wanted(name, role)


def _die_if_wanted(name: str, role: str | None) -> None:
    global _seen
    assert _wanted is not None
    wanted_name, wanted_role, nth = _wanted
    if name != wanted_name or (wanted_role is not None and role != wanted_role):
        return
    _seen += 1
    if _seen == nth:
        at = f"{name}@{role}" if role else name
        print(f"megatron_resume: crash point {at} (time {nth}): SIGKILL", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)


arm(os.environ.get(VARIABLE))
