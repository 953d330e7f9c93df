"""Which model files were read and found whole already, so that an interrupted `verify --deep` goes on from there."""

import hashlib
import os
from contextlib import suppress
from pathlib import Path

import msgspec

from megatron_resume.checkpoint.plain_files import open_file
from megatron_resume.checkpoint.user_cache import make_user_cache, user_cache

from .values import text_of


class _File(msgspec.Struct, frozen=True):
    """One line: a file as it was when its content had this digest."""

    path: str
    size: int
    mtime_ns: int
    ctime_ns: int  # which nobody can put back
    inode: int
    sha256: str


_ANEW = "if this is interrupted, it begins anew; set XDG_CACHE_HOME to a folder that you may write to"
_lines = msgspec.json.Decoder(_File)


def state_path(root: Path) -> Path | None:
    """Outside of the job's folder, in which nothing may change; None for a user without a home."""
    cache = user_cache()
    name = hashlib.sha256(os.fsencode(os.path.abspath(root))).hexdigest()[:16]
    return cache / f"verify-{name}.jsonl" if cache else None


class Verified:
    """What earlier runs on this folder, and this one, found whole."""

    def __init__(self, root: Path, *, again: bool):
        """With `again` nothing counts that was found before."""
        self.path = state_path(root)
        self.remarks: list[str] = []  # what is wrong with the state file
        self._known: set[_File] = set()
        self._is_kept = self._open(root, again)

    def holds(self, path: Path, stat: os.stat_result, sha256: str) -> bool:
        """Whether `path`, unchanged since, was found to have this digest."""
        return _file(path, stat, sha256) in self._known

    def add(self, path: Path, stat: os.stat_result, sha256: str) -> None:
        if not self._is_kept or self.path is None:
            return
        try:
            with open_file(self.path, os.O_WRONLY | os.O_APPEND, "ab") as state:
                state.write(msgspec.json.encode(_file(path, stat, sha256)) + b"\n")
        except OSError as error:
            self._give_up(error)

    def end(self) -> None:
        """All was read: the next run begins anew, since bits also rot in files that nobody touches."""
        if self._is_kept and self.path is not None:
            with suppress(OSError):
                self.path.unlink()

    def _open(self, root: Path, again: bool) -> bool:
        """Read the state, or begin it anew; whether it can be added to."""
        if self.path is None:
            self.remarks.append(f"this user has no home to keep what was read: {_ANEW}")
            return False
        if Path(os.path.realpath(self.path)).is_relative_to(os.path.realpath(root)):
            self.remarks.append(f"{text_of(self.path)} lies in what is verified, and is not written")
            return False
        try:
            make_user_cache(self.path.parent)
            with open_file(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, "ab+") as state:
                if again:
                    state.truncate(0)
                else:
                    state.seek(0)
                    state.write(self._read(state.read()))
        except OSError as error:
            self._give_up(error)
            return False
        return True

    def _read(self, data: bytes) -> bytes:
        """Take what is known from `data`; returns what is to be added before the next line."""
        damaged = 0
        for line in filter(None, data.split(b"\n")):
            try:
                self._known.add(_lines.decode(line))
            except (msgspec.MsgspecError, UnicodeDecodeError):
                damaged += 1
        if damaged:
            self.remarks.append(f"{damaged} lines of {text_of(self.path or '')} are damaged and ignored")
        return b"" if data[-1:] in (b"", b"\n") else b"\n"

    def _give_up(self, error: OSError) -> None:
        self._is_kept = False
        self.remarks.append(f"{text_of(self.path or '')} cannot be written ({error.strerror}): {_ANEW}")


def _file(path: Path, stat: os.stat_result, sha256: str) -> _File:
    return _File(text_of(path), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, sha256)
