"""What is known of a process that has ended."""

import os
import signal
import subprocess

import pytest

from megatron_resume.watch import kernel


def ended(*command: str, number: int | None = None) -> tuple[int, int, subprocess.Popen[bytes]]:
    """Its number, a descriptor, and the process, which nobody has collected yet."""
    process = subprocess.Popen(command)
    descriptor = os.pidfd_open(process.pid)
    if number is not None:
        process.send_signal(number)
    os.waitid(os.P_PIDFD, descriptor, os.WEXITED | os.WNOWAIT)
    return process.pid, descriptor, process


@pytest.mark.parametrize(("command", "number", "code"), [(("sleep", "600"), 9, -signal.SIGKILL), (("false",), None, 1)])
def test_how_a_process_ended_is_known_also_after_its_parent_collected_it(
    command: tuple[str, ...], number: int | None, code: int
) -> None:
    """As a launcher may before the watchdog is run."""
    pid, descriptor, process = ended(*command, number=number)
    before = kernel.wait_status(pid)
    assert before is not None
    assert os.waitstatus_to_exitcode(before) == code
    process.wait()
    assert kernel.wait_status(pid) is None
    after = kernel.wait_status(pid, descriptor)
    os.close(descriptor)
    if after is None and kernel_version() < (6, 15):
        pytest.skip("Linux before 6.15 does not tell it")
    assert after == before


def test_of_a_process_that_runs_nothing_is_told() -> None:
    descriptor = os.pidfd_open(os.getpid())
    assert kernel.wait_status(os.getpid(), descriptor) is None
    os.close(descriptor)


def kernel_version() -> tuple[int, ...]:
    return tuple(map(int, os.uname().release.split("-")[0].split(".")[:2]))
