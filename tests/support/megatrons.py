"""The Megatrons that tests run on beside that of the environment: wheels in folders of their own, and yours."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from megatron_resume.adapter.versions import TESTED

from . import ROOT

WHEELS = ROOT / ".venv-megatron"
YOURS = os.environ.get("MEGATRON_DIR")


@dataclass(frozen=True)
class Megatron:
    """A folder with `megatron/core` and `megatron/training` in it."""

    name: str
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """That of a process whose `import megatron` takes this one: it stands first on the path."""
        path = [str(self.folder), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {**os.environ, "PYTHONPATH": os.pathsep.join(path)}

    @property
    def numbers(self) -> tuple[int, int]:
        """Major and minor of its version."""
        text = (self.folder / "megatron/core/package_info.py").read_text()
        major, minor = (int(number) for number in re.findall(r"^(?:MAJOR|MINOR) = (\d+)", text, re.MULTILINE))
        return major, minor

    def check(self) -> None:
        """Fails where it is not all there, and says what to type."""
        for part in ("core", "training"):
            if not (self.folder / "megatron" / part).is_dir():
                needed = "type `make megatrons`" if self.folder.parent == WHEELS else "name a checkout of Megatron-LM"
                pytest.fail(f"{self.folder} has no megatron/{part}; {needed}", pytrace=False)


def wheel(version: str) -> Megatron:
    return Megatron(version, WHEELS / version)


OTHERS = [pytest.param(wheel(version), id=version, marks=pytest.mark.slow) for version in TESTED[:-1]]
if YOURS:
    OTHERS.append(pytest.param(Megatron("MEGATRON_DIR", Path(YOURS).resolve()), id="MEGATRON_DIR"))
