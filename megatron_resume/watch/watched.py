"""What a watchdog is started with: the rank that it watches, and for how long that may be silent."""

import msgspec

from ..policy import PHASES, Policy
from ..processes import command

PROGRAM = "megatron_resume.watch.watchdog"

ANNOUNCED_S = 10.0  # at most: how late a rank learns that another one hangs
POLL_S = 0.1


class Watched(msgspec.Struct, frozen=True, kw_only=True):
    """One rank, as its watchdog needs to know it. Times in seconds."""

    pid: int
    rank: int
    restart: int  # how often the launch engine had restarted the ranks before
    num_ranks: int
    num_local_ranks: int
    host: str
    job: str  # launch key
    life: str  # names this life of the job on all its ranks
    endings: str  # folder in which `launch` learns how ranks end; "" where nothing launched us
    board: int  # descriptor
    stacks: int  # descriptor
    peers: int  # descriptor of the socket on which it hears of other ranks
    dump_signal: int
    oom_kills: int  # by the kernel in this container, before
    timeouts: dict[str, float]  # phase -> without progress for so long, it hangs
    store_s: float = 10.0  # for storage to answer; what is not stored then is not stored
    by_itself_s: float = 5.0  # in which what the rank leaves behind may end by itself

    def timeout(self, phase: str) -> float:
        return self.timeouts.get(phase, self.timeouts["idle"])

    @property
    def is_on_one_node(self) -> bool:
        """Whether all ranks of the job are."""
        return self.num_ranks == self.num_local_ranks

    @property
    def look_s(self) -> float:
        """How often to look whether a rank on another node hangs: a hundredth of what is a hang at least."""
        return min(ANNOUNCED_S, max(POLL_S, min(self.timeouts.values()) / 100))


def is_watchdog(pid: int) -> bool:
    return PROGRAM in command(pid)


def timeouts(policy: Policy) -> dict[str, float]:
    return {"idle": float(policy.hang.timeout)} | {phase: float(policy.hang.of(phase)) for phase in PHASES}
