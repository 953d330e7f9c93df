"""What the image's build runs: it adds to what is here, and replaces nothing of it."""

import os
import re
import shutil
import subprocess
import venv
from pathlib import Path

import pytest

from support.wheels import unpack, wheel

ROOT = Path(__file__).resolve().parents[2]
INSTALL = ROOT / "docker" / "install.sh"
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text()
SITE = Path(pytest.__file__).parents[1]
TORCH = "2.13.0a0+nv26.6"  # as NVIDIA numbers its own


def pinned(name: str) -> str:
    found = re.search(rf"^ARG {name}=(.+)$", DOCKERFILE, flags=re.MULTILINE)
    assert found is not None
    return found[1]


class Image:
    """A Python that has packages before anything is installed, as that of NVIDIA's image."""

    def __init__(self, root: Path) -> None:
        self.brought = root / "brought"  # what the image brings
        self.index = root / "index"  # what pip finds
        self.environment = root / "environment"
        self.brought.mkdir(parents=True)
        self.index.mkdir()
        venv.create(self.environment, with_pip=False, symlinks=True)
        (self.site / "brought.pth").write_text(f"{self.brought}\n")

    @property
    def site(self) -> Path:
        return next(self.environment.glob("lib/python3*/site-packages"))

    @property
    def python(self) -> Path:
        return self.environment / "bin" / "python"

    def bring(self, *names: str) -> None:
        """Let the image have packages of the environment that the tests run in."""
        for entry in SITE.iterdir():
            if re.match(rf"({'|'.join(map(re.escape, names))})(-[^/]*(dist|egg)-info)?$", entry.name, re.IGNORECASE):
                (self.brought / entry.name).symlink_to(entry)

    def install(self, **environ: str) -> subprocess.CompletedProcess[str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
        return subprocess.run(
            [INSTALL], env={**kept, "PYTHON": str(self.python), **environ}, capture_output=True, text=True
        )

    def version(self, package: str) -> str:
        program = f"import importlib.metadata as m; print(m.version({package!r}))"
        done = subprocess.run([self.python, "-c", program], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def added(self) -> set[str]:
        return {path.name for path in self.site.iterdir()} - {"brought.pth", "__pycache__"}


@pytest.fixture
def image(tmp_path: Path) -> Image:
    """An image with NVIDIA's three, and an index without a network, of packages that hold nothing."""
    made = Image(tmp_path)
    made.bring("pip", "setuptools", "_distutils_hack", "packaging")
    for name, version in (("torch", TORCH), ("transformer_engine", "2.16.0"), ("apex", "0.1"), ("numpy", "1.26.4")):
        unpack(wheel(tmp_path, name, version), made.brought)
    needs = ("torch>=2.6.0", "numpy", "packaging>=24.2")
    wheel(made.index, "megatron_core", pinned("MEGATRON_CORE_VERSION"), needs)
    wheel(made.index, "py_spy", pinned("PY_SPY_VERSION"))
    wheel(made.index, "torch", "2.99.0")
    wheel(made.index, "numpy", "2.99.0")
    for name in ("msgspec", "pyyaml", "rich", "safetensors"):
        wheel(made.index, name, "99.0")
    return made


def offline(image: Image) -> dict[str, str]:
    """pip's settings for the index in a folder; `0` switches isolation off, for want of a download."""
    return {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(image.index),
        "PIP_NO_BUILD_ISOLATION": "0",
        "MEGATRON_CORE_EXTRAS": "",
    }


@pytest.mark.slow  # as all that run pip: half a minute on a busy machine
def test_megatron_and_this_package_are_added_and_what_the_image_brings_stays(image: Image, tmp_path: Path) -> None:
    checkout = set(ROOT.iterdir())
    (tmp_path / "constraint.txt").write_text("rich==1.0\ntorch==1.0\n")  # an image may pin what it does not have
    asked = {"REQUIRE": pinned("REQUIRE").strip('"'), "PIP_CONSTRAINT": str(tmp_path / "constraint.txt")}
    done = image.install(**offline(image), **asked)
    assert done.returncode == 0, done.stderr
    assert image.version("megatron-core") == pinned("MEGATRON_CORE_VERSION")
    assert image.version("py-spy") == pinned("PY_SPY_VERSION")
    assert (image.version("torch"), image.version("numpy"), image.version("rich")) == (TORCH, "1.26.4", "99.0")
    assert not [name for name in image.added() if name.startswith(("torch", "numpy", "apex", "transformer"))]
    assert (image.environment / "bin" / "megatron-resume").is_file()
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "megatron_resume").rglob("*.py")}
    assert modules == {str(path.relative_to(image.site)) for path in (image.site / "megatron_resume").rglob("*.py")}
    assert {path.name for path in set(ROOT.iterdir()) - checkout} <= {".mypy_cache", ".pytest_cache", ".ruff_cache"}
    before = image.added()
    again = image.install(**offline(image), **asked)
    assert again.returncode == 0, again.stderr
    assert image.added() == before


