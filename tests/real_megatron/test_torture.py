"""A short `make torture`: random processes of the example are killed, and its runs end as if nobody had."""

from collections.abc import Callable

import pytest

from support.runs import Run
from support.torture_runs import Torture

SEED = 152127  # kills everything, rank 0 and rank 1 around saves, and the leader, on two cores
KILLS = 4


# Each place where a process may die is in test_every_death.py, a helper that outlives its rank in test_late_writers.py.
@pytest.mark.slow
def test_processes_killed_at_random_change_nothing(
    undisturbed: Callable[[str], Run], new_run: Callable[..., Run]
) -> None:
    print(f"seed {SEED}")
    torture = Torture(
        lambda name, shape, flags: new_run(shape, *flags, name=name),
        undisturbed,
        seed=SEED,
        show=lambda line, tally: print(line),
    )
    tally = torture.until(KILLS)
    assert tally.failures == []
    assert tally.num_kills == KILLS
    assert tally.identical >= 1
