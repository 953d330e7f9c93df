"""A line index: where each row of a text file begins, as numbers that are mapped from a file and never loaded.

In the file: a header of 4,096 bytes (JSON, then spaces), then little-endian 64-bit numbers: the offset of each row, and
for each blank line the number of rows before it.
"""

import hashlib
import mmap
import os
from pathlib import Path
from typing import BinaryIO

import msgspec
import numpy as np

from ..checkpoint.plain_files import open_plain
from .lines import ContentDigest, Lines, Offsets, Progress, scan

HEADER_BYTES = 4096
FORMAT = 1
NUMBER = np.dtype("<u8")
CHECKED = 1 << 14  # numbers at a time


class BadIndex(ValueError):
    """The file is no index, or a damaged one."""


class Source(msgspec.Struct, frozen=True):
    """A file as it was at one moment; one that was written to since differs."""

    where: str  # digest of its real path
    size: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path, stat: os.stat_result) -> "Source":
        where = hashlib.sha256(os.fsencode(os.path.realpath(path))).hexdigest()
        return cls(where, stat.st_size, stat.st_mtime_ns, stat.st_ino)

    def is_still(self, stat: os.stat_result) -> bool:
        """Whether the file, of which `stat` was taken just now, was not written to."""
        return (self.size, self.mtime_ns, self.inode) == (stat.st_size, stat.st_mtime_ns, stat.st_ino)


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the numbers are of."""

    format: int
    source: Source
    rows: int
    blank: int  # blank lines
    content: str  # digest of the rows
    numbers: str  # digest of the numbers

    @property
    def bytes(self) -> int:
        """The size of the index's file."""
        return HEADER_BYTES + NUMBER.itemsize * (self.rows + self.blank)


class LineIndex:
    """Where rows begin. It can be pickled: as its file's name where it has one."""

    def __init__(self, header: Header, numbers: Offsets, path: Path | None):
        self._header, self._numbers, self._path = header, numbers, path
        self._starts, self._blank = numbers[: header.rows], numbers[header.rows :]

    @property
    def source(self) -> Source:
        return self._header.source

    @property
    def content(self) -> str:
        """The digest of all rows."""
        return self._header.content

    def __len__(self) -> int:
        return len(self._starts)

    def span(self, row: int) -> tuple[int, int]:
        """The first byte of a row, and of the next one or the end of the file: behind the row there are blank lines."""
        end = self._starts[row + 1] if row + 1 < len(self) else self.source.size
        return int(self._starts[row]), int(end)

    def line(self, row: int) -> int:
        """The number of a row's line, as editors count."""
        return row + 1 + int(np.searchsorted(self._blank, NUMBER.type(row), side="right"))

    def __reduce__(self) -> tuple[object, ...]:
        if self._path is None:
            return _restored, (self._header, self._numbers.tobytes())
        return reopen_index, (self._path, self.source)


def build_index(file: BinaryIO, source: Source, target: BinaryIO, progress: Progress) -> None:
    """Write the index of `file`, which stands at its beginning, to `target`, which is empty and may be in memory.

    Raises:
        EOFError: The file became shorter.
    """
    rows, blanks, content, numbers = 0, list[Offsets](), ContentDigest(), hashlib.sha256()
    target.write(bytes(HEADER_BYTES))
    for lines in scan(file, source.size, progress):
        content.update(lines)
        starts = _starts_of_rows(lines)
        target.write(starts)
        numbers.update(starts)
        blanks.append((rows + lines.blank - np.arange(len(lines.blank))).astype(NUMBER))
        rows += len(starts)
    blank = np.concatenate((np.empty(0, NUMBER), *blanks))
    target.write(blank)
    numbers.update(blank)
    header = Header(FORMAT, source, rows, len(blank), content.hex(), numbers.hexdigest())
    target.seek(0)
    target.write(msgspec.json.encode(header).ljust(HEADER_BYTES))


def _starts_of_rows(lines: Lines) -> Offsets:
    starts = np.delete(lines.starts, lines.blank) if len(lines.blank) else lines.starts
    return (starts + lines.offset).astype(NUMBER)


def open_index(path: Path, source: Source) -> LineIndex:
    """The index of `source` in the file `path`, every number of which is checked.

    Raises:
        OSError: There is none, or it cannot be read.
        BadIndex: It is damaged, of another file, or of another state of this one.
    """
    header, numbers = _map(path, source)
    _check(path, header)
    return LineIndex(header, numbers, path)


def reopen_index(path: Path, source: Source) -> LineIndex:
    """The same where another process of ours has checked the numbers just now."""
    return LineIndex(*_map(path, source), path)


def index_in_memory(data: memoryview) -> LineIndex:
    """What `build_index` has written into memory."""
    header = _decode(bytes(data[:HEADER_BYTES]))
    return LineIndex(header, np.frombuffer(data, NUMBER, offset=HEADER_BYTES), None)


def _map(path: Path, source: Source) -> tuple[Header, Offsets]:
    with open_plain(path) as file:
        header = _decode(file.read(HEADER_BYTES))
        if header.source != source:
            raise BadIndex("it is of another file, or of another state of this one")
        size = os.fstat(file.fileno()).st_size
        if size != header.bytes:
            raise BadIndex(f"it has {size} bytes, {header.bytes} were written")
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return header, np.frombuffer(mapped, NUMBER, offset=HEADER_BYTES)


def _decode(data: bytes) -> Header:
    try:
        return msgspec.json.decode(data, type=Header)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadIndex(f"its header is damaged: {error}") from error


def _check(path: Path, header: Header) -> None:
    """Compare the digest; and offsets that ascend within the file cannot make a reader run wild, whoever wrote them.

    The numbers are read, since all that is looked at in a mapping counts as memory of this process.
    """
    digest, last, left = hashlib.sha256(), -1, header.rows
    with open_plain(path) as file:
        file.seek(HEADER_BYTES)
        while data := file.read(CHECKED * NUMBER.itemsize):
            digest.update(data)
            starts = np.frombuffer(data, NUMBER)[:left]
            left -= len(starts)
            if len(starts):
                _check_order(starts, last, header.source.size)
                last = int(starts[-1])
    if digest.hexdigest() != header.numbers:
        raise BadIndex("its numbers are not those that were written")


def _check_order(starts: Offsets, last: int, size: int) -> None:
    if starts[0] <= last or starts[-1] >= size or (starts[1:] <= starts[:-1]).any():
        raise BadIndex("its offsets do not ascend within the file")


def _restored(header: Header, numbers: bytes) -> LineIndex:
    return LineIndex(header, np.frombuffer(numbers, NUMBER), None)
