"""`patch check`, `apply` and `revert` on whole trees: all files or none, and back to the byte."""

import fcntl
import json
import os
import random
import shutil
import stat
from pathlib import Path

import pytest

from megatron_resume.cli import main
from megatron_resume.errors import ConfigError, DamagedError, MismatchError
from megatron_resume.patching import patch, record, writing
from megatron_resume.patching.line import AUTO as LINE
from megatron_resume.patching.line import CHATLEARN as CHATLEARN_LINE
from support import upstream
from support.ordinary_user import as_an_ordinary_user, open_folder

REFUSED = MismatchError.exit_code


def contents(root: Path) -> dict[str, tuple[bytes, int]]:
    """Every file below `root`: bytes and mode."""
    files = (path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    return {str(path.relative_to(root)): (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) for path in files}


def with_line(root: Path) -> list[str]:
    return sorted(name for name, (content, _) in contents(root).items() if LINE.encode() in content)


def run(step: str, root: Path, *flags: str) -> int:
    return main(["patch", step, str(root), *flags])


def test_the_entrypoints_of_megatron_are_found_by_structure(megatron: Path) -> None:
    assert run("apply", megatron) == 0
    assert with_line(megatron) == sorted(upstream.PATCHED_OF_MEGATRON)


def test_an_entrypoint_is_one_under_any_name(tmp_path: Path) -> None:
    for name, use in {
        "a.py": "from megatron.training import pretrain as go\ngo()\n",
        "b.py": "from megatron.training.training import pretrain\npretrain()\n",
        "c.py": "import megatron.training\nmegatron.training.pretrain()\n",
        "d.py": "from megatron import training\ntraining.pretrain()\n",
        "e.py": "import megatron.training.training as t\nt.pretrain()\n",
        "deep/er/f.py": "def main():\n    from megatron.training import pretrain\n    pretrain()\n",
    }.items():
        upstream.make(tmp_path, {name: use})
    no = {
        "never_called.py": "from megatron.training import pretrain\n",
        "of_somebody_else.py": "from nemo import pretrain  # not megatron\npretrain()\n",
        "text.py": '"""megatron: pretrain()"""\n',
        "site-packages/x.py": "from megatron.training import pretrain\npretrain()\n",
        ".git/x.py": "from megatron.training import pretrain\npretrain()\n",
        "venv/pyvenv.cfg": "",
        "venv/x.py": "from megatron.training import pretrain\npretrain()\n",
    }
    upstream.make(tmp_path, no)
    run("apply", tmp_path)
    assert with_line(tmp_path) == ["a.py", "b.py", "c.py", "d.py", "deep/er/f.py", "e.py"]


def test_of_chatlearn_the_package_is_patched_which_driver_and_actors_import(
    chatlearn: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(chatlearn)
    assert run("check", chatlearn, "--json") == REFUSED
    found = {row["path"]: row["kind"] for row in json.loads(capsys.readouterr().out)["files"]}
    assert found == upstream.PATCHED_OF_CHATLEARN
    assert run("apply", chatlearn) == 0
    text = (chatlearn / "chatlearn" / "__init__.py").read_text()
    assert text == upstream.CHATLEARN_INIT.replace('"""init"""\n', f'"""init"""\n{CHATLEARN_LINE}\n')
    assert with_line(chatlearn) == ["examples/megatron/entry/train_sft.py"]
    assert run("check", chatlearn) == 0
    assert run("revert", chatlearn) == 0
    assert contents(chatlearn) == before


def test_the_line_for_chatlearn_calls_what_there_is() -> None:
    module = Path(patch.__file__).parents[1] / "chatlearn.py"
    if not module.exists():
        pytest.skip("megatron_resume.chatlearn is not there yet")
    assert "\ndef install() -> None:" in module.read_text()


def test_two_lines_written_into_chatlearn_by_hand_count(chatlearn: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hand = "import importlib\nfrom megatron_resume import chatlearn\nchatlearn.install()"
    (chatlearn / "chatlearn" / "__init__.py").write_text(upstream.CHATLEARN_INIT.replace("import importlib", hand))
    assert run("apply", chatlearn) == 0
    assert "chatlearn/__init__.py: by hand" in capsys.readouterr().out


def test_an_engine_without_its_package_is_refused_since_its_trainers_would_have_no_line(
    chatlearn: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("apply", chatlearn / "examples") == REFUSED
    assert "megatron/entry/train_rlhf.py: it starts an engine of ChatLearn" in capsys.readouterr().err
    assert with_line(chatlearn) == []
    assert run("apply", chatlearn / "examples", "--skip", "megatron/entry/train_rlhf.py") == 0


@pytest.mark.parametrize(
    "text",
    [
        "from chatlearn.models.megatron_module import MegatronModule\n",
        "from chatlearn.runtime.engine import Engine\n",
        "",
    ],
)
def test_a_package_chatlearn_without_megatron_or_engine_is_none_that_is_known(chatlearn: Path, text: str) -> None:
    (chatlearn / "chatlearn" / "__init__.py").write_text(text)
    assert run("apply", chatlearn) == REFUSED


def test_apply_changes_each_file_by_our_line_only_and_revert_restores_every_byte(megatron: Path) -> None:
    before = contents(megatron)
    run("apply", megatron)
    after = contents(megatron)
    added = {name for name in after if after[name] != before.get(name)}
    assert added == {*upstream.PATCHED_OF_MEGATRON, record.NAME}
    for name in upstream.PATCHED_OF_MEGATRON:
        assert after[name][0].replace(f"{LINE}\n".encode(), b"") == before[name][0]
    assert run("revert", megatron) == 0
    assert contents(megatron) == before


def test_applying_again_changes_nothing_not_even_a_time(megatron: Path) -> None:
    run("apply", megatron)
    before = {path: path.stat().st_mtime_ns for path in megatron.rglob("*")}
    assert run("apply", megatron) == 0
    assert {path: path.stat().st_mtime_ns for path in megatron.rglob("*")} == before


def test_reverting_again_or_without_a_patch_says_that_there_is_nothing(
    megatron: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(megatron)
    assert run("revert", megatron) == 0
    assert capsys.readouterr().out == "Nothing was patched here.\n"
    assert contents(megatron) == before


def test_check_says_what_is_missing_and_changes_nothing(megatron: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(megatron)
    assert run("check", megatron) == REFUSED
    assert contents(megatron) == before
    assert capsys.readouterr().out.splitlines() == [
        "pretrain_bert.py: not patched, below line 3",
        "pretrain_gpt.py: not patched, below line 3",
        "train_rl.py: not patched, below line 1",
    ]
    run("apply", megatron)
    capsys.readouterr()
    assert run("check", megatron) == 0
    assert capsys.readouterr().out.splitlines() == [f"{name}: patched" for name in upstream.PATCHED_OF_MEGATRON]


@pytest.mark.parametrize(
    "shape",
    [
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: text.rstrip("\n").encode(),
        lambda text: b"\xef\xbb\xbf" + text.encode(),
        lambda text: text.replace('"""\n\n#', '"""\nfrom __future__ import annotations\n\n#').encode(),
        lambda text: ("# coding: latin-1\n" + text.replace("a model", "ein \xdcbungsmodell")).encode("latin-1"),
        lambda text: text.replace("\n", "\r\n", 4).encode(),
    ],
    ids=["CRLF", "no newline at the end", "BOM", "future", "latin-1", "mixed line ends"],
)
def test_a_file_of_any_shape_comes_back_to_the_byte(megatron: Path, shape: object) -> None:
    assert callable(shape)
    file = megatron / "pretrain_gpt.py"
    file.write_bytes(shape(upstream.PRETRAIN))
    before = contents(megatron)
    assert run("apply", megatron) == 0
    assert LINE.encode() in file.read_bytes()
    assert run("revert", megatron) == 0
    assert contents(megatron) == before


def test_a_line_written_by_hand_is_left_alone_by_all(megatron: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = megatron / "pretrain_gpt.py"
    file.write_text(upstream.PRETRAIN.replace("import torch", f"import torch\n{LINE}"))
    before = contents(megatron)
    run("apply", megatron)
    assert "pretrain_gpt.py: by hand" in capsys.readouterr().out
    assert contents(megatron)["pretrain_gpt.py"] == before["pretrain_gpt.py"]
    assert run("check", megatron) == 0
    run("revert", megatron)
    assert contents(megatron) == before


@pytest.mark.parametrize("mode", [0o444, 0o755, 0o640])
def test_modes_stay_also_of_a_file_that_nobody_may_write(megatron: Path, mode: int) -> None:
    (megatron / "pretrain_gpt.py").chmod(mode)
    before = contents(megatron)
    run("apply", megatron)
    assert contents(megatron)["pretrain_gpt.py"][1] == mode
    assert LINE in (megatron / "pretrain_gpt.py").read_text()
    run("revert", megatron)
    assert contents(megatron) == before


def test_another_name_of_a_patched_file_keeps_the_old_content(megatron: Path, tmp_path: Path) -> None:
    os.link(megatron / "pretrain_gpt.py", tmp_path / "of another tree.py")
    run("apply", megatron)
    assert (tmp_path / "of another tree.py").read_text() == upstream.PRETRAIN


UNRECOGNISED = {
    "no call of pretrain": upstream.PRETRAIN.replace("    pretrain(None", "    print(None"),
    "no Python": "print 'no Python 3'\n",
    "no line for ours": upstream.PRETRAIN.replace('model."""', 'model."""; import os'),
    "cut off": upstream.PRETRAIN[:-9],
}


@pytest.mark.parametrize("name", UNRECOGNISED)
def test_where_one_file_is_not_recognised_none_is_changed(
    megatron: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (megatron / "pretrain_gpt.py").write_text(UNRECOGNISED[name])
    before = contents(megatron)
    assert run("apply", megatron) == REFUSED
    assert "nothing was patched, since 1 of the files cannot be:\n  pretrain_gpt.py: " in capsys.readouterr().err
    assert contents(megatron) == before
    assert run("check", megatron) == REFUSED
    assert "pretrain_gpt.py: refused (" in capsys.readouterr().out


def test_a_refused_file_can_be_left_out_by_name(megatron: Path) -> None:
    (megatron / "pretrain_gpt.py").write_text(UNRECOGNISED["no Python"])
    assert run("apply", megatron, "--skip", "pretrain_gpt.py") == 0
    assert with_line(megatron) == ["pretrain_bert.py", "train_rl.py"]
    assert run("check", megatron, "--skip", "pretrain_gpt.py") == 0


def test_a_file_of_that_name_without_megatron_is_no_business_of_ours(megatron: Path) -> None:
    upstream.make(megatron, {"robot/train_rl.py": "import gym\n", "pretrain_old.py": "from pretrain_gpt import *\n"})
    assert run("apply", megatron) == 0
    assert with_line(megatron) == sorted(upstream.PATCHED_OF_MEGATRON)


@pytest.mark.parametrize("step", ["apply", "revert"])
def test_a_file_changed_since_it_was_patched_is_refused_and_no_other_is_touched(
    megatron: Path, step: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run("apply", megatron)
    with open(megatron / "pretrain_gpt.py", "a") as file:
        file.write("# mine\n")
    before = contents(megatron)
    assert run(step, megatron) == REFUSED
    assert "take our line out of it by hand" in capsys.readouterr().err
    assert contents(megatron) == before
    assert run("check", megatron) == REFUSED


def test_what_the_refusal_says_helps(megatron: Path) -> None:
    run("apply", megatron)
    file = megatron / "pretrain_gpt.py"
    file.write_text(upstream.PRETRAIN + "# mine\n")  # the line was taken out by hand
    assert run("apply", megatron) == 0
    assert run("check", megatron) == 0
    assert run("revert", megatron) == 0
    assert file.read_text() == upstream.PRETRAIN + "# mine\n"
    assert with_line(megatron) == []


def test_a_tree_that_somebody_restored_or_updated_is_patched_anew(megatron: Path) -> None:
    run("apply", megatron)
    upstream.make(megatron, upstream.MEGATRON)
    (megatron / "train_rl.py").write_text(upstream.TRAIN_RL + "# the next release\n")
    (megatron / "pretrain_bert.py").unlink()
    before = contents(megatron)
    before.pop(record.NAME)
    assert run("apply", megatron) == 0
    assert with_line(megatron) == ["pretrain_gpt.py", "train_rl.py"]
    assert run("revert", megatron) == 0
    assert contents(megatron) == before


def test_revert_restores_what_is_left_of_a_tree(megatron: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(megatron)
    run("apply", megatron)
    (megatron / "pretrain_bert.py").unlink()
    (megatron / "train_rl.py").write_text(upstream.TRAIN_RL)
    capsys.readouterr()
    assert run("revert", megatron) == 0
    assert "pretrain_bert.py: gone" in capsys.readouterr().out
    before.pop("pretrain_bert.py")
    assert contents(megatron) == before


def test_a_tree_may_be_moved_between_apply_and_revert(megatron: Path, tmp_path: Path) -> None:
    before = contents(megatron)
    run("apply", megatron)
    moved = megatron.rename(tmp_path / "elsewhere")
    run("revert", moved)
    assert contents(moved) == before


def test_a_link_out_of_the_tree_is_refused_and_one_within_is_its_target(
    megatron: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (megatron / "again.py").symlink_to("pretrain_gpt.py")
    assert run("apply", megatron) == 0
    assert (megatron / "again.py").is_symlink()
    run("revert", megatron)
    (tmp_path / "outside.py").write_text(upstream.PRETRAIN)
    (megatron / "link.py").symlink_to(tmp_path / "outside.py")
    before = contents(megatron)
    assert run("apply", megatron) == REFUSED
    assert f"link.py: it is a symbolic link to {tmp_path / 'outside.py'}, outside of" in capsys.readouterr().err
    assert contents(megatron) == before
    assert (tmp_path / "outside.py").read_text() == upstream.PRETRAIN
    assert run("apply", megatron, "--skip", "link.py") == 0


def test_folders_that_are_links_are_not_entered(megatron: Path, tmp_path: Path) -> None:
    outside = upstream.make(tmp_path / "outside", {"x.py": upstream.PRETRAIN})
    (megatron / "linked").symlink_to(outside)
    (megatron / "loop").symlink_to(megatron)
    assert run("apply", megatron) == 0
    assert (outside / "x.py").read_text() == upstream.PRETRAIN


def test_pipes_and_links_to_nowhere_are_passed_by(megatron: Path) -> None:
    os.mkfifo(megatron / "pretrain_pipe.py")
    (megatron / "pretrain_nowhere.py").symlink_to("nowhere")
    assert run("apply", megatron) == 0


def a_record(**changed: object) -> bytes:
    entry = {"path": "pretrain_gpt.py", "offset": 0, "length": 28, "before": "0" * 64, "after": "1" * 64} | changed
    return json.dumps({"version": 1, "files": [entry]}).encode()


HOSTILE = {
    "leaves": a_record(path="../outside.py"),
    "is absolute": a_record(path="/etc/passwd.py"),
    "leaves in the middle": a_record(path="megatron/../../outside.py"),
    "is empty": a_record(path=""),
    "holds NUL": a_record(path="a\0.py"),
    "is no Python file": a_record(path=".bashrc"),
    "negative": a_record(offset=-1),
    "huge": a_record(length=1 << 40),
    "no digest": a_record(after="x"),
    "another field": a_record(command="rm -rf /"),
    "no JSON": b"\x80\x04.",
    "empty": b"",
    "another version": b'{"version": 99, "files": []}',
    "a list": b"[]",
    "deep": b"[" * 100_000,
    "not UTF-8": b'{"version": 1, "files": [{"path": "\xff.py"}]}',
}


@pytest.mark.parametrize("step", ["check", "apply", "revert"])
@pytest.mark.parametrize("name", HOSTILE)
def test_a_record_that_is_none_of_ours_is_refused(megatron: Path, name: str, step: str) -> None:
    (megatron / record.NAME).write_bytes(HOSTILE[name])
    before = contents(megatron.parent)
    assert run(step, megatron) == DamagedError.exit_code
    assert contents(megatron.parent) == before


def test_a_forged_record_takes_nothing_but_our_line_out_of_a_file(megatron: Path) -> None:
    content = (megatron / "pretrain_gpt.py").read_bytes()
    forged = a_record(length=20, before=record.digest(content[20:]), after=record.digest(content))
    (megatron / record.NAME).write_bytes(forged)
    run("revert", megatron)
    assert (megatron / "pretrain_gpt.py").read_bytes() == content


def test_a_record_leads_through_no_link(megatron: Path, tmp_path: Path) -> None:
    run("apply", megatron)
    shutil.move(megatron / "train_rl.py", tmp_path / "train_rl.py")
    (megatron / "train_rl.py").symlink_to(tmp_path / "train_rl.py")
    patched = (tmp_path / "train_rl.py").read_bytes()
    assert run("revert", megatron) == REFUSED
    assert (tmp_path / "train_rl.py").read_bytes() == patched


def test_a_record_leads_through_no_folder_that_is_a_link(megatron: Path, tmp_path: Path) -> None:
    upstream.make(megatron, {"sub/pretrain_x.py": upstream.PRETRAIN})
    run("apply", megatron)
    shutil.move(megatron / "sub", tmp_path / "sub")
    (megatron / "sub").symlink_to(tmp_path / "sub")
    patched = (tmp_path / "sub" / "pretrain_x.py").read_bytes()
    assert run("revert", megatron) == REFUSED
    assert (tmp_path / "sub" / "pretrain_x.py").read_bytes() == patched


def test_a_record_that_is_a_link_is_not_followed(megatron: Path, tmp_path: Path) -> None:
    run("apply", megatron)
    shutil.move(megatron / record.NAME, tmp_path / "record")
    (megatron / record.NAME).symlink_to(tmp_path / "record")
    before = contents(megatron)
    assert run("revert", megatron) == DamagedError.exit_code
    assert contents(megatron) == before


@pytest.mark.parametrize("step", ["check", "apply", "revert"])
def test_a_folder_that_is_none_is_named(step: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(step, tmp_path / "typo") == ConfigError.exit_code
    assert "is no folder; name the root of a source tree" in capsys.readouterr().err


def test_a_tree_without_an_entrypoint_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("apply", tmp_path) == ConfigError.exit_code
    assert "holds no entrypoint" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_skip_that_names_nothing_is_an_error(megatron: Path) -> None:
    assert run("apply", megatron, "--skip", "pretrain_gtp.py") == ConfigError.exit_code
    assert with_line(megatron) == []


def test_a_folder_that_may_not_be_written_is_refused_before_anything_is_changed() -> None:
    with open_folder() as base:
        tree = upstream.make(base / "tree", {**upstream.MEGATRON, "z/pretrain_z.py": upstream.PRETRAIN})
        for folder in (tree, *(path for path in tree.rglob("*") if path.is_dir())):
            folder.chmod(0o777)
        (tree / "z").chmod(0o755)
        before = contents(tree)
        with as_an_ordinary_user():
            assert run("apply", tree) == ConfigError.exit_code
        assert contents(tree) == before


def test_whoever_dies_on_the_way_leaves_what_apply_completes_and_revert_restores(megatron: Path) -> None:
    before = contents(megatron)
    run("apply", megatron)
    whole = contents(megatron)
    for died_after in range(len(upstream.PATCHED_OF_MEGATRON)):
        for name in upstream.PATCHED_OF_MEGATRON[died_after:]:  # these were not written yet
            (megatron / name).write_bytes(before[name][0])
        half = contents(megatron)
        assert run("apply", megatron) == 0
        assert contents(megatron) == whole
        for name, (content, _) in half.items():
            (megatron / name).write_bytes(content)
        assert run("revert", megatron) == 0
        assert contents(megatron) == before
        run("apply", megatron)


def test_a_file_that_changes_between_look_and_write_is_kept_and_the_others_are_put_back(
    megatron: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(megatron)
    looked = writing._check_writable

    def somebody_saves(root: Path, changes: list[writing.Change]) -> None:
        looked(root, changes)
        (megatron / "train_rl.py").write_text("# somebody's\n")

    monkeypatch.setattr(writing, "_check_writable", somebody_saves)
    assert run("apply", megatron) == REFUSED
    monkeypatch.undo()
    before["train_rl.py"] = (b"# somebody's\n", before["train_rl.py"][1])
    assert contents(megatron) == before


@pytest.mark.parametrize("step", ["apply", "revert"])
def test_two_at_once_are_refused(megatron: Path, step: str, capsys: pytest.CaptureFixture[str]) -> None:
    run("apply", megatron)
    before = contents(megatron)
    somebody = os.open(megatron, os.O_RDONLY)
    try:
        fcntl.flock(somebody, fcntl.LOCK_EX)
        assert run(step, megatron) == ConfigError.exit_code
        assert run("check", megatron) == 0, "looking disturbs nobody"
    finally:
        os.close(somebody)
    assert "is being patched by another process" in capsys.readouterr().err
    assert contents(megatron) == before


def test_the_patched_entrypoint_of_any_mixture_of_shapes_compiles(megatron: Path) -> None:
    chance = random.Random(7)
    for _ in range(60):
        text = "".join(
            chance.choice(part)
            for part in (
                ("", "#!/usr/bin/env python3\n", "# licence\n# more\n"),
                ("", "\n"),
                ("", '"""doc"""\n', "'''doc\nof lines\n'''\n", 'r"doc"  # noqa\n'),
                ("", "# comment\n", "\n\n"),
                ("", "from __future__ import annotations\n"),
                ("", "\n"),
                ("from megatron.training import pretrain\n",),
                ("pretrain()\n", "pretrain()", "if 1:\n\tpretrain()"),
            )
        )
        content = text.replace("\n", chance.choice(["\n", "\r\n"])).encode()
        (megatron / "pretrain_gpt.py").write_bytes(content)
        assert run("apply", megatron) == 0, content
        patched = (megatron / "pretrain_gpt.py").read_bytes()
        compile(patched, "patched", "exec")
        assert patched.index(LINE.encode()) < patched.index(b"megatron.training")
        assert run("revert", megatron) == 0
        assert (megatron / "pretrain_gpt.py").read_bytes() == content
