"""What still holds the pattern after a load was not loaded; nothing else raises an alarm."""

import pytest
import torch

from megatron_resume.adapter import pattern

FLOATS = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", FLOATS)
def test_one_element_that_was_not_loaded_is_found(dtype: torch.dtype) -> None:
    weight = torch.zeros(3, 5, dtype=dtype)
    pattern.fill([weight])
    weight.view(-1)[:-1] = 1
    assert pattern.left_in([("weight", weight)]) == ["weight"]
    weight.view(-1)[-1] = 1
    assert pattern.left_in([("weight", weight)]) == []


@pytest.mark.parametrize("dtype", FLOATS)
def test_what_is_loaded_into_what_was_there_before_is_no_alarm(dtype: torch.dtype) -> None:
    """As a frozen weight, or one that was trained with learning rate 0."""
    weight = torch.nn.Parameter(torch.ones(4, dtype=dtype), requires_grad=False)
    pattern.fill([weight])
    weight.data.copy_(torch.ones(4))
    assert pattern.left_in([("weight", weight)]) == []


@pytest.mark.parametrize("dtype", FLOATS)
def test_numbers_that_are_none_are_no_alarm(dtype: torch.dtype) -> None:
    weights = torch.tensor([float("nan"), float("inf"), -float("nan"), 0.0], dtype=dtype)
    assert pattern.left_in([("weight", weights / weights), ("weight", weights)]) == []


def test_a_weight_that_needs_a_gradient_keeps_its_place_in_the_graph() -> None:
    weight = torch.nn.Parameter(torch.ones(4))
    pattern.fill([weight])
    assert weight.isnan().all()
    assert weight.requires_grad and weight.is_leaf


def test_a_view_is_filled_and_its_neighbours_are_not() -> None:
    buffer = torch.zeros(4, 4)
    pattern.fill([buffer[:, 1]])
    assert buffer.isnan().sum() == 4
    assert pattern.left_in([("column", buffer[:, 1]), ("another", buffer[:, 2])]) == ["column"]


@pytest.mark.parametrize(
    "other",
    [
        torch.arange(4),
        torch.zeros(4, dtype=torch.uint8),
        torch.zeros(4, dtype=torch.float8_e4m3fn),
        torch.zeros(0),
        torch.zeros(4, device="meta"),
        torch.zeros(4, dtype=torch.complex64),
    ],
    ids=["integers", "bytes", "fp8", "empty", "without data", "complex"],
)
def test_what_cannot_hold_it_is_left_alone(other: torch.Tensor) -> None:
    before = other.clone()
    pattern.fill([other])
    assert pattern.left_in([("other", other)]) == []
    assert other.device.type == "meta" or torch.equal(other.view(torch.uint8), before.view(torch.uint8))


def test_a_large_tensor_is_looked_at_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pattern, "_BLOCK", 10)
    weight = torch.zeros(25)
    pattern.fill([weight[24:]])
    assert pattern.left_in([("weight", weight)]) == ["weight"]
