"""Tell what the demo found, as tables on the terminal."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from .result import FROZEN

SAME = "[green]identical[/]"


def show(result: dict[str, Any], output: Path, console: Console) -> None:
    """Print the tables and the verdict."""
    console.print()
    console.print(_roles(result, output))
    console.print(_findings(result))
    if result["identical"]:
        console.print(f"[bold green]Identical[/] after {result['kills']} kills, {result['seconds']:.0f} s in all.")
    else:
        console.print("[bold red]The runs differ.[/]")
    console.print(f"{output / 'demo.png'}\n{output / 'result.json'}", highlight=False, soft_wrap=True)


def _roles(result: dict[str, Any], output: Path) -> Table:
    table = Table(title="What each role loaded in the killed run", title_justify="left")
    table.add_column("role", style="bold")
    starts = max(len(role["loads"]) for role in result["roles"].values())
    for number in range(1, starts + 1):
        table.add_column("first start" if number == 1 else f"start {number}, after a kill")
    table.add_column("final state")
    for name, role in result["roles"].items():
        loads = [_load(load, output) for load in role["loads"]]
        same = SAME + (" to its checkpoint" if name in FROZEN else "")
        table.add_row(name, *loads, _or_difference(role["difference"], same))
    return table


def _load(load: dict[str, Any] | None, output: Path) -> str:
    if load is None:
        return "[red]nothing[/]"
    folder = load["from"].removeprefix(f"{output}/").replace("killed/checkpoints/", "")
    return f"{folder} as it is" if load["iteration"] == 0 else f"{folder} [bold]iteration {load['iteration']}[/]"


def _findings(result: dict[str, Any]) -> Table:
    table = Table(title="The killed run against the undisturbed one", title_justify="left", show_header=False)
    prompts = f"{result['prompts']} used, {result['repeated']} repeated, {result['skipped']} skipped"
    table.add_row("prompts", _green(prompts, not result["repeated"] and not result["skipped"]))
    table.add_row("losses, rewards, KL, tokens", _or_difference(result["trace_difference"], SAME))
    trained = [role["difference"] for name, role in result["roles"].items() if name not in FROZEN]
    different = next((difference for difference in trained if difference), None)
    table.add_row("final weights, optimizer, scheduler", _or_difference(different, SAME))
    lost = f"{result['rerun_iterations']} of {result['iterations']} iterations done again"
    table.add_row("lost work", f"{lost}, after kills at {' and '.join(result['killed_at'])}")
    return table


def _or_difference(difference: str | None, same: str) -> str:
    return same if difference is None else f"[red]{difference}[/]"


def _green(text: str, good: bool) -> str:
    return f"[green]{text}[/]" if good else f"[red]{text}[/]"
