"""Data that grew or changed: refused with a table, or recorded, and then nothing is repeated or skipped."""

import hashlib
import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron_resume.data import EpisodeSampler, episode_sampler
from megatron_resume.errors import ConfigError, MismatchError


class Rows:
    """A dataset as its texts."""

    def __init__(self, name: str, texts: list[str]) -> None:
        self.name, self._texts = name, texts

    def __len__(self) -> int:
        return len(self._texts)

    def digest(self, rows: int) -> str:
        return hashlib.sha256(json.dumps(self._texts[:rows]).encode()).hexdigest()


def texts(count: int) -> list[str]:
    return [f"prompt {number}" for number in range(count)]


def sampler(*datasets: Rows, at: int = 0, **changed: object) -> EpisodeSampler:
    given = {"samples_per_episode": 10, "datasets": list(datasets), **changed}
    found = EpisodeSampler([len(one) for one in datasets], **given)
    found.seek(at)
    return found


def through_json(state: dict) -> dict:
    return json.loads(json.dumps(state))


OLD = Rows("math.jsonl", texts(100))
LONGER = Rows("math.jsonl", texts(130))
EDITED = Rows("math.jsonl", ["another prompt", *texts(100)[1:]])


def is_of_whole_epochs(taken: list[list[int]], dataset: int, grew: list[tuple[int, list[int]]]) -> bool:
    """Whether each epoch of `dataset` has the rows that were there when it began once each, the last in part."""
    places = [place for place, (owner, _) in enumerate(taken) if owner == dataset]
    while places:
        size = [sizes[dataset] for at, sizes in grew if at <= places[0] and dataset < len(sizes)][-1]
        rows = [taken[place][1] for place in places[:size]]
        if len(set(rows)) < len(rows) or max(rows) >= size:
            return False
        del places[:size]
    return True


@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=3),
    growths=st.lists(st.tuples(st.integers(0, 60), st.lists(st.integers(0, 9), min_size=8, max_size=8)), max_size=4),
)
@settings(deadline=None)
def test_rows_and_datasets_that_are_appended_repeat_and_skip_nothing(
    sizes: list[int], growths: list[tuple[int, list[int]]]
) -> None:
    job = EpisodeSampler(sizes, samples_per_episode=10)
    grew, taken = [(0, sizes)], []
    for steps, more in growths:
        taken += job.take(steps).tolist()
        state, before = through_json(job.state_dict()), sizes
        sizes = [size + new for size, new in zip(sizes, more, strict=False)]
        sizes += [more[-1]] * (more[-1] > 7)
        job = EpisodeSampler(sizes, samples_per_episode=10)
        change = job.load_state_dict(state, on_dataset_change="append")
        new = sum(sizes) - sum(before)
        assert (change is None) == (new == 0)
        if change:
            assert (change.at, change.repeated, change.skipped, change.new) == (len(taken), 0, 0, new)
        grew.append((len(taken), sizes))
    taken += job.take(150).tolist()
    assert taken == job.positions(0, len(taken)).tolist()
    assert all(is_of_whole_epochs(taken, dataset, grew) for dataset in range(len(sizes)))


def test_the_test_above_sees_a_row_that_comes_twice() -> None:
    assert not is_of_whole_epochs([[0, 0], [0, 1], [0, 0]], 0, [(0, [3])])


def test_equal_data_go_on_without_a_word() -> None:
    saved = sampler(OLD, at=42).state_dict()
    job = sampler(Rows("moved/math.jsonl", texts(100)))
    assert job.load_state_dict(through_json(saved)) is None
    assert job.consumed_samples == 42
    assert job.state_dict()["changes"] == []


def test_longer_data_are_refused_with_a_table_and_what_to_type() -> None:
    with pytest.raises(MismatchError) as refused:
        sampler(LONGER).load_state_dict(sampler(OLD, at=42).state_dict())
    assert str(refused.value) == (
        "the data are not as they were saved at sample 42:\n"
        "                          saved     now\n"
        "  dataset 0 (math.jsonl)  100 rows  130 rows\n"
        "Type --on-dataset-change append to go on with it from here: nothing is repeated or skipped, and rows that are "
        "new come from their dataset's next epoch on; or give the job what was saved"
    )
    assert refused.value.exit_code == 78


def test_appending_is_told_in_one_line() -> None:
    change = sampler(LONGER).load_state_dict(sampler(OLD, at=42).state_dict(), on_dataset_change="append")
    assert str(change) == (
        "the data changed at sample 42 (episode 4): dataset 0 (math.jsonl): 100 rows -> 130 rows; 0 repeated, "
        "0 skipped, 30 new"
    )


