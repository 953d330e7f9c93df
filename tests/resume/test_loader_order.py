"""From recorded arguments it is known whether Megatron's own loader goes on where it stopped."""

import pytest

from megatron_resume.resume.loader_order import problem, unsaved

CYCLIC = {"dataloader_type": "cyclic", "data_parallel_size": 2, "micro_batch_size": 4, "data_sharding": True}
EXTERNAL = {"dataloader_type": "external", "data_parallel_size": 2, "dataloader_save": None}
SAVED = {**EXTERNAL, "dataloader_save": "/save"}


@pytest.mark.parametrize("arguments", [CYCLIC, SAVED, {**CYCLIC, "dataloader_type": "single"}])
def test_in_the_shape_that_was_saved_a_loader_goes_on(arguments: dict[str, object]) -> None:
    assert problem(arguments, arguments) is None


def test_the_order_of_the_dataset_goes_on_in_any_shape() -> None:
    single = {**CYCLIC, "dataloader_type": "single"}
    assert problem(single, {**single, "data_parallel_size": 1, "micro_batch_size": 8}) is None


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"data_parallel_size": 1}, "shuffled a bucket for each of 2 ranks, and there are 1 now"),
        ({"micro_batch_size": 2}, "shuffled micro batches of 4 rows, and there are 2 now"),
        ({"data_sharding": False}, "shuffled a bucket for each rank, and now over all ranks"),
        ({"dataloader_type": "single"}, "was cyclic and is single"),
    ],
)
def test_a_shuffling_loader_does_not_go_on_in_another(change: dict[str, object], why: str) -> None:
    assert why in (problem(CYCLIC, {**CYCLIC, **change}) or "")


def test_without_sharding_epochs_may_be_longer_on_other_ranks() -> None:
    unsharded = {**CYCLIC, "data_sharding": False}
    assert "epochs in whole batches of 2 ranks" in (problem(unsharded, {**unsharded, "data_parallel_size": 1}) or "")


def test_a_loader_of_the_jobs_own_goes_on_only_with_a_place_that_was_saved() -> None:
    assert "has no place" in (problem(EXTERNAL, EXTERNAL) or "")
    assert "has no place" in (unsaved(EXTERNAL) or "")
    assert unsaved(SAVED) is None
    assert "the place of each of 2 ranks" in (problem(SAVED, {**SAVED, "data_parallel_size": 4}) or "")


@pytest.mark.parametrize("then", [{}, CYCLIC])
def test_a_job_without_megatrons_loaders_is_left_alone(then: dict[str, object]) -> None:
    assert problem(then, {"data_parallel_size": 1}) is None
    assert unsaved({}) is None
