"""What the hooks do to real Megatron's arguments, and that they do it in every order of imports."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from megatron_resume.config import KEYS
from support.job_on_disk import JobOnDisk
from support.pool import Pool
from support.probes import PROBE, changes, check_every_order_of_imports
from support.runs import Server, megatron_flags

Probe = Callable[..., dict[str, Any]]
NO_CRASH: dict[str, str | None] = {"MEGATRON_RESUME_CRASH": None}
OURS = {*KEYS, "resume_config"}


@pytest.fixture
def probe(server: Server, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """The probe forked from the job server, where Megatron was imported first."""

    def run(*flags: str, without: str = "", when: str = "after") -> dict[str, Any]:
        report, log = tmp_path / "report.json", tmp_path / "probe.log"
        ours = megatron_flags(tmp_path)
        if without:
            del ours[ours.index(without) : ours.index(without) + 2]
        job = {"name": "probe", "num_ranks": 1, "script": str(PROBE), "log": str(log), "cwd": str(tmp_path)}
        ended = server.run(**job, argv=[when, str(report), *ours, *flags], env=NO_CRASH)
        found = json.loads(report.read_text()) if report.exists() else {}
        return {"code": ended["code"], "log": log.read_text(), **found}

    return run


@pytest.fixture
def saved(tmp_path: Path) -> JobOnDisk:
    """A job with one committed point, its files where the example would have them."""
    job = JobOnDisk(tmp_path)
    job.save(job.attempt(), 4)
    return job


def test_hooks_act_alike_whether_installed_before_between_or_after_the_imports(pool: Pool, saved: JobOnDisk) -> None:
    check_every_order_of_imports(pool, saved)


OF_ANOTHER_VERSION = """
import os
import megatron.core.package_info
import megatron.training.training
megatron.core.package_info.__version__ = os.environ["PRETENDED"]
import megatron_resume.auto
print("goes on")
"""


@pytest.fixture
def of_version(server: Server, tmp_path: Path) -> Callable[[str], tuple[int, str]]:
    """Exit code and log of two ranks that import us beside Megatron, which says that it is of another version."""

    def run(version: str) -> tuple[int, str]:
        script, log = tmp_path / "script.py", tmp_path / "log"
        script.write_text(OF_ANOTHER_VERSION)
        job = {"name": "version", "script": str(script), "argv": [], "log": str(log), "env": {"PRETENDED": version}}
        return server.run(**job)["code"], log.read_text()

    return run


def test_a_newer_megatron_than_any_that_was_tried_goes_on_with_one_warning(
    of_version: Callable[[str], tuple[int, str]],
) -> None:
    code, log = of_version("0.20.0")
    assert (code, log.count("goes on\n")) == (0, 2)
    assert log.count("megatron-core 0.20.0 is newer than all that it knows") == 1


def test_a_megatron_that_is_too_old_ends_the_start(of_version: Callable[[str], tuple[int, str]]) -> None:
    code, log = of_version("0.11.0")
    assert (code, "goes on\n" in log, "Traceback" in log) == (78, False, False)
    assert "megatron-core 0.11.0 is too old: megatron_resume is tested with 0.17.1, 0.18.2, 0.19.2" in log


def test_a_relative_path_in_another_folder_begins_fresh_and_says_which_folder_that_is(
    probe: Probe, saved: JobOnDisk, tmp_path: Path
) -> None:
    found = probe("--data-checkpoint-path", "data_checkpoint")  # where the job was begun
    assert "is relative" not in found["log"]
    asked = probe("--data-checkpoint-path", "runs/data_checkpoint", "--save", "saves", "--load", "saves")
    said = f"--data-checkpoint-path runs/data_checkpoint is relative, and means {tmp_path}/runs/data_checkpoint here"
    assert asked["log"].count(said) == 1


def test_switched_off_every_argument_is_left_alone(probe: Probe, saved: JobOnDisk) -> None:
    report = probe("--no-enable-resume-training")
    assert report["code"] == 0, report["log"][-3000:]
    for role in ("policy", "value", "reference", "reward"):
        assert changes(report, role) == {"resume_role": repr(role)}


def test_without_a_path_the_arguments_are_those_of_stock_megatron(probe: Probe) -> None:
    stock = probe(when="never", without="--data-checkpoint-path")["args"]
    report = probe(without="--data-checkpoint-path")
    said = [line for line in report["log"].splitlines() if "megatron_resume" in line]
    assert all("nothing of this run can be resumed" in line for line in said), said
    hooked = report["args"]
    assert set(hooked) - set(stock) == OURS
    assert {hooked[name] for name in OURS} == {"None"}
    assert {name: value for name, value in hooked.items() if name not in OURS} == stock


def test_flags_stand_in_megatrons_own_help(probe: Probe) -> None:
    report = probe("--help")
    assert report["code"] == 0, report["log"][-3000:]
    ours = report["log"].partition("\nresume:\n")[2].partition("\n\n")[0]
    for name in OURS:
        assert f"--{name.replace('_', '-')}" in ours
    assert "--no-enable-resume-training" in ours


def test_one_role_per_process_is_overridden_before_checkpoint_args_are_read(probe: Probe, saved: JobOnDisk) -> None:
    role = ("--resume-role", "policy", "--trained-roles", "policy,value", "--save", str(saved.save_folder("policy")))
    report = probe(*role)
    assert report["args"]["load"] == repr(str(saved.save_folder("policy")))
    assert report["args"]["exit_on_missing_checkpoint"] == "True"
    # --load names another folder. Megatron looks at the resume point all the same; it fails there, since
    # this one holds no model that it could read.
    asked = probe(*role, "--use-checkpoint-args", "--load", str(saved.base / "elsewhere"))
    assert asked["code"] != 0
    assert f"{saved.save_folder('policy')}/iter_0000004" in asked["log"]
    assert "elsewhere" not in asked["log"].partition("Traceback")[2]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--resume-role", "policy", "--save", "."), "policy was saved in"),
        (("--resume-role", "policy", "--finetune"), None),
        (("--resume-role", "policy", "--moe-use-upcycling"), "after validation it is True; drop --moe-use-upcycling"),
        (("--resume-role", "ppo_policy", "--finetune"), None),
        (("--resume-role", "nobody"), "--resume-role is 'nobody': 'nobody' is not a role"),
    ],
)
def test_a_process_with_one_role_is_checked_at_its_start(
    probe: Probe, saved: JobOnDisk, flags: tuple[str, ...], message: str | None
) -> None:
    save = () if "--save" in flags else ("--save", str(saved.save_folder("policy")))
    report = probe(*save, "--trained-roles", "policy,value", *flags)
    if message is None:
        assert report["args"]["finetune"] == "False"
    else:
        assert report["code"] == 78
        assert message in report["log"]
        assert "Traceback" not in report["log"]


@pytest.mark.parametrize(
    "flags",
    [
        ("--ckpt-format", "torch_dcp"),
        ("--ckpt-format", "fsdp_dtensor"),
        ("--use-torch-fsdp2",),
        ("--use-megatron-fsdp",),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("role", ["policy", "several"])
def test_what_nobody_saw_resume_is_refused_by_name_before_any_work(
    probe: Probe, tmp_path: Path, role: str, flags: tuple[str, ...]
) -> None:
    of_one = ("--resume-role", "policy") if role == "policy" else ()
    report = probe(*of_one, "--save", str(tmp_path / "save"), *flags)
    assert report["code"] == 78
    assert f"{' '.join(flags)} is not supported" in report["log"]
    assert "Traceback" not in report["log"]
    assert [path.name for path in tmp_path.rglob("*")] == ["probe.log"]
