"""The comparison with other samplers starts nothing that would need too much, and shows what it would have needed."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks" / "data"
GB = 10**9


class Benchmark:
    """The modules of the benchmark that are judged here."""

    def __init__(self) -> None:
        self.measured, self.limits, self.goals, self.table, self.registry, self.watched = map(
            importlib.import_module, ("measured", "limits", "goals", "table", "registry", "watched")
        )

    def took(self, seconds: float, size_bytes: int, rate: float = 1e6) -> object:
        return self.measured.Measured(0.0, seconds, size_bytes, 8, rate, 1)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Benchmark]:
    """Their names are not for other tests."""
    monkeypatch.syspath_prepend(str(FOLDER))
    yield Benchmark()
    for path in FOLDER.glob("*.py"):
        sys.modules.pop(path.stem, None)


def test_an_estimate_grows_with_the_size_from_the_largest_that_was_measured(bench: Benchmark) -> None:
    smaller = {10**6: bench.took(9.0, 9 * GB), 10**7: bench.took(2.0, GB)}
    assert bench.limits.estimate(10**8, smaller) == (20.0, 10 * GB)


def test_what_is_computed_in_place_is_not_taken_to_grow(bench: Benchmark) -> None:
    assert bench.limits.estimate(10**9, {10**6: bench.took(0.002, 100_000)}) == (0.002, 100_000)


def test_without_a_smaller_size_there_is_no_estimate_and_it_is_tried(bench: Benchmark) -> None:
    assert bench.limits.estimate(10**6, {}) is None
    assert bench.limits.refusal(10**6, 10**9, {}, bench.limits.Limits()) is None


@pytest.mark.parametrize(
    ("seconds", "size_bytes", "why"), [(1.0, 2 * GB, "would need too much memory"), (13.0, GB, "would take too long")]
)
def test_what_would_need_too_much_is_not_started(bench: Benchmark, seconds: float, size_bytes: int, why: str) -> None:
    refused = bench.limits.refusal(10**8, 10**9, {10**7: bench.took(seconds, size_bytes)}, bench.limits.Limits())
    assert refused == bench.measured.NotRun(why, seconds * 10, size_bytes * 10)


def test_what_stays_within_the_limits_is_started(bench: Benchmark) -> None:
    assert bench.limits.refusal(10**8, 10**9, {10**7: bench.took(11.0, GB)}, bench.limits.Limits()) is None


def test_after_a_size_that_did_not_finish_no_larger_one_is_started(bench: Benchmark) -> None:
    smaller = {10**6: bench.took(0.5, 10**6), 10**7: bench.measured.NotRun("ended: took more than 120 s")}
    refused = bench.limits.refusal(10**8, 10**9, smaller, bench.limits.Limits())
    assert refused == bench.measured.NotRun("a smaller size was not measured", 50.0, 10**6)


def test_a_size_that_an_order_cannot_do_is_not_started(bench: Benchmark) -> None:
    assert bench.limits.refusal(10**10, (1 << 32) - 1, {}, bench.limits.Limits()).why.startswith("does 4,294,967,295")


def test_a_small_machine_lowers_the_limit(bench: Benchmark) -> None:
    assert bench.limits.Limits().on(10 * GB).bytes == 8 * GB


@pytest.mark.parametrize(
    ("seek_s", "size_bytes", "rate", "broken"),
    [
        (0.0004, 900_000, 60e6, []),
        (0.0006, 900_000, 60e6, ["seek to 99%"]),
        (0.0004, 1_100_000, 40e6, ["peak memory", "million indices/s"]),
    ],
)
def test_a_broken_promise_is_found(
    bench: Benchmark, seek_s: float, size_bytes: int, rate: float, broken: list[str]
) -> None:
    found = bench.goals.goals(["ours"], {"ours": {10**9: bench.took(seek_s, size_bytes, rate)}})
    assert [name for name in broken if not any(name in goal.what for goal in found if not goal.kept)] == []
    assert sum(not goal.kept for goal in found) == len(broken)


def test_a_promise_that_is_kept_at_one_size_only_is_broken(bench: Benchmark) -> None:
    by_size = {10**8: bench.took(0.0001, 0, 30e6), 10**9: bench.took(0.0001, 0, 56e6)}
    broken = [str(goal) for goal in bench.goals.goals(["ours"], {"ours": by_size}) if not goal.kept]
    assert broken == ["ours, 1e+08 samples, million indices/s: 30, promised at least 50 (BROKEN)"]


def test_a_promise_that_was_not_measured_is_broken(bench: Benchmark) -> None:
    (goal,) = bench.goals.goals(["ours"], {"ours": {10**9: bench.measured.NotRun("ended: took more than 120 s")}})
    assert not goal.kept


def test_the_table_shows_what_was_not_run_with_its_estimate(bench: Benchmark) -> None:
    by_size = {10**8: bench.took(52.3, 8_400_000_000), 10**9: bench.measured.NotRun("too long", 523.0, 84 * GB)}
    head, row = bench.table.rows({"torchdata": by_size}, [10**8, 10**9], {"torchdata": "replayed"})
    assert row == [
        *("torchdata", "52 s", "not run (about 523 s, 84 GB)", "8.4 GB at 1e8", "8 B", "1 M"),
        "replayed",
    ]
    assert len(head) == len(row)


def test_the_markdown_is_a_table_and_its_caption(bench: Benchmark) -> None:
    assert bench.table.markdown([["a", "b"], ["1", "2"]], "said") == "| a | b |\n| --- | --- |\n| 1 | 2 |\n\nsaid\n"


def test_a_measurement_that_goes_beyond_its_limits_is_ended(bench: Benchmark) -> None:
    outcome = bench.watched.watched("EpisodeSampler", 10**6, bench.limits.Limits(seconds=0))
    assert outcome == bench.measured.NotRun("ended: took more than 0 s")


def test_every_order_is_in_a_file_that_is_there(bench: Benchmark) -> None:
    for entry in bench.registry.ORDERS.values():
        module, order = entry.where.split(":")
        assert f"class {order}(" in (FOLDER / f"{module}.py").read_text()


def test_our_order_is_measured_as_it_is_now(bench: Benchmark) -> None:
    outcome = bench.watched.watched("EpisodeSampler", 10**6, bench.limits.Limits())
    assert isinstance(outcome, bench.measured.Measured)
    assert outcome.state_bytes < 1000
