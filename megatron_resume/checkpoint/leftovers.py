"""What an earlier attempt left in a role's save folder beyond the point: moved aside, never deleted."""

import itertools
from collections.abc import Container
from pathlib import Path

from .atomic import move, replace
from .layout import ABANDONED, PRUNED, TRACKER, model_folder, parse_model, parse_point
from .plain_files import open_plain
from .storage import exists, names_in


def abandoned(save: Path, attempt: int) -> Path:
    """Where attempt `attempt` moves what it finds in the way."""
    return save / ABANDONED / f"a{attempt:04d}"


def saved_iterations(save: Path) -> list[int]:
    """The iterations that have a folder in `save`, ascending."""
    return sorted(iteration for name in names_in(save) if (iteration := parse_model(name)) is not None)


def iterations_of_job(root: Path) -> set[int]:
    """The iterations that attempts of this job began to save, finished or not, also those moved aside or removed."""
    aside = root / ABANDONED
    folders = [root, root / PRUNED, *(aside / name for name in names_in(aside))]
    names = [name for folder in folders for name in names_in(folder)]
    return {point.iteration for name in names if (point := parse_point(name)) is not None}


def move_away(save: Path, *, attempt: int, beyond: int, only: Container[int] | None = None) -> list[int]:
    """Move model folders of iterations after `beyond` (of those, if given, in `only`) to `abandoned`.

    Returns the iterations that were moved. Otherwise shards of two attempts could mix in one folder.
    """
    wanted = _to_move(save, beyond, only)
    for iteration in wanted:
        _move_model(save, iteration, attempt)
    return wanted


def move_iteration_away(save: Path, iteration: int, *, attempt: int) -> bool:
    """Move the model folder of `iteration` to `abandoned`; returns whether there was one."""
    found = exists(save / model_folder(iteration))
    if found:
        _move_model(save, iteration, attempt)
    return found


def _move_model(save: Path, iteration: int, attempt: int) -> None:
    move(save / model_folder(iteration), _free(abandoned(save, attempt) / model_folder(iteration)), below=save)


def _to_move(save: Path, beyond: int, only: Container[int] | None) -> list[int]:
    return [i for i in saved_iterations(save) if i > beyond and (only is None or i in only)]


def put_back(model: Path, save: Path, iteration: int, *, attempt: int) -> None:
    """Bring a model folder that a later attempt moved aside back to its place, which that one's leaves."""
    place = save / model_folder(iteration)
    if exists(place):
        move(place, _free(abandoned(save, attempt) / place.name), below=save)
    move(model, place, below=save)


def move_points_away(root: Path, *, attempt: int) -> None:
    """For a start over: move every point of earlier attempts aside, below `root`."""
    for name in sorted(names_in(root)):
        point = parse_point(name)
        if point is not None and point.attempt < attempt:
            move(root / name, _free(root / ABANDONED / f"a{attempt:04d}" / name), below=root)


def _free(path: Path) -> Path:
    names = (path.with_name(f"{path.name}.{n}" if n else path.name) for n in itertools.count())
    return next(name for name in names if not exists(name))


def write_tracker(save: Path, iteration: int) -> None:
    """Point Megatron's tracker to `iteration`: a torn or wrong one would end Megatron with status 0."""
    tracker = save / TRACKER
    text = str(iteration).encode()
    try:
        with open_plain(tracker) as file:
            if file.read(len(text) + 1) == text:
                return
    except OSError:
        pass  # missing, unreadable or no plain file: written anew below
    replace(tracker, text)


def retire_tracker(save: Path, *, attempt: int, beyond: int, only: Container[int] | None = None) -> None:
    """Before the same is moved away without a point to go back to: the tracker names what will be left, or goes along.

    Before, so that whoever dies in between leaves no tracker that sends Megatron to a folder that is gone.
    """
    moved = _to_move(save, beyond, only)
    left = [iteration for iteration in saved_iterations(save) if iteration not in moved]
    tracker = save / TRACKER
    if moved and left:
        write_tracker(save, left[-1])
    elif moved and exists(tracker):
        move(tracker, _free(abandoned(save, attempt) / TRACKER), below=save)
