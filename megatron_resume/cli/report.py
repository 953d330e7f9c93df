"""`report DIR`: the life of a run as one HTML page and a PNG. Changes nothing but these two files."""

import os
import sys
import time
from pathlib import Path

from megatron_resume.checkpoint.atomic import replacing
from megatron_resume.checkpoint.folder import Folder, read_folder
from megatron_resume.errors import ConfigError, DamagedError, UnreadableError
from megatron_resume.shown import shown_in_line

from .life import story_of
from .page import headline, page, tiles
from .picture import can_draw, draw
from .trace import TRACE, Trace, find_trace, read_trace, save_folders
from .values import root_of, text_of

DEFAULT = "megatron_resume_report.html"
NO_PICTURE = "no PNG beside it, since matplotlib is not installed; type `pip install matplotlib` for it"


def report(directory: Path, *, to: Path | None, trace_file: Path | None) -> None:
    """Write the page to `to`, the picture beside it, and say where they are.

    Raises:
        ConfigError: `directory` is no folder, the output would lie in folders of the job, or `trace_file` is no trace.
        OSError: A file cannot be read or written.
    """
    folder = read_folder(root_of(directory))
    target = _target(to if to is not None else Path(DEFAULT), folder)
    trace, missing = _trace(folder, trace_file)
    told, name = story_of(folder.told()[0]), text_of(folder.root)
    content = page(told, name=name, trace=trace, missing=missing, made_s=time.time())
    with replacing(target) as file:
        file.write(content.encode())
    print(f"wrote {shown_in_line(text_of(target))}")
    picture = target.with_suffix(".png")
    if not can_draw():
        print(f"megatron-resume: WARNING: {NO_PICTURE}", file=sys.stderr)
        return
    facts = [f"{large} {small}" for large, small in tiles(told)]
    draw(told, headline=f"{headline(told)}: {name}", facts=facts, trace=trace, path=picture)
    print(f"wrote {shown_in_line(text_of(picture))}")


def _target(to: Path, folder: Folder) -> Path:
    """Where the page is to be.

    Raises:
        ConfigError: It is no name of a page, or lies where the job keeps what it resumes from.
    """
    target = Path(os.path.abspath(to))
    if target.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"--to names {shown_in_line(text_of(to))}; name a file that ends with .html")
    if target.is_dir():
        raise ConfigError(f"{shown_in_line(text_of(target))} is a folder; name a file in it, such as {DEFAULT}")
    where = os.path.realpath(target.parent)
    for kept in (os.path.realpath(folder.root), *save_folders(folder)):
        if os.path.commonpath([where, kept]) == kept:
            raise ConfigError(
                f"{shown_in_line(text_of(target))} would lie in {shown_in_line(text_of(kept))}, which belongs to the "
                "job; name another place with --to FILE.html"
            )
    return target


def _trace(folder: Folder, trace_file: Path | None) -> tuple[Trace | None, str]:
    """The trace that was named or is where the example leaves it; else why there is none."""
    if trace_file is not None:
        return read_trace(Path(os.path.realpath(trace_file))), ""  # the person may name a link
    found = find_trace(folder)
    if found is None:
        return (
            None,
            f"No {TRACE} lies beside the data checkpoint folder or the save folders; name one with --trace FILE.",
        )
    try:
        return read_trace(found), ""
    except (ConfigError, DamagedError, UnreadableError, OSError) as error:
        return None, f"The trace is left out: {getattr(error, 'strerror', None) or error}"
