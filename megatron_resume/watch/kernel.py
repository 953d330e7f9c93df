"""What Linux tells about another process of this machine: its end, its state, where its threads are."""

import fcntl
import os
import re
import signal
import struct
from collections.abc import Iterator
from pathlib import Path

_EXIT_CODE = 49  # place in /proc/<pid>/stat behind the name: field 52 of proc(5)
_INFO = struct.Struct("Q52xi")  # of linux/pidfd.h, pidfd_info: what is asked for and told, and the status
_INFO_EXIT = 1 << 3
_GET_INFO = 3 << 30 | _INFO.size << 16 | 0xFF << 8 | 11  # _IOWR(0xFF, 11, struct pidfd_info)
_KMSG_BYTES = 8_192  # of one record
_CGROUP_EVENTS = Path("/sys/fs/cgroup/memory.events")
_STATES = {
    "R": "running",
    "S": "sleeping",
    "D": "in an uninterruptible wait",
    "T": "stopped",
    "t": "traced",
    **dict.fromkeys("ZX", "ended"),
}
HALTED = ("stopped", "traced")  # states in which nothing of a process runs


def state(pid: int) -> str:
    """ "running", "stopped", "ended" and so on; "gone" where it is collected too."""
    fields = _stat(Path(f"/proc/{pid}/stat"))
    return _STATES.get(fields[0], fields[0]) if fields else "gone"


def wait_status(pid: int, descriptor: int | None = None) -> int | None:
    """How it ended, as `os.waitstatus_to_exitcode` reads it; None where nobody can tell any more.

    Args:
        descriptor: that `os.pidfd_open` gave for it: Linux 6.15 and newer tell it also after its parent collected it.
    """
    fields = _stat(Path(f"/proc/{pid}/stat"))
    if fields and fields[0] in "ZX":
        return int(fields[_EXIT_CODE])
    return None if descriptor is None else _status_of_collected(descriptor)


def _status_of_collected(descriptor: int) -> int | None:
    info = bytearray(_INFO.size)
    _INFO.pack_into(info, 0, _INFO_EXIT, 0)
    try:
        fcntl.ioctl(descriptor, _GET_INFO, info)
    except OSError:  # an older kernel
        return None
    told, status = _INFO.unpack(info)
    return status if told & _INFO_EXIT else None


def has_open(pid: int, descriptor: int | None = None) -> bool:
    """Whether this descriptor of process `pid` is open, or any at all."""
    files = Path(f"/proc/{pid}/fd")
    return os.path.lexists(files / str(descriptor)) if descriptor is not None else bool(_entries(files))


def blocks(pid: int, number: int) -> bool:
    """Whether the main thread of process `pid` takes no signal of this number."""
    found = re.search(r"^SigBlk:\s*([0-9a-f]+)$", _text(Path(f"/proc/{pid}/status")), re.MULTILINE)
    return bool(found and int(found[1], 16) >> (number - 1) & 1)


def threads(pid: int) -> list[str]:
    """One line for each thread: name, state, and where in the kernel it waits."""
    return sorted(_thread(task) for task in _entries(Path(f"/proc/{pid}/task")))


def _thread(task: Path) -> str:
    fields = _stat(task / "stat")
    waits = _text(task / "wchan")
    where = f", waits in {waits}" if waits not in ("", "0") else ""
    return (
        f"thread {task.name} {_text(task / 'comm')}: {_STATES.get(fields[0], fields[0]) if fields else 'gone'}{where}"
    )


def out_of_memory_kills() -> int:
    """How many processes of this container the kernel has killed for want of memory; 0 where it does not say."""
    found = re.search(r"^oom_kill (\d+)$", _text(_CGROUP_EVENTS), re.MULTILINE)
    return int(found[1]) if found else 0


def about_memory(pid: int, kills_before: int) -> str | None:
    """What the kernel says where it may have killed `pid` for want of memory; None where it says nothing of that."""
    pattern = re.compile(rf"Killed process {pid} ")
    line = next((line for line in reversed(list(_kernel_log())) if pattern.search(line)), None)
    kills = out_of_memory_kills() - kills_before
    if line is None and kills > 0:
        return f"the kernel killed {kills} processes of this container for want of memory"
    return line


def _kernel_log() -> Iterator[str]:
    try:
        descriptor = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return
    try:
        while True:
            try:
                yield os.read(descriptor, _KMSG_BYTES).decode(errors="replace").partition(";")[2].strip()
            except BlockingIOError:
                return
            except BrokenPipeError:
                continue  # records that were overwritten meanwhile
            except OSError:
                return
    finally:
        os.close(descriptor)


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _stat(path: Path) -> list[str]:
    """The fields behind the name, which may hold anything."""
    return _text(path).rpartition(")")[2].split()


def _entries(path: Path) -> list[Path]:
    try:
        return list(path.iterdir())
    except OSError:
        return []


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
