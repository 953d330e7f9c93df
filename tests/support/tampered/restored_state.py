"""Things that a start restores, and that are left out here one at a time."""

import megatron.training.training as training
from megatron.core.optimizer_param_scheduler import OptimizerParamScheduler
from rlhf.ppo import AdaptiveKLController
from rlhf.seed_checkpoints import seed_everything

from megatron_resume.adapter import random_states, rng
from megatron_resume.data import EpisodeSampler


def nothing():
    pass


def after_each_load(spoil):
    """Run `spoil(optimizer, scheduler)` when a trained role was loaded."""
    load = training.load_checkpoint

    def load_and_spoil(model, optimizer, scheduler, *args, **kwargs):
        result = load(model, optimizer, scheduler, *args, **kwargs)
        if optimizer is not None:
            spoil(optimizer, scheduler)
        return result

    training.load_checkpoint = load_and_spoil


def optimizer():
    def forget(optimizer, scheduler):
        for state in optimizer.optimizer.state.values():
            state["exp_avg"].zero_()

    after_each_load(forget)


def scheduler():
    def forget(optimizer, scheduler):
        scheduler.num_steps = 0
        scheduler.step(0)

    after_each_load(forget)


def schedule_replayed():
    """As in frameworks that load the optimizer and forget its scheduler: seen by the audit."""
    OptimizerParamScheduler.load_state_dict = lambda self, state: None


def random_numbers():
    def seed_as_if_fresh(states):
        seed_everything(1234)

    rng.restore = seed_as_if_fresh


def our_random_numbers():
    """Megatron's own, of one data-parallel rank, are then all there is."""
    random_states.restore = lambda current: None


def kl_coefficient():
    AdaptiveKLController.load_state_dict = lambda self, state: None


def data_position():
    load = EpisodeSampler.load_state_dict

    def load_and_go_back(self, state, **choice):
        change = load(self, state, **choice)
        self.seek(0)
        return change

    EpisodeSampler.load_state_dict = load_and_go_back
