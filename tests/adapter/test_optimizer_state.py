"""Optimizers of which Megatron could not load what it saves."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from megatron_resume.adapter.optimizer_state import problem


def weight() -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.ones(2))


def megatrons(inner: Any, **more: Any) -> Any:
    return SimpleNamespace(optimizer=inner, **more)


def stepped(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    for group in optimizer.param_groups:
        for param in group["params"]:
            param.grad = torch.zeros_like(param)  # as at learning rate 0, or of a weight that nothing used
    optimizer.step()
    return optimizer


def test_adam_before_its_first_step_has_none_of_the_state_that_is_loaded() -> None:
    lacking, whole = torch.optim.AdamW([weight()]), stepped(torch.optim.AdamW([weight()], lr=0.0))
    assert "has made no step yet" in str(problem(megatrons(lacking), "torch_dist"))
    assert problem(megatrons(whole), "torch_dist") is None
    assert problem(SimpleNamespace(chained_optimizers=[megatrons(whole), megatrons(lacking)]), "torch_dist")


@pytest.mark.parametrize(
    "loadable",
    [
        None,
        megatrons(None),
        megatrons(torch.optim.SGD([weight()])),
        megatrons(torch.optim.Adam([{"params": []}])),  # of a rank or a model without weights to train
        megatrons(torch.optim.Adam([weight()]), is_stub_optimizer=True),
        SimpleNamespace(chained_optimizers=[]),
    ],
)
def test_what_has_no_state_to_load_is_no_problem(loadable: Any) -> None:
    assert problem(loadable, "torch_dist") is None


def test_a_format_that_restores_an_empty_state_as_one_is_no_problem() -> None:
    assert problem(megatrons(torch.optim.Adam([weight()])), "torch") is None
