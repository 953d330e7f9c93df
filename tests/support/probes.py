"""What the hooks did to Megatron's arguments, told by a process that does nothing else."""

import json
from pathlib import Path
from typing import Any

from . import PROGRAMS
from .job_on_disk import JobOnDisk
from .pool import Pool, run
from .runs import megatron_flags

PROBE = PROGRAMS / "probe.py"


def fresh_process(pool: Pool, when: str, output: Path, *flags: str) -> dict[str, Any]:
    """The probe in a process without Megatron, which it imports in the order that `when` says."""
    report = output / f"{when}.json"
    ended = run(pool, PROBE, when, str(report), *megatron_flags(output), *flags, cwd=output)
    found = json.loads(report.read_text()) if report.exists() else {}
    return {"code": ended.returncode, "log": ended.stdout + ended.stderr, **found}


def changes(report: dict[str, Any], role: str) -> dict[str, str]:
    before, after = report["roles"][role]["before"], report["roles"][role]["after"]
    return {name: value for name, value in after.items() if before.get(name) != value}


def check_every_order_of_imports(pool: Pool, saved: JobOnDisk) -> None:
    orders = ("before", "between", "after")
    reports = {when: fresh_process(pool, when, saved.base) for when in orders}
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
