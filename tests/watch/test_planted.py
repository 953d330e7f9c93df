"""What strangers plant, and storage that gives no answer, keep no hung rank alive and lead its watchdog nowhere."""

import os
import shutil
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from megatron_resume.checkpoint.failures import life_of
from megatron_resume.checkpoint.lives import lives
from megatron_resume.watch import peers
from megatron_resume.watch.stacks import Stacks
from support.ordinary_user import NOBODY
from support.watched_ranks import Ranks

SHORT = '{"hang": {"timeout": "0.3s"}}'
Plant = Callable[[Path, Path], None]


def a_link(path: Path, outside: Path) -> None:
    path.symlink_to(outside)


def a_fifo(path: Path, outside: Path) -> None:
    os.mkfifo(path)


def a_folder(path: Path, outside: Path) -> None:
    path.mkdir()


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder, and in it a file, of somebody who has nothing to do with the job."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "rank_0.txt").write_text("secret")
    return folder


def life(ranks: Ranks) -> str:
    return life_of({"TORCHELASTIC_RUN_ID": ranks._life, "TORCHELASTIC_RESTART_COUNT": "0", "WORLD_SIZE": "1"})


@pytest.mark.parametrize("plant", [a_link, a_fifo, a_folder])
@pytest.mark.parametrize("at", ["rank_0.txt", ".rank_0", ""])
def test_what_is_planted_where_stacks_go_keeps_no_hung_rank(ranks: Ranks, outside: Path, plant: Plant, at: str) -> None:
    stacks = ranks.root / "failures" / life(ranks) / "stacks"
    if at:
        stacks.mkdir(parents=True)
        plant(stacks / at, outside / "rank_0.txt")
    else:
        stacks.parent.mkdir(parents=True)
        plant(stacks, outside)
    (rank,) = ranks.start("sleeps_in_setup", policy=SHORT)
    assert rank.end() == -signal.SIGKILL
    assert [path.name for path in outside.iterdir()] == ["rank_0.txt"]
    assert (outside / "rank_0.txt").read_text() == "secret"
    assert "secret" not in rank.said
    assert [one.cause.how for one in lives(ranks.root) if one.cause] == ["hang"]
    if at == ".rank_0" or plant is not a_folder or not at:
        kept = stacks.joinpath("rank_0.txt")
        assert ("cannot be written" in rank.said) != (kept.is_file() and not stacks.is_symlink())


@pytest.mark.parametrize("plant", [a_link, a_fifo])
def test_nobody_leads_the_stacks_of_a_rank_without_a_folder_elsewhere(
    ranks: Ranks, outside: Path, tmp_path: Path, plant: Plant
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    plant(temporary / f"megatron_resume-{life(ranks)}", outside)
    (rank,) = ranks.start("sleeps_in_setup", policy=SHORT, ROOT="", TMPDIR=str(temporary))
    assert rank.end() == -signal.SIGKILL
    assert [path.name for path in outside.iterdir()] == ["rank_0.txt"]
    (kept,) = temporary.glob("*/stacks/rank_0.txt")
    assert kept.parents[1].stat().st_mode & 0o777 == 0o700
    assert f"Stacks: {kept.parent}" in rank.said


NO_ANSWER = """
import os, sys, time
if "megatron_resume.watch.watchdog" in sys.orig_argv:
    def silent(original):
        def ask(path, *args, **kwargs):
            while str(path).startswith(os.environ["ROOT"]):
                time.sleep(3600)
            return original(path, *args, **kwargs)
        return ask
    for name in ("open", "stat", "lstat", "listdir", "mkdir", "scandir"):
        setattr(os, name, silent(getattr(os, name)))
"""


@pytest.mark.parametrize("nodes", [False, True])
def test_a_hung_rank_is_ended_though_the_storage_gives_no_answer(ranks: Ranks, nodes: bool) -> None:
    if nodes and (shutil.which("unshare") is None or os.geteuid() != 0):
        pytest.skip("only root may make a network")
    (ranks.folder / "sitecustomize.py").write_text(NO_ANSWER)
    environ = {"PYTHONPATH": str(ranks.folder), "SHORTER": '{"store_s": 0.5}'} | ({"WORLD_SIZE": "2"} if nodes else {})
    (rank,) = ranks.start("sleeps_in_setup", policy=SHORT, nodes=nodes, **environ)
    assert rank.end() == -signal.SIGKILL
    assert "no progress in setup for " in rank.said
    assert f"{ranks.root} gives no answer within 0.5 s" in rank.said
    assert [one.exit_code for one in ranks.endings] == [201]


def test_how_a_rank_fails_reaches_launch_though_the_storage_gives_no_answer(ranks: Ranks) -> None:
    (ranks.folder / "sitecustomize.py").write_text(NO_ANSWER)
    (rank,) = ranks.start("fails", PYTHONPATH=str(ranks.folder), SHORTER='{"store_s": 0.5}')
    assert rank.end() == 1
    assert f"how rank 0 ended is not recorded: {ranks.root} gives no answer" in rank.said
    assert [one.error for one in ranks.endings] == ["KeyError"]


def test_a_line_of_facts_is_shown_and_only_of_ranks_that_there_are(tmp_path: Path) -> None:
    stacks = Stacks(tmp_path, tmp_path / "stacks")
    stacks.begin()
    for rank in (0, 7):
        stacks.write(rank, "rank \x1b[2J\u202e", "stacks")
    os.mkfifo(stacks.folder / "rank_1.txt")
    assert stacks.heads(2) == ["rank \\x1b[2J\\u202e"]


def test_what_another_user_says_of_a_hang_counts_for_nothing(ranks: Ranks) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may become another user")
    heard = peers.Peers(peers.listen(ranks._life, 0).detach())
    for user in (NOBODY, 0):
        child = os.fork()
        if child == 0:
            os.setuid(user)
            peers.tell(ranks._life, "hangs", num_ranks=1, rank=1)
            os._exit(0)
        os.waitpid(child, 0)
        assert heard.have_told("hangs") == (user == 0)


def test_a_name_that_somebody_took_is_noticed(ranks: Ranks) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as taken:
        taken.bind(peers._name(ranks._life, 0))
        assert not peers.Peers(peers.listen(ranks._life, 0).detach()).are_heard
    assert peers.Peers(peers.listen(ranks._life, 1).detach()).are_heard
