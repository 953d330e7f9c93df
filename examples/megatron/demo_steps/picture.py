"""Draw both runs over each other, with the kills and the work that they cost."""

from itertools import groupby
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from .compare import Record, curve, effective

PANELS = (
    ("reward", "reward"),
    ("policy_loss", "policy loss"),
    ("value_loss", "value loss"),
    ("kl", "KL to the reference"),
)
UNDISTURBED = "#b8c4d6"
ATTEMPTS = ("#1f5fa8", "#d9822b", "#2c8a57", "#8a4fa3")
KILL = "#c0392b"


def draw(undisturbed: list[Record], killed: list[Record], kills: list[str], title: str, path: Path) -> None:
    """Write the picture; `killed` is the whole trace of the killed run, lost work included."""
    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    figure, axes = plt.subplots(len(PANELS), 1, figsize=(11, 10.5), sharex=True, constrained_layout=True)
    for panel, (name, label) in zip(axes, PANELS, strict=True):
        _draw_curves(panel, name, undisturbed, killed)
        panel.set_ylabel(label)
        panel.grid(axis="y", color="#eceff4", linewidth=0.8)
        panel.set_axisbelow(True)
        for attempt in _attempts(killed)[:-1]:
            panel.axvline(_ends(killed, attempt), color=KILL, linewidth=1, alpha=0.7)
    axes[2].set_yscale("log")
    _mark_kills(axes[0], killed, kills)
    axes[-1].set_xlabel("iteration")
    figure.suptitle(title, fontsize=12, fontweight="bold", x=0.01, ha="left")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _draw_curves(panel: Axes, name: str, undisturbed: list[Record], killed: list[Record]) -> None:
    panel.plot(
        [record["iteration"] for record in undisturbed],
        curve(undisturbed, name),
        color=UNDISTURBED,
        linewidth=7,
        alpha=0.8,
        solid_capstyle="round",
        label="undisturbed run",
    )
    surviving = effective(killed)
    for attempt in _attempts(killed):
        color = ATTEMPTS[(attempt - 1) % len(ATTEMPTS)]
        kept = [record for record in surviving if record["attempt"] == attempt]
        panel.plot(
            [record["iteration"] for record in kept],
            curve(kept, name),
            color=color,
            linewidth=1.4,
            marker="o",
            markersize=3.2,
            label=f"killed run, attempt {attempt}",
        )
        lost = [record for record in killed if record["attempt"] == attempt and record not in kept]
        panel.plot(
            [record["iteration"] for record in lost],
            curve(lost, name),
            color=color,
            linewidth=0,
            marker="x",
            markersize=8,
            markeredgewidth=1.6,
            label="_" if attempt != 1 else "lost with the kill, done again",
        )


def _mark_kills(panel: Axes, killed: list[Record], kills: list[str]) -> None:
    low, high = panel.get_ylim()
    panel.set_ylim(low, high + 0.32 * (high - low))
    top = high + 0.3 * (high - low)
    for attempt, place in zip(_attempts(killed), kills, strict=False):
        at = _ends(killed, attempt)
        panel.annotate(
            f"SIGKILL {place} ",
            (at, top),
            color=KILL,
            fontsize=8.5,
            ha="right",
            va="top",
            fontweight="bold",
        )
        resumed = _begins(killed, attempt + 1)
        if resumed is None:
            continue
        height = high + 0.06 * (high - low)
        panel.annotate(
            "",
            (resumed - 0.5, height),
            (at, height),
            arrowprops={"arrowstyle": "->", "color": ATTEMPTS[attempt % len(ATTEMPTS)], "linewidth": 1.6},
        )
        panel.annotate(
            f"resumed at {resumed} ",
            (resumed - 0.5, height),
            ha="right",
            va="center",
            fontsize=8.5,
            color=ATTEMPTS[attempt % len(ATTEMPTS)],
        )


def _attempts(records: list[Record]) -> list[int]:
    return [attempt for attempt, _ in groupby(sorted(record["attempt"] for record in records))]


def _begins(records: list[Record], attempt: int) -> int | None:
    return min((record["iteration"] for record in records if record["attempt"] == attempt), default=None)


def _ends(records: list[Record], attempt: int) -> float:
    """Where an attempt's line ends: half a step behind its last whole iteration."""
    return 0.5 + max(int(record["iteration"]) for record in records if record["attempt"] == attempt)
