"""The traps of Megatron that `doctor` names, on environments written down here."""

from dataclasses import replace

import pytest

from megatron_resume.cli.environment import Environment
from megatron_resume.cli.traps import Trap, traps

GPU_IMAGE = Environment(
    python="3.12.3",
    torch="2.13.0",
    megatron_core="0.19.2",
    megatron_path="/site-packages/megatron",
    megatron_training=True,
    transformer_engine="2.9.0",
)
NOTHING = Environment(python="3.10.12")
LEGACY = ("--ckpt-format", "torch", "--use-distributed-optimizer")


def named(env: Environment) -> dict[str, Trap]:
    return {trap.name: trap for trap in traps(env)}


def with_arguments(*arguments: str, **changes: str | None) -> Environment:
    return replace(GPU_IMAGE, arguments=arguments, **changes)  # type: ignore[arg-type]


def test_a_good_gpu_image_has_no_traps() -> None:
    assert traps(GPU_IMAGE) == []


def test_without_torch_and_megatron_both_are_named_and_block() -> None:
    assert {name: trap.blocks for name, trap in named(NOTHING).items()} == {
        "no torch": True,
        "no megatron": True,
    }


@pytest.mark.parametrize(
    ("core", "arguments", "blocks"),
    [
        ("0.19.2", (), True),
        ("0.20.0", (), True),
        ("0.18.2", (), False),
        ("0.16.0", (), False),
        ("0.16.0", ("--enable-ft-package",), True),
    ],
)
def test_old_nvrx_blocks_where_megatron_cannot_use_it(core: str, arguments: tuple[str, ...], blocks: bool) -> None:
    env = replace(GPU_IMAGE, megatron_core=core, arguments=arguments, nvidia_resiliency_ext="0.4.1")
    assert named(env)["old NVRx"].blocks is blocks


@pytest.mark.parametrize(("core", "nvrx"), [("0.15.0", "0.4.1"), ("0.19.2", "0.5.0"), ("0.19.2", None)])
def test_nvrx_is_no_trap_where_it_is_new_or_megatron_is_old(core: str, nvrx: str | None) -> None:
    assert "old NVRx" not in named(replace(GPU_IMAGE, megatron_core=core, nvidia_resiliency_ext=nvrx))


def test_async_save_without_the_persistent_worker_is_named() -> None:
    trap = named(with_arguments("--async-save"))["async save switched off"]
    assert (trap.blocks, trap.fix) == (False, "add --use-persistent-ckpt-worker")


ASYNC = ("--async-save", "--use-persistent-ckpt-worker")


def test_async_save_by_the_default_writer_blocks_where_that_is_not_here() -> None:
    trap = named(with_arguments(*ASYNC))["async save without NVRx"]
    assert (trap.blocks, trap.fix) == (True, "add --async-strategy mcore")


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        ((*ASYNC, "--async-strategy", "mcore"), {}),
        (ASYNC, {"nvidia_resiliency_ext": "0.7.0"}),
        (ASYNC, {"megatron_core": "0.16.1"}),
    ],
)
def test_async_save_with_the_persistent_worker_and_a_writer_is_no_trap(
    arguments: tuple[str, ...], environment: dict[str, str]
) -> None:
    assert traps(with_arguments(*arguments, **environment)) == []


def test_async_save_before_core_0_16_is_no_trap() -> None:
    assert "async save switched off" not in named(with_arguments("--async-save", megatron_core="0.15.1"))


def test_a_wheel_without_megatron_training_blocks() -> None:
    trap = named(replace(GPU_IMAGE, megatron_core="0.16.1", megatron_training=False))["no megatron.training"]
    assert trap.blocks
    assert "PYTHONPATH" in trap.fix


def test_a_folder_that_shadows_megatron_is_named_and_blocks() -> None:
    env = replace(GPU_IMAGE, megatron_core=None, megatron_training=False, megatron_path="/job/megatron")
    trap = named(env)["shadowed megatron"]
    assert trap.blocks
    assert "/job/megatron" in trap.found


def test_legacy_format_with_the_distributed_optimizer_is_named() -> None:
    assert named(with_arguments(*LEGACY))["legacy format"].blocks is False


def test_legacy_format_without_a_fused_adam_blocks_on_core_0_19() -> None:
    assert named(with_arguments(*LEGACY, transformer_engine=None))["legacy format"].blocks is True


def test_legacy_format_alone_is_no_trap() -> None:
    assert traps(with_arguments("--ckpt-format=torch")) == []


def test_a_repeated_flag_counts_as_argparse_reads_it() -> None:
    assert traps(with_arguments(*LEGACY, "--ckpt-format=torch_dist")) == []


def test_bf16_with_torchs_adam_blocks_on_core_0_14() -> None:
    arguments = ("--bf16", "--use-distributed-optimizer")
    env = with_arguments(*arguments, transformer_engine=None, megatron_core="0.14.0")
    assert named(env)["bf16 without fused Adam"].blocks


@pytest.mark.parametrize(
    "arguments",
    [
        ("--ckpt-format", "torch_dcp"),
        ("--ckpt-format", "fsdp_dtensor"),
        ("--use-torch-fsdp2",),
        ("--use-megatron-fsdp",),
    ],
    ids=" ".join,
)
def test_a_format_or_sharding_that_a_start_refuses_blocks(arguments: tuple[str, ...]) -> None:
    trap = named(with_arguments(*arguments))["sharding or format that is refused"]
    assert trap.blocks
    assert trap.found.startswith(f"{' '.join(arguments)}: ")


def test_torchs_adam_is_named_and_does_not_block() -> None:
    assert not named(replace(GPU_IMAGE, transformer_engine=None))["torch's Adam"].blocks


def test_nvidias_apex_is_a_fused_adam() -> None:
    assert traps(replace(GPU_IMAGE, transformer_engine=None, apex_path="/apex", apex_is_nvidias=True)) == []


def test_an_apex_that_is_not_nvidias_is_named() -> None:
    assert "/site/apex" in named(replace(GPU_IMAGE, apex_path="/site/apex"))["foreign apex"].found


def test_an_unguarded_script_is_named() -> None:
    trap = named(replace(GPU_IMAGE, script="train.py", script_is_guarded=False))["unguarded script"]
    assert "train.py" in trap.found
    assert "megatron-resume run" in trap.fix


def test_python_too_old_for_the_wheel_blocks() -> None:
    assert named(replace(GPU_IMAGE, python="3.10.12"))["python too old"].blocks


def test_an_index_builder_that_is_neither_compiled_nor_can_be_blocks() -> None:
    trap = named(replace(GPU_IMAGE, has_index_builder=False))["no index builder"]
    assert trap.blocks
    assert "/site-packages/megatron/core/datasets has neither helpers_cpp compiled for Python 3.12.3" in trap.found


def test_every_trap_says_what_to_do() -> None:
    env = replace(NOTHING, arguments=(*LEGACY, "--async-save"), script="x.py", script_is_guarded=False)
    assert all(trap.found and trap.fix for trap in traps(env))
