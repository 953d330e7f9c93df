"""Which errors no restart mends: so few that what might pass is restarted."""

import errno

import pytest

from megatron_resume.errors import ConfigError, CrashLoopError, DamagedError, RejoinError
from megatron_resume.watch.hopeless import is_hopeless

FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    "error", [ConfigError("wrong"), CrashLoopError("again"), DamagedError("torn"), FULL], ids=lambda one: type(one)
)
@pytest.mark.parametrize("in_setup", [True, False])
def test_configuration_damage_and_a_full_disk_are_hopeless_at_any_time(error: BaseException, in_setup: bool) -> None:
    assert is_hopeless(error, in_setup=in_setup)


@pytest.mark.parametrize("error", [FileNotFoundError(), NotADirectoryError(), ModuleNotFoundError(), SyntaxError()])
def test_what_is_missing_is_hopeless_before_the_first_step_only(error: BaseException) -> None:
    assert is_hopeless(error, in_setup=True)
    assert not is_hopeless(error, in_setup=False)


@pytest.mark.parametrize("error", [RejoinError("join"), RuntimeError("NCCL"), ConnectionError(), MemoryError()])
def test_what_may_pass_is_not(error: BaseException) -> None:
    assert not is_hopeless(error, in_setup=True)


def validate_args(error: BaseException) -> None:
    raise error


def build_model(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(("where", "expected"), [(validate_args, True), (build_model, False)])
def test_an_assertion_is_hopeless_where_arguments_are_read(where: object, expected: bool) -> None:
    try:
        where(AssertionError("world size"))  # type: ignore[operator]
    except AssertionError as error:
        assert is_hopeless(error, in_setup=True) == expected
