"""Which arguments a resumed role gets, and that frozen roles get none."""

from types import SimpleNamespace

import pytest

from megatron_resume.resume.overrides import differing, overrides_for
from support.job_on_disk import JobOnDisk


@pytest.mark.parametrize("role", ["policy", "value"])
def test_a_trained_role_continues_from_the_folder_of_its_receipt(job: JobOnDisk, role: str) -> None:
    point = job.point(job.save(job.attempt(), 96))
    overrides = overrides_for(role, point)
    assert overrides == {
        "load": str(job.save_folder(role)),
        "load_iteration": -1,
        "ckpt_step": 96,
        "no_load_optim": False,
        "no_load_rng": False,
        "no_load_args": False,
        "no_load_scheduler": False,
        "finetune": False,
        "load_main_params_from_ckpt": False,
        "adaptive_parallel_strategy_on_checkpoint": False,
        "exit_on_missing_checkpoint": True,
        "pretrained_checkpoint": None,
        "override_ckpt_iteration": None,
    }


@pytest.mark.parametrize("role", ["reference", "reward"])
def test_a_frozen_role_keeps_every_argument(job: JobOnDisk, role: str) -> None:
    assert overrides_for(role, job.point(job.save(job.attempt(), 96))) == {}


def test_a_later_change_by_user_code_is_seen(job: JobOnDisk) -> None:
    overrides = overrides_for("policy", job.point(job.save(job.attempt(), 96)))
    args = SimpleNamespace(**overrides)
    assert differing(overrides, args) == {}
    args.finetune = True
    assert differing(overrides, args) == {"finetune": (False, True)}
    del args.ckpt_step
    assert differing(overrides, args) == {"finetune": (False, True), "ckpt_step": (96, None)}
