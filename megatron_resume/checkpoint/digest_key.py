"""The key of a job's folder, with which receipts hold digests of arguments instead of the arguments themselves."""

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

from .atomic import write_new
from .layout import DIGEST_KEY
from .plain_files import open_plain

_BYTES = 32
_PRIVATE = 0o600


class KeyRefusedError(Exception):
    """What lies where the key is due is not a key that only this user knows."""


def read_key(root: Path) -> bytes | None:
    """The key of the job folder `root`; None if it has none yet.

    Raises:
        OSError: It cannot be read, or is a link.
        KeyRefusedError: Somebody else made it or can read it, so that digests would hide nothing from them.
    """
    path = root / DIGEST_KEY
    try:
        with open_plain(path) as file:
            found, text = os.fstat(file.fileno()), file.read(2 * _BYTES + 2)
    except FileNotFoundError:
        return None
    if found.st_uid != os.geteuid():
        raise KeyRefusedError(f"{path} belongs to user {found.st_uid}, and this is user {os.geteuid()}")
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise KeyRefusedError(f"{path} can be read or written by others; type `chmod 600 {path}` if you made it")
    try:
        key = bytes.fromhex(text.decode("ascii"))
    except ValueError:
        key = b""
    if len(key) != _BYTES:
        raise KeyRefusedError(f"{path} holds no key of {_BYTES} bytes")
    return key


def made_key(root: Path) -> bytes:
    """The same, made if there is none: whoever of several processes comes first, all get one key.

    Raises:
        OSError: It can neither be read nor made.
        KeyRefusedError: As `read_key`.
    """
    key = read_key(root)
    if key is not None:
        return key
    with suppress(FileExistsError):  # another process was quicker
        write_new(root / DIGEST_KEY, secrets.token_hex(_BYTES).encode() + b"\n", mode=_PRIVATE)
    key = read_key(root)
    if key is None:
        raise FileNotFoundError(2, "it was removed as soon as it was made", str(root / DIGEST_KEY))
    return key
