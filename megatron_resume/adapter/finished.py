"""What one save of a role is, from Megatron's end of it until it is committed."""

from collections.abc import Callable
from typing import Any

import msgspec

from ..checkpoint.arrays import Arrays
from ..checkpoint.layout import PointName
from ..checkpoint.records import DataCheckpoint, Moment, Unknown
from .gathering import Gathered
from .handed_in import HandedIn

Proofs = dict[str, Callable[[], str]]  # of the orders that prompts are drawn in, by name


class FinishedSave(msgspec.Struct, frozen=True, kw_only=True):
    """One role's model checkpoint that Megatron finished, with all that was captured when it began."""

    name: PointName
    nonce: str
    role: str
    save: str  # the role's save folder, resolved
    format: str
    progress: Moment | Unknown
    consumed_train_samples: int
    scheduler_steps: int | None
    versions: dict[str, str]
    arguments: dict[str, Any]  # plain: secrets are sealed by the writer
    data: DataCheckpoint | None  # where this save completes what this process holds
    arrays: Arrays
    states: Gathered | None = None  # of all ranks, to go into `data`
    proofs: Proofs = {}  # to go into `data`
    tensors: HandedIn = msgspec.field(default_factory=HandedIn)  # of all ranks, to go into the receipt
    problem: str | None = None  # why it cannot be committed, where that is known already
    loses_work: bool = True  # False: no train step of it has changed anything yet
