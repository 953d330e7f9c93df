"""Policy and value as jobs of their own that share nothing but the data checkpoint folder; either may die."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from megatron_resume.checkpoint.attempts import has_started
from megatron_resume.checkpoint.folder import read_folder
from megatron_resume.checkpoint.layout import PointName, point_path
from megatron_resume.checkpoint.leases import read_lease
from support import PROGRAMS
from support.runs import Server, megatron_flags

PATIENCE_S = 300
RANKS = {"policy": 2, "value": 1}


@pytest.fixture(scope="module")
def servers(server: Server) -> Iterator[dict[str, Server]]:
    """One for each role, since a server runs one job at a time."""
    second = server.another()
    yield {"policy": server, "value": second}
    second.close()


class RoleJob:
    """The job of one role: 8 iterations, saved after every third and at the end. It stands still at its gate."""

    def __init__(self, role: str, server: Server, shared: Path):
        self.role, self.server, self.shared = role, server, shared
        self.folder = shared / role
        self.folder.mkdir()
        self.logs: list[str] = []
        self.codes: list[int] = []

    def start(self, gate: int = 0, crash: str = "") -> None:
        """Begin a life of the job, which stands still in the iteration `gate`, and dies at `crash`."""
        number = len(self.logs) + 1
        self.log, self.gate = self.folder / f"start{number}.log", self.folder / f"gate{number}"
        self.logs.append("")
        self._thread = threading.Thread(target=self._run, args=(f"{gate}:{self.gate}", crash))
        self._thread.start()

    def _run(self, gate: str, crash: str) -> None:
        flags = "--train-iters 8 --save-interval 3 --eval-iters 0 --eval-interval 100 --log-interval 1"
        flags += " --dataloader-type single --no-check-for-nan-in-loss-and-grad"
        flags += f" --resume-role {self.role} --trained-roles policy,value --resume-lease-time 3"
        ours = ["--save", str(self.folder / "checkpoints"), *flags.split()]
        argv = [str(PROGRAMS / "stock_pretrain.py"), *megatron_flags(self.shared), *ours]
        env = {"GATE": gate, "LOSSES": str(self.folder / "losses.txt"), "SIGTERM_AT": None}
        env |= {"MEGATRON_RESUME_CRASH": crash}
        job: dict[str, Any] = {"name": self.role, "script": str(PROGRAMS / "run_command.py"), "log": str(self.log)}
        ended = self.server.run(**job, argv=argv, env=env, num_ranks=RANKS[self.role], fork_helpers=True)
        self.codes.append(ended["code"])

    @property
    def runs(self) -> bool:
        return self._thread.is_alive()

    def wait(self) -> int:
        """Until this life is over; its exit code."""
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), self.log.read_text()[-6000:]
        self.logs[-1] = self.log.read_text(errors="replace")
        return self.codes[-1]

    def wait_for_gate(self) -> None:
        until(Path(f"{self.gate}.waits").exists, self)

    def pass_gate(self, how: str = "go on") -> None:
        aside = self.gate.with_suffix(".new")
        aside.write_text(how)
        aside.rename(self.gate)

    def losses(self) -> dict[str, set[tuple[str, ...]]]:
        """Of each iteration what every life that trained it saw."""
        lives: list[dict[str, list[str]]] = []
        for line in (self.folder / "losses.txt").read_text().splitlines():
            iteration = line.split()[0]
            if not lives or int(iteration) < int(list(lives[-1])[-1]):
                lives.append({})
            lives[-1].setdefault(iteration, []).append(line)
        seen: dict[str, set[tuple[str, ...]]] = {}
        for life in lives:
            for iteration, lines in life.items():
                seen.setdefault(iteration, set()).add(tuple(lines))
        return dict(sorted(seen.items()))

    def run(self) -> int:
        """As a launcher does: from start to end, and again where it asks for that."""
        while True:
            self.start()
            if self.wait() != 203:
                return self.codes[-1]


def until(condition: Callable[[], object], *jobs: RoleJob) -> None:
    """Wait for what happens while all of `jobs` run."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        goes_on = time.monotonic() < deadline and all(job.runs for job in jobs)
        assert goes_on or condition(), "\n".join(job.log.read_text()[-3000:] for job in jobs)
        time.sleep(0.1)


@pytest.fixture
def jobs(servers: dict[str, Server], tmp_path: Path) -> dict[str, RoleJob]:
    return {role: RoleJob(role, server, tmp_path) for role, server in servers.items()}


@pytest.mark.parametrize(
    ("dies", "crash"),
    [
        pytest.param("value", "", id="value"),
        pytest.param("policy", "", id="policy", marks=pytest.mark.slow),
        pytest.param("value", "save.begin@value:2", id="value before its save", marks=pytest.mark.slow),
        pytest.param("policy", "save.end@policy:2", id="policy after its save", marks=pytest.mark.slow),
        pytest.param("policy", "write.synced@data.json:2", id="policy before its data", marks=pytest.mark.slow),
    ],
)
def test_one_role_dies_and_both_go_on_from_their_common_point(jobs: dict[str, RoleJob], dies: str, crash: str) -> None:
    dead, alive = jobs[dies], jobs["policy" if dies == "value" else "value"]
    root = dead.shared / "data_checkpoint"

    def committed() -> list[PointName]:
        return read_folder(root).committed

    dead.start(gate=5, crash=crash)
    until(lambda: has_started(root, 1), dead)
    alive.start(gate=7)  # it saves iteration 6 on its own
    dead.wait_for_gate()
    until(committed, alive, dead)
    alive.wait_for_gate()
    dead.pass_gate("go on" if crash else "die")
    assert dead.wait() == -9, dead.logs[-1][-3000:]
    half = point_path(root, PointName(6, 1))
    until((half / f"{alive.role}.json").exists, alive)
    assert committed() == [PointName(3, 1)], "half a point is none"

    dead.start(gate=4)
    assert alive.wait() == 203, alive.logs[-1][-3000:]
    assert "attempt 1 was superseded by attempt 2" in alive.logs[-1]
    dead.wait_for_gate()
    alive.start()
    until(lambda: read_lease(root, 2, alive.role), alive)
    dead.pass_gate()
    assert (dead.wait(), alive.wait()) == (0, 0), dead.logs[-1][-3000:] + alive.logs[-1][-3000:]
    assert "attempt 2 resumes from iteration 3 of attempt 1" in dead.logs[-1]
    assert "attempt 2 is joined and resumes from iteration 3 of attempt 1" in alive.logs[-1]
    assert committed() == [PointName(3, 1), PointName(6, 2), PointName(8, 2)]
    for job in jobs.values():
        losses = job.losses()
        assert list(losses) == [str(iteration) for iteration in range(1, 9)]
        for iteration, seen in losses.items():
            whole = max(seen, key=len)
            # A life that was killed may have told a part of its last iteration only.
            assert all(told == whole[: len(told)] for told in seen), f"iteration {iteration} came out otherwise"


@pytest.mark.slow
def test_started_at_once_both_settle_in_one_attempt(jobs: dict[str, RoleJob]) -> None:
    threads = [threading.Thread(target=job.run) for job in jobs.values()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [job.codes[-1] for job in jobs.values()] == [0, 0], [job.logs[-1][-3000:] for job in jobs.values()]
    points = read_folder(jobs["policy"].shared / "data_checkpoint").committed
    assert [point.iteration for point in points] == [3, 6, 8]
    assert len({point.attempt for point in points}) == 1
