"""Keys of one epoch's order: a hash of (seed, dataset, epoch), so that no two of them are alike or related."""

import hashlib
import struct

_DOMAIN = b"megatron_resume order 1\0"  # another domain, another order: a new version of the order changes it


def key_words(seed: int, dataset: int, epoch: int, count: int) -> tuple[int, ...]:
    """`count` words of 64 bits, the same on every machine: SHAKE-128 (FIPS 202), read as little-endian.

    Numbers below 2^64 each. Adding instead, as in seed + epoch, would make (seed + 1, 0) the order of (seed, 1).
    """
    text = hashlib.shake_128(_DOMAIN + struct.pack("<QQQ", seed, dataset, epoch))
    return struct.unpack(f"<{count}Q", text.digest(8 * count))
