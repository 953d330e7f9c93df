"""`report` writes one page and one picture, of any folder, and touches nothing else; `status` tells the same."""

import json
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from megatron_resume.checkpoint.events import Failed
from megatron_resume.cli import main, trace
from megatron_resume.cli.life import short
from megatron_resume.cli.report import DEFAULT
from support.eventful_job import EventfulJob
from support.job_on_disk import contents

VOID = {"meta", "br", "path", "circle", "rect"}
BAD = "<script>alert(1)</script>\x1b[31m\u202e\x00&amp;\"'"


class Page(HTMLParser):
    """What a browser would make of the page: its elements, its text, and where it leads."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text, self.elements, self.open, self.links = "", [], [], []  # type: ignore[var-annotated]
        self.feed(path.read_text(encoding="utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "xlink:href", "srcset")]

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def eventful(tmp_path: Path) -> EventfulJob:
    """A job of three attempts, the first killed, the second hung, each with a point."""
    job = EventfulJob(tmp_path / "job")
    job.begins(0)
    job.trains(100)
    job.saves(400, 20)
    job.is_killed(600, 27)
    job.begins(650, (20, 1))
    job.trains(730)
    job.saves(900, 40)
    job.hangs(5_000, 43, silent_s=3_600)
    job.begins(5_100, (40, 2))
    job.trains(5_200)
    job.commits((5_300, 50))
    job.finishes(5_400)
    return job


@pytest.fixture
def pictures() -> None:
    """Asked for by a test that looks at one."""


@pytest.fixture(autouse=True)
def no_other_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """To draw one takes longer than all that a test does beside it."""
    if "pictures" not in request.fixturenames:
        monkeypatch.setattr("megatron_resume.cli.report.can_draw", lambda: False)


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the command is typed."""
    folder = tmp_path / "there"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def write_trace(path: Path, *steps: tuple[int, int, float]) -> None:
    """Steps of (attempt, iteration, reward), as the example writes them."""
    lines = [json.dumps({"attempt": a, "episode": 0, "iteration": i, "reward": r.hex()}) for a, i, r in steps]
    path.write_text("".join(f"{line}\n" for line in lines))


@pytest.mark.usefixtures("pictures")
def test_the_page_and_the_picture_are_written_and_nothing_else_changes(eventful: EventfulJob, there: Path) -> None:
    before = contents(eventful.base)
    assert main(["report", str(eventful.root)]) == 0
    assert contents(eventful.base) == before
    assert sorted(os.listdir(there)) == [DEFAULT, "megatron_resume_report.png"]
    assert (there / "megatron_resume_report.png").read_bytes().startswith(b"\x89PNG\r\n")


def test_the_page_tells_each_end_and_its_cost(eventful: EventfulJob, there: Path) -> None:
    main(["report", str(eventful.root)])
    page = Page(there / DEFAULT)
    assert page.open == []
    for fact in (
        "Finished at iteration 50",
        "3attempts: 1 killed, 1 hung",
        "10iterations lost",
        "attempt 1 at iteration 27: rank 3 on node7 ended in train by SIGKILL",
        "attempt 2 at iteration 43: rank 3 on node7 made no progress in train for 3600 s",
        "7 (3m20s)",
        "2m10s",
    ):
        assert fact in page.text, fact


def test_the_page_needs_nothing_from_elsewhere_and_runs_nothing(eventful: EventfulJob, there: Path) -> None:
    main(["report", str(eventful.root)])
    page, text = Page(there / DEFAULT), (there / DEFAULT).read_text()
    assert page.links == []
    assert {"script", "link", "iframe", "img", "object", "image", "use"}.isdisjoint(page.elements)
    assert "default-src 'none'" in text
    assert "http" not in text.replace("http-equiv", "") and "url(" not in text


