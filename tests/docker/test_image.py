"""Dockerfile, what it copies, and its README say the same; the image itself is never built here."""

import re
import shlex
from pathlib import Path

import pytest

from megatron_resume.cli.app import parser

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
DOCKERFILE = (DOCKER / "Dockerfile").read_text()
README = (DOCKER / "README.md").read_text()
ARGS = re.findall(r"^ARG (\w+)=", DOCKERFILE, flags=re.MULTILINE)
SHELL = re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL)
ELSEWHERE = ("launch", "render", "policy")  # commands that come with fault tolerance


def commands() -> list[str]:
    found = []
    for block in SHELL:
        for line in re.sub(r"\\\n\s*", " ", block).splitlines():
            words = shlex.split(line, comments=True)
            if "build" not in words[:2] and "megatron-resume" in words:
                last = max(at for at, word in enumerate(words) if word == "megatron-resume")
                found.append(shlex.join(words[last + 1 :]))
    return found


@pytest.mark.parametrize("line", commands())
def test_each_command_of_the_readme_is_one_that_there_is(line: str) -> None:
    words = shlex.split(line)
    known = next(a for a in parser()._actions if a.choices).choices
    assert known is not None
    if words[0] not in known and words[0] in ELSEWHERE:
        pytest.skip(f"{words[0]} is not there yet")
    assert callable(parser().parse_args(words).call)


def test_the_readme_has_a_row_for_each_argument_of_the_build() -> None:
    cells = re.findall(r"^\| (`.*?`) \|", README, flags=re.MULTILINE)
    assert sorted(re.findall(r"`(\w+)`", " ".join(cells))) == sorted(ARGS)


def test_versions_stand_in_the_dockerfile_only() -> None:
    for name in ("MEGATRON_CORE_VERSION", "PY_SPY_VERSION"):
        found = re.search(rf"^ARG {name}=(\S+)$", DOCKERFILE, flags=re.MULTILINE)
        assert found is not None
        for file in ("install.sh", "README.md"):
            assert found[1] not in (DOCKER / file).read_text()
    assert "pytorch:" not in README


def test_the_build_is_given_what_its_script_copies() -> None:
    allowed = {line[1:] for line in (DOCKER / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] == "!"}
    found = re.search(r'cp -R "\$here"/\.\./\{(.*?)\}', (DOCKER / "install.sh").read_text())
    assert found is not None
    assert allowed == {*found[1].split(","), "constraints.txt", "docker/Dockerfile", "docker/install.sh"}
    assert all((ROOT / path).exists() for path in allowed)


def test_what_runs_is_not_root_and_its_health_is_what_doctor_says() -> None:
    users = re.findall(r"^USER (\S+)", DOCKERFILE, flags=re.MULTILINE)
    assert users == ["${UID}:${UID}"]
    assert dict(re.findall(r"^ARG (\w+)=(\S*)", DOCKERFILE, flags=re.MULTILINE))["UID"] != "0"
    assert re.search(r'^HEALTHCHECK .*\\\n    CMD \["megatron-resume", "doctor"\]$', DOCKERFILE, flags=re.MULTILINE)


def test_an_image_that_was_never_built_is_called_that() -> None:
    assert "never built" in README.splitlines()[2].lower()
    assert "Never built" in DOCKERFILE.splitlines()[0]
    assert "not built" in (ROOT / "README.md").read_text()
