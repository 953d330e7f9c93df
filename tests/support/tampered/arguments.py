"""Megatron's arguments: asked for too early, without a role, changed late, compared with nothing."""

from contextlib import nullcontext

from rlhf import roles  # nothing else of it: who imports roles keeps its `arguments_of`

import megatron_resume
from megatron_resume.adapter import api, configuration, whole_loads


def asks_too_early():
    api.progress()


def names_no_role():
    with_role = megatron_resume.role_args

    def without_role(role, args):
        args = with_role(role, args)
        args.resume_role = role if role in ("reference", "reward") else None
        return args

    megatron_resume.role_args = without_role


def changes_finetune_late():
    arguments_of = roles.arguments_of

    def spoiled(args):
        args.finetune = True
        return arguments_of(args)

    roles.arguments_of = spoiled


def compares_no_configuration():
    configuration.compare = lambda current, role, args: None
    whole_loads.checked = lambda *_: nullcontext()