@pytest.mark.slow
def test_without_a_torch_pip_brings_the_one_that_the_tests_run_on_and_not_the_newest(image: Image) -> None:
    for found in image.brought.glob("torch*"):
        shutil.rmtree(found)
    ours = re.search("^torch==(.+)$", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE)
    assert ours is not None
    wheel(image.index, "torch", ours[1])
    done = image.install(**offline(image))
    assert done.returncode == 0, done.stderr
    assert image.version("torch") == ours[1]
    assert f"torch=={ours[1]}" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("need", ["torch>=2.50", "apex>5"])
def test_a_release_that_needs_another_torch_ends_the_build_and_nothing_is_installed(image: Image, need: str) -> None:
    wheel(image.index, "megatron_core", "7.7.7", [need])
    done = image.install(**offline(image), MEGATRON_CORE_VERSION="7.7.7")
    assert done.returncode == 1
    assert "nothing of it was replaced" in done.stderr
    assert image.added() == set()
    assert image.version("torch") == TORCH


@pytest.mark.slow
def test_a_package_that_smuggles_another_torch_past_pip_ends_the_build(image: Image) -> None:
    smuggled = {"torch-9.egg-info/PKG-INFO": "Metadata-Version: 2.1\nName: torch\nVersion: 9\n"}
    wheel(image.index, "innocent", "1.0", smuggled=smuggled)
    done = image.install(**offline(image), EXTRA_PACKAGES="innocent")
    assert done.returncode == 1
    assert done.stderr.endswith(f"which must not be:\ntorch=={TORCH}\n")


@pytest.mark.slow
def test_what_may_change_is_named_and_then_changes(image: Image) -> None:
    wheel(image.index, "megatron_core", "7.7.7", ["numpy>=2"])
    done = image.install(**offline(image), MEGATRON_CORE_VERSION="7.7.7", MAY_CHANGE="numpy")
    assert done.returncode == 0, done.stderr
    assert (image.version("torch"), image.version("numpy")) == (TORCH, "2.99.0")


@pytest.mark.parametrize("package", ["torch", "transformer-engine", "apex", "triton", "nvidia-nccl-cu13", "flash-attn"])
def test_what_is_built_for_the_cuda_of_the_image_may_never_change(image: Image, package: str) -> None:
    done = image.install(**offline(image), MAY_CHANGE=f"numpy {package}")
    assert done.returncode == 78
    assert f"MAY_CHANGE names {package}" in done.stderr
    assert image.added() == set()


def test_an_interpreter_without_pip_is_named(image: Image) -> None:
    (image.brought / "pip").unlink()
    done = image.install(**offline(image))
    assert done.returncode == 78
    assert f"{image.python} has no pip" in done.stderr


def test_an_image_without_what_is_required_is_refused_before_anything_is_installed(image: Image) -> None:
    done = image.install(**offline(image), REQUIRE="torch flash-attn")
    assert done.returncode == 78
    assert "flash-attn is not installed here; use an image that brings it" in done.stderr
    assert image.added() == set()


def image_with_torch(root: Path) -> Image:
    """All that the tests run in, without Megatron, this package and what it needs."""
    image = Image(root)
    ours = ("megatron", "megatron_core", "msgspec", "py_spy", "rich", "safetensors", "megatron_resume", "__editable__")
    for entry in SITE.iterdir():
        if not entry.name.lower().startswith(ours) and entry.suffix != ".pth":
            (image.brought / entry.name).symlink_to(entry)
    return image


@pytest.mark.slow
@pytest.mark.parametrize("line", ["pip install .", 'pip install ".[megatron]"'])
def test_pip_installs_a_clone_as_the_readme_types_it(line: str, tmp_path: Path) -> None:
    image, clone = image_with_torch(tmp_path), tmp_path / "clone"
    shutil.copytree(ROOT, clone, ignore=shutil.ignore_patterns(".*", "*.egg-info", "demo_output"))
    typed = f'pip() {{ "{image.python}" -m pip "$@"; }}\n{line}'
    before = image.version("torch")
    done = subprocess.run(["bash", "-ec", typed], cwd=clone, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert image.version("torch") == before
    assert ("megatron" in image.added()) == ("megatron" in line)
    doctor = subprocess.run([image.environment / "bin" / "megatron-resume", "doctor"], cwd=tmp_path)
    assert doctor.returncode == (0 if "megatron" in line else 78), (
        "78 where there is no Megatron, which an image brings"
    )


@pytest.mark.slow
def test_the_real_packages_go_beside_a_real_torch_and_doctor_is_content(tmp_path: Path) -> None:
    image = image_with_torch(tmp_path)
    before = image.version("torch")
    done = image.install(REQUIRE="torch")
    assert done.returncode == 0, done.stderr
    assert image.version("torch") == before
    assert image.version("megatron-core") == pinned("MEGATRON_CORE_VERSION")
    assert {"megatron", "msgspec", "rich", "safetensors"} <= image.added()
    assert not [name for name in image.added() if name.startswith(("torch", "numpy", "nvidia", "triton"))]
    doctor = subprocess.run(
        [image.environment / "bin" / "megatron-resume", "doctor"], cwd=tmp_path, capture_output=True, text=True
    )
    assert doctor.returncode == 0, doctor.stdout + doctor.stderr
    assert "Nothing blocks here." in doctor.stdout
    py_spy = subprocess.run([image.environment / "bin" / "py-spy", "--version"], capture_output=True, text=True)
    assert py_spy.stdout.split()[-1] == pinned("PY_SPY_VERSION")
