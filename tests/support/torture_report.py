"""What a torture found, as tables."""

from collections.abc import Iterable

from rich.console import Group
from rich.table import Table

from .torture_runs import Tally

PHASES = ("setting up", "loading", "rolling out", "training", "saving", "saving alongside", "committing")


def report(tally: Tally) -> Group:
    """Who was killed during what, and what became of the runs."""
    tables = [_kills(tally), _facts(tally)]
    if tally.noticed:
        tables.append(_counted("How other processes noticed a kill", tally.noticed.most_common()))
    if tally.warned:
        tables.append(_counted("Warnings of megatron_resume", tally.warned.most_common()))
    return Group(*tables)


def _kills(tally: Tally) -> Table:
    phases = [*PHASES, *sorted({doing for _, doing in tally.kills} - set(PHASES))]
    victims = sorted({victim for victim, _ in tally.kills})
    table = Table(title="Kills, by what the job was doing and by victim", title_justify="left", show_footer=True)
    table.add_column("", "all", style="bold")
    for victim in victims:
        table.add_column(victim, str(sum(tally.kills[victim, phase] for phase in phases)), justify="right")
    table.add_column("all", str(tally.num_kills), justify="right")
    for phase in phases:
        counts = [tally.kills[victim, phase] for victim in victims]
        table.add_row(phase, *(str(count or "") for count in [*counts, sum(counts)]))
    return table


def _facts(tally: Tally) -> Table:
    begun = ", ".join(f"{where} {count}" for where, count in sorted(tally.begun.items()))
    rows = (
        ("runs identical to the undisturbed one", tally.identical),
        ("runs that failed", len(tally.failures)),
        ("starts", f"{tally.starts}: {begun}"),
        ("attempts", tally.attempts),
        ("iterations done again", f"{tally.rerun}, at most {tally.most_rerun} per kill in one run"),
        ("jobs that hung without their helper, ended by hand", tally.hung),
        ("seconds", f"{tally.seconds:.0f}"),
    )
    return _counted("What became of the runs", rows)


def _counted(title: str, rows: Iterable[tuple[str, object]]) -> Table:
    table = Table(title=title, title_justify="left", show_header=False)
    for what, count in rows:
        table.add_row(what, str(count))
    return table
