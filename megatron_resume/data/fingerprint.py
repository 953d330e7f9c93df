"""What an order was made of, and how that differs from what a job has now."""

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, TypeAlias

import msgspec

from ..shown import shown_in_line
from .history import Change, Order, Rules, Setup, unchangeable

Described: TypeAlias = dict[str, str | bool | int | float]  # by the job: samples per prompt, tokenizer, template ...

_NAME_BYTES = 64  # in JSON
_DIGEST_CHARACTERS = 64


class Dataset(Protocol):
    """What a fingerprint is taken of."""

    @property
    def name(self) -> str:
        """For people; a dataset that is moved or renamed is still the same."""

    def __len__(self) -> int:
        """Number of rows."""

    def digest(self, rows: int) -> str:
        """Hexadecimal digest of the content of the first `rows` rows: equal if and only if the content is."""


class Content(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is known of one dataset, apart from its number of rows."""

    name: str = ""
    digest: str | None = None  # None where nobody gave the dataset


class Fingerprint(NamedTuple):
    """What an order is made of."""

    rules: Rules
    setup: Setup
    contents: tuple[Content, ...]  # of each dataset, or none where none was given
    described: Described

    def content(self, number: int) -> Content:
        return self.contents[number] if number < len(self.contents) else Content()


class Difference(msgspec.Struct, frozen=True):
    """One line of the table: what was saved, and what is there now."""

    what: str
    saved: str
    now: str
    why_not: str = ""  # the order cannot go on with it; empty where it can


def content(dataset: Dataset, rows: int) -> Content:
    """Of the first `rows` rows of `dataset`; without digest where it has fewer."""
    digest = dataset.digest(rows)[:_DIGEST_CHARACTERS] if rows <= len(dataset) else None
    return Content(_short(shown_in_line(str(dataset.name))), digest)  # names of files need not be UTF-8


def _short(name: str) -> str:
    """The end of `name`, which tells files apart, so that the state stays small."""
    while len(json.dumps(name)) > _NAME_BYTES:
        name = "..." + name.removeprefix("...")[1:]
    return name


def differences(saved: Fingerprint, now: Fingerprint, order: Order, at: int) -> tuple[Difference, ...]:
    """How `now` differs from `saved`, whose order is `order`, for a job that is at position `at`.

    The contents of `now` must be of as many rows as those of `saved`. What only one of them knows is not compared.
    """
    return (
        *_of_datasets(saved, now),
        *_of_weights(saved.setup, now.setup),
        *_of_episodes(saved.setup, now.setup, order, at),
        *_of_rules(saved.rules, now.rules),
        *_of_description(saved.described, now.described),
    )


def _of_datasets(saved: Fingerprint, now: Fingerprint) -> list[Difference]:
    found = []
    for number in range(max(len(saved.setup.sizes), len(now.setup.sizes))):
        found += _of_dataset(number, saved, now)
    return found


def _of_dataset(number: int, saved: Fingerprint, now: Fingerprint) -> list[Difference]:
    then_rows, now_rows = (_rows(one, number) for one in (saved, now))
    then, here = saved.content(number), now.content(number)
    name = here.name or then.name
    what = f"dataset {number}" + (f" ({shown_in_line(name)})" if name else "")
    if then_rows is None or now_rows is None:
        why_not = "a dataset is gone" if now_rows is None else ""
        return [Difference(what, _rows_text(then_rows), _rows_text(now_rows), why_not)]
    found = []
    if now_rows != then_rows:
        found.append(Difference(what, _rows_text(then_rows), _rows_text(now_rows), _gone(then_rows, now_rows)))
    if None not in (then.digest, here.digest) and then.digest != here.digest:
        what = f"content of the first {then_rows:,} rows of {what}"
        found.append(
            Difference(what, str(then.digest)[:12], str(here.digest)[:12], "rows that were there have changed")
        )
    return found


def _rows(fingerprint: Fingerprint, number: int) -> int | None:
    sizes = fingerprint.setup.sizes
    return sizes[number] if number < len(sizes) else None


def _rows_text(rows: int | None) -> str:
    return "none" if rows is None else f"{rows:,} rows"


def _gone(saved: int, now: int) -> str:
    return f"{saved - now:,} rows are gone" if now < saved else ""


def _of_weights(saved: Setup, now: Setup) -> list[Difference]:
    if saved.weights == now.weights or saved.slots() == now.slots():
        return []
    return [Difference("weights", *(_listed(one.weights) for one in (saved, now)))]


def _listed(weights: Sequence[float]) -> str:
    shown = [f"{weight:g}" for weight in weights[:8]] + ["..."] * (len(weights) > 8)
    return ", ".join(shown) or "by size"


def _of_episodes(saved: Setup, now: Setup, order: Order, at: int) -> list[Difference]:
    then, here = saved.samples_per_episode, now.samples_per_episode
    if then == here:
        return []
    why_not = unchangeable(order, saved, Change(at, saved._replace(samples_per_episode=here)))
    return [Difference("samples per episode", f"{then:,}", f"{here:,}", why_not)]


def _of_rules(saved: Rules, now: Rules) -> list[Difference]:
    return [
        Difference(name, str(then), str(here), f"another {name} is another order from the first sample on")
        for name, then, here in zip(Rules._fields, saved, now, strict=True)
        if then != here
    ]


def _of_description(saved: Mapping[str, object], now: Mapping[str, object]) -> list[Difference]:
    return [
        Difference(shown_in_line(name), _value(saved[name]), _value(now[name]), f"{shown_in_line(name)} has changed")
        for name in sorted(saved.keys() & now.keys())
        if saved[name] != now[name]
    ]


def _value(value: object) -> str:
    return shown_in_line(str(value))
