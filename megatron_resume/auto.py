"""Importing this module hooks Megatron: one line at the top of an entrypoint is all that is needed."""

from .adapter.ending import truthful_end
from .adapter.lives_before import check_budget
from .watch import marks

with truthful_end():
    marks.begin()
    check_budget()  # before Megatron is imported, which takes long
    from .adapter.install import install

    install()
