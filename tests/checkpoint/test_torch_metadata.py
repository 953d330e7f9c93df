"""Names and shapes are read from torch's metadata without running anything that stands in them."""

import os
import pickle
from pathlib import Path

import pytest

from megatron_resume.checkpoint.torch_metadata import FILE, contents_of
from megatron_resume.errors import DamagedError

pytestmark = pytest.mark.torch


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    import torch
    import torch.distributed.checkpoint as dcp

    state = {"weight": torch.zeros(4, 2, dtype=torch.bfloat16), "optimizer.state.exp_avg.weight": torch.zeros(4, 2)}
    dcp.save({**state, "note": "plain"}, checkpoint_id=tmp_path)
    return tmp_path


def test_what_torch_saved_is_named_with_dtype_and_shape(saved: Path) -> None:
    assert contents_of(saved) == {
        "model": {"weight": "tensor bfloat16 [4, 2]", "note": "object"},
        "optimizer": {"optimizer.state.exp_avg.weight": "tensor float32 [4, 2]"},
    }


class Runs:
    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> object:
        return os.mkdir, (str(self.proof),)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_nothing_runs_in_any_version_of_the_format(tmp_path: Path, protocol: int) -> None:
    (tmp_path / FILE).write_bytes(pickle.dumps(Runs(tmp_path / "ran"), protocol))
    with pytest.raises(DamagedError, match="it names posix.mkdir"):
        contents_of(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_not_even_a_function_of_torch(tmp_path: Path) -> None:
    import torch

    class Saves:
        def __reduce__(self) -> object:
            return torch.save, ({}, str(tmp_path / "ran"))

    (tmp_path / FILE).write_bytes(pickle.dumps(Saves()))
    with pytest.raises(DamagedError):
        contents_of(tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("length", [0, 1, 100, -1])
def test_a_torn_file_is_damaged(saved: Path, length: int) -> None:
    data = (saved / FILE).read_bytes()
    (saved / FILE).write_bytes(data[:length])
    with pytest.raises(DamagedError):
        contents_of(saved)


@pytest.mark.parametrize("value", [None, {"state_dict_metadata": {}}, [1]])
def test_plain_values_are_no_metadata(tmp_path: Path, value: object) -> None:
    (tmp_path / FILE).write_bytes(pickle.dumps(value))
    with pytest.raises(DamagedError, match="it holds something else"):
        contents_of(tmp_path)


def test_an_absent_file_is_damage_and_a_link_is_not_followed(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(DamagedError, match="is missing"):
        contents_of(tmp_path / "nowhere")
    link = tmp_path / "link"
    link.mkdir()
    (link / FILE).symlink_to(saved / FILE)
    with pytest.raises(DamagedError, match="symbolic link"):
        contents_of(link)
