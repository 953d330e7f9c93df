"""What a load asks for is compared with what was saved, tensor by tensor."""

import pytest

from megatron_resume.checkpoint.contents import (
    describe,
    has_tensors_of_optimizer,
    listed,
    merge,
    part_of,
    same_in_both,
    unanswered,
)

WEIGHT = {"model": {"weight": "tensor float32 [4, 2]"}}


def test_what_was_saved_as_it_is_asked_for_is_no_problem() -> None:
    assert unanswered(WEIGHT, WEIGHT) == []
    assert same_in_both(WEIGHT, WEIGHT) == {"weight"}


def test_a_tensor_that_was_not_saved_is_named_with_its_shape() -> None:
    asked = {"model": {**WEIGHT["model"], "bias": "tensor float32 [4]"}}
    assert unanswered(asked, WEIGHT) == ["bias [4] was not saved"]
    assert same_in_both(asked, WEIGHT) == {"weight"}


def test_a_tensor_of_another_shape_is_named_with_both() -> None:
    asked = {"model": {"weight": "tensor float32 [8, 2]"}}
    assert unanswered(asked, WEIGHT) == ["weight was saved as [4, 2], and is [8, 2] now"]
    assert same_in_both(asked, WEIGHT) == set()


@pytest.mark.parametrize("then", ["padded float32 [256, 64]", "tensor float32 [256, 64]"])
def test_a_vocabulary_padded_for_other_ranks_is_loaded_but_not_each_element_of_it(then: str) -> None:
    asked, held = {"model": {"embedding": "padded float32 [512, 64]"}}, {"model": {"embedding": then}}
    assert unanswered(asked, held) == []
    assert same_in_both(asked, held) == set()


def test_another_precision_and_a_factory_are_no_other_tensor() -> None:
    asked = {"model": {"weight": "factory bfloat16 [4, 2]"}}
    assert unanswered(asked, WEIGHT) == []


def test_objects_are_not_asked_for_since_megatron_takes_those_that_fit() -> None:
    assert unanswered({"rest": {"rng_state": "object [2, 1]"}}, WEIGHT) == []


def test_metadata_that_know_no_parts_are_compared_by_name() -> None:
    assert unanswered({"optimizer": WEIGHT["model"]}, WEIGHT) == []


def test_an_optimizer_of_other_parts_is_found_where_that_was_recorded() -> None:
    asked, held = {"optimizer": {"optimizer/param_groups": "groups []"}}, {"optimizer/0/param_groups": "groups []"}
    assert unanswered(asked, {"optimizer": held}) == ["optimizer/param_groups was not saved"]
    assert unanswered(asked, asked) == []
    assert unanswered(asked, WEIGHT) == []


def test_an_optimizer_without_tensors_was_not_saved() -> None:
    assert not has_tensors_of_optimizer({"model": {}, "optimizer": {"optimizer/param_groups": "groups []"}})
    assert has_tensors_of_optimizer({"optimizer": {"optimizer.state.exp_avg.weight": "tensor float32 [4]"}})


def test_ranks_hold_together_what_each_of_them_holds() -> None:
    other = {"model": {"a": "tensor float32 [1]"}, "optimizer": {"b": "tensor float32 [1]"}}
    assert merge([WEIGHT, other]) == {"model": {**other["model"], **WEIGHT["model"]}, "optimizer": other["optimizer"]}


@pytest.mark.parametrize(
    ("key", "part"), [("model", "model"), ("model1", "model"), ("optimizer", "optimizer"), ("rng_state", "rest")]
)
def test_virtual_stages_are_parts_of_the_model(key: str, part: str) -> None:
    assert part_of(key) == part


def test_a_message_names_a_few_and_counts_the_others() -> None:
    assert listed(["a", "b", "c", "d", "e"]) == "a; b; c; and 2 more"
    assert listed(["a"]) == "a"
    assert listed([]) == ""


def test_a_description_is_short_and_plain() -> None:
    assert describe("tensor", "torch.bfloat16", (4, 2)) == "tensor bfloat16 [4, 2]"
    assert describe("object", "", (1,)) == "object [1]"
