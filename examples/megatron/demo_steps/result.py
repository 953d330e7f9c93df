"""What the demo found, as one record: the content of result.json."""

from pathlib import Path
from typing import Any

from . import compare
from .runs import LOAD_ORDER, Start

FROZEN = ("reference", "reward")


def build_result(undisturbed: Path, killed: Path, starts: list[Start], seconds: float) -> dict[str, Any]:
    """Compare the two runs' folders; `starts` are those of the killed run in their order."""
    calm = compare.effective(compare.read_trace(undisturbed / "trace.jsonl"))
    trace = compare.read_trace(killed / "trace.jsonl")
    survived = compare.effective(trace)
    total, repeated, skipped = compare.prompt_counts(survived)
    roles = {role: _role(role, undisturbed, killed, starts) for role in LOAD_ORDER}
    difference = compare.first_difference(calm, survived)
    kills = [start.killed_at for start in starts if start.killed_at]
    return {
        "identical": difference is None and all(role["difference"] is None for role in roles.values()),
        "kills": len(kills),
        "killed_at": kills,
        "iterations": len(survived),
        "prompts": total,
        "repeated": repeated,
        "skipped": skipped,
        "rerun_iterations": compare.rerun_iterations(trace),
        "trace_difference": difference,
        "roles": roles,
        "seconds": round(seconds, 1),
    }


def _role(role: str, undisturbed: Path, killed: Path, starts: list[Start]) -> dict[str, Any]:
    one, other = (compare.read_final_states(run / "final_state.json") for run in (undisturbed, killed))
    difference = compare.state_difference(one, other, role)
    if role in FROZEN:
        difference = difference or compare.frozen_difference(one, role) or compare.frozen_difference(other, role)
    loads = [start.loads().get(role) for start in starts]
    return {
        "loads": [{"iteration": load.iteration, "from": load.folder} if load else None for load in loads],
        "difference": difference,
    }