@pytest.mark.usefixtures("pictures")
def test_what_lies_on_disk_is_shown_and_not_obeyed(tmp_path: Path, there: Path) -> None:
    base = tmp_path / "<img src=x onerror=alert(1)>\x1b[31m$x_{1"
    job = EventfulJob(base)
    job.begins(0)
    job.says(Failed(error="X", message=BAD, exit_code=1))
    job.is_recorded(100, 5, how="error", error="X", message=BAD, exit_code=1)
    write_trace(base / "trace.jsonl", (1, 1, 0.5))
    assert main(["report", str(job.root)]) == 0
    page = Page(there / DEFAULT)
    assert {"script", "img"}.isdisjoint(page.elements)
    assert "<script>alert(1)</script>\\x1b[31m\\u202e\\x00&amp;\"'" in page.text
    assert all(character.isprintable() or character == "\n" for character in (there / DEFAULT).read_text())


@pytest.mark.usefixtures("pictures")
@pytest.mark.parametrize("trace_file", [True, False])
def test_any_folder_has_a_page_and_a_picture(trace_file: bool, tmp_path: Path, there: Path) -> None:
    """One that holds nothing, one attempt that has only begun, one that never came to it, one second of life."""
    jobs = [EventfulJob(tmp_path / name) for name in ("nothing", "begun", "failed", "short")]
    jobs[1].begins(0)
    jobs[2].fails_before_its_attempt(5, "one")
    jobs[3].begins(0)
    jobs[3].finishes(0)
    for job in jobs:
        if trace_file:
            write_trace(job.base / "trace.jsonl", (1, 1, 0.0))
        assert main(["report", str(job.root), "--to", f"{job.base.name}.html"]) == 0
        assert Page(there / f"{job.base.name}.html").open == []
        assert (there / f"{job.base.name}.png").stat().st_size > 0


def test_a_thousand_attempts_make_a_page_that_a_browser_opens(tmp_path: Path, there: Path) -> None:
    job, parent = EventfulJob(tmp_path / "job"), None
    for at in range(0, 1_000 * 1_000, 1_000):
        job.begins(at, parent, number=job.number + 1)
        first = parent[0] if parent else 0
        lines = [
            f'{{"kind":"committed","version":1,"time":"2026-01-01T00:00:{s:02}","iteration":{first + s}}}\n'
            for s in range(1, 11)
        ]
        job.events(job.number).write_text("".join(lines))
        job.fails(at + 900, first + 13, message=BAD * 300)
        parent = first + 10, job.number
    assert main(["report", str(job.root)]) == 0
    assert (there / DEFAULT).stat().st_size < 4 << 20


def test_the_trace_beside_the_folder_is_found(eventful: EventfulJob, there: Path) -> None:
    steps = [(1, 1, -0.25), (1, 2, 0.5), (1, 3, 1.5), (2, 3, 1.5), (2, 4, 2.0)]
    write_trace(eventful.base / "trace.jsonl", *steps)
    main(["report", str(eventful.root)])
    text = Page(there / DEFAULT).text
    assert "4 iterations, 1 more of lost work as crosses" in text
    assert "iteration 3 of attempt 1: reward 1.5, lost" in text


def test_the_trace_above_the_save_folders_is_found(eventful: EventfulJob, there: Path) -> None:
    assert trace.find_trace(eventful.folder()) is None
    write_trace(eventful.base / "checkpoints" / "trace.jsonl", (1, 1, 0.5))
    assert trace.find_trace(eventful.folder()) == eventful.base / "checkpoints" / "trace.jsonl"


