"""Measure our order beside those of others: a table, results.json and results.md here. Exit 1 if a promise is broken.

--quick stops at a million samples (2 minutes). Each order is measured at each size in a process of its own.
"""

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from goals import Goal, goals
from limits import Limits, refusal
from measured import Outcome
from registry import ORDERS, PROMISED
from rich.console import Console
from rich.table import Column, Table
from table import in_bytes, markdown, power, rows
from watched import HERE, watched

SIZES, QUICK_SIZES = (10**6, 10**8, 10**9), (10**5, 10**6)
LARGEST_FILE = 10**6  # rows
VERSIONS = ("torch", "megatron-core", "torchdata", "grain", "mosaicml-streaming", "numpy")

By = dict[str, dict[int, Outcome]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="stop at a million samples")
    sizes = QUICK_SIZES if parser.parse_args().quick else SIZES
    outcomes = measure_all(sizes)
    chance = said_by("randomness.py", sizes[-1])
    checked = said_by("row_check.py", min(sizes[-1], LARGEST_FILE))
    promised = goals(PROMISED, outcomes)
    save(outcomes, chance, checked, promised)
    show(outcomes, sizes, [*spoken(chance), cost_of(checked)], promised)
    return 0 if all(goal.kept for goal in promised) else 1


def measure_all(sizes: tuple[int, ...]) -> By:
    outcomes: By = {name: {} for name in ORDERS}
    for name, by_size in outcomes.items():
        for size in sizes:
            limits = Limits().on(available_bytes())
            refused = refusal(size, ORDERS[name].largest, by_size, limits)
            by_size[size] = refused or watched(name, size, limits)
            print(f"{name}, {power(size)}: {by_size[size]}", file=sys.stderr)
    return outcomes


def available_bytes() -> int:
    fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return int(fields["MemAvailable"].split()[0]) * 1024


def said_by(program: str, size: int) -> dict[str, Any]:
    command = [sys.executable, "-W", "ignore", str(HERE / program), str(size)]
    found: dict[str, Any] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return found


def machine() -> dict[str, object]:
    """Its class: nothing that says which one it is."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    known = {"cores": os.cpu_count(), "memory_gb": round(memory / 1e9), "load": round(os.getloadavg()[0], 1)}
    return {**known, "python": platform.python_version(), **{name: version(name) for name in VERSIONS}}


def save(outcomes: By, chance: dict[str, Any], checked: dict[str, Any], promised: list[Goal]) -> None:
    found = {
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "orders": {name: {str(size): asdict(one) for size, one in of.items()} for name, of in outcomes.items()},
        "randomness": chance,
        "row_check": checked,
        "promises": [{**asdict(goal), "kept": goal.kept} for goal in promised],
    }
    (HERE / "results.json").write_text(json.dumps(found, indent=2) + "\n")


def show(outcomes: By, sizes: tuple[int, ...], sentences: list[str], promised: list[Goal]) -> None:
    found = rows(outcomes, sizes, {name: entry.about for name, entry in ORDERS.items()})
    lines = [caption(), *sentences]
    (HERE / "results.md").write_text(markdown(found, "\n".join(lines)))
    out = Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else 150)
    table = Table(*(Column(head, overflow="fold") for head in found[0]))
    for cells in found[1:]:
        table.add_row(*cells)
    out.print(table)
    for line in (*lines, *map(str, promised), f"wrote {HERE / 'results.json'} and results.md"):
        out.print(line)


def caption() -> str:
    on = machine()
    packages = ", ".join(f"{name} {on[name]}" for name in VERSIONS)
    return (
        f"{datetime.date.today()}, {on['cores']} cores, {on['memory_gb']} GB, load {on['load']}, "
        f"Python {on['python']}, {packages}. "
        "To resume: the order is made, and begun at 99% of an epoch with a batch of 1,024; no sample is read. "
        "Indices/s are counted once it is begun. "
        f"Not run: what would take more than {Limits().seconds:.0f} s or {in_bytes(Limits().bytes)}, with what it "
        "would take, if it grows with the samples as it did before."
    )


def spoken(chance: dict[str, Any]) -> list[str]:
    """A sentence on each order's likeness to chance."""
    found = []
    for name, of in chance.items():
        scores = ", ".join(f"{one['score']:.1f} of {power(one['length'])}" for one in of["scores"])
        limit = max(one["limit"] for one in of["scores"])
        lost = (
            f"{of['missing']} of {(1 << 16) + 1:,} samples never come" if of["missing"] else "every sample comes once"
        )
        found.append(f"{name}: worst score {scores} (chance stays below {limit:.1f}); {lost}.")
    return found


def cost_of(checked: dict[str, Any]) -> str:
    return (
        f"Prompt file of {power(checked['rows'])} rows: the first start, which checks each, takes "
        f"{checked['first']:.1f} times what its index alone takes, a later one {checked['later']:.2f} times."
    )


if __name__ == "__main__":
    sys.exit(main())
