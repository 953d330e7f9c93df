"""Write patches/ from releases.json, which holds facts about upstream's files and none of their text.

    python patches/make_patches.py                           # the diffs, from the facts (make golden)
    python patches/make_patches.py --add core_v0.19.2 DIR    # the facts of a clean tree first: lines and digests

`known` says where a fact is from: "tree", a clean tree of that release, which gives the digests, too; "read", one
stored version of the file that nobody tied to the release's tag; "heads", the first lines of many versions of the file.
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from megatron_resume.patching import patch, record
from megatron_resume.patching.diff import diff

HERE = Path(__file__).resolve().parent
FACTS = HERE / "releases.json"
SUMS = "SHA256SUMS"

Facts = dict[str, dict[str, dict[str, Any]]]


def main() -> None:
    parser = argparse.ArgumentParser(description="Write patches/ from the facts in releases.json.")
    parser.add_argument("--add", nargs=2, metavar=("RELEASE", "DIR"), help="take the facts of a clean tree first")
    args = parser.parse_args()
    if args.add:
        release, directory = args.add
        facts = read_facts() | {release: facts_of(Path(directory))}
        FACTS.write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n")
    for folder in HERE.iterdir():
        if folder.is_dir() and folder.name != "__pycache__":
            shutil.rmtree(folder)
    for name, text in rendered(read_facts()).items():
        path = HERE / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


def read_facts() -> Facts:
    facts: Facts = json.loads(FACTS.read_text())
    return facts


def rendered(facts: Facts) -> dict[str, str]:
    """Every file of patches/ that follows from the facts, by its path there."""
    made = {}
    for release, files in facts.items():
        for path, fact in files.items():
            made[f"{release}/{path.replace('/', '.')}.diff"] = diff(path, fact["after_line"], patch.LINES[fact["kind"]])
        sums = [f"{fact['sha256']}  {path}\n" for path, fact in sorted(files.items()) if fact["sha256"]]
        if sums:
            made[f"{release}/{SUMS}"] = "".join(sums)
    return made


def facts_of(tree: Path) -> dict[str, dict[str, Any]]:
    """What the command finds in a tree that was not patched yet."""
    states = patch.check(tree.resolve())
    unfit = [str(one.path) for one in states if one.patch is None]
    if unfit:
        raise SystemExit(f"{', '.join(unfit)}: patched already, or refused; give a clean tree")
    return {
        str(one.path): {
            "after_line": one.patch.after_line,
            "kind": one.kind,
            "sha256": record.digest(one.content),
            "known": "tree",
        }
        for one in states
        if one.patch
    }


if __name__ == "__main__":
    main()
