"""When a point is visible, a power cut leaves all that it needs: every file, and every name on the way to it."""

import json
from collections.abc import Callable
from pathlib import Path

from support.runs import ALONE, Run


def test_a_power_cut_after_a_commit_loses_nothing_of_the_point(new_run: Callable[..., Run]) -> None:
    run = new_run(ALONE)
    noted = run.output.parent / "durable.jsonl"
    run.finish(episodes=1, tamper="storage.notes_what_is_durable", env={"DURABLE": str(noted)})
    durable = dict(json.loads(line) for line in noted.read_text().splitlines())
    start = [run.data_checkpoint / "attempts" / "0001" / "start.json"]
    point = list((run.data_checkpoint / "iter_0000002.a0001").iterdir())
    models = [path for path in run.output.glob("checkpoints/*/iter_0000002/**/*") if path.is_file()]
    assert len(point) == 5
    assert {path.parents[1].name for path in models} == {"policy", "value"}
    assert [path for path in [*start, *point, *models] if not survives(path, run.output, durable)] == []


def survives(path: Path, base: Path, durable: dict[int, list[str] | int]) -> bool:
    """Whether its content was fsynced as it is, and each folder below `base`, with it, since it has the name."""
    if durable.get(path.stat().st_ino) != path.stat().st_size:
        return False
    on_the_way = [folder for folder in (path, *path.parents) if base in folder.parents]
    return all(folder.name in (durable.get(folder.parent.stat().st_ino) or ()) for folder in on_the_way)
