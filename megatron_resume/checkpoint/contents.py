"""What a model checkpoint holds: name, kind, dtype and shape of each tensor; and what a load asks for in vain."""

from collections.abc import Iterable, Iterator, Sequence

from ..shown import shown_in_line

Contents = dict[str, dict[str, str]]  # part of the state dict -> name -> description

MODEL, OPTIMIZER, REST = "model", "optimizer", "rest"
GROUPS = "groups"  # the parameter groups of an optimizer, in one place of its state dict
ANY_SHAPE = "padded"  # a kind of tensor: loaded into another global shape, as a vocabulary padded for more ranks
MAX_NAMES = 200_000  # a receipt with more would grow beyond what readers take
NAMED = 3  # names in a message
_TENSORS = ("tensor", "factory", ANY_SHAPE)


def part_of(key: str) -> str:
    """The part that a top-level key of Megatron's state dict belongs to; virtual stages are numbered `model0` on."""
    return next((part for part in (MODEL, OPTIMIZER) if key.rstrip("0123456789") == part), REST)


def describe(kind: str, dtype: object, shape: Sequence[int]) -> str:
    """For example `tensor float32 [256, 64]`; `kind` is tensor, factory, padded, or without dtype object or groups."""
    return " ".join([kind, *filter(None, [str(dtype).removeprefix("torch.")]), str(list(map(int, shape)))])


def num_names(contents: Contents) -> int:
    return sum(map(len, contents.values()))


def merge(parts: Iterable[Contents]) -> Contents:
    """What several ranks hold together, in the order of names."""
    merged: Contents = {}
    for contents in parts:
        for part, entries in contents.items():
            merged.setdefault(part, {}).update(entries)
    return {part: dict(sorted(merged[part].items())) for part in sorted(merged)}


def unanswered(asked: Contents, held: Contents) -> list[str]:
    """What `asked` has that `held` lacks or has in another shape, each as words for a person.

    Objects, such as random states, are left out: Megatron asks for those that fit the shape of the run.
    """
    everything = {name: text for entries in held.values() for name, text in entries.items()}
    knows_groups = any(_kind(text) == GROUPS for text in everything.values())
    found = []
    for name, wanted in _entries(asked, *_TENSORS, *[GROUPS] * knows_groups):
        saved = everything.get(name)
        if saved is None:
            found.append(f"{name} {_shape(wanted)} was not saved".replace(" [] ", " "))
        elif _shape(saved) != _shape(wanted) and ANY_SHAPE not in (_kind(saved), _kind(wanted)):
            found.append(f"{name} was saved as {shown_in_line(_shape(saved))}, and is {_shape(wanted)} now")
    return found


def same_in_both(asked: Contents, held: Contents) -> frozenset[str]:
    """Names of the tensors that a load brings as they were saved, each element of them."""
    everything = {name: text for entries in held.values() for name, text in entries.items()}
    return frozenset(
        name
        for name, wanted in _entries(asked, *_TENSORS)
        if name in everything and _shape(everything[name]) == _shape(wanted)
    )


def has_tensors_of_optimizer(contents: Contents) -> bool:
    """Or the word of `--ckpt-format torch` that there are some."""
    return any(_kind(text) != GROUPS for text in contents.get(OPTIMIZER, {}).values())


def listed(problems: Sequence[str]) -> str:
    """The first of `problems`, and how many more there are."""
    more = f"; and {len(problems) - NAMED} more" if len(problems) > NAMED else ""
    return "; ".join(problems[:NAMED]) + more


def _entries(contents: Contents, *kinds: str) -> Iterator[tuple[str, str]]:
    for entries in contents.values():
        for name, text in entries.items():
            if _kind(text) in kinds:
                yield name, text


def _kind(text: str) -> str:
    return text.partition(" ")[0]


def _shape(text: str) -> str:
    return text[text.find("[") :]
