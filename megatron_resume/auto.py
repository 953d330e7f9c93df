"""Importing this module hooks Megatron: one line at the top of an entrypoint is all that is needed."""

from .adapter.ending import truthful_end
from .adapter.install import install

with truthful_end():
    install()
