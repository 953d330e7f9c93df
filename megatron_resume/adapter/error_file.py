"""The file in which torchrun looks for how a rank ended: what stands there is shown in its summary, at the very end."""

import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from ..checkpoint.atomic import replace
from ..errors import ResumeError
from ..shown import shown

VARIABLE = "TORCHELASTIC_ERROR_FILE"
_MAX_MESSAGE = 8_000  # characters


def write(error: ResumeError, environ: Mapping[str, str] = os.environ) -> None:
    """Say it there too, where torchrun or another launcher on torchelastic started this rank."""
    path = environ.get(VARIABLE)
    if not path:
        return
    said = f"{type(error).__name__} (exit code {error.exit_code}): {shown(str(error))[:_MAX_MESSAGE]}"
    now_s = int(time.time())
    extra = {"py_callstack": said, "timestamp": str(now_s)}
    with suppress(OSError):  # its folder is gone with the launcher
        replace(Path(path), json.dumps({"message": {"message": said, "extraInfo": extra}}).encode())
