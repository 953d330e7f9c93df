"""Start Megatron and load the four models, in the order that resuming needs."""

import argparse
from typing import Any

from megatron.training import arguments, get_args, initialize

import megatron_resume

from .options import add_options, megatron_defaults
from .roles import FROZEN, TRAINED, RoleModel, build_and_load, fresh_arguments
from .seed_checkpoints import make_absent_checkpoints, seed_everything


def start_megatron(options: argparse.Namespace) -> argparse.Namespace:
    """Parse and check the command line, initialise Megatron, return its arguments."""
    given: dict[str, Any] = {"extra_args_provider": add_options, "args_defaults": megatron_defaults(options)}
    if hasattr(arguments, "parse_and_validate_args"):
        arguments.parse_and_validate_args(**given)
        initialize.initialize_megatron()
    else:  # up to 0.17
        initialize.initialize_megatron(**given)
    args: argparse.Namespace = get_args()
    return args


def load_models(base: argparse.Namespace) -> dict[str, RoleModel]:
    """Build and load all four roles. Every rank calls this.

    The trained ones come last: a resumed start restores the random generators after each of their
    loads, and nothing may draw from them between the last one and training.
    """
    for role in TRAINED:  # what cannot be resumed is refused before anything is made or loaded
        megatron_resume.role_args(role, fresh_arguments(base, role))
    if base.make_checkpoints:
        make_absent_checkpoints(base)
    # Making those checkpoints drew random numbers; the run must not depend on who made them.
    seed_everything(base.seed)
    return {role: build_and_load(base, role) for role in (*FROZEN, *TRAINED)}
