"""Which functions of Megatron are hooked, and what each hook needs of them."""

from ..hooks import Hook, HookSet
from . import arguments, loading, saving, stopping, training

HOOKS = (
    Hook(
        "megatron.training.arguments",
        "parse_args",
        ("extra_args_provider", "ignore_unknown_args"),
        arguments.wrap_parse_args,
    ),
    Hook("megatron.training.arguments", "validate_args", ("args", "defaults"), arguments.wrap_validate),
    Hook("megatron.training.yaml_arguments", "validate_yaml", ("args",), arguments.wrap_validate, optional=True),
    Hook(
        "megatron.training.checkpointing",
        "load_args_from_checkpoint",
        ("args",),
        arguments.wrap_load_args_from_checkpoint,
    ),
    Hook("megatron.training.initialize", "initialize_megatron", (), arguments.wrap_initialize_megatron),
    Hook("megatron.training.checkpointing", "save_checkpoint", ("iteration",), saving.wrap_save_checkpoint),
    Hook("megatron.training.checkpointing", "load_checkpoint", (), loading.wrap_load_checkpoint),
    Hook(
        "megatron.training.async_utils",
        "schedule_async_save",
        ("async_request",),
        saving.wrap_schedule_async_save,
    ),
    Hook(
        "megatron.training.async_utils",
        "init_persistent_async_worker",
        (),
        saving.wrap_init_persistent_async_worker,
        optional=True,
    ),
    Hook(
        "megatron.training.async_utils",
        "maybe_finalize_async_save",
        ("blocking",),
        saving.wrap_maybe_finalize_async_save,
    ),
    Hook(
        "megatron.core.optimizer_param_scheduler",
        "OptimizerParamScheduler.step",
        ("increment",),
        training.wrap_scheduler_step,
    ),
    Hook("megatron.training.training", "train_step", (), training.wrap_train_step),
    Hook(
        "megatron.training.dist_signal_handler",
        "DistributedSignalHandler.signals_received",
        (),
        stopping.wrap_signals_received,
        optional=True,
    ),
    Hook("megatron.training.training", "evaluate", (), training.wrap_evaluate),
)

hook_set = HookSet(HOOKS)
