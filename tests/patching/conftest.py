"""Source trees to patch."""

from pathlib import Path

import pytest

from support import upstream


@pytest.fixture
def megatron(tmp_path: Path) -> Path:
    return upstream.make(tmp_path / "Megatron-LM", upstream.MEGATRON)


@pytest.fixture
def chatlearn(tmp_path: Path) -> Path:
    return upstream.make(tmp_path / "ChatLearn", upstream.CHATLEARN)
