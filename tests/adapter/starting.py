"""One process that starts like rank 0 of a job and says what came of it; for tests of starts.

starting.py ROOT [role=policy] [lease_time=SECONDS] [take_over] [hold]
    [other_machine=NAME] [user=NUMBER] [private] [unreadable] [crash]
"""

import errno
import os
import sys
import time
from pathlib import Path
from typing import NoReturn

from megatron_resume.adapter import life, start
from megatron_resume.adapter.decision import roles_here
from megatron_resume.adapter.lease_keeper import LeaseKeeper
from megatron_resume.checkpoint.events import events_path
from megatron_resume.config import ResumeConfig
from megatron_resume.errors import ResumeError
from megatron_resume.roles import TRAINED


def main() -> int:
    root, words = Path(sys.argv[1]), dict(word.partition("=")[::2] for word in sys.argv[2:])
    config = ResumeConfig(
        data_checkpoint_path=str(root),
        resume_role=words.get("role"),
        trained_roles=TRAINED,
        take_over="take_over" in words,
        resume_lease_time=int(words.get("lease_time", "30")),
    )
    if "user" in words:
        os.setgroups([])
        os.setuid(int(words["user"]))
    if "private" in words:
        os.umask(0o077)
    if "unreadable" in words:
        from megatron_resume.checkpoint import leases

        def fails(path: Path) -> NoReturn:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

        leases.open_plain = fails
    if "other_machine" in words:  # nobody can see from outside whether its process runs
        from megatron_resume.checkpoint import launch_key

        launch_key.boot = lambda: f"boot of {words['other_machine']}"
    try:
        begun = start.begin_or_join(root, config, start.watch(root, config))
    except ResumeError as error:
        print(f"{type(error).__name__}: {error}", flush=True)
        return error.exit_code
    life.begin(events_path(root, begun.start.attempt, roles_here(config)[0]))
    LeaseKeeper(root, begun.start.attempt, begun.leases, config.resume_lease_time)
    print(f"attempt {begun.start.attempt} joined={begun.joined}", flush=True)
    if "hold" in words:
        time.sleep(600)
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    if "crash" in sys.argv:
        os._exit(code)
    sys.exit(code)
