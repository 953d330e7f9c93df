"""Whether Megatron's own loader gives the prompts after a resume that it would have given without one. Pure.

From the recorded arguments, for jobs whose place in the data is Megatron's count of consumed samples. `single` goes on
in any shape: rows 0, 1, 2 and so on, over all ranks. `cyclic` shuffles buckets of ranks, or whole micro batches. What
is `external` is of the job's own, and has a position only if its state is saved beside the model.
"""

from .recorded import Arguments


def problem(then: Arguments, now: Arguments) -> str | None:
    """Why a loader with the arguments `now` does not go on where one with `then` stopped; None if it does.

    Whether epochs of another shape happen to be as long is not asked: they are counted in samples of a data set whose
    size the arguments do not tell.
    """
    before, after = _kind(then), _kind(now)
    if not then or after is None:
        return None
    if before != after:
        return f"--dataloader-type was {before} and is {after}, which gives the rows in another order"
    if after == "external":
        return unsaved(now) or _changed(then, now, "data_parallel_size", "kept the place of each of %s ranks")
    if after != "cyclic":
        return None
    if _sharding(then) != _sharding(now):
        return f"--dataloader-type cyclic shuffled {_sharding(then)}, and now {_sharding(now)}"
    ranks = (
        "shuffled a bucket for each of %s ranks" if _is_sharded(now) else "counted epochs in whole batches of %s ranks"
    )
    return _changed(then, now, "micro_batch_size", "shuffled micro batches of %s rows") or _changed(
        then, now, "data_parallel_size", ranks
    )


def unsaved(arguments: Arguments) -> str | None:
    """Why no start can go on in the data where this one stops; None where that is not known."""
    if _kind(arguments) != "external" or arguments.get("dataloader_save"):
        return None
    return "--dataloader-type external has no place in its data that is saved (--dataloader-save names a folder for it)"


def is_external(arguments: Arguments) -> bool:
    """Whether the loader is the job's own."""
    return _kind(arguments) == "external"


def _kind(arguments: Arguments) -> str | None:
    """As Megatron names it; None for a job without."""
    kind = arguments.get("dataloader_type")
    return str(kind) if kind else None


def _changed(then: Arguments, now: Arguments, name: str, words: str) -> str | None:
    old, new = then.get(name), now.get(name)
    return None if old == new else f"--dataloader-type {_kind(now)} {words % old}, and there are {new} now"


def _is_sharded(arguments: Arguments) -> bool:
    return bool(arguments.get("data_sharding", True))


def _sharding(arguments: Arguments) -> str:
    return "a bucket for each rank" if _is_sharded(arguments) else "over all ranks"
