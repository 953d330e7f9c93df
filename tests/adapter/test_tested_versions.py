"""Which versions of Megatron are hooked: tested ones silently, unknown ones with a warning, too old ones never."""

import ast
import inspect
import pkgutil
import sys
from collections.abc import Callable

import pytest

from megatron_resume.adapter import versions
from megatron_resume.adapter.versions import HOOKS, OLDEST, TESTED, verdict


def test_every_wrapper_that_is_imported_late_exists() -> None:
    calls = [node for node in ast.walk(ast.parse(inspect.getsource(versions))) if isinstance(node, ast.Call)]
    named = [ast.literal_eval(call.args[0]) for call in calls if getattr(call.func, "id", "") == "_ours"]
    assert len(named) >= len(HOOKS)
    for name in named:
        assert callable(pkgutil.resolve_name(f"megatron_resume.adapter.{name}"))


def test_what_scripts_call_without_a_job_imports_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """An import in a thread, while another forks, is one that the child waits for."""
    imported = []

    def late(original: Callable[..., str]) -> Callable[..., str]:
        def ours() -> str:
            imported.append("ours")
            return original()

        return ours

    call = versions._in_a_session(late)(lambda: "the original")
    monkeypatch.delitem(sys.modules, "megatron_resume.adapter.session", raising=False)
    assert (call(), imported) == ("the original", [])
    monkeypatch.setitem(sys.modules, "megatron_resume.adapter.session", versions)
    assert (call(), imported) == ("the original", ["ours"])


@pytest.mark.parametrize("version", [*TESTED, "0.17.0", "0.19.7", "0.18.0rc1"])
def test_nothing_is_said_of_a_tested_version_and_its_patches(version: str) -> None:
    assert verdict(version) == (True, "")


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("0.20.0", "0.20.0 is newer than all that it knows"),
        ("1.0.0rc0", "1.0.0rc0 is newer than all that it knows"),
        (f"{OLDEST}.3", "0.12.3 is none of these"),
        ("0.16.1", "0.16.1 is none of these"),
        ("unknown", "'unknown', which says nothing"),
    ],
)
def test_a_version_that_nobody_tried_goes_on_and_is_named(version: str, said: str) -> None:
    supported, remark = verdict(version)
    assert supported
    assert said in remark
    assert "0.17.1, 0.18.2, 0.19.2" in remark


@pytest.mark.parametrize("version", ["0.11.0", "0.8.0"])
def test_a_version_that_is_too_old_is_refused_by_name(version: str) -> None:
    supported, remark = verdict(version)
    assert not supported
    assert f"megatron-core {version} is too old" in remark
    assert f"works from {OLDEST} on" in remark


def test_each_function_is_hooked_once() -> None:
    assert len({hook.name for hook in HOOKS}) == len(HOOKS)
