"""`doctor [SCRIPT ARGS...]`: what is installed, which hooks hold here, and what is known to go wrong."""

import contextlib
import importlib
import sys
import warnings
from dataclasses import asdict, dataclass, field
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING

from megatron_resume.errors import ConfigError, UnsupportedMegatron
from megatron_resume.hooks import Hook
from megatron_resume.shown import shown

from . import chatlearn_calls
from .environment import Environment, look
from .terminal import console, table
from .traps import Trap, traps

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class HookReport:
    """Whether one hook can be installed on the Megatron found here."""

    name: str
    installable: bool
    remark: str  # why not, or that this version has no need of it


@dataclass(frozen=True)
class Report:
    """All that `doctor` has to say."""

    environment: Environment
    hooks: list[HookReport]
    traps: list[Trap]
    chatlearn: list[HookReport] = field(default_factory=list)  # where it is here; a job without it is not blocked by it

    @property
    def blocked(self) -> bool:
        """Whether something makes Megatron, or our hooks on it, unusable here."""
        return any(trap.blocks for trap in self.traps) or not all(hook.installable for hook in self.hooks)


def doctor(command: list[str], *, json: bool) -> int:
    """List versions, hooks and known traps on this machine, as `command` ([SCRIPT, ARGS...]) would meet them.

    Returns the exit code: 78 if something makes Megatron unusable.
    """
    report = examine(command)
    if json:
        print(dumps({**asdict(report), "blocked": report.blocked}))  # which escapes names that are not UTF-8
    else:
        _print(report)
    return ConfigError.exit_code if report.blocked else 0


def examine(command: list[str]) -> Report:
    """Look at this machine as `command` would find it. Imports Megatron, where nothing blocks that."""
    environment = look(command)
    found = traps(environment)
    if not environment.torch or not environment.megatron_training:
        return Report(environment, [], found)
    if command:
        sys.path[0] = str(Path(command[0]).resolve().parent)  # a checkout beside the script is the job's
    print("importing Megatron to examine it; this takes some seconds", file=sys.stderr, flush=True)
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():  # importing Megatron prints
        warnings.simplefilter("ignore")  # what its warnings say, the traps say
        hooks = _examine_hooks(environment.megatron_core or "unknown")
        return Report(environment, hooks, found, _examine_chatlearn(environment))


def _examine_hooks(megatron_core: str) -> list[HookReport]:
    try:
        from megatron_resume.adapter.versions import HOOKS, verdict  # needs torch
    except Exception as error:  # a torch that does not import is a finding
        return [HookReport("torch", False, f"import fails: {type(error).__name__}: {error}")]
    version = HookReport(f"megatron-core {megatron_core}", *verdict(megatron_core))
    return [version, *map(_examine_hook, HOOKS)]


def _examine_hook(hook: Hook) -> HookReport:
    try:
        if hook.find(importlib.import_module(hook.module)) is None:
            return HookReport(hook.name, True, "not in this version, which does without")
    except UnsupportedMegatron as error:
        return HookReport(hook.name, False, str(error))
    except Exception as error:  # whatever Megatron raises on import is the finding
        if hook.optional and isinstance(error, ModuleNotFoundError) and error.name == hook.module:
            return HookReport(hook.name, True, "not in this version, which does without")
        return HookReport(hook.name, False, f"import {hook.module} fails: {type(error).__name__}: {error}")
    return HookReport(hook.name, True, "")


def _examine_chatlearn(environment: Environment) -> list[HookReport]:
    """Of ChatLearn only the text: importing it brings Ray, and vLLM where that is installed."""
    if not environment.chatlearn or not environment.chatlearn_path:
        return []
    package = Path(environment.chatlearn_path)
    try:
        from megatron_resume.chatlearn import hook_set  # needs torch
    except Exception as error:
        return [HookReport("megatron_resume.chatlearn", False, f"import fails: {type(error).__name__}: {error}")]
    problems = {hook.name: chatlearn_calls.problem(package, hook) for hook in hook_set.hooks}
    return [HookReport(name, not problem, problem) for name, problem in problems.items()]


def _print(report: Report) -> None:
    out = console()
    out.print(_versions(report.environment))
    if report.hooks:
        out.print(_table_of_hooks("hook on Megatron", report.hooks), "")
    else:
        out.print("The hooks were not examined, since torch or megatron.training is missing here.", "")
    if report.chatlearn:
        out.print(_table_of_hooks("hook on ChatLearn", report.chatlearn), "")
    for trap in report.traps:
        out.print(
            f"{'blocks' if trap.blocks else 'note'}: {trap.name}: {shown(trap.found)}\n        -> {shown(trap.fix)}"
        )
    blocked = "Megatron cannot be used here as it is."
    out.print(blocked if report.blocked else "Nothing blocks here.", style="bold")


def _table_of_hooks(title: str, hooks: list[HookReport]) -> "Table":
    rows = table(title, "", title="")
    for hook in hooks:
        rows.add_row(hook.name, "ok" if hook.installable else "cannot be installed")
        if hook.remark:
            rows.add_row("", shown(hook.remark))
    return rows


def _versions(environment: Environment) -> "Table":
    apex = "NVIDIA's" if environment.apex_is_nvidias else "another project" if environment.apex_path else None
    rows = table("installed", "version", title="")
    for name, version in (
        ("python", environment.python),
        ("torch", environment.torch),
        ("megatron-core", environment.megatron_core),
        ("megatron.training", environment.megatron_path if environment.megatron_training else None),
        ("transformer-engine", environment.transformer_engine),
        ("apex", apex),
        ("nvidia-resiliency-ext", environment.nvidia_resiliency_ext),
    ):
        rows.add_row(name, shown(str(version or "not here")))
    if environment.chatlearn:
        rows.add_row("chatlearn", shown(environment.chatlearn))
    return rows
