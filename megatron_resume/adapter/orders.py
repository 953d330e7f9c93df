"""Orders that prompts are drawn in: saved at the job's consumed samples, wherever a loader has drawn ahead to."""

import logging
import sys
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from ..errors import DamagedError, MismatchError

logger = logging.getLogger("megatron_resume")

PROOF = "last_samples"  # in the fingerprints of a data checkpoint: digest of the last samples that were drawn


class Order(Protocol):
    """Its position is the job's consumed samples."""

    def state_at(self, consumed_samples: int) -> dict[str, Any]:
        """What brings a new object of the same arguments to this position."""

    def restore(self, state: Any, on_dataset_change: str) -> str | None:
        """Continue from `state`; what changed since, in one line.

        Raises:
            DamagedError: `state` is none.
            MismatchError: The order would not go on as it was.
        """

    def move_to(self, consumed_samples: int) -> None:
        """The job has come to here, between two episodes."""

    def proof_at(self, consumed_samples: int) -> Callable[[], str] | None:
        """What computes the digest of the last samples before this position; None where that would take long."""


def order_of(obj: object) -> Order | None:
    """How `obj` follows consumed samples; None for what is no sampler that can."""
    module = sys.modules.get("megatron_resume.data.episode_sampler")  # who has none has not imported it
    if module is not None and isinstance(obj, module.EpisodeSampler):
        return EpisodeOrder(obj)
    names = {kind.__name__ for kind in type(obj).__mro__ if kind.__module__.startswith("megatron.")}
    if "MegatronPretrainingRandomSampler" in names:
        return RandomOrder(obj)
    return SequentialOrder(obj) if "MegatronPretrainingSampler" in names else None


class EpisodeOrder:
    """`megatron_resume.data.EpisodeSampler`: one order of the whole job, whatever the ranks."""

    def __init__(self, sampler: Any) -> None:
        self.sampler = sampler
        self._was_at = sampler.consumed_samples  # when it was moved from here, or tracked
        self._has_warned = False

    def state_at(self, consumed_samples: int) -> dict[str, Any]:
        state: dict[str, Any] = self.sampler.state_dict(consumed_samples)
        return state

    def restore(self, state: Any, on_dataset_change: str) -> str | None:
        change = self.sampler.load_state_dict(state, on_dataset_change=on_dataset_change)
        self._was_at = self.sampler.consumed_samples
        return str(change) if change else None

    def move_to(self, consumed_samples: int) -> None:
        given = self.sampler.consumed_samples
        is_drawn_from = given != self._was_at  # itself: to draw by for_rank does not move it
        if given > consumed_samples or (is_drawn_from and given < consumed_samples):
            self._warn(given, consumed_samples)
        self.sampler.seek(consumed_samples)
        self._was_at = consumed_samples

    def _warn(self, given: int, used: int) -> None:
        if not self._has_warned:
            self._has_warned = True
            logger.warning(
                "the sampler gave prompts up to sample %d, and the job says that it used %d: those between %s. Let "
                "advance() count all that was taken, and nothing else. A DataLoader takes "
                "batch_sampler=sampler.for_rank(...), since its workers would move the sampler itself ahead of the "
                "training; what is not the order of the prompts is tracked with own_position=True",
                given,
                used,
                "come again" if given > used else "are skipped",
            )

    def proof_at(self, consumed_samples: int) -> Callable[[], str] | None:
        return lambda: str(self.sampler.proof(consumed_samples))


class SequentialState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of Megatron's sampler in the order of the dataset."""

    total_samples: int
    consumed_samples: int


class SequentialOrder:
    """Megatron's `MegatronPretrainingSampler`: 0, 1, 2 ... over all ranks, however many there are."""

    def __init__(self, sampler: Any) -> None:
        self.sampler = sampler

    def state_at(self, consumed_samples: int) -> dict[str, Any]:
        return {"total_samples": int(self.sampler.total_samples), "consumed_samples": consumed_samples}

    def restore(self, state: Any, on_dataset_change: str) -> str | None:
        saved = _decoded(state, SequentialState)
        change = _change_of_size(saved.total_samples, int(self.sampler.total_samples), on_dataset_change)
        self.sampler.consumed_samples = saved.consumed_samples
        return change

    def move_to(self, consumed_samples: int) -> None:
        """Megatron's iterator counts by itself."""

    def proof_at(self, consumed_samples: int) -> None:
        return None


class RandomState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of Megatron's shuffling sampler, whose order depends on all of these."""

    total_samples: int
    consumed_samples: int
    micro_batch_size: int
    data_parallel_size: int
    data_sharding: bool


