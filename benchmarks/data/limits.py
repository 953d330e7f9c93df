"""What a measurement may take, and what it would take, judged by a smaller one. Pure functions."""

from collections.abc import Mapping
from dataclasses import dataclass

from measured import Measured, NotRun, Outcome

SMALL_BYTES = 16 << 20  # a peak below that is the allocator's, and does not grow
SMALL_S = 0.01  # the same of times


@dataclass(frozen=True)
class Limits:
    """Of one process."""

    seconds: float = 120
    bytes: int = 16 * 10**9

    def on(self, available_bytes: int) -> "Limits":
        """The same on a machine that has less: a part of it is left to others."""
        return Limits(self.seconds, min(self.bytes, available_bytes * 8 // 10))


def estimate(size: int, smaller: Mapping[int, Outcome]) -> tuple[float, int] | None:
    """Seconds and bytes at `size`, as the largest smaller size took and as if they grew with it; None without one."""
    sizes = [other for other, outcome in smaller.items() if other < size and isinstance(outcome, Measured)]
    if not sizes:
        return None
    largest = max(sizes)
    measured, ratio = smaller[largest], size / largest
    assert isinstance(measured, Measured)
    seconds = measured.resume_s if measured.resume_s < SMALL_S else measured.resume_s * ratio
    size_bytes = measured.peak_bytes if measured.peak_bytes < SMALL_BYTES else round(measured.peak_bytes * ratio)
    return seconds, size_bytes


def refusal(size: int, largest: int, smaller: Mapping[int, Outcome], limits: Limits) -> NotRun | None:
    """Why an order that can do `largest` samples is not to be started at `size`; None where it is."""
    if size > largest:
        return NotRun(f"does {largest:,} samples at most")
    expected = estimate(size, smaller)
    if any(isinstance(one, NotRun) for other, one in smaller.items() if other < size):
        return NotRun("a smaller size was not measured", *(expected or ()))
    if expected is None:
        return None
    seconds, size_bytes = expected
    if size_bytes > limits.bytes or seconds > limits.seconds:
        return NotRun("would take too long" if size_bytes <= limits.bytes else "would need too much memory", *expected)
    return None
