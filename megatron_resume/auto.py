"""Importing this module hooks Megatron: one line at the top of an entrypoint is all that is needed."""

from .adapter.install import install

install()
