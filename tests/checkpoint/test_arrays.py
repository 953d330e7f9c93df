"""Tracked state comes back as it was, whatever Python values it holds; nothing is pickled."""

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from megatron_resume.checkpoint import arrays as codec
from megatron_resume.errors import ConfigError, DamagedError

DTYPES = [np.bool_, np.uint8, np.int16, np.uint32, np.int64, np.uint64, np.float16, np.float32, np.float64]
scalars = st.none() | st.booleans() | st.integers(-(2**200), 2**200) | st.floats() | st.text() | st.binary(max_size=20)
arrays = st.sampled_from(DTYPES).flatmap(
    lambda dtype: npst.arrays(dtype, npst.array_shapes(min_dims=0, min_side=0, max_side=4))
)
keys = st.text(max_size=5) | st.integers(-5, 5) | st.sampled_from(["$array", "$", "$items"])
values = st.recursive(
    scalars | arrays,
    lambda inner: (
        st.lists(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple) | st.dictionaries(keys, inner, max_size=3)
    ),
    max_leaves=8,
)


def no_tensor(value: object) -> None:
    return None


def stored_and_read(value: object) -> object:
    held: codec.Arrays = {}
    packed = codec.pack(value, "state", held, no_tensor)
    text = msgspec.json.encode(packed)
    return codec.unpack(msgspec.json.decode(text), codec.load(codec.dump(held), "arrays"), lambda a, m: a)


def same(a: object, b: object) -> bool:
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return (a == b and math.copysign(1, a) == math.copysign(1, b)) or (math.isnan(a) and math.isnan(b))
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    return a == b


@settings(max_examples=3 * settings.default.max_examples, deadline=None)
@given(values)
def test_state_comes_back_as_it_was(value: object) -> None:
    assert same(value, stored_and_read(value))


def test_state_of_numpy_generators_comes_back() -> None:
    generator = np.random.default_rng(7)
    generator.random(3)
    again = np.random.default_rng(0)
    again.bit_generator.state = stored_and_read(generator.bit_generator.state)
    assert again.random() == generator.random()


def test_what_is_captured_no_longer_changes_with_training() -> None:
    held: codec.Arrays = {}
    array = np.zeros(3)
    codec.pack({"a": array}, "state", held, no_tensor)
    array += 1
    assert held["state/a"].tolist() == [0, 0, 0]


@pytest.mark.parametrize("value", [object(), {"a": {1, 2}}, [np.array([object()])], np.array(["text"])])
def test_what_would_need_pickle_is_refused_by_name(value: object) -> None:
    with pytest.raises(ConfigError, match="^state"):
        codec.pack(value, "state", {}, no_tensor)


@pytest.mark.parametrize(
    "value",
    [
        {"$array": "gone"},
        {"$new": 1},
        {"$tuple": 3},
        {"$items": [[1]]},
        {"$float": "x"},
        {"$items": [[[], 1]]},
    ],
)
def test_damaged_state_is_named_not_raised_through(value: object) -> None:
    with pytest.raises(DamagedError, match="tracked state"):
        codec.unpack(value, {}, lambda a, m: a)


def test_a_torn_file_of_arrays_is_damaged() -> None:
    data = codec.dump({"a": np.arange(10)})
    for end in (0, 4, 20, len(data) - 1):
        with pytest.raises(DamagedError, match="here is damaged"):
            codec.load(data[:end], "here")


def test_names_that_meet_do_not_share_an_array() -> None:
    value = {"a": {"b/c": np.array([1.0])}, "a/b": {"c": np.array([2.0])}}
    assert same(value, stored_and_read(value))


def test_numpy_scalars_come_back_as_scalars() -> None:
    again = stored_and_read({"coefficient": np.float64(0.1)})
    assert isinstance(again["coefficient"], np.float64)
