"""One process with real Megatron that parses, validates and reports what the hooks did, as JSON.

probe.py before|between|after|never REPORT ARGS...    when megatron_resume.auto is imported
"""

import copy
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "examples" / "megatron"))
sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from cpu import stand_in

stand_in.install()

WHEN, REPORT = sys.argv[1], sys.argv[2]
del sys.argv[1:3]
if WHEN == "before":
    import megatron_resume.auto

from megatron.training import checkpointing, get_args  # noqa: E402
from megatron.training.arguments import parse_args  # noqa: E402
from megatron.training.checkpointing import save_checkpoint as copied_early  # noqa: E402

if WHEN == "between":
    import megatron_resume.auto

from megatron.training import arguments, async_utils, initialize, training, yaml_arguments  # noqa: E402, F401
from megatron.training.checkpointing import load_checkpoint, save_checkpoint  # noqa: E402

CODES = {name: getattr(checkpointing, name).__code__ for name in ("save_checkpoint", "load_checkpoint")}
if WHEN == "after":
    import megatron_resume.auto


def plain(args):
    return {name: repr(value) for name, value in sorted(vars(args).items())}


def roles(args):
    from megatron_resume import role_args

    found = {}
    for role in ("policy", "value", "reference", "reward"):
        before = copy.copy(args)
        before.save = f"{args.save}/{role}"
        found[role] = {"before": plain(before), "after": plain(role_args(role, before))}
        assert plain(before) == found[role]["before"], "role_args changed what it was given"
    return found


def parse_and_validate():
    if hasattr(arguments, "parse_and_validate_args"):
        return arguments.parse_and_validate_args()
    initialize.initialize_megatron(skip_mpu_initialization=True)  # up to 0.17, where it is this that parses
    return get_args()


def main():
    args = parse_and_validate()
    report = {"args": plain(args)}
    if WHEN != "never":
        from megatron_resume.adapter.versions import hook_set

        report["hooks"] = {hook.name: hook_set.state(hook) for hook in hook_set.hooks}
        report["copies"] = [
            f.__code__.co_names
            for f in (copied_early, save_checkpoint, load_checkpoint, parse_args, training.train_step)
        ]
        report["roles"] = None if args.resume_role else roles(args)
        megatron_resume.uninstall()
        if WHEN == "after":
            report["restored"] = all(getattr(checkpointing, name).__code__ is code for name, code in CODES.items())
        report["copies after uninstall"] = [
            f.__code__.co_argcount > 0 for f in (copied_early, load_checkpoint, parse_args)
        ]
    Path(REPORT).write_text(json.dumps(report))


if __name__ == "__main__":
    main()
