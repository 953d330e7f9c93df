"""Packages with nothing in them, made in a moment: pip sees no difference."""

import base64
import hashlib
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path


def wheel(
    folder: Path, name: str, version: str, needs: Iterable[str] = (), smuggled: Mapping[str, str] | None = None
) -> Path:
    """The package `name` of `version`, which `needs` others, with `smuggled` files besides its own."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}/__init__.py": f"__version__ = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        + "".join(f"Requires-Dist: {need}\n" for need in needs),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        **(smuggled or {}),
    }
    rows = [f"{path},sha256={_digest(text)},{len(text.encode())}\n" for path, text in files.items()]
    files[f"{info}/RECORD"] = "".join([*rows, f"{info}/RECORD,,\n"])
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for inside, text in files.items():
            archive.writestr(inside, text)
    return path


def unpack(made: Path, folder: Path) -> None:
    """Install a wheel as an image would have it."""
    with zipfile.ZipFile(made) as archive:
        archive.extractall(folder)


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