def test_lines_of_a_trace_that_tell_no_reward_are_counted_and_left_out(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    write_trace(path, (1, 1, 0.5), (1, 2, float("nan")), (1, 3, float("inf")))
    with path.open("a") as file:
        file.write(
            '{"iteration": 4, "reward": 0.25}\n{"iteration": 5}\n[]\n{"iteration": 6, "reward": "0x1.p99999"}\n{"it'
        )
    found = trace.read_trace(path)
    assert [(step.iteration, step.reward) for step in found.kept] == [(1, 0.5), (4, 0.25)]
    assert found.unread == 6


def test_a_trace_that_was_named_and_is_none_is_refused(
    eventful: EventfulJob, there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (there / "other.jsonl").write_text("no trace\n")
    assert main(["report", str(eventful.root), "--trace", "other.jsonl"]) == 78
    assert 'other.jsonl has no line such as {"iteration": 1, "attempt": 1, "reward": 0.5}' in capsys.readouterr().err
    assert main(["report", str(eventful.root), "--trace", "missing.jsonl"]) == 78
    assert "missing.jsonl: No such file" in capsys.readouterr().err
    assert os.listdir(there) == ["other.jsonl"]


def test_a_trace_that_was_only_found_and_is_none_is_told_on_the_page(eventful: EventfulJob, there: Path) -> None:
    (eventful.base / "trace.jsonl").write_text("no trace\n")
    assert main(["report", str(eventful.root)]) == 0
    assert "The trace is left out: " in Page(there / DEFAULT).text


@pytest.mark.parametrize("place", ["report.html", "attempts/0001/report.html", "../checkpoints/policy/report.html"])
def test_nothing_is_written_into_the_folders_of_the_job(
    place: str, eventful: EventfulJob, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(eventful.base)
    assert main(["report", str(eventful.root), "--to", str(eventful.root / place)]) == 78
    assert "which belongs to the job; name another place with --to FILE.html" in capsys.readouterr().err
    assert contents(eventful.base) == before


def test_a_link_into_the_folder_of_the_job_is_no_way_around(eventful: EventfulJob, there: Path) -> None:
    (there / "link").symlink_to(eventful.root)
    assert main(["report", str(eventful.root), "--to", "link/report.html"]) == 78


@pytest.mark.parametrize(
    ("to", "says"),
    [
        ("report.pdf", "--to names report.pdf; name a file that ends with .html"),
        ("folder.html", "is a folder; name a file in it"),
        ("missing/report.html", "No such file or directory"),
    ],
)
def test_a_place_that_cannot_be_is_told(
    to: str, says: str, eventful: EventfulJob, there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (there / "folder.html").mkdir()
    assert main(["report", str(eventful.root), "--to", to]) == 78
    assert says in capsys.readouterr().err


@pytest.mark.usefixtures("pictures")
def test_without_matplotlib_the_page_is_written_and_says_how_to_have_the_picture(
    eventful: EventfulJob, there: Path
) -> None:
    program = "import sys; sys.modules['matplotlib'] = None; from megatron_resume.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", program, "report", str(eventful.root)], capture_output=True, text=True, check=True
    )
    assert "type `pip install matplotlib`" in done.stderr
    assert os.listdir(there) == [DEFAULT]


def test_report_imports_neither_torch_nor_megatron(bare: str, eventful: EventfulJob, there: Path) -> None:
    program = f"import sys; sys.path.insert(0, {bare!r}); from megatron_resume.cli import main; sys.exit(main())"
    done = subprocess.run([sys.executable, "-S", "-c", program, "report", str(eventful.root)], cwd=there)
    assert done.returncode == 0


def test_status_tells_the_same_story_in_text_and_json(
    eventful: EventfulJob, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    main(["status", str(eventful.root)])
    text = capsys.readouterr().out
    rows = [line.split() for line in text[text.index("life of the run") :].splitlines()]
    assert ["1", "01-01", "00:00", "10m00s", "killed", "0-27", "7", "(3m20s)", "2m10s"] in rows
    assert ["2", "01-01", "00:10", "1h12m", "hung", "20-43", "3", "(1h08m)", "3m20s"] in rows
    assert "3 attempts in 1h30m: 1 killed, 1 hung; iteration 50 is committed" in " ".join(text.split())
    assert "\x1b" not in text and max(map(len, text.splitlines())) <= 80
    main(["status", "--json", str(eventful.root)])
    story = json.loads(capsys.readouterr().out)["story"]
    assert [(one["how"], one["lost_iterations"], one["recovered_s"]) for one in story["chapters"]] == [
        ("killed", 7, 130.0),
        ("hung", 3, 200.0),
        ("finished", 0, None),
    ]
    assert story["seconds"]["silent"] == 3_600


@pytest.mark.parametrize(
    ("length_s", "written"),
    [(0, "0s"), (0.4, "0.4s"), (59.7, "1m00s"), (3_599.4, "59m59s"), (7_500, "2h05m"), (100_000, "1d03h")],
)
def test_lengths_of_time_are_written_in_two_units(length_s: float, written: str) -> None:
    assert short(length_s) == written
