"""The comparison as a table: of text for a terminal, and in Markdown for the README. Pure functions."""

from collections.abc import Mapping, Sequence

from measured import Measured, NotRun, Outcome

Outcomes = Mapping[str, Mapping[int, Outcome]]


def rows(outcomes: Outcomes, sizes: Sequence[int], about: Mapping[str, str]) -> list[list[str]]:
    """The head, and a row for each order; memory, state and rate are of the largest size that was measured."""
    resume = [f"resume at 99% of {power(size)}" for size in sizes]
    found = [["order", *resume, "peak memory", "state", "indices/s", "begins in the midst"]]
    for name, by_size in outcomes.items():
        cells = [_resume(by_size[size]) for size in sizes]
        largest = max((size for size in sizes if isinstance(by_size[size], Measured)), default=None)
        last = ["-"] * 3 if largest is None else _of(by_size[largest], largest)
        found.append([name, *cells, *last, about[name]])
    return found


def _of(one: Outcome, size: int) -> list[str]:
    assert isinstance(one, Measured)
    return [
        f"{in_bytes(one.peak_bytes)} at {power(size)}",
        in_bytes(one.state_bytes),
        f"{one.indices_per_s / 1e6:.2g} M" if one.indices_per_s < 10e6 else f"{one.indices_per_s / 1e6:.0f} M",
    ]


def _resume(one: Outcome) -> str:
    if isinstance(one, NotRun):
        expected = "" if one.seconds is None or one.bytes is None else f"{in_time(one.seconds)}, {in_bytes(one.bytes)}"
        return f"not run (about {expected})" if expected else f"not run ({one.why})"
    return in_time(one.resume_s)


def power(size: int) -> str:
    """1e9 for a billion."""
    mantissa, exponent = f"{size:.0e}".split("e")
    return f"{mantissa}e{int(exponent)}" if float(f"{mantissa}e{exponent}") == size else f"{size:,}"


def in_time(seconds: float) -> str:
    if seconds < 0.1:
        return f"{seconds * 1e3:.2g} ms"
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"


def in_bytes(count: float) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if count >= size:
            return f"{count / size:.{0 if count >= 10 * size else 1}f} {unit}"
    return f"{count:.0f} B"


def markdown(table: Sequence[Sequence[str]], caption: str) -> str:
    head, *body = ([*cells] for cells in table)
    lines = [head, ["---"] * len(head), *body]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines) + f"\n{caption}\n"
