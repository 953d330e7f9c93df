"""Where our line goes, in files of every shape that Python reads, and that nothing else of them changes."""

import ast
import runpy
import sys
from pathlib import Path

import pytest

from megatron_resume.patching.line import AUTO, CHATLEARN, NoPlace, has_line, insert, parse, take_out

L = AUTO.encode()
BOM = b"\xef\xbb\xbf"
USE = b"import os\nx = os.sep\n"

PLACES = {
    "imports only": (b"", USE),
    "empty lines first": (b"", b"\n\n" + USE),
    "licence": (b"# a\n# b\n", b"\n" + USE),
    "licence without an empty line below": (b"# a\n", USE),
    "empty line, licence": (b"\n# a\n", b"\n" + USE),
    "interpreter and encoding": (b"#!/usr/bin/env python\n# -*- coding: utf-8 -*-\n", USE),
    "docstring": (b'# a\n\n"""d"""\n', b"\n" + USE),
    "docstring of many lines": (b'"""d\n\nimport os\n"""\n', USE),
    "comment behind the docstring": (b'"""d"""  # noqa\n', USE),
    "future": (b"from __future__ import annotations\n", USE),
    "docstring, comment and two of future": (
        b'"""d"""\n# c\nfrom __future__ import annotations\n\nfrom __future__ import (\n    division,\n)\n',
        USE,
    ),
    "comment below the docstring": (b'"""d"""\n', b"# c\n" + USE),
    "no end of the last line": (b'"""d"""\n', b"import os"),
    "a docstring in the middle is none": (b"", b"import os\n'''d'''\n"),
    "byte order mark": (BOM, USE),
    "byte order mark and licence": (BOM + b"# a\n", USE),
    "byte order mark and docstring": (BOM + b'"""d"""\n', USE),
    "latin-1": (b"# coding: latin-1\n'''d \xe9'''\n", b"x = '\xe9'\n"),
    "gbk": ("# coding: gbk\n'''\u6a21\u578b'''\n".encode("gbk"), "x = '\u8bad\u7ec3'\n".encode("gbk")),
    "tabs": (b'"""d"""\n', b"if True:\n\timport os\n\tx = 1\n"),
    "form feed": (b'"""d\x0cd"""\n', b"\x0c\nimport os\n"),
    "a separator that only str.splitlines takes for a line end": ('"""d\u2028d\x1c\n"""\n'.encode(), USE),
}


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize("name", PLACES)
def test_the_line_goes_below_what_must_stay_first_and_ends_as_others_do(name: str, end: bytes) -> None:
    above, below = (part.replace(b"\n", end) for part in PLACES[name])
    made = insert(above + below, parse(above + below), AUTO)
    used = end if end in above + below else b"\n"
    assert made.content == above + L + used + below
    assert has_line(parse(made.content), AUTO)
    assert take_out(made.content, made.offset, made.length) == above + below


@pytest.mark.parametrize("name", PLACES)
def test_the_line_for_chatlearn_goes_to_the_same_place(name: str) -> None:
    above, below = PLACES[name]
    made = insert(above + below, parse(above + below), CHATLEARN)
    assert made.content == above + CHATLEARN.encode() + b"\n" + below
    assert has_line(parse(made.content), CHATLEARN)
    assert not has_line(parse(made.content), AUTO)
    assert take_out(made.content, made.offset, made.length) == above + below


@pytest.mark.parametrize("name", PLACES)
def test_a_file_means_the_same_with_the_line(name: str) -> None:
    content = b"".join(PLACES[name])
    before, after = parse(content), parse(insert(content, parse(content), AUTO).content)
    after.body = [node for node in after.body if AUTO not in ast.unparse(node)]
    assert ast.dump(after) == ast.dump(before)
    assert ast.get_docstring(after) == ast.get_docstring(before)


@pytest.mark.parametrize(
    "content",
    [
        b'"""d"""; import os\n',
        b"from __future__ import annotations; import os\n",
        b'"""d""" \\\n\nimport os\n',
        b"if True:",
        b"print 'Python 2'\n",
        b"# coding: nobody-knows\nimport os\n",
        "import os\n".encode("utf-16"),
        b"x = '\xe9'\n",
    ],
    ids=["one line", "one line with future", "continued", "torn", "Python 2", "no encoding", "UTF-16", "no UTF-8"],
)
def test_a_file_that_has_no_place_for_it_is_refused(content: bytes) -> None:
    with pytest.raises(NoPlace):
        insert(content, parse(content), AUTO)


@pytest.mark.parametrize(
    ("text", "has"),
    [
        (f"{AUTO}\n", True),
        (f"import os\n{AUTO}  # resume\n", True),
        ("from megatron_resume import auto\n", True),
        (f"import os, {AUTO[7:]} as resume\n", True),
        ("import megatron_resume\n", False),
        (f"# {AUTO}\n", False),
        (f'"""\n{AUTO}\n"""\n', False),
        ("from .megatron_resume import auto\n", False),
        (f"def f():\n    {AUTO}\n", False),
    ],
)
def test_a_line_of_the_user_is_seen_where_it_is_executed(text: str, has: bool) -> None:
    assert has_line(parse(text.encode()), AUTO) is has


@pytest.mark.parametrize(("offset", "length"), [(0, 28), (9, 28), (10, 40), (99, 28)])
def test_what_is_not_our_whole_line_is_not_taken_out(offset: int, length: int) -> None:
    content = b"import os\n" + L + b"\nimport re\n"
    assert take_out(content, 10, 28) == b"import os\nimport re\n"
    assert take_out(content, offset, length) is None


def test_the_line_runs_before_every_other_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "stands_first"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "auto.py").write_text("import sys\nseen = 'colorsys' in sys.modules\n")
    content = b'"""d"""\nfrom __future__ import annotations\nimport colorsys\nimport stands_first.auto\n'
    made = insert(content, parse(content), AUTO).content.replace(b"megatron_resume", b"stands_first", 1)
    (tmp_path / "script.py").write_bytes(made)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    assert runpy.run_path(str(tmp_path / "script.py"))["stands_first"].auto.seen is False
