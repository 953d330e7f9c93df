"""`patches/` follows from its facts, does what the command does, and holds nothing of upstream's text."""

import os
import re
import subprocess
from hashlib import sha256
from pathlib import Path

import make_patches
import pytest

from megatron_resume.patching import patch
from megatron_resume.patching.line import AUTO
from support import upstream

ROOT = Path(__file__).resolve().parents[2]
PATCHES = ROOT / "patches"
FACTS = make_patches.read_facts()
README = (PATCHES / "README.md").read_text()


def test_every_diff_follows_from_the_facts_and_nothing_else_lies_there() -> None:
    there = {str(path.relative_to(PATCHES)): path.read_text() for path in PATCHES.glob("*/*") if path.suffix != ".pyc"}
    assert there == make_patches.rendered(FACTS), "type: make golden"


@pytest.mark.parametrize("diff", sorted(PATCHES.glob("*/*.diff")), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_diff_adds_our_line_and_shows_no_line_of_anybody_else(diff: Path) -> None:
    head = re.compile(r"--- a/(\S+)\n\+\+\+ b/(\S+)\n@@ -\d+,0 \+\d+ @@\n")
    found = head.match(diff.read_text())
    assert found and found[1] == found[2]
    assert diff.read_text()[found.end() :] in {f"+{line}\n" for line in patch.LINES.values()}


def test_the_readme_has_a_row_for_each_fact() -> None:
    rows = set(re.findall(r"^\| `(\S+)` \| `(\S+)` \| (\d+) \| (\w+)", README, flags=re.MULTILINE))
    assert rows == {
        (release, path, str(fact["after_line"]), fact["known"])
        for release, files in FACTS.items()
        for path, fact in files.items()
    }


def test_what_is_from_a_tree_of_the_release_has_a_digest_and_nothing_else_has() -> None:
    for files in FACTS.values():
        for fact in files.values():
            assert (fact["sha256"] is not None) == (fact["known"] == "tree")


SHAPES = {  # heads of upstream's files, as they were seen; what is above our line and what below
    "pretrain_gpt.py, docstring in line 3": (3, upstream.PRETRAIN),
    "pretrain_gpt.py, docstring in line 2": (3, upstream.PRETRAIN.replace("\n\n", "\n", 1)),
    "train_rl.py": (1, upstream.TRAIN_RL),
}


@pytest.mark.parametrize("name", SHAPES)
def test_the_line_is_executed_wherever_a_diff_puts_it_in_a_head_of_that_shape(name: str, tmp_path: Path) -> None:
    after_line, text = SHAPES[name]
    upstream.make(tmp_path, {"pretrain_x.py": text})
    diff = make_patches.diff("pretrain_x.py", after_line, AUTO)
    subprocess.run(["patch", "-p1"], cwd=tmp_path, input=diff, text=True, check=True, capture_output=True)
    [found] = patch.check(tmp_path)
    assert found.state == patch.BY_HAND
    assert [line for line in (tmp_path / "pretrain_x.py").read_text().splitlines() if line] == [
        *[line for line in text.splitlines()[:after_line] if line],
        AUTO,
        *[line for line in text.splitlines()[after_line:] if line],
    ]


def test_facts_of_a_tree_are_taken_by_the_command_with_digests(megatron: Path) -> None:
    facts = make_patches.facts_of(megatron)
    content = (megatron / "pretrain_gpt.py").read_bytes()
    assert set(facts) == set(upstream.PATCHED_OF_MEGATRON)
    assert facts["pretrain_gpt.py"] == {
        "after_line": 3,
        "kind": "pretrain",
        "sha256": sha256(content).hexdigest(),
        "known": "tree",
    }
    made = make_patches.rendered({"core_v9": facts})
    for path in facts:
        diff = made[f"core_v9/{path}.diff"]
        subprocess.run(["patch", "-p1"], cwd=megatron, input=diff, text=True, check=True, capture_output=True)
    by_diff = {path: (megatron / path).read_bytes() for path in facts}
    upstream.make(megatron, upstream.MEGATRON)
    checked = subprocess.run(["sha256sum", "-c"], cwd=megatron, input=made["core_v9/SHA256SUMS"], text=True)
    assert checked.returncode == 0
    patch.apply(megatron)
    assert {path: (megatron / path).read_bytes() for path in facts} == by_diff


def test_facts_of_a_patched_tree_are_none(megatron: Path) -> None:
    patch.apply(megatron)
    with pytest.raises(SystemExit, match="give a clean tree"):
        make_patches.facts_of(megatron)


@pytest.mark.skipif("MEGATRON_DIR" not in os.environ, reason="MEGATRON_DIR names no checkout of Megatron-LM")
def test_the_facts_are_those_of_the_users_checkout() -> None:
    tree = Path(os.environ["MEGATRON_DIR"])
    info = (tree / "megatron" / "core" / "package_info.py").read_text()
    numbers = dict(re.findall(r"^(MAJOR|MINOR|PATCH) = (\d+)", info, flags=re.MULTILINE))
    names = ("core_v{MAJOR}.{MINOR}.{PATCH}".format(**numbers), "core_v{MAJOR}.{MINOR}".format(**numbers))
    release = next((name for name in names if name in FACTS), None)
    if release is None:
        pytest.skip(f"patches/ has no {names[0]}; type: python patches/make_patches.py --add {names[0]} {tree}")
    here = make_patches.facts_of(tree)
    for path, fact in FACTS[release].items():
        if fact["known"] == "tree":
            assert here[path] == fact
        else:  # a line that suits several versions, of which the command's own is one or lies in the empty line above
            assert fact["after_line"] - here[path]["after_line"] in (0, 1)
