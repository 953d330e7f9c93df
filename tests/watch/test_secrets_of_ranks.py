"""What a watchdog records of its rank holds no secret, however it is spelled."""

import os

import pytest

from megatron_resume.checkpoint.failures import read_failures
from support.spelled_secrets import MESSAGES, PASSWORD, SPELLINGS, files_with_secrets
from support.watched_ranks import Ranks

SHORT = '{"hang": {"timeout": "1s"}}'


@pytest.mark.parametrize("message", MESSAGES)
def test_no_record_of_a_failure_quotes_a_secret(ranks: Ranks, message: str) -> None:
    argv = [word for name, value in SPELLINGS.items() for word in (f"--{name}", str(value))]
    given, said = ranks.folder / "argv", ranks.folder / "message"
    given.write_text("\n".join(argv))
    said.write_text(message.format(argv=" ".join(argv), secret=PASSWORD))
    (rank,) = ranks.start("fails_by_what_it_was_given")
    assert rank.end() == 1
    for path in (given, said, *ranks.folder.glob("output*")):  # what was typed, and Python's own traceback
        path.unlink()
    (folder,) = ranks.root.glob("failures/*")
    (failure,) = read_failures(folder)
    assert failure.error == "RuntimeError"
    assert ranks.endings
    assert files_with_secrets(ranks.folder) == []


def test_no_stack_of_py_spy_shows_the_command_line(ranks: Ranks) -> None:
    tool = ranks.folder / "py-spy"
    tool.write_text(f'#!/bin/sh\necho "Process $5: python train.py --hftoken {PASSWORD}"\necho "Thread 1 (idle)"\n')
    tool.chmod(0o755)
    (rank,) = ranks.start("sleeps_in_train", policy=SHORT, PATH=f"{ranks.folder}:{os.environ['PATH']}")
    rank.end()
    (stacks,) = ranks.root.glob("failures/*/stacks/rank_0.txt")
    assert f"Process {rank.process.pid}\nThread 1 (idle)\n" in stacks.read_text()
    assert files_with_secrets(ranks.root) == []
