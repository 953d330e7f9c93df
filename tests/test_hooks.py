"""Hooks reach every copy of a name, in every order of imports, and can be taken back."""

import functools
import importlib
import inspect
import sys
import textwrap

import pytest

from megatron_resume.errors import UnsupportedMegatron
from megatron_resume.hooks import Hook, HookSet, imported_late
from support.pool import run

HOME = """
def greet(name, punctuation="!", *, loud=False):
    "Say hello."
    return f"hello {name}{punctuation}"

def leave(name):
    return f"bye {name}"

def closure():
    x = 1
    def inner(name):
        return x
    return inner
decorated = closure()
"""
USER = """
import functools
from hooked_home import greet, leave
table = {"greet": greet}
bound = functools.partial(greet, "partial")
def uses_default(fn=greet):
    return fn("default")
"""


def shouting(original):
    def wrapper(*args, **kwargs):
        return original(*args, **kwargs).upper()

    return wrapper


@pytest.fixture
def modules(tmp_path, monkeypatch):
    (tmp_path / "hooked_home.py").write_text(HOME)
    (tmp_path / "hooked_user.py").write_text(USER)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in ("hooked_home", "hooked_user"):
        sys.modules.pop(name, None)


@pytest.fixture
def hooks(modules):
    made = HookSet(
        [
            Hook("hooked_home", "greet", ("name", "punctuation"), shouting),
            Hook("hooked_home", "leave", ("name",), shouting),
            Hook("hooked_home", "not_in_this_version", (), shouting, optional=True),
        ]
    )
    yield made
    made.uninstall()


def calls():
    user = importlib.import_module("hooked_user")
    return [
        user.greet("a"),
        user.table["greet"]("b"),
        user.bound(),
        user.uses_default(),
        user.leave(name="c"),
    ]


HOOKED = ["HELLO A!", "HELLO B!", "HELLO PARTIAL!", "HELLO DEFAULT!", "BYE C"]
PLAIN = ["hello a!", "hello b!", "hello partial!", "hello default!", "bye c"]


@pytest.mark.parametrize("when", ["before", "between", "after"])
def test_every_copy_of_the_name_is_hooked_in_every_order_of_imports(hooks, when):
    if when == "before":
        hooks.install()
    importlib.import_module("hooked_home")
    if when == "between":
        hooks.install()
    importlib.import_module("hooked_user")
    if when == "after":
        hooks.install()
    assert calls() == HOOKED


def test_uninstall_restores_the_very_code_and_defaults(hooks):
    home = importlib.import_module("hooked_home")
    function, code = home.greet, home.greet.__code__
    defaults, kwdefaults, names = home.greet.__defaults__, home.greet.__kwdefaults__, set(vars(home))
    hooks.install()
    assert function.__code__ is not code
    hooks.uninstall()
    assert home.greet is function
    assert function.__code__ is code
    assert function.__defaults__ is defaults
    assert function.__kwdefaults__ is kwdefaults
    assert set(vars(home)) == names
    assert calls() == PLAIN


def test_two_calls_install_once(hooks):
    importlib.import_module("hooked_home")
    hooks.install()
    hooks.install()
    assert calls() == HOOKED
    hooks.uninstall()
    assert calls() == PLAIN


def test_hooks_can_be_installed_again_after_uninstall(hooks):
    hooks.install()
    hooks.uninstall()
    hooks.install()
    assert calls() == HOOKED


def test_a_hooked_function_keeps_its_signature_name_and_docstring(hooks):
    home = importlib.import_module("hooked_home")
    before = inspect.signature(home.greet)
    hooks.install()
    assert inspect.signature(home.greet) == before
    assert home.greet.__name__ == "greet"
    assert home.greet.__doc__ == "Say hello."


def test_waiting_hooks_leave_the_module_its_own_loader(hooks):
    hooks.install()
    assert hooks.state(hooks.hooks[0]) == "waiting for hooked_home"
    home = importlib.import_module("hooked_home")
    assert hooks.state(hooks.hooks[0]) == "active"
    assert "def greet" in inspect.getsource(home)
    assert importlib.reload(home) is home  # finders and loaders still do their work


