"""The stored state of a sampler: where it is, and all that its order follows from."""

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from ..errors import DamagedError
from .fingerprint import Content, Described, Fingerprint
from .history import Change, Order, Rules, Setup
from .numbers import MAX_NUMBER

VERSION = 1
MAX_CHANGES = 1 << 10  # more were not recorded by a job

Position = Annotated[int, msgspec.Meta(ge=0, lt=MAX_NUMBER)]
Size = Annotated[int, msgspec.Meta(ge=1, lt=MAX_NUMBER)]


class ChangeState(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A recorded change: what became different at position `at`."""

    at: Position
    sizes: tuple[Size, ...] | None = None
    weights: tuple[float, ...] | None = None
    samples_per_episode: Size | None = None


class State(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `EpisodeSampler.state_dict` returns; sizes, weights and episodes are those that the job began with."""

    version: int
    consumed_samples: Position
    seed: Position
    shuffle: bool
    drop_last: bool
    sizes: tuple[Size, ...]
    weights: tuple[float, ...]  # none: by size
    samples_per_episode: Size
    changes: Annotated[tuple[ChangeState, ...], msgspec.Meta(max_length=MAX_CHANGES)]
    datasets: tuple[Content, ...]  # as they are after the last change
    described: Described


class Saved(msgspec.Struct, frozen=True):
    """What a state says."""

    consumed_samples: int
    order: Order
    contents: tuple[Content, ...]
    described: Described

    @property
    def fingerprint(self) -> Fingerprint:
        return Fingerprint(self.order.rules, self.order.setup, self.contents, self.described)


def packed(saved: Saved) -> dict[str, Any]:
    """As plain values for JSON: 256 bytes, 256 for each dataset, for each change and each number in it, at most, and
    what the job described."""
    first, *changes = saved.order.history
    befores = [change.setup for change in saved.order.history]
    state = State(
        version=VERSION,
        consumed_samples=saved.consumed_samples,
        **saved.order.rules._asdict(),
        **first.setup._asdict(),
        changes=tuple(_changed(before, change) for before, change in zip(befores, changes, strict=False)),
        datasets=saved.contents,
        described=saved.described,
    )
    found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(state))  # lists instead of tuples
    return found


def unpacked(state: Mapping[str, Any]) -> Saved:
    """What `packed` made a state of.

    Raises:
        DamagedError: Nothing that `packed` makes: of a later version, torn, or with numbers that make no order.
    """
    version = state.get("version") if isinstance(state, Mapping) else None
    if type(version) is int and version > VERSION:
        raise DamagedError(
            f"the state of the sampler is of version {version}, and this release reads up to {VERSION}; install the "
            "release that saved it, or a later one"
        )
    try:
        found = msgspec.convert(state, State)
        order = Order(Rules(found.seed, found.shuffle, found.drop_last), tuple(_history(found)))
    except (msgspec.ValidationError, ValueError) as error:
        raise DamagedError(f"the state of the sampler is damaged: {error}; restore the point from a backup") from error
    if found.version != VERSION or len(found.datasets) not in (0, len(order.setup.sizes)):
        raise DamagedError("the state of the sampler is damaged: its parts do not fit; restore the point from a backup")
    return Saved(found.consumed_samples, order, found.datasets, found.described)


def _changed(before: Setup, change: Change) -> ChangeState:
    new: dict[str, Any] = {
        name: value for name, value, old in zip(Setup._fields, change.setup, before, strict=True) if value != old
    }
    return ChangeState(at=change.at, **new)


def _history(state: State) -> list[Change]:
    history = [Change(0, Setup(state.sizes, state.samples_per_episode, state.weights))]
    for change in state.changes:
        new = {name: getattr(change, name) for name in Setup._fields if getattr(change, name) is not None}
        history.append(Change(change.at, history[-1].setup._replace(**new)))
    return history
