"""What the hooks did to Megatron's arguments, told by a process that does nothing else."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from . import PROGRAMS
from .job_on_disk import JobOnDisk
from .runs import megatron_flags

PROBE = PROGRAMS / "probe.py"


def fresh_process(when: str, output: Path, *flags: str, environment: dict[str, str] | None = None) -> dict[str, Any]:
    """The probe in a process of its own, which imports everything in the order that `when` says."""
    report = output / f"{when}.json"
    command = [sys.executable, str(PROBE), when, str(report), *megatron_flags(output), *flags]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=output, env=environment)
    found = json.loads(report.read_text()) if report.exists() else {}
    return {"code": ended.returncode, "log": ended.stdout + ended.stderr, **found}


def changes(report: dict[str, Any], role: str) -> dict[str, str]:
    before, after = report["roles"][role]["before"], report["roles"][role]["after"]
    return {name: value for name, value in after.items() if before.get(name) != value}


def check_every_order_of_imports(saved: JobOnDisk, environment: dict[str, str] | None) -> None:
    orders = ("before", "between", "after")
    reports = {when: fresh_process(when, saved.base, environment=environment) for when in orders}
    for when, report in reports.items():
        assert report["code"] == 0, report["log"][-3000:]
        assert set(report["hooks"].values()) == {"active"}, when
        assert all("__megatron_resume_" in names[0] for names in report["copies"]), when
        assert all(report["copies after uninstall"]), when
        # Up to 0.14 Megatron insists on both before a load, which brings them.
        assert report["args"]["consumed_train_samples"] == "0"
        assert report["args"].get("skipped_train_samples", "0") == "0"
        for role in ("policy", "value"):
            assert changes(report, role)["load"] == repr(str(saved.save_folder(role)))
            assert changes(report, role)["ckpt_step"] == "4"
        for role in ("reference", "reward"):
            assert changes(report, role) == {"resume_role": repr(role)}
    assert reports["after"]["restored"] is True
    assert reports["before"]["roles"] == reports["between"]["roles"] == reports["after"]["roles"]
