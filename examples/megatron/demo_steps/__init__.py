"""The steps of `make demo`: run and kill, compare, draw, tell."""
