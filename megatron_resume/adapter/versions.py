"""Which Megatrons are hooked, which of their functions, and what each hook needs of them.

A version counts by its first two numbers. What Megatron calls by another name, or no longer has, must stand here:
a hook whose parameters are there is taken to be called as ever.
"""

import functools
import logging
import re
import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple

from ..errors import UnsupportedMegatron
from ..hooks import AnyFunction, Hook, HookSet, imported_late
from . import ranks

logger = logging.getLogger("megatron_resume")

OLDEST = "0.12"  # of those whose functions have every parameter below; older ones are refused
TESTED = ("0.17.1", "0.18.2", "0.19.2")  # `make test-all` trains, kills and resumes with each of them


def _ours(wrapper: str) -> Callable[[AnyFunction], AnyFunction]:
    """One of this folder, by module and name."""
    module, _, name = wrapper.partition(".")
    return imported_late(f"{__package__}.{module}", name)


def _in_a_session(late: Callable[[AnyFunction], AnyFunction]) -> Callable[[AnyFunction], AnyFunction]:
    """For what scripts call without a job of ours, and in threads: nothing is imported where there is no session.

    Where one thread imports while another forks, the child finds the lock of that import held for ever.
    """

    def wrap(original: AnyFunction) -> AnyFunction:
        ours = late(original)

        @functools.wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            return (ours if f"{__package__}.session" in sys.modules else original)(*args, **kwargs)

        return call

    return wrap


# What a wrapper takes where a version has it, and does without elsewhere, is not in `needs`: `release` of
# save_checkpoint, `terminate` of maybe_finalize_async_save, `iteration` of train_step.
HOOKS = (
    Hook(
        "megatron.training.arguments",
        "parse_args",
        ("extra_args_provider", "ignore_unknown_args"),
        _ours("arguments.wrap_parse_args"),
    ),
    Hook("megatron.training.arguments", "validate_args", ("args", "defaults"), _ours("arguments.wrap_validate")),
    Hook(
        "megatron.training.yaml_arguments", "validate_yaml", ("args",), _ours("arguments.wrap_validate"), optional=True
    ),
    Hook(
        "megatron.training.checkpointing",
        "load_args_from_checkpoint",
        ("args",),
        _ours("arguments.wrap_load_args_from_checkpoint"),
    ),
    Hook(
        "megatron.training.checkpointing",
        "read_metadata",
        ("tracker_filename",),
        _ours("early_args.wrap_read_metadata"),
    ),
    Hook("megatron.training.initialize", "initialize_megatron", (), _ours("arguments.wrap_initialize_megatron")),
    Hook(
        "megatron.core.datasets.utils",
        "compile_helpers",
        (),
        _ours("index_builder.wrap_compile_helpers"),
        optional=True,
        may_be_replaced=True,
    ),
    Hook(
        "megatron.training.checkpointing",
        "save_checkpoint",
        ("iteration", "opt_param_scheduler", "non_persistent_ckpt"),
        _ours("saving.wrap_save_checkpoint"),
    ),
    Hook(
        "megatron.training.checkpointing",
        "load_checkpoint",
        ("opt_param_scheduler", "load_arg"),
        _ours("loading.wrap_load_checkpoint"),
    ),
    Hook(
        "megatron.training.async_utils",
        "schedule_async_save",
        ("async_request",),
        _ours("saving.wrap_schedule_async_save"),
    ),
    Hook(
        "megatron.training.async_utils",
        "init_persistent_async_worker",
        (),
        _ours("saving.wrap_init_persistent_async_worker"),
        optional=True,
    ),
    Hook(
        "megatron.training.async_utils",
        "maybe_finalize_async_save",
        ("blocking",),
        _ours("saving.wrap_maybe_finalize_async_save"),
    ),
    Hook(
        "megatron.core.optimizer_param_scheduler",
        "OptimizerParamScheduler.step",
        ("increment",),
        _ours("training.wrap_scheduler_step"),
    ),
    Hook("megatron.training.training", "train_step", (), _ours("training.wrap_train_step")),
    Hook(
        "megatron.training.dist_signal_handler",
        "DistributedSignalHandler.signals_received",
        (),
        _ours("stopping.wrap_signals_received"),
        optional=True,
    ),
    Hook("megatron.training.training", "evaluate", (), _ours("training.wrap_evaluate")),
    Hook(
        "megatron.training.training",
        "checkpoint_and_decide_exit",
        ("iteration",),
        _ours("planned_end.wrap_checkpoint_and_decide_exit"),
        optional=True,
    ),
)

# What is none of Megatron's versions: torch is imported before there is a Megatron that could be looked at.
OTHERS = (
    *(
        Hook(
            module,
            f"{loader}._get_iterator",
            (),
            _in_a_session(_ours("loader_workers.wrap_get_iterator")),
            optional=True,
            may_be_replaced=True,
        )
        for module, loader in (
            ("torch.utils.data.dataloader", "DataLoader"),
            ("torchdata.stateful_dataloader.stateful_dataloader", "StatefulDataLoader"),
        )
    ),
    Hook(
        "megatron.rl.rl_utils",
        "rl_inference_interface_shutdown",
        (),
        _in_a_session(_ours("hard_exit.wrap_shutdown")),
        optional=True,
        may_be_replaced=True,
    ),
)


class Verdict(NamedTuple):
    """What is known of a version of Megatron here."""

    supported: bool
    remark: str  # empty for a tested one


def verdict(version: str) -> Verdict:
    """Whether hooks may be put into megatron-core `version`."""
    numbers = _numbers(version)
    tested = [_numbers(one) for one in TESTED]
    if numbers in tested:
        return Verdict(True, "")
    known = f"megatron_resume is tested with {', '.join(TESTED)}"
    if numbers is None:
        return Verdict(True, f"megatron-core has the version {version!r}, which says nothing; {known}")
    if numbers < (_numbers(OLDEST) or numbers):
        return Verdict(False, f"megatron-core {version} is too old: {known}, and works from {OLDEST} on")
    age = "newer than all that it knows" if numbers > max(filter(None, tested)) else "none of these"
    return Verdict(
        True,
        f"{known}, and megatron-core {version} is {age}: it goes on where the hooked functions have the parameters "
        "that are needed. Kill a run and resume it once, before you rely on it",
    )


def _numbers(version: str) -> tuple[int, int] | None:
    match = re.match(r"(\d+)\.(\d+)", version)
    return (int(match[1]), int(match[2])) if match else None


_warned = False


def check(module: ModuleType) -> None:
    """Look at the Megatron of `module` before it is hooked; warn once, on rank 0, of one that is not tested.

    Raises:
        UnsupportedMegatron: It is too old.
    """
    global _warned
    # Not from megatron.core itself, which may be in the middle of its own import.
    version = str(import_module("megatron.core.package_info").__version__).partition("+")[0]
    found = verdict(version)
    if not found.supported:
        raise UnsupportedMegatron(f"{found.remark} ({module.__file__}); update Megatron, or start without us")
    if found.remark and not _warned and ranks.rank() == 0:
        _warned = True
        logger.warning("%s", found.remark)


hook_set = HookSet(HOOKS, check)
other_hooks = HookSet(OTHERS)
