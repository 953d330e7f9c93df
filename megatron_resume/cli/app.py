"""The commands as typer knows them."""

import typer

app = typer.Typer(
    name="megatron-resume",
    help="Automatic, exact resume of RLHF training on Megatron-LM.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
