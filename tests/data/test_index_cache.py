"""An index is built once for all processes, and one that is not as it was written is built anew."""

import hashlib
import logging
import os
import resource
import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path

import msgspec
import numpy as np
import pytest

from megatron_resume.data.index_cache import UNUSED_AFTER_S
from megatron_resume.data.jsonl import JsonlPrompts
from megatron_resume.data.line_index import HEADER_BYTES, Header

TEXTS = [f"prompt {number}" for number in range(100)]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n\n".join(f'{{"prompt": "{text}"}}' for text in TEXTS))
    return path


@pytest.fixture
def index(data: Path, tmp_path: Path) -> Path:
    """The index of `data`, built."""
    JsonlPrompts(data, cache_dir=tmp_path / "cache")
    (index,) = (tmp_path / "cache").glob("*.index")
    return index


def builds(data: Path, cache: Path) -> int:
    """How often a start reads all of the data; its prompts must be right however often that is."""
    ends: list[bool] = []
    assert list(JsonlPrompts(data, cache_dir=cache, progress=lambda done, total: ends.append(done == total))) == TEXTS
    return sum(ends)


def test_the_second_start_reads_no_data(data: Path, index: Path) -> None:
    assert builds(data, index.parent) == 0


def test_data_that_was_written_to_is_indexed_anew(data: Path, index: Path) -> None:
    os.utime(data, ns=(1, 1))
    assert builds(data, index.parent) == 1


def test_data_at_another_path_has_an_index_of_its_own(data: Path, index: Path) -> None:
    assert builds(data.rename(data.with_name("moved.jsonl")), index.parent) == 1


def forged(index: Path, change: Callable[[np.ndarray], object]) -> bytes:
    """An index with other numbers, and digests that fit them."""
    header = msgspec.json.decode(index.read_bytes()[:HEADER_BYTES], type=Header)
    numbers = np.frombuffer(index.read_bytes()[HEADER_BYTES:], "<u8").copy()
    change(numbers)
    header = msgspec.structs.replace(header, numbers=hashlib.sha256(numbers).hexdigest())
    return msgspec.json.encode(header).ljust(HEADER_BYTES) + numbers.tobytes()


DAMAGE: dict[str, Callable[[Path], bytes]] = {
    "empty": lambda index: b"",
    "torn in its header": lambda index: index.read_bytes()[:50],
    "torn in its numbers": lambda index: index.read_bytes()[:-9],
    "longer": lambda index: index.read_bytes() + bytes(8),
    "all zero": lambda index: bytes(index.stat().st_size),
    "one bit": lambda index: index.read_bytes()[:-300] + b"\x81" + index.read_bytes()[-299:],
    "pickled": lambda index: b"\x80\x04cos\nsystem\n",
    "an npy of pickles": lambda index: b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,)}",
    "out of range": lambda index: forged(index, lambda numbers: np.put(numbers, 99, 1 << 40)),
    "not ascending": lambda index: forged(index, lambda numbers: np.put(numbers, 50, 3)),
    "of a billion rows": lambda index: index.read_bytes().replace(b'"rows":100', b'"rows":1000000000'),
    "of fewer rows than none": lambda index: index.read_bytes().replace(b'"rows":100', b'"rows":-99'),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_index_is_named_and_built_anew(
    data: Path, index: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    before, damaged = index.read_bytes(), DAMAGE[damage](index)
    assert damaged != before
    index.write_bytes(damaged)
    assert builds(data, index.parent) == 1
    assert caplog.text.count(f"{index} is not used and built anew") == 1
    assert index.read_bytes() == before


def test_a_link_in_the_place_of_an_index_is_not_followed(data: Path, index: Path) -> None:
    index.rename(index.with_name("elsewhere"))
    index.symlink_to("elsewhere")
    assert builds(data, index.parent) == 1
    assert not index.is_symlink()


def test_what_a_builder_left_who_died_is_removed(data: Path, index: Path) -> None:
    left = index.with_name(f".{index.name}.0123456789ab.tmp")
    index.rename(left)
    assert builds(data, index.parent) == 1
    assert not left.exists()


def test_an_index_of_earlier_data_is_removed_when_it_was_unused_for_long(data: Path, index: Path) -> None:
    os.utime(index, (0, time.time() - UNUSED_AFTER_S - 60))
    os.utime(data, ns=(1, 1))
    builds(data, index.parent)
    assert not index.exists()


def test_an_index_of_earlier_data_stays_while_another_start_may_use_it(data: Path, index: Path) -> None:
    os.utime(data, ns=(1, 1))
    builds(data, index.parent)
    assert index.exists()


def _start(data: Path, cache: Path, together: Barrier, built: Path) -> None:
    """A rank: each call of `progress` leaves a file, and takes long enough for others to come."""

    def slowly(done: int, total: int) -> None:
        (built / str(os.getpid())).touch()
        time.sleep(0.3)

    together.wait()
    assert list(JsonlPrompts(data, cache_dir=cache, progress=slowly)) == TEXTS


def test_of_processes_that_start_together_one_builds(data: Path, tmp_path: Path) -> None:
    context = get_context("fork")
    together = context.Barrier(3)
    (tmp_path / "built").mkdir()
    arguments = (data, tmp_path / "cache", together, tmp_path / "built")
    ranks = [context.Process(target=_start, args=arguments) for _ in range(3)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    assert [rank.exitcode for rank in ranks] == [0, 0, 0]
    assert len(os.listdir(tmp_path / "built")) == 1


def test_a_builder_that_fails_leaves_no_file_and_no_lock(data: Path, tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        JsonlPrompts(data, cache_dir=tmp_path / "cache", progress=interrupt)
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]
    assert builds(data, tmp_path / "cache") == 1


def test_a_full_disk_is_named_and_done_without(data: Path, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))  # a write beyond it fails, as on a full disk
    try:
        with caplog.at_level(logging.WARNING):
            builds(data, tmp_path / "cache")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "is built in memory" in caplog.text
    assert list((tmp_path / "cache").glob("*.tmp")) == []