@pytest.mark.parametrize("imported", [True, False])
def test_a_missing_parameter_hooks_nothing_at_all(modules, imported):
    made = HookSet(
        [
            Hook("hooked_home", "leave", ("name",), shouting),
            Hook("hooked_home", "greet", ("name", "tempo"), shouting),
        ]
    )
    if imported:
        importlib.import_module("hooked_home")
    with pytest.raises(UnsupportedMegatron, match="greet has no parameter tempo"):
        made.install()
        importlib.import_module("hooked_home")
    assert not made.installed
    assert calls() == PLAIN


def test_a_missing_function_is_named(modules):
    importlib.import_module("hooked_home")
    with pytest.raises(UnsupportedMegatron, match="hooked_home.gone does not exist"):
        HookSet([Hook("hooked_home", "gone", (), shouting)]).install()


def test_a_function_that_somebody_decorated_is_refused(modules):
    importlib.import_module("hooked_home")
    with pytest.raises(UnsupportedMegatron, match="not a plain function"):
        HookSet([Hook("hooked_home", "decorated", (), shouting)]).install()


def test_one_that_scripts_may_replace_is_left_alone_where_they_did(modules):
    home = importlib.import_module("hooked_home")
    replacement = home.decorated
    made = HookSet([Hook("hooked_home", "decorated", (), shouting, may_be_replaced=True)])
    made.install()
    assert home.decorated is replacement
    made.uninstall()
    assert home.decorated is replacement


def test_importing_auto_imports_neither_megatron_nor_the_script(torch_pool, tmp_path):
    program = """
        import sys
        import megatron_resume.auto
        assert not [name for name in sys.modules if name.partition(".")[0] == "megatron"]
    """
    (tmp_path / "program.py").write_text(textwrap.dedent(program))
    done = run(torch_pool, tmp_path / "program.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_partial_made_before_is_hooked_too(hooks):
    home = importlib.import_module("hooked_home")
    early = functools.partial(home.greet, "early", punctuation="?")
    hooks.install()
    assert early() == "HELLO EARLY?"


def test_each_module_is_checked_before_it_is_hooked(modules):
    seen = []
    hooks = HookSet([Hook("hooked_home", "greet", (), shouting)], check=lambda module: seen.append(module.__name__))
    hooks.install()
    assert seen == []
    importlib.import_module("hooked_home")
    assert seen == ["hooked_home"]
    hooks.uninstall()
    hooks.install()
    assert seen == ["hooked_home"] * 2
    hooks.uninstall()


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_module_that_its_check_refuses_is_not_hooked(modules, when):
    def refuse(module):
        raise UnsupportedMegatron("too old")

    hooks = HookSet([Hook("hooked_home", "greet", (), shouting)], check=refuse)
    if when == "after":
        importlib.import_module("hooked_home")
    with pytest.raises(UnsupportedMegatron, match="too old"):
        hooks.install()
        importlib.import_module("hooked_home")
    assert not hooks.installed
    sys.modules.pop("hooked_home", None)
    assert importlib.import_module("hooked_home").greet("a") == "hello a!"


LATE = """
def shouting(original):
    wrapped.append(original)
    return lambda *args: original(*args).upper()
wrapped = []
"""


@pytest.fixture
def late(modules, tmp_path):
    (tmp_path / "hooked_late.py").write_text(LATE)
    yield HookSet([Hook("hooked_home", "greet", ("name",), imported_late("hooked_late", "shouting"))])
    sys.modules.pop("hooked_late", None)


def test_a_wrapper_is_imported_when_what_it_wraps_is_first_called(late):
    home = importlib.import_module("hooked_home")
    late.install()
    assert "hooked_late" not in sys.modules
    assert [home.greet("a"), home.greet("b")] == ["HELLO A!", "HELLO B!"]
    assert len(sys.modules["hooked_late"].wrapped) == 1, "made once"
    assert list(inspect.signature(home.greet).parameters) == ["name", "punctuation", "loud"]
    late.uninstall()
    assert home.greet("a") == "hello a!"


def test_a_wrapper_that_is_there_wraps_at_once(late):
    module = importlib.import_module("hooked_late")
    home = importlib.import_module("hooked_home")
    late.install()
    assert len(module.wrapped) == 1
    assert home.greet("a") == "HELLO A!"
