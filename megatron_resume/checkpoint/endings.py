"""How the processes of an attempt ended: their events, and what their leases tell where no ending is recorded."""

from collections.abc import Iterable
from pathlib import Path

import msgspec

from ..errors import UnreadableError
from ..roles import TRAINED
from . import events, leases
from .records import Launch
from .storage import patience


class ProcessEnd(msgspec.Struct, frozen=True, kw_only=True):
    """How one process of an attempt ended, as far as it can be told now."""

    roles: tuple[str, ...]  # that it held
    state: str  # "finished", "failed", "stopped"; else "released" (its lease), "running", "killed", "unknown"
    event: events.Ending | None
    host: str | None
    pid: int | None
    damage: str | None  # of its events file


def process_ends(root: Path, attempt: int, roles: Iterable[str]) -> list[ProcessEnd]:
    """One for each process that held any of the trained `roles`, in their order. Waits for nothing, never raises."""
    held: dict[Launch | str, list[str]] = {}
    found = {role: lease_of(root, attempt, role) for role in roles if role in TRAINED}
    for role, lease in found.items():
        held.setdefault(lease.holder if lease else role, []).append(role)
    ends = [_process_end(root, attempt, tuple(of_one), found[of_one[0]]) for of_one in held.values()]
    return [end for end in ends if end is not None]


def lease_of(root: Path, attempt: int, role: str) -> leases.Lease | None:
    """For people, who do not wait: None also where the storage does not give it."""
    try:
        with patience(0):
            return leases.read_lease(root, attempt, role)
    except UnreadableError:
        return None


def _process_end(root: Path, attempt: int, roles: tuple[str, ...], lease: leases.Lease | None) -> ProcessEnd | None:
    path = events.events_path(root, attempt, roles[0])
    told = events.read_events(path)
    if lease is None and told == events.Events():
        return None  # nobody took its place
    return ProcessEnd(
        roles=roles,
        state=_state(told.ending, lease),
        event=told.ending,
        host=lease.holder.host if lease else None,
        pid=lease.holder.pid if lease else None,
        damage=told.damage,
    )


def _state(ending: events.Ending | None, lease: leases.Lease | None) -> str:
    if ending is not None:
        return str(ending.__struct_config__.tag)
    if lease is not None and lease.released:
        return "released"
    alive = leases.seems_alive(lease) if lease else None
    return {True: "running", False: "killed", None: "unknown"}[alive]
