"""The protocol under whatever Hypothesis thinks of; what may happen, and what must hold, is in `protocol_rules`."""

import pkgutil
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from megatron_resume.checkpoint import folder, leases
from megatron_resume.resume import choose

pytestmark = pytest.mark.torch
pytest.register_assert_rewrite("support.protocol_rules")


def holds_for(examples: int, steps: int, **more: Any) -> None:
    from support.protocol_rules import Protocol

    budget = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
        **more,
    )
    run_state_machine_as_test(Protocol, settings=budget)


def test_the_invariants_hold_whatever_happens() -> None:
    holds_for(max(3, settings.default.max_examples // 12), 20)


@pytest.mark.slow
def test_the_invariants_hold_whatever_happens_for_long() -> None:
    holds_for(1000, 40)


def every_point(found: folder.Folder, _: object) -> Any:
    return iter(sorted(found.points, reverse=True))


def free_where_it_cannot_be_read(*where: Any, place: Any = leases.place) -> leases.Place:
    found: leases.Place = place(*where)
    return None if isinstance(found, leases.Unreadable) else found


MUTANTS: dict[str, tuple[str, object]] = {  # what is replaced, by what
    "every point is on the live line": ("resume.choose.live_line", every_point),
    "a request is honoured at every start": ("resume.choose.honoured_by", lambda *_: None),
    "files of a point are not compared with its commit": ("checkpoint.folder._check_own_files", lambda *_: None),
    "files of models are not checked": ("checkpoint.folder.problem_with_files", lambda *_: None),
    "roles may be of two moments": ("checkpoint.folder._check_one_moment", lambda *_: None),
    "no holder seems alive": ("checkpoint.leases.Watch.lives", lambda *_: False),
    "who cannot be seen is dead": ("checkpoint.leases.Watch._gives_a_sign", lambda *_: False),
    "a lease that cannot be read is free": ("checkpoint.leases.place", free_where_it_cannot_be_read),
    "nobody is superseded": ("checkpoint.attempts.newer_than", lambda *_: None),
    "nothing is moved away": ("checkpoint.leftovers._move_model", lambda *_: None),
    "trackers stay as they were": ("checkpoint.leftovers.retire_tracker", lambda *_, **__: None),
    "links of earlier attempts stay": ("checkpoint.fencing.take_names", lambda *_, **__: None),
    "no model is put back": ("checkpoint.leftovers.put_back", lambda *_, **__: None),
    "an attempt that went back is the lineage at once": ("adapter.start.lineage_before", lambda *_: None),
    "retention counts damaged points": ("adapter.pruning.Pruning._is_whole", lambda *_: True),
    "retention keeps one": (
        "adapter.pruning.surplus",
        lambda f, _, whole: list(choose.live_line(f, choose.head(f)))[:0:-1],
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_machine_sees_that(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, instead = MUTANTS[mutant]
    assert callable(pkgutil.resolve_name(f"megatron_resume.{name}"))
    monkeypatch.setattr(f"megatron_resume.{name}", instead)
    with pytest.raises(AssertionError):
        holds_for(1000, 20, phases=[Phase.generate], report_multiple_bugs=False)
