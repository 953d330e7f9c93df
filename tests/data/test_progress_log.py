"""A long reading is in the log, and a short one is not."""

import logging

import pytest

from megatron_resume.data import progress_log
from megatron_resume.data.progress_log import ProgressLog


def lines(caplog: pytest.LogCaptureFixture, *done: int) -> list[str]:
    """What is logged when so many of 10 GB are done, in gigabytes, without the seconds."""
    with caplog.at_level(logging.INFO, progress_log.__name__):
        log = ProgressLog("Reading")
        for count in done:
            log(count * 10**9, 10 * 10**9)
    return [record.getMessage().split(" in ")[0] for record in caplog.records]


def test_a_short_reading_is_not_logged(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_log, "FIRST_AFTER_S", 1000.0)
    assert lines(caplog, 5, 10) == []


def test_a_long_reading_is_announced_once_in_a_while_and_at_its_end(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress_log, "FIRST_AFTER_S", 0.0)
    monkeypatch.setattr(progress_log, "EVERY_S", 1000.0)
    assert lines(caplog, 3, 5, 10) == ["Reading: 3.0 of 10.0 GB", "Reading: 10.0 of 10.0 GB"]
