"""What a sampler was given, checked before any work."""

import math
import numbers
from collections.abc import Iterable, Mapping, Sequence

from ..errors import ConfigError
from .fingerprint import Dataset, Described
from .history import Rules, Setup, unfit
from .numbers import MAX_NUMBER, whole

MAX_DESCRIBED = 16  # things; each in the state of every save
MAX_TEXT = 256  # characters


def checked_setup(
    rules: Rules, sizes: Iterable[object], samples_per_episode: object, weights: Sequence[float] | None
) -> Setup:
    """Raises ConfigError for numbers that make no order, and says what to give."""
    setup = Setup(
        tuple(whole(f"the size of dataset {number}", size, least=1) for number, size in enumerate(sizes)),
        whole("samples_per_episode", samples_per_episode, least=1),
        tuple(_weight(number, weight) for number, weight in enumerate(weights if weights is not None else ())),
    )
    why_not = unfit(rules, setup)
    if weights is not None and len(setup.weights) == 0:
        why_not = why_not or "weights is empty; give one for each dataset, or None to mix by size"
    if why_not:
        raise ConfigError(why_not)
    try:
        setup.slots()
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return setup


def _weight(number: int, weight: object) -> float:
    if isinstance(weight, bool) or not isinstance(weight, numbers.Real):
        raise ConfigError(f"the weight of dataset {number} is {weight!r}; give a number above 0")
    return float(weight)


def checked_datasets(datasets: Sequence[Dataset] | Dataset | None, sizes: Sequence[int]) -> tuple[Dataset, ...]:
    """One dataset for each size, or none at all; ConfigError where they differ."""
    if datasets is None:
        return ()
    found: tuple[Dataset, ...] = (datasets,) if hasattr(datasets, "digest") else tuple(datasets)  # type: ignore[assignment]
    if len(found) != len(sizes):
        raise ConfigError(f"{len(found)} datasets and {len(sizes)} sizes; give the size of each dataset")
    for number, (dataset, size) in enumerate(zip(found, sizes, strict=True)):
        if len(dataset) != size:
            raise ConfigError(
                f"the size of dataset {number} is {size:,}, but {dataset.name} has {len(dataset):,} rows; "
                "give len(dataset)"
            )
    return found


def checked_description(described: Mapping[str, str | int | float]) -> Described:
    """As plain values of Python; ConfigError for what is no short one."""
    if len(described) > MAX_DESCRIBED:
        raise ConfigError(f"described has {len(described)} entries; give {MAX_DESCRIBED} at most")
    for name, value in described.items():
        if not isinstance(name, str) or not _is_text(name) or not _is_plain(value):
            raise ConfigError(
                f"described has {name!r}: {str(value)[:80]!r}; give a whole number, a finite one, True, False, or a "
                f"text of up to {MAX_TEXT} characters in UTF-8: of a longer text, its digest"
            )
    return {str(name): _plain(value) for name, value in described.items()}


def _is_plain(value: object) -> bool:
    if isinstance(value, str):
        return _is_text(value)
    if isinstance(value, int):
        return abs(value) < MAX_NUMBER
    return isinstance(value, float) and math.isfinite(value)


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:  # as a path may be
        return False
    return len(value) <= MAX_TEXT


def _plain(value: str | int | float) -> str | int | float:
    """numpy's texts and numbers are those of Python too, and yet no JSON writer takes them."""
    if isinstance(value, str):
        return str(value)
    return value if isinstance(value, int) else float(value)
