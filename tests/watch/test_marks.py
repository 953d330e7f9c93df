"""Marks tell where a rank is; they cost next to nothing, and nobody else's count."""

import os
import uuid

import pytest

from megatron_resume.errors import ConfigError
from megatron_resume.watch import marks
from megatron_resume.watch.board import Board, board_at, new_board
from megatron_resume.watch.peers import Peers, listen, tell


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch) -> Board:
    """That of this process, in its set-up."""
    mine = Board()
    mine.mark("setup")
    monkeypatch.setattr(marks, "_board", mine)
    return mine


def test_another_process_sees_the_marks(board: Board) -> None:
    descriptor, mine = new_board()
    theirs = board_at(os.dup(descriptor))
    mine.mark("rollout")
    mine.write("root", "/shared/run")
    assert (theirs.phase_name, theirs.read("root")) == ("rollout", "/shared/run")
    assert theirs.progress_ns > 0


def test_a_phase_lasts_as_long_as_its_block_and_may_hold_another(board: Board) -> None:
    with marks.phase("rollout"):
        with marks.phase("checkpoint"):
            assert board.phase_name == "checkpoint"
        assert board.phase_name == "rollout"
    assert board.phase_name == "setup"


def test_a_phase_is_left_by_an_error_too(board: Board) -> None:
    with pytest.raises(KeyError), marks.phase("rollout"):
        raise KeyError
    assert board.phase_name == "setup"


def test_the_set_up_ends_with_the_first_train_step(board: Board) -> None:
    with marks.phase("train"):
        marks.has_trained(1)
    assert (board.phase_name, board.iteration) == ("idle", 1)


def test_a_phase_that_is_not_known_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="the phase 'rolout' is not known; write rollout"), marks.phase("rolout"):  # type: ignore[arg-type]
        pass


def test_the_first_error_is_the_one_that_is_recorded(board: Board) -> None:
    with marks.phase("rollout"):
        marks.fails_by(KeyError("first"))
    marks.fails_by(RuntimeError("second"))
    marks.leaves(3)
    assert (board.read("error"), board.read("message"), board.last_phase) == ("KeyError", "'first'", "rollout")
    assert board.exit_code == 0, "none of its own"


def test_a_text_that_has_no_room_is_cut_and_one_that_is_no_text_is_told(board: Board) -> None:
    class Broken(Exception):
        def __str__(self) -> str:
            raise ValueError

    marks.fails_by(Broken())
    assert board.read("message") == "its message raises ValueError"
    board.write("message", "\udc80\0" + "x" * 10_000)
    assert board.read("message").startswith("\\udc80?xxx")
    assert len(board.read("message")) == Board.message.size - 1


def test_the_time_is_written_before_the_phase_so_that_a_long_phase_is_never_judged_by_the_next_ones_limit() -> None:
    class Watching(Board):
        order = ()

        def __setattr__(self, name: str, value: object) -> None:
            type(self).order += (name,)  # type: ignore[operator]
            super().__setattr__(name, value)

    Watching().mark("train")
    assert Watching.order == ("progress_ns", "phase")


def test_marks_of_a_forked_child_are_not_those_of_the_rank(board: Board) -> None:
    os.register_at_fork(after_in_child=marks._leave)
    reader, writer = os.pipe()
    if os.fork() == 0:
        marks.mark_progress()
        os.write(writer, str(marks._board is board).encode())
        os._exit(0)
    os.wait()
    assert os.read(reader, 10) == b"False"


def test_watchdogs_of_one_life_hear_what_is_told_and_others_do_not() -> None:
    life, other_life = uuid.uuid4().hex, uuid.uuid4().hex
    names = (life, 0), (life, 1), (other_life, 1)
    one, two, stranger = (Peers(listen(*name).detach()) for name in names)
    tell(life, "hangs", num_ranks=2, rank=0)
    assert two.have_told("hangs")
    assert not two.have_told("refused")
    tell(life, "refused", num_ranks=2, rank=0)
    assert two.have_told("refused")
    assert not one.have_told("hangs")
    assert not stranger.have_told("hangs")