def test_appended_rows_come_with_the_next_epoch() -> None:
    job = sampler(LONGER)
    job.load_state_dict(sampler(OLD, at=42).state_dict(), on_dataset_change="append")
    rows = job.positions(0, 230)[:, 1].tolist()
    assert rows[:100] == sampler(OLD).positions(0, 100)[:, 1].tolist()
    assert sorted(rows[100:]) == list(range(130))


def test_between_two_epochs_appended_rows_come_at_once() -> None:
    job = sampler(LONGER)
    job.load_state_dict(sampler(OLD, at=100).state_dict(), on_dataset_change="append")
    assert sorted(job.take(130)[:, 1].tolist()) == list(range(130))


@pytest.mark.parametrize(
    ("job", "text"),
    [
        (lambda: sampler(Rows("math.jsonl", texts(90))), "10 rows are gone"),
        (lambda: sampler(EDITED), "rows that were there have changed"),
        (
            lambda: sampler(Rows("math.jsonl", [*texts(50), "new", *texts(100)[50:]])),
            "rows that were there have changed",
        ),
        (lambda: sampler(OLD, seed=1), "another seed is another order"),
        (lambda: sampler(OLD, shuffle=False), "another shuffle is another order"),
        (lambda: sampler(OLD, drop_last=True), "another drop_last is another order"),
        (lambda: sampler(OLD, described={"tokenizer": "other"}), "tokenizer has changed"),
        (lambda: sampler(OLD, samples_per_episode=9), "episode 4 is at sample 2 of 10"),
    ],
)
@pytest.mark.parametrize("on_dataset_change", ["refuse", "append"])
def test_what_no_append_can_save_is_refused_with_the_reason(job: object, text: str, on_dataset_change: str) -> None:
    new = job()
    before = new.state_dict()
    state = sampler(OLD, at=42, described={"tokenizer": "llama"}).state_dict()
    with pytest.raises(MismatchError, match=f"cannot go on so: .*{text}.*--start-over"):
        new.load_state_dict(state, on_dataset_change=on_dataset_change)
    assert new.state_dict() == before


def test_a_dataset_that_is_gone_is_refused() -> None:
    with pytest.raises(MismatchError, match="a dataset is gone"):
        sampler(OLD).load_state_dict(sampler(OLD, EDITED, at=3).state_dict(), on_dataset_change="append")


def test_datasets_that_changed_places_are_refused() -> None:
    other = Rows("code.jsonl", texts(200)[100:])
    with pytest.raises(MismatchError, match="content of the first 100 rows of dataset 0"):
        sampler(other, OLD).load_state_dict(sampler(OLD, other, at=3).state_dict(), on_dataset_change="append")


def test_what_only_one_side_knows_is_not_compared() -> None:
    unknown = EpisodeSampler([100], samples_per_episode=10)
    unknown.seek(42)
    assert sampler(EDITED, described={"tokenizer": "x"}).load_state_dict(unknown.state_dict()) is None
    assert unknown.load_state_dict(sampler(OLD, at=7).state_dict()) is None


def test_what_is_known_of_the_data_outlives_a_job_that_did_not_look() -> None:
    blind = EpisodeSampler([100], samples_per_episode=10)
    blind.load_state_dict(sampler(OLD, at=7, described={"tokenizer": "x"}).state_dict())
    with pytest.raises(MismatchError, match="rows that were there have changed; tokenizer has changed"):
        sampler(EDITED, described={"tokenizer": "y"}).load_state_dict(blind.state_dict())


def test_longer_data_that_nobody_looked_at_have_no_digest_afterwards() -> None:
    blind = EpisodeSampler([130], samples_per_episode=10)
    blind.load_state_dict(sampler(OLD, at=7).state_dict(), on_dataset_change="append")
    assert blind.state_dict()["datasets"] == []


def test_weights_change_from_their_position_on_only() -> None:
    state = sampler(OLD, EDITED, weights=[1, 1], at=33).state_dict()
    job = sampler(OLD, EDITED, weights=[3, 1])
    with pytest.raises(MismatchError, match="weights +1, 1 +3, 1"):
        job.load_state_dict(state)
    change = job.load_state_dict(state, on_dataset_change="append")
    found = job.positions(0, 433).tolist()
    assert found[:33] == sampler(OLD, EDITED, weights=[1, 1]).positions(0, 33).tolist()
    assert Counter(dataset for dataset, _ in found[33:]) == {0: 300, 1: 100}
    assert (change.repeated, change.skipped, change.new) == (0, 0, 0)


def test_weights_in_another_unit_are_the_same() -> None:
    state = sampler(OLD, EDITED, weights=[1, 3], at=33).state_dict()
    assert sampler(OLD, EDITED, weights=[0.25, 0.75]).load_state_dict(state) is None


