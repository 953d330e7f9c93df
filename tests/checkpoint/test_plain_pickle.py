"""A pickle gives plain values, or is refused; nothing in it runs, and none takes more memory than it has bytes."""

import os
import pickle
import resource
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_resume.checkpoint.plain_pickle import MAX_DEPTH, load
from megatron_resume.errors import DamagedError

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
SCALARS = st.none() | st.integers() | st.floats(allow_nan=False) | st.text()
PLAIN = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=15
)


@given(value=PLAIN, protocol=st.sampled_from(PROTOCOLS))
def test_plain_values_come_back(value: Any, protocol: int) -> None:
    assert load(pickle.dumps(value, protocol), "it") == value


@given(data=st.binary(max_size=200))
def test_any_bytes_give_a_plain_value_or_are_refused(data: bytes) -> None:
    try:
        value = load(data, "it")
    except DamagedError:
        return
    assert_plain(value)


@given(value=PLAIN, protocol=st.sampled_from(PROTOCOLS), data=st.data())
def test_a_changed_pickle_gives_a_plain_value_or_is_refused(value: Any, protocol: int, data: st.DataObject) -> None:
    pickled = bytearray(pickle.dumps(value, protocol))
    pickled[data.draw(st.integers(0, len(pickled) - 1))] = data.draw(st.integers(0, 255))
    with suppress(DamagedError):
        assert_plain(load(bytes(pickled), "it"))


def assert_plain(value: Any) -> None:
    assert type(value) in (dict, list, str, int, float, type(None))
    if isinstance(value, dict):
        assert {type(key) for key in value} <= {str}
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        assert_plain(item)


class RunsCode:
    """Unpickled, it makes a folder."""

    def __init__(self, proof: Path):
        self.proof = proof

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.proof),)


def system(call: str, command: bytes) -> bytes:
    """A pickle that calls os.system; by hand, since `pickle` writes each protocol in one way only."""
    return {
        "GLOBAL": b"cos\nsystem\n(S'" + command + b"'\ntR.",
        "STACK_GLOBAL": b"\x80\x04\x8c\x02os\x8c\x06system\x93(\x8c" + bytes([len(command)]) + command + b"tR.",
        "INST": b"(S'" + command + b"'\nios\nsystem\n.",
        "OBJ": b"(cos\nsystem\nS'" + command + b"'\no.",
        "NEWOBJ": b"\x80\x02cos\nsystem\n(U" + bytes([len(command)]) + command + b"t\x81.",
        "BUILD": b"\x80\x02}cos\nsystem\nb.",
        "EXT": b"\x80\x02\x82\x01.",
        "PERSID": b"P" + command + b"\n.",
    }[call]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_pickle_that_calls_runs_nothing(tmp_path: Path, protocol: int) -> None:
    data = pickle.dumps({"episode": RunsCode(tmp_path / "ran")}, protocol)
    with pytest.raises(DamagedError, match="no pickle of plain values"):
        load(data, "it")
    assert not (tmp_path / "ran").exists()
    pickle.loads(data)
    assert (tmp_path / "ran").exists(), "it would have"


CALLS = ("GLOBAL", "STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "BUILD", "EXT", "PERSID")


@pytest.mark.parametrize("call", CALLS)
def test_every_way_to_name_code_is_refused(tmp_path: Path, call: str) -> None:
    with pytest.raises(DamagedError, match="no pickle of plain values"):
        load(system(call, f"mkdir {tmp_path}/ran".encode()), "it")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("call", ("GLOBAL", "STACK_GLOBAL", "INST", "OBJ"))
def test_pickle_itself_would_run_them(tmp_path: Path, call: str) -> None:
    pickle.loads(system(call, f"mkdir {tmp_path}/ran".encode()))
    assert (tmp_path / "ran").exists()


def a_list_of_itself() -> bytes:
    value: list[Any] = []
    value.append(value)
    return pickle.dumps(value)


def doubled(times: int) -> bytes:
    value: list[Any] = []
    for _ in range(times):
        value = [value, value]
    return pickle.dumps(value)


REFUSED = {
    "bool": pickle.dumps({"a": True}),
    "bool of protocol 0": pickle.dumps({"a": True}, 0),
    "bytes": pickle.dumps(b"a"),
    "tuple": pickle.dumps((1, 2)),
    "set": pickle.dumps({1, 2}),
    "key that is no str": pickle.dumps({1: 2}),
    "text that is no UTF-8": b"\x80\x04\x8c\x03\xed\xa0\x80.",
    "key twice": b"(Va\nI1\nVa\nI2\nd.",
    "key without value": b"(Va\nd.",
    "list of itself": a_list_of_itself(),
    "list in two places": doubled(1),
    "nested deep": b"(" * (MAX_DEPTH + 1) + b"l" * (MAX_DEPTH + 1) + b".",
    "two values": b"NN.",
    "no value": b".",
    "only a mark": b"(.",
    "mark in a list": b"](a.",
    "torn": pickle.dumps({"episode": 1})[:-1],
    "empty": b"",
    "longer": pickle.dumps({"episode": 1}) + b"x",
    "value from nowhere": b"g7\n.",
    "number too long to read": b"I" + b"9" * 5000 + b"\n.",
    "not a pickle": b"episode: 1",
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_plain_or_not_whole_is_refused(what: str) -> None:
    with pytest.raises(DamagedError, match="^it is no pickle of plain values: ."):
        load(REFUSED[what], "it")


BOMBS = {
    "lists doubled 60 times": doubled(60),
    "memo at 4 billion": b"\x80\x02Nr\xff\xff\xff\xff.",
    "text of 1 TB": b"\x80\x04\x8d" + (1 << 40).to_bytes(8, "little") + b"x.",
    "bytes of 1 TB": b"\x80\x05\x96" + (1 << 40).to_bytes(8, "little") + b"x.",
    "frame of 1 TB": b"\x80\x04\x95" + (1 << 40).to_bytes(8, "little") + b"N.",
    "int of 2 GB": b"\x80\x02\x8b\xff\xff\xff\x7f.",
    "a thousand nested lists": b"(" * 1000 + b"l" * 1000 + b".",
    "60,000 nested lists": b"]" * 30000 + b"a" * 29999 + b".",
}
PROGRAM = """
import sys, pathlib
from megatron_resume.checkpoint.plain_pickle import load
from megatron_resume.errors import DamagedError
try:
    print(repr(load(sys.stdin.buffer.read(), "it"))[:100])
except DamagedError as error:
    print(error)
"""


def limited() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
    resource.setrlimit(resource.RLIMIT_CPU, (5, 5))


@pytest.mark.parametrize("bomb", BOMBS)
def test_no_pickle_grows_beyond_its_bytes(bomb: str) -> None:
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, input=BOMBS[bomb], capture_output=True, timeout=60, preexec_fn=limited)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"no pickle of plain values" in done.stdout or done.stdout == b"None\n"
