"""`run` without a data checkpoint folder resumes nothing, which is no secret."""

import logging
import sys
from argparse import Namespace
from collections.abc import Iterator

import pytest

from megatron_resume.adapter import ranks, session

RUN = "megatron_resume.cli.run"


@pytest.fixture(autouse=True)
def _begins_anew(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.INFO, "megatron_resume")
    monkeypatch.setitem(sys.modules, RUN, sys)
    session.forget()
    yield
    session.forget()


def test_it_is_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        assert session.begin(Namespace(data_checkpoint_path=None)) is None
    (line,) = [record.getMessage() for record in caplog.records]
    assert "nothing of this run can be resumed: --data-checkpoint-path was not given" in line
    assert "MEGATRON_RESUME_DATA_CHECKPOINT_PATH" in line


def test_other_ranks_say_nothing(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "rank", lambda: 1)
    session.begin(Namespace(data_checkpoint_path=None))
    assert caplog.records == []


def test_where_the_import_line_stands_in_a_script_nothing_is_said(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, RUN)
    session.begin(Namespace(data_checkpoint_path=None))
    assert caplog.records == []
