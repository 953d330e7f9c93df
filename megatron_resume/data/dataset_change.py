"""What a change of the data means for a job that goes on: told before it is refused, or as it is made."""

from collections.abc import Sequence

import msgspec

from ..errors import MismatchError
from .epochs import Standing
from .fingerprint import Difference
from .history import Order


class DatasetChange(msgspec.Struct, frozen=True):
    """A change that was recorded, at sample `at`; `str` is one line of a log."""

    at: int  # samples consumed, over all ranks
    episode: int
    repeated: int  # samples of epochs under way that come a second time
    skipped: int  # samples of epochs under way that do not come any more
    new: int  # rows that were not there before
    differences: tuple[Difference, ...]

    def __str__(self) -> str:
        changed = "; ".join(f"{one.what}: {one.saved} -> {one.now}" for one in self.differences)
        return (
            f"the data changed at sample {self.at:,} (episode {self.episode:,}): {changed}; {self.repeated:,} "
            f"repeated, {self.skipped:,} skipped, {self.new:,} new"
        )


def change_between(then: Order, now: Order, found: tuple[Difference, ...], at: int) -> DatasetChange:
    """What going over from `then` to `now` at position `at` does to the epochs that are under way."""
    standings = list(zip(then.standing(at), now.standing(at), strict=False))  # datasets that are new have no epoch
    return DatasetChange(
        at,
        now.episode(at)[0],
        repeated=sum(_repeated(*one) for one in standings),
        skipped=sum(_skipped(*one) for one in standings),
        new=sum(now.setup.sizes) - sum(then.setup.sizes),
        differences=found,
    )


def _repeated(then: Standing, now: Standing) -> int:
    """At most; an epoch that is chosen from the same rows goes on as it began, and one that begins repeats nothing."""
    return 0 if then == now or now.done == then.done == 0 else then.done


def _skipped(then: Standing, now: Standing) -> int:
    return 0 if then == now or now.done == then.done == 0 else then.length - then.done


def refusal(found: Sequence[Difference], at: int) -> MismatchError:
    """The error that shows the table, and says what to type."""
    reasons = list(dict.fromkeys(one.why_not for one in found if one.why_not))
    if reasons:
        advice = (
            f"The order cannot go on so: {'; '.join(reasons)}. Give the job what was saved, or begin anew with "
            "--start-over"
        )
    else:
        advice = (
            "Type --on-dataset-change append to go on with it from here: nothing is repeated or skipped, and rows "
            "that are new come from their dataset's next epoch on; or give the job what was saved"
        )
    return MismatchError(f"the data are not as they were saved at sample {at:,}:\n{_table(found)}\n{advice}")


def _table(found: Sequence[Difference]) -> str:
    rows = [("", "saved", "now"), *((one.what, one.saved, one.now) for one in found)]
    first, second = (max(len(row[column]) for row in rows) for column in (0, 1))
    return "\n".join(f"  {what:<{first}}  {saved:<{second}}  {now}" for what, saved, now in rows)
