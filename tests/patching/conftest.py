"""Source trees to patch."""

import sys
from pathlib import Path

import pytest
import upstream

sys.path.insert(0, str(Path(__file__).parents[2] / "patches"))  # for make_patches


@pytest.fixture
def megatron(tmp_path: Path) -> Path:
    return upstream.make(tmp_path / "Megatron-LM", upstream.MEGATRON)


@pytest.fixture
def chatlearn(tmp_path: Path) -> Path:
    return upstream.make(tmp_path / "ChatLearn", upstream.CHATLEARN)
