"""The commands as typer knows them; `run` is listed here and executed before typer is imported."""

from typing import Annotated

import typer

from . import doctor, run
from .status import status

app = typer.Typer(
    name="megatron-resume",
    help="Automatic, exact resume of RLHF training on Megatron-LM.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command("run", context_settings={"ignore_unknown_options": True})
def _run(command: Annotated[list[str], typer.Argument(metavar="SCRIPT ARGS...")]) -> None:
    """Execute a training script in this process, with the hooks on Megatron installed."""
    run.run(command)


app.command("status")(status)
doctor.register(app)
