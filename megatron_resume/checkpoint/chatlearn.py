"""ChatLearn's data checkpoints: which step of one can become a resume point, decided from files that stay as they are.

ChatLearn saves its models and then, per replica, `replica{r}_step{n}/meta.pkl`, all under the iteration n of its
trainer, which so is Megatron's iteration too. (The iteration that it logs for a model after a resume, `start_episode *
ceil(sample_per_episode / num_replica / generation_batch_size)`, counts generated batches and names no folder.)
"""

import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, NoReturn

import msgspec

from ..errors import ConfigError, DamagedError, MismatchError
from ..shown import shown_in_line
from . import imported, plain_pickle
from .layout import TRACKER, PointName, parse_model
from .records import MAX_NUMBER, Count, Moment, read_bytes

META = "meta.pkl"
MAX_META_BYTES = 64 << 10  # ChatLearn's have about 120
MAX_TRACKER_BYTES = 64
SHOWN = 8  # steps or iterations in a message

_STEP = re.compile(r"replica(0|[1-9][0-9]{0,5})_step(0|[1-9][0-9]{0,11})")


class ReplicaMeta(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one replica's `meta.pkl` says."""

    episode: Annotated[int, msgspec.Meta(ge=0, lt=MAX_NUMBER - 1)]  # the last one that was done, counted from 0
    train_iteration: Count
    consumed_samples: Count  # over all replicas
    sample_per_episode: Count
    data_ratio: float | str | list[float] | dict[str, float] | None = None


class Saves(msgspec.Struct, frozen=True):
    """What lies in one folder: the numbers saved there, and the one that its tracker names."""

    path: Path
    numbers: dict[int, frozenset[int]]  # steps or iterations -> the replicas that saved them; none for a model
    tracker: int | None  # None where it is missing or damaged

    def __str__(self) -> str:
        newest = sorted(self.numbers)[-SHOWN:]
        more = "..., " if len(self.numbers) > SHOWN else ""
        saved = ", ".join(f"{n}{_replicas(self.numbers[n])}" for n in newest) or "nothing"
        return f"saved {more}{saved}; tracker {'missing or damaged' if self.tracker is None else self.tracker}"


class Chosen(msgspec.Struct, frozen=True):
    """The step to import. `notes` say what a person should know of it."""

    step: int
    replicas: tuple[int, ...]
    meta: ReplicaMeta
    iteration: int  # of all models
    notes: tuple[str, ...]

    @property
    def moment(self) -> Moment:
        """ChatLearn goes on with the episode after the one that it saved."""
        return Moment(episode=self.meta.episode + 1, consumed_samples=self.meta.consumed_samples)


def choose_step(
    old: Path, models: Mapping[str, Path], step: int | None = None, model_iteration: int | None = None
) -> Chosen:
    """The step of `old` that `models` belong to: the tracker's, or the one that was named.

    Args:
        models: save folder of each trained role, as ChatLearn's `load` or Megatron's `--load`.
        model_iteration: that of the models, where a script numbers them otherwise than ChatLearn.

    Raises:
        ConfigError: A folder or step that was named is not there.
        DamagedError: A tracker, a replica's file, or a replica is damaged or missing, or replicas disagree.
        MismatchError: The models are of another iteration than the data.
    """
    found = {role: _model_saves(role, path) for role, path in models.items()}
    return _Choice(_data_saves(old), found).choose(step, model_iteration)


def import_chatlearn(
    old: Path,
    models: Mapping[str, Path],
    root: Path,
    step: int | None = None,
    model_iteration: int | None = None,
) -> tuple[Chosen, PointName]:
    """Commit a step of `old` and its models as the first point of the new job in `root`.

    Nothing in `old` and in the folders of `models` is changed. Arguments and errors are those of `choose_step` and
    `import_point`.
    """
    imported.check_free(root, models)
    imported.check_apart(root, old)
    chosen = choose_step(old, models, step, model_iteration)
    source = {"from": os.fsencode(os.path.abspath(old)).decode(errors="backslashreplace"), "step": chosen.step}
    source["meta"] = msgspec.to_builtins(chosen.meta)
    return chosen, imported.import_point(root, models, chosen.iteration, chosen.moment, source=source)


def _data_saves(old: Path) -> Saves:
    steps: dict[int, frozenset[int]] = {}
    for name in _listed(old, "ChatLearn's data_checkpoint_path"):
        if match := _STEP.fullmatch(name):
            steps[int(match[2])] = steps.get(int(match[2]), frozenset()) | {int(match[1])}
    if not steps:
        raise ConfigError(
            f"{old} holds no replica<r>_step<n>; name the folder that is ChatLearn's data_checkpoint_path"
        )
    return Saves(old, steps, _tracker(old))


def _model_saves(role: str, save: Path) -> Saves:
    names = _listed(save, f"--{role}-load")
    iterations = [iteration for name in names if (iteration := parse_model(name)) is not None]
    return Saves(save, dict.fromkeys(iterations, frozenset()), _tracker(save))


def _listed(folder: Path, what: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError as error:
        raise ConfigError(f"{what}: {str(folder)!r} cannot be read: {error.strerror}") from error


def _tracker(folder: Path) -> int | None:
    try:
        text = read_bytes(folder / TRACKER, MAX_TRACKER_BYTES).decode("ascii", "replace").strip()
    except DamagedError:
        return None
    return int(text) if re.fullmatch("[0-9]{1,12}", text) else None


def _replicas(replicas: frozenset[int]) -> str:
    return f" (replica {_some(replicas)})" if replicas else ""


def _some(numbers: Collection[int]) -> str:
    """Up to `SHOWN` of them, in order."""
    more = f" and {len(numbers) - SHOWN} more" if len(numbers) > SHOWN else ""
    return ", ".join(map(str, sorted(numbers)[:SHOWN])) + more


class _Choice:
    """What lies in all folders, so that each refusal can say it."""

    def __init__(self, data: Saves, models: dict[str, Saves]):
        self.data, self.models = data, models

    def choose(self, step: int | None, model_iteration: int | None) -> Chosen:
        number = self._tracked_step() if step is None else step
        if number not in self.data.numbers:
            self._refuse(DamagedError if step is None else ConfigError, f"step {number} is not in {self.data.path}")
        notes = self._missing_replicas(number, named=step is not None)
        meta = self._agreed(number)
        iteration = number if model_iteration is None else model_iteration
        for role in self.models:
            notes += self._check_model(role, iteration, named=step is not None)
        replicas = tuple(sorted(self.data.numbers[number]))
        return Chosen(number, replicas, meta, iteration, tuple(notes + _doubts(meta)))

    def _tracked_step(self) -> int:
        if self.data.tracker is None:
            self._refuse(DamagedError, f"{self.data.path / TRACKER} is missing or damaged, so no step is the newest")
        return self.data.tracker

    def _missing_replicas(self, number: int, *, named: bool) -> list[str]:
        """Some may be missing where that step was named: the state is global, and one replica tells it."""
        missing = frozenset[int]().union(*self.data.numbers.values()) - self.data.numbers[number]
        if not missing:
            return []
        what = f"step {number} lacks{_replicas(missing)}, which saved other steps"
        if not named:
            self._refuse(DamagedError, what)
        return [what]

    def _agreed(self, number: int) -> ReplicaMeta:
        metas = {replica: self._meta(replica, number) for replica in sorted(self.data.numbers[number])}
        first, *others = metas.values()
        if any(repr(other) != repr(first) for other in others):  # NaN equals itself
            self._refuse(DamagedError, f"the replicas of step {number} disagree:\n{_table(metas)}", but=number)
        if first.train_iteration != number:
            what = f"{META} of step {number} is of train_iteration {first.train_iteration}"
            self._refuse(DamagedError, what, but=number)
        return first

    def _meta(self, replica: int, number: int) -> ReplicaMeta:
        path = self.data.path / f"replica{replica}_step{number}" / META
        if path.parent.is_symlink():
            self._refuse(DamagedError, f"{path.parent} is a link; copy the folder itself there", but=number)
        try:
            return msgspec.convert(plain_pickle.load(read_bytes(path, MAX_META_BYTES), path), ReplicaMeta)
        except msgspec.ValidationError as error:
            self._refuse(DamagedError, f"{path} is damaged: {shown_in_line(str(error))}", but=number)
        except DamagedError as error:
            self._refuse(DamagedError, str(error), but=number)

    def _check_model(self, role: str, iteration: int, *, named: bool) -> list[str]:
        saves = self.models[role]
        if iteration == 0:
            self._refuse(MismatchError, "iteration 0 cannot be continued from: Megatron's --ckpt-step cannot name it")
        if iteration not in saves.numbers:
            self._refuse(MismatchError, f"the data is of iteration {iteration}, and {role} has no such model")
        if saves.tracker is not None and saves.tracker < iteration:
            what = f"{role}'s save of iteration {iteration} never ended: its tracker stands at {saves.tracker}"
            self._refuse(MismatchError, what)
        if saves.tracker == iteration:
            return []
        tracker = "missing or damaged" if saves.tracker is None else f"at {saves.tracker}"
        what = f"the tracker of {role} is {tracker}, the data is of iteration {iteration}"
        if not named:
            self._refuse(MismatchError, what)
        return [what]

    def _refuse(self, kind: type[ConfigError | DamagedError | MismatchError], what: str, but: int = 0) -> NoReturn:
        """Say what was found in every folder, and which step to type, but for one that naming does not help."""
        width = max(map(len, ["data", *self.models]))
        found = {"data": self.data, **self.models}
        lines = [what, *(f"  {name.ljust(width)}  {saves}" for name, saves in found.items()), self._needed(but)]
        raise kind("\n".join(lines))

    def _needed(self, but: int) -> str:
        steps = self.data.numbers.keys() - {0, but}
        whole = [n for n in steps if all(_finished(saves, n) for saves in self.models.values())]
        named = (
            f"name the step with --step, such as --step {max(whole)}"
            if whole
            else "no other step has data and all models"
        )
        return f"{named}; where the models of a step have another number, name that with --model-iteration"


def _finished(saves: Saves, iteration: int) -> bool:
    """Whether Megatron's tracker came as far as this iteration, or cannot tell."""
    return iteration in saves.numbers and (saves.tracker is None or iteration <= saves.tracker)


def _table(metas: dict[int, ReplicaMeta]) -> str:
    """A row for each group of replicas that agree."""
    said: dict[tuple[str, ...], list[int]] = {}
    for replica, meta in metas.items():
        said.setdefault(tuple(ascii(value)[:40] for value in msgspec.structs.astuple(meta)), []).append(replica)
    rows = [["replica", *ReplicaMeta.__struct_fields__], *([_some(who), *cells] for cells, who in said.items())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _doubts(meta: ReplicaMeta) -> list[str]:
    """Numbers that fit together only where somebody changed the samples of an episode on the way."""
    expected = (meta.episode + 1) * meta.sample_per_episode
    if meta.consumed_samples == expected:
        return []
    return [
        f"{meta.consumed_samples} samples are consumed after {meta.episode + 1} episodes of {meta.sample_per_episode}; "
        f"the run goes on at sample {meta.consumed_samples}, as ChatLearn's would"
    ]
