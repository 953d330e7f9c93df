"""What Megatron cannot load is not committed, and what it restores in its own way does not end the start."""

from pathlib import Path

from support import PROGRAMS
from support.pretraining import Pretraining
from support.runs import Server

# Four steps overflow, whatever the machine; the fifth does not.
OVERFLOWING = ("--fp16", "--initial-loss-scale", str(2**26), "--hysteresis", "1")


def test_a_save_before_the_first_step_of_fp16_is_not_committed_and_the_job_goes_on_from_the_next(
    server: Server, tmp_path: Path
) -> None:
    job = Pretraining(server, tmp_path / "job", *OVERFLOWING)
    code, log = job.start(crash="commit.end")
    assert (code, log.count("is not committed")) == (-9, 1), log[-4000:]
    assert "policy of iteration 3 of attempt 1 is not committed: the optimizer has made no step yet" in log
    assert "attempt 2 resumes from iteration 6 of attempt 1" in job.finish()


AS_FROM_0_20_ON = """
import megatron_resume.auto
from megatron.core.optimizer_param_scheduler import OptimizerParamScheduler
from megatron.training import get_args as arguments_now

restore = OptimizerParamScheduler.load_state_dict


def restore_and_count_samples(self, state):
    restore(self, state)
    if self.override_opt_param_scheduler:
        self.num_steps = arguments_now().consumed_train_samples


OptimizerParamScheduler.load_state_dict = restore_and_count_samples
"""


def test_a_schedule_that_megatron_sets_to_the_samples_is_no_damage(server: Server, tmp_path: Path) -> None:
    job = Pretraining(server, tmp_path / "job", "--override-opt_param-scheduler", "--iterations-to-skip", "2")
    job.script = tmp_path / "pretrain.py"
    job.script.write_text(AS_FROM_0_20_ON + (PROGRAMS / "stock_pretrain.py").read_text())
    job.killed("commit.end")
    log = job.finish()
    assert "its learning rate schedule was at sample 64 and is set to 96" in log
