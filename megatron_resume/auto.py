"""Importing this module hooks Megatron: one line at the top of an entrypoint is all that is needed."""

import importlib.util
import sys

if importlib.util.find_spec("torch") is None:
    sys.stderr.write(
        f"megatron_resume: ERROR: torch is not installed for {sys.executable}, and Megatron trains with it; start with "
        "the interpreter that has it, or install it there (pip install torch)\n"
    )
    raise SystemExit(78)  # as all that is not set up

from .adapter.ending import truthful_end
from .adapter.lives_before import check_budget
from .watch import marks

with truthful_end():
    marks.begin()
    check_budget()  # before Megatron is imported, which takes long
    from .adapter.install import install

    install()
