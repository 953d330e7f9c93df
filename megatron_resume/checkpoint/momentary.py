"""Files that lie in a model's folder only for a moment, and are no part of it: no receipt vouches for them."""

import re
from collections.abc import Iterable

from .records import ModelFile

# As text, compiled where a name is first looked at: every process imports this.
_NAMES = (
    r"\.nfs[0-9a-f]{8,32}"  # NFS: deleted, and still open somewhere
    r"|\.fuse_hidden[0-9a-f]{8,32}"  # the same by FUSE
    r"|\..+\.(?=[a-z]*[A-Z0-9])[A-Za-z0-9]{6}"  # rsync, while it copies
    r"|\.~tmp~|\.rsync-(partial|tmp)"  # its folders
    r"|\.goutputstream-[A-Z0-9]{6}"  # GLib
    r"|\..+\.sw[a-p]|.+~|#.+#"  # editors
    r"|.+\.(tmp|temp|part|partial|filepart|crdownload|aria2)"  # all kinds of copies; torch's own `.metadata.tmp`
    r"|.+\.tmp\.[A-Za-z0-9._-]+|.+\._COPYING_"  # the same, and Hadoop's
    r"|\.DS_Store|\._.+"  # macOS, over SMB
)


def is_momentary(path: str) -> bool:
    """Whether a relative path, or a folder on the way, has a name of such a file."""
    return any(re.fullmatch(_NAMES, name) for name in path.split("/"))


def lasting(records: Iterable[ModelFile]) -> tuple[ModelFile, ...]:
    """Those that are part of the model: older releases recorded all that they found."""
    return tuple(record for record in records if not is_momentary(record.path))
