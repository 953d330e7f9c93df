"""examples/minimal.py, the loop that README shows, killed in mid-episode, and typed again under real torchrun."""

from pathlib import Path

from support.minimal import IN_MID_EPISODE, check_exact, from_server, torchrun
from support.runs import Server


def test_killed_in_mid_episode_the_same_command_goes_on_exactly(server: Server, tmp_path: Path) -> None:
    undisturbed = from_server(server, tmp_path / "undisturbed")
    killed = from_server(server, tmp_path / "killed", IN_MID_EPISODE)
    check_exact(undisturbed, killed, torchrun(tmp_path / "killed"))
