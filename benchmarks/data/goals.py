"""What is promised of our order; a broken promise ends the comparison with exit code 1. Pure functions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from measured import Measured, Outcome


@dataclass(frozen=True)
class Goal:
    """A limit on one number of one order."""

    what: str
    measured: float
    promised: float
    at_least: bool = False

    @property
    def kept(self) -> bool:
        return self.measured >= self.promised if self.at_least else self.measured <= self.promised

    def __str__(self) -> str:
        bound = "at least" if self.at_least else "at most"
        verdict = "kept" if self.kept else "BROKEN"
        return f"{self.what}: {self.measured:.3g}, promised {bound} {self.promised:g} ({verdict})"


def goals(names: Sequence[str], outcomes: Mapping[str, Mapping[int, Outcome]]) -> list[Goal]:
    """Of the orders `names`, at every size: a machine's good moment at one of them keeps no promise."""
    return [goal for name in names for size, one in outcomes[name].items() for goal in _goals_at(name, size, one)]


def _goals_at(name: str, size: int, one: Outcome) -> list[Goal]:
    """One that was not measured is broken."""
    at = f"{name}, {size:.0e} samples"
    if not isinstance(one, Measured):
        return [Goal(f"{at}, measured", 0, 1, at_least=True)]
    return [
        Goal(f"{at}, seek to 99% and a batch, ms", one.seek_s * 1e3, 0.5),
        Goal(f"{at}, peak memory, MB", one.peak_bytes / 1e6, 1),
        Goal(f"{at}, million indices/s", one.indices_per_s / 1e6, 50, at_least=True),
    ]
