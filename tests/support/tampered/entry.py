"""The example's entry with one thing spoiled, which the first argument names: `entry.py restored_state.optimizer ...`.

To show that the tests would see it: everything spoiled by the modules beside this one is restored, or done, by an
untouched start. The job server or torchrun executes this file in place of train_rlhf.py.
"""

import importlib
import sys
from pathlib import Path

HERE = Path(__file__).resolve()
ENTRY = HERE.parents[3] / "examples" / "megatron" / "entry" / "train_rlhf.py"


def spoil(name):
    """Call the function `name`, as module.function."""
    import megatron.training.training  # noqa: F401

    import megatron_resume.auto  # noqa: F401  (after it, and before the spoilers, which spoil what has our hooks)

    module, _, function = name.partition(".")
    there = (HERE.parent / f"{module}.py").is_file()
    spoiler = getattr(importlib.import_module(f"support.tampered.{module}"), function, None) if there else None
    if not callable(spoiler):
        sys.exit(f"{HERE}: the first argument {name!r} is no module.function of {HERE.parent}")
    spoiler()


if __name__ == "__main__":
    sys.path[0] = str(ENTRY.parent)  # in place of our folder, whose modules must hide no others
    sys.path.append(str(HERE.parents[2]))  # last, for the same reason
    name = sys.argv.pop(1) if len(sys.argv) > 1 else ""
    sys.argv[0] = str(ENTRY)
    spoil(name)

# Also in the helper processes that Megatron starts: they import this file again, and find what the entry gives them.
exec(compile(ENTRY.read_text(), str(ENTRY), "exec"), {"__name__": __name__, "__file__": str(ENTRY)})