def test_episodes_change_their_length_between_two_of_them_and_are_counted_on() -> None:
    job = sampler(OLD, samples_per_episode=15)
    job.load_state_dict(sampler(OLD, at=40).state_dict(), on_dataset_change="append")
    assert job.episode == 4
    job.advance(15)
    assert job.episode == 5
    assert job.positions(0, 90).tolist() == sampler(OLD).positions(0, 90).tolist()


def test_with_drop_last_episodes_keep_their_length() -> None:
    state = sampler(OLD, drop_last=True, at=40).state_dict()
    with pytest.raises(MismatchError, match="with drop_last, samples_per_episode decides"):
        sampler(OLD, drop_last=True, samples_per_episode=15).load_state_dict(state, on_dataset_change="append")


def test_changes_at_one_position_are_one() -> None:
    state = sampler(OLD, at=42).state_dict()
    for rows in (110, 120, 130):
        job = sampler(Rows("math.jsonl", texts(rows)))
        job.load_state_dict(state, on_dataset_change="append")
        state = through_json(job.state_dict())
    assert state["changes"] == [{"at": 42, "sizes": [130]}]


def test_a_change_back_at_one_position_is_none() -> None:
    state = sampler(OLD, EDITED, weights=[1, 1], at=42).state_dict()
    for weights in ([1, 2], [1, 1]):
        job = sampler(OLD, EDITED, weights=weights)
        job.load_state_dict(state, on_dataset_change="append")
        state = job.state_dict()
    assert state["changes"] == []


def test_a_job_that_went_back_behind_a_change_keeps_it() -> None:
    job = sampler(LONGER)
    job.load_state_dict(sampler(OLD, at=42).state_dict(), on_dataset_change="append")
    job.seek(10)
    again = sampler(LONGER)
    assert again.load_state_dict(through_json(job.state_dict())) is None
    assert again.take(300).tolist() == job.take(300).tolist()


def test_a_job_that_went_back_behind_a_change_records_the_next_after_it() -> None:
    job = sampler(LONGER)
    job.load_state_dict(sampler(OLD, at=42).state_dict(), on_dataset_change="append")
    job.seek(10)
    longest = sampler(Rows("math.jsonl", texts(150)))
    assert longest.load_state_dict(job.state_dict(), on_dataset_change="append").at == 42
    assert longest.state_dict()["changes"] == [{"at": 42, "sizes": [150]}]
    assert longest.consumed_samples == 10


def test_a_sampler_can_load_one_state_after_another() -> None:
    job = sampler(LONGER)
    for at in (42, 7):
        job.load_state_dict(sampler(OLD, at=at).state_dict(), on_dataset_change="append")
        assert (job.consumed_samples, job.state_dict()["changes"]) == (at, [{"at": at, "sizes": [130]}])


def test_more_changes_than_a_state_can_hold_are_refused_before_they_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(episode_sampler, "MAX_CHANGES", 2)
    state = sampler(OLD).state_dict()
    for rows, at in ((110, 10), (120, 20)):
        job = sampler(Rows("math.jsonl", texts(rows)))
        state["consumed_samples"] = at
        job.load_state_dict(state, on_dataset_change="append")
        state = job.state_dict()
    state["consumed_samples"] = 30
    with pytest.raises(MismatchError, match="2 changes of the data are recorded .* --start-over"):
        sampler(Rows("math.jsonl", texts(130))).load_state_dict(state, on_dataset_change="append")
    assert sampler(Rows("math.jsonl", texts(120))).load_state_dict(state) is None


def test_a_digest_is_asked_for_once() -> None:
    asked: list[int] = []

    class Slow(Rows):
        def digest(self, rows: int) -> str:
            asked.append(rows)
            return super().digest(rows)

    job = sampler(Slow("math.jsonl", texts(100)))
    state = job.state_dict()
    job.load_state_dict(state)
    job.state_dict()
    assert asked == [100]


def test_a_policy_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match="on_dataset_change is 'maybe'; give one of refuse, append"):
        sampler(OLD).load_state_dict(sampler(OLD).state_dict(), on_dataset_change="maybe")


@pytest.mark.parametrize(
    ("datasets", "text"),
    [([OLD, OLD], "2 datasets and 1 sizes"), ([LONGER], "the size of dataset 0 is 100, but math.jsonl has 130 rows")],
)
def test_datasets_that_are_not_of_the_sizes_are_refused(datasets: list[Rows], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        EpisodeSampler([100], samples_per_episode=10, datasets=datasets)


def test_a_single_dataset_needs_no_list() -> None:
    assert EpisodeSampler(100, samples_per_episode=10, datasets=OLD).state_dict()["datasets"][0]["name"] == "math.jsonl"
