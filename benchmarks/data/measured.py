"""What was measured of one order at one size, or why it was not."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Measured:
    """Numbers of one order at one size; medians of `rounds` rounds in one process, where they are times."""

    construct_s: float
    seek_s: float  # to 99% of the epoch, with the first batch of 1,024
    peak_bytes: int  # while it was made and begun there, once
    state_bytes: int
    indices_per_s: float  # in batches of 1,024, once begun
    rounds: int

    @property
    def resume_s(self) -> float:
        return self.construct_s + self.seek_s


@dataclass(frozen=True)
class NotRun:
    """An order that was not measured at a size, and what it would have taken if it grew with the size."""

    why: str
    seconds: float | None = None
    bytes: int | None = None


Outcome = Measured | NotRun
