"""What a receipt records of a role's arguments: values that another process can compare, and no secrets."""

import enum
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import pytest

from megatron_resume.resume.recorded import recorded


class Backend(enum.IntEnum):
    flash = 1


class dtype:  # as torch's, which this test can do without
    def __str__(self) -> str:
        return "torch.bfloat16"


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (None, None),
        (True, True),
        (1e-6, 1e-6),
        (float("inf"), "inf"),
        (1 << 70, str(1 << 70)),
        ("cosine", "cosine"),
        ("name of a file \udcff", "name of a file ?"),
        (Path("/data"), "/data"),
        (Backend.flash, "flash"),
        (dtype(), "torch.bfloat16"),
        ((0.7, "/data/a", [1]), [0.7, "/data/a", [1]]),
        ({"depth": {1: 2}}, {"depth": {"1": 2}}),
    ],
)
def test_a_value_reads_the_same_after_it_was_stored(value: object, kept: Any) -> None:
    arguments = recorded({"name": value})
    assert arguments == {"name": kept}
    assert msgspec.json.decode(msgspec.json.encode(arguments)) == arguments


@pytest.mark.parametrize("value", [object(), print, {1, 2}, [object()]], ids=["object", "function", "set", "list"])
def test_what_no_other_process_could_compare_is_left_out(value: object) -> None:
    assert recorded({"name": value}) == {}


class Unresolved(dict[str, object]):
    """As OmegaConf's, where a value is still missing."""

    def items(self) -> NoReturn:
        raise ValueError("Missing mandatory value: lr")


def holds_itself() -> dict[str, object]:
    config: dict[str, object] = {}
    config["parent"] = config["root"] = config
    return config


@pytest.mark.parametrize("value", [Unresolved(), holds_itself()], ids=["unresolved", "holds itself"])
def test_an_object_that_cannot_be_looked_into_costs_no_start(value: object) -> None:
    assert recorded({"config": value, "lr": 0.1}) == {"lr": 0.1}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hf_token", "hunter2"),
        ("wandb_project", "hunter2"),
        ("api_key", "hunter2"),
        ("AWS_SECRET_ACCESS_KEY", "hunter2"),
        ("keys_of_the_store", ["redis://user:hunter2@host/0"]),
        ("login", {"password": "hunter2"}),
    ],
)
def test_what_looks_secret_is_left_out(name: str, value: object) -> None:
    assert "hunter2" not in str(recorded({name: value}))


def test_a_switch_is_no_secret() -> None:
    assert recorded({"rl_skip_bos_token": True}) == {"rl_skip_bos_token": True}
