"""What is known to go wrong with Megatron here: each trap is a pure function of the environment.

The version ranges were measured on real Megatron, or read in its tags.
"""

from collections.abc import Callable
from dataclasses import dataclass

from ..adapter.formats import PROVEN, SHARDED
from .environment import Environment, numbers


@dataclass(frozen=True)
class Trap:
    """Something that goes wrong, and what to type against it."""

    name: str
    blocks: bool  # Megatron cannot be used, or not with these arguments
    found: str
    fix: str


def no_torch(env: Environment) -> Trap | None:
    if env.torch:
        return None
    return Trap("no torch", True, "torch is not installed here", 'pip install "megatron_resume[megatron]"')


def no_megatron(env: Environment) -> Trap | None:
    if env.megatron_path:
        return None
    fix = 'pip install "megatron_resume[megatron]", or put a Megatron-LM checkout on PYTHONPATH'
    return Trap("no megatron", True, "Megatron is not found here", fix)


def shadowed_megatron(env: Environment) -> Trap | None:
    if not env.megatron_path or env.megatron_core:
        return None
    found = f"`import megatron` takes {env.megatron_path}, which has no megatron.core"
    return Trap("shadowed megatron", True, found, "rename that file or folder, or take it off PYTHONPATH")


def no_megatron_training(env: Environment) -> Trap | None:
    if not env.megatron_core or env.megatron_training:
        return None
    found = f"megatron-core {env.megatron_core} comes without megatron.training (wheels have it from 0.17 on)"
    return Trap("no megatron.training", True, found, "put the Megatron-LM checkout of that version on PYTHONPATH")


def python_too_old(env: Environment) -> Trap | None:
    if numbers(env.python) >= (3, 12) or numbers(env.megatron_core) < (0, 17):
        return None
    found = f"megatron-core {env.megatron_core} needs Python 3.12, this is {env.python}"
    return Trap("python too old", True, found, "use Python 3.12, or a Megatron older than 0.17")


def no_index_builder(env: Environment) -> Trap | None:
    """As where a wheel for another Python is on the path: what it has compiled is not for this one."""
    if env.has_index_builder or not env.megatron_core:
        return None
    found = f"{env.megatron_path}/core/datasets has neither helpers_cpp compiled for Python {env.python} nor the "
    found += "Makefile to compile it; initialize_megatron ends there"
    fix = f"install megatron-core with this Python's pip, or put a checkout of {env.megatron_core} on PYTHONPATH"
    return Trap("no index builder", True, found, fix)


def old_nvrx(env: Environment) -> Trap | None:
    """0.4.1 has no `__version__`, which core 0.19 reads on import; pip picks it where glibc < 2.39."""
    core = numbers(env.megatron_core)
    if not env.nvidia_resiliency_ext or core < (0, 16) or numbers(env.nvidia_resiliency_ext) >= (0, 5):
        return None
    breaks_import = core >= (0, 19)
    effect = "`import megatron.core` fails" if breaks_import else "--enable-ft-package fails"
    found = f"nvidia-resiliency-ext {env.nvidia_resiliency_ext} beside core {env.megatron_core}: {effect}"
    fix = "pip uninstall nvidia-resiliency-ext, and give ft_launcher an environment of its own"
    return Trap("old NVRx", breaks_import or env.has("--enable-ft-package"), found, fix)


def async_save_off(env: Environment) -> Trap | None:
    if numbers(env.megatron_core) < (0, 16) or not env.has("--async-save"):
        return None
    if env.has("--use-persistent-ckpt-worker"):
        return None
    found = f"megatron-core {env.megatron_core} switches --async-save off without --use-persistent-ckpt-worker"
    return Trap("async save switched off", False, found, "add --use-persistent-ckpt-worker")


