"""No bytes in a file that a start or `status` reads end in a traceback, a hang or a way out of the folders."""

import functools
import os
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.fuzz_targets import TARGETS, seeds

pytestmark = pytest.mark.torch

TOKENS = [
    *(b'"$array"', b'"$tensor"', b"null", b"[]", b"{}", b'"\\u202e"', b'"../../x"', b"-1", b"1e999", b'"\\u001b":1,'),
    *(b"\x80\x04", b"h\x07", b"(", b"l", b"d", b"a", b"N", b"c", b"R"),  # of pickles
]
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", settings.default.max_examples))

every_seed = functools.cache(seeds)


@st.composite
def mutated(draw: st.DrawFn, whole: list[bytes]) -> bytes:
    """A whole input with a few parts cut out, doubled or replaced, mostly where values begin and end."""
    data = draw(st.sampled_from(whole))
    for _ in range(draw(st.integers(0, 3))):
        values = [match.start() for match in re.finditer(rb"[\[\]{}\":, ]", data)]
        place = st.sampled_from([1, len(data), *values]) | st.integers(0, len(data))
        begin, end = sorted((draw(place), draw(place)))
        part = draw(st.sampled_from(TOKENS) | st.binary(max_size=8) | st.just(data[begin:end]))
        data = data[:begin] + part + data[draw(st.sampled_from([begin, end])) :]
    return data


@pytest.mark.parametrize("target", TARGETS)
def test_the_seeds_are_taken(target: str) -> None:
    for seed in every_seed()[target]:
        TARGETS[target](seed)


@pytest.mark.parametrize("target", TARGETS)
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_bytes_break_a_reader(target: str, data: st.DataObject) -> None:
    TARGETS[target](data.draw(st.binary(max_size=300) | mutated(every_seed()[target])))
