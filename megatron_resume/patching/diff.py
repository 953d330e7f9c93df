"""Our line as a zero-context diff: where it goes, and nothing of the file that it goes into."""


def diff(path: str, after_line: int, line: str) -> str:
    """`line` for `patch -p1` and `git apply --unidiff-zero`; lines are counted from 1, `after_line` 0 is the top.

    It says nothing of the lines around it, so it fits one version of the file only: compare its SHA-256 first, and
    type `megatron-resume patch check` afterwards.
    """
    return f"--- a/{path}\n+++ b/{path}\n@@ -{after_line},0 +{after_line + 1} @@\n+{line}\n"