def async_save_without_nvrx(env: Environment) -> Trap | None:
    """Megatron's own writer is there, but no longer the default."""
    if numbers(env.megatron_core) < (0, 17) or not (
        env.has("--async-save") and env.has("--use-persistent-ckpt-worker")
    ):
        return None
    if env.nvidia_resiliency_ext or env.value("--async-strategy", "nvrx") != "nvrx":
        return None
    found = "--async-save needs nvidia-resiliency-ext, which is not here, for its default --async-strategy nvrx"
    return Trap("async save without NVRx", True, found, "add --async-strategy mcore")


def legacy_format(env: Environment) -> Trap | None:
    """Weights come from `ckpt_step`, optimizer shards and the iteration from the tracker."""
    if env.value("--ckpt-format", "torch_dist") != "torch" or not env.has("--use-distributed-optimizer"):
        return None
    blocks = numbers(env.megatron_core) >= (0, 19) and not _has_fused_adam(env)
    effect = "fails without Transformer Engine or apex" if blocks else "follows the tracker, not --ckpt-step"
    found = f"--ckpt-format torch with --use-distributed-optimizer {effect}"
    return Trap("legacy format", blocks, found, "use --ckpt-format torch_dist")


def bf16_without_fused_adam(env: Environment) -> Trap | None:
    if numbers(env.megatron_core) != (0, 14) or _has_fused_adam(env):
        return None
    if not (env.has("--bf16") and env.has("--use-distributed-optimizer")):
        return None
    found = "megatron-core 0.14 cannot load --bf16 with --use-distributed-optimizer saved by torch's Adam"
    return Trap("bf16 without fused Adam", True, found, "install transformer-engine, or use another Megatron")


def sharding_that_is_refused(env: Environment) -> Trap | None:
    given = [flag for flag in SHARDED.values() if env.has(flag)]
    if (format_ := env.value("--ckpt-format", "torch_dist")) not in PROVEN:
        given.append(f"--ckpt-format {format_}")
    if not given:
        return None
    found = f"{', '.join(given)}: nobody saw a run resume exactly with it, so a start with us is refused"
    return Trap("sharding or format that is refused", True, found, "use torch_dist and --use-distributed-optimizer")


def torchs_adam(env: Environment) -> Trap | None:
    if _has_fused_adam(env) or not env.megatron_core:
        return None
    found = "neither Transformer Engine nor NVIDIA's apex is here: Megatron falls back to torch's Adam"
    fix = 'on a GPU: pip install "megatron_resume[gpu]"; resume on machines of the same kind'
    return Trap("torch's Adam", False, found, fix)


def foreign_apex(env: Environment) -> Trap | None:
    if not env.apex_path or env.apex_is_nvidias:
        return None
    found = f"`import apex` takes {env.apex_path}, which is not NVIDIA's apex"
    return Trap("foreign apex", False, found, "uninstall it; NVIDIA's is built from its source")


def unguarded_script(env: Environment) -> Trap | None:
    if env.script_is_guarded:
        return None
    found = f'{env.script} calls functions outside of `if __name__ == "__main__":`; started by python alone, the '
    found += "first torch_dist save hangs, because Megatron's spawned writer imports the script again"
    return Trap(
        "unguarded script",
        False,
        found,
        "call its main function under that line, or start it by `megatron-resume run`",
    )


TRAPS: tuple[Callable[[Environment], Trap | None], ...] = (
    no_torch,
    no_megatron,
    shadowed_megatron,
    no_megatron_training,
    python_too_old,
    no_index_builder,
    old_nvrx,
    async_save_off,
    async_save_without_nvrx,
    legacy_format,
    bf16_without_fused_adam,
    sharding_that_is_refused,
    torchs_adam,
    foreign_apex,
    unguarded_script,
)


def traps(env: Environment) -> list[Trap]:
    """Every trap that applies here, in the order in which a start would meet them."""
    return [trap for check in TRAPS if (trap := check(env)) is not None]


def _has_fused_adam(env: Environment) -> bool:
    return env.transformer_engine is not None or env.apex_is_nvidias
