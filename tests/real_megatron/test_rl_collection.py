"""A job of Megatron's RL that is stopped while it trains on a collection of rollouts, which no checkpoint holds.

Megatron ends RL by os._exit(0), also where SIGTERM stopped it and a commit is on its way.
"""

from pathlib import Path

from support.pretraining import Pretraining
from support.runs import Server

COLLECTS = {"COLLECTS": "3"}  # train steps on each collection; saved at 3 and 6


def test_a_signal_in_the_middle_of_a_collection_says_what_is_lost(server: Server, tmp_path: Path) -> None:
    job = Pretraining(server, tmp_path / "stopped", "--exit-signal-handler")
    code, log = job.start(sigterm_at=5, **COLLECTS)
    assert code == 202, log[-4000:]
    lost = "is saved in the middle of a collection of rollouts, after"
    assert log.count(lost) == 1, "the save of iteration 3 ends a collection"
    assert f"policy of iteration 5 {lost} 2 of its 3 train steps" in log
    assert "the steps that are left on these (1) are lost" in log
    assert job.status()["point"] == {"iteration": 5, "attempt": 1}

    log = job.finish(**COLLECTS)
    assert "committed iteration 8 of attempt 2" in log, "it left before the commit of its last save"
    stopped, finished = (attempt["processes"][0]["says"] for attempt in job.status()["attempts"])
    assert (stopped, finished) == ("stopped with exit code 202: SIGTERM", "finished")
    assert f"policy of iteration 6 {lost} 1 of its 3 train steps" in log, "the next collection began at 5"
