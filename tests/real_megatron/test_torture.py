"""A short `make torture`: random processes of the example are killed, and its runs end as if nobody had."""

from collections.abc import Callable

from support.runs import Run
from support.torture_runs import Torture

SEED = 152127  # kills everything, rank 0 and rank 1 around saves, and the leader, on two cores
KILLS = 4


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