class RandomOrder:
    """Megatron's `MegatronPretrainingRandomSampler`."""

    def __init__(self, sampler: Any) -> None:
        self.sampler = sampler

    def state_at(self, consumed_samples: int) -> dict[str, Any]:
        sampler = self.sampler
        return {
            "total_samples": int(sampler.total_samples),
            "consumed_samples": consumed_samples,
            "micro_batch_size": int(sampler.micro_batch_size),
            "data_parallel_size": int(sampler.data_parallel_size),
            "data_sharding": bool(sampler.data_sharding),
        }

    def restore(self, state: Any, on_dataset_change: str) -> str | None:
        saved = _decoded(state, RandomState)
        now = _decoded(self.state_at(saved.consumed_samples), RandomState)
        if saved.total_samples != now.total_samples:
            _change_of_size(saved.total_samples, now.total_samples, "refuse", "the whole order depends on it")
        problem = _problem_of_random(saved, now)
        if problem:
            raise MismatchError(
                f"Megatron's random sampler {problem}: samples would be lost and repeated silently. Start with "
                f"{saved.data_parallel_size} data-parallel ranks and --micro-batch-size {saved.micro_batch_size}; or "
                "draw by megatron_resume.data.EpisodeSampler, whose order depends on neither"
            )
        self.sampler.consumed_samples = saved.consumed_samples
        return None

    def move_to(self, consumed_samples: int) -> None:
        """Megatron's iterator counts by itself."""

    def proof_at(self, consumed_samples: int) -> None:
        return None


def _problem_of_random(saved: RandomState, now: RandomState) -> str | None:
    """Why the sampler would not go on where it was.

    It cuts an epoch to whole global batches, counts epochs by that length, and shuffles whole micro batches; with
    data sharding each rank shuffles a bucket of its own.
    """
    if saved.data_sharding != now.data_sharding:
        return f"was saved {_sharding(saved)}, and is now {_sharding(now)}"
    if saved.micro_batch_size != now.micro_batch_size:
        return f"shuffled micro batches of {saved.micro_batch_size}, and now of {now.micro_batch_size}"
    if saved.data_parallel_size == now.data_parallel_size:
        return None
    changed = f"{saved.data_parallel_size} ranks, and now of {now.data_parallel_size}"
    if saved.data_sharding:
        return f"with data sharding shuffled a bucket for each of {changed}"
    if _epoch(saved) != _epoch(now):
        return f"counted epochs of {_epoch(saved)} samples on {changed} has epochs of {_epoch(now)}"
    if saved.consumed_samples % _epoch(saved) % _batch(now):
        return f"stands inside a batch of this run, after batches of {changed}"
    return None


def _sharding(state: RandomState) -> str:
    return "with data sharding" if state.data_sharding else "without data sharding"


def _batch(state: RandomState) -> int:
    return state.micro_batch_size * state.data_parallel_size


def _epoch(state: RandomState) -> int:
    return max(1, state.total_samples - state.total_samples % max(1, _batch(state)))


def _change_of_size(saved: int, now: int, on_dataset_change: str, why: str = "") -> str | None:
    """What to say of a dataset of another size; it may grow under "append", at its end."""
    if saved == now:
        return None
    if now > saved and on_dataset_change == "append":
        return f"the dataset had {saved} samples at the save and has {now}: 0 repeated, 0 skipped, {now - saved} new"
    fix = "type --on-dataset-change append if the new ones are at its end" if now > saved and not why else "restore it"
    raise MismatchError(
        f"the dataset had {saved} samples when this was saved, and has {now} now{f'; {why}' if why else ''}: {fix}"
    )


def _decoded(state: Any, kind: Any) -> Any:
    try:
        return msgspec.convert(state, kind)
    except msgspec.ValidationError as error:
        raise DamagedError(f"the state of a sampler is damaged: {error}") from error


def check_proof(name: str, order: Order, saved: Any, consumed_samples: int) -> None:
    """Compare `order` with what was proven of it at this position when it was saved.

    Raises:
        MismatchError: It would have drawn other prompts until here, so it would go on with others, too.
    """
    proof = order.proof_at(consumed_samples)
    if proof is None or not isinstance(saved, dict) or PROOF not in saved:
        return
    found = proof()
    if found != saved[PROOF]:
        raise MismatchError(
            f"the order of {name!r} is not the one that was saved: of the prompts before sample {consumed_samples} it "
            f"proves {found:.16}, the resume point {saved[PROOF]!s:.16}; continue with the release of megatron_resume "
            "that saved it, or begin anew with --start-over"
        )
