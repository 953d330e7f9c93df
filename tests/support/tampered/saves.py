"""Saves that never come, come twice, come late, or go elsewhere, too."""

import time

from megatron.training import get_args
from rlhf import job
from rlhf.job import Job

from megatron_resume.adapter import state_dicts


def never_saves():
    Job._save_if_due = lambda self, episodes_done: None


def saves_value_never():
    job.TRAINED = ("policy",)


def saves_twice():
    save = job.save_checkpoint
    job.save_checkpoint = lambda *args, **kwargs: (save(*args, **kwargs), save(*args, **kwargs))


def saves_copies_too():
    """The best so far to another folder, the weights before training, and now and then one not to keep."""
    save = job.save_checkpoint

    def save_everywhere(iteration, *args, **kwargs):
        megatron_args = get_args()
        regular = megatron_args.save
        if iteration == 2:
            save(0, *args, **kwargs)
        megatron_args.save = f"{regular}_best"
        save(iteration, *args, **kwargs)
        megatron_args.save = regular
        save(iteration, *args, **kwargs)
        megatron_args.non_persistent_ckpt_type = "global"
        save(iteration + 1, *args, non_persistent_ckpt=True, **kwargs)

    job.save_checkpoint = save_everywhere


def lists_less_than_it_saves():
    """As if a later save held more than the first one of the attempt, whose list it has."""
    look = state_dicts.of_sharded
    state_dicts.of_sharded = lambda state_dict: look(state_dict)._replace(entries=look(state_dict).entries[2:])


def rests_before_its_second_save():
    """Long enough for a lease to be renewed."""

    def save_rested(iteration, *args, **kwargs):
        if iteration == 4:
            time.sleep(1)
        return save(iteration, *args, **kwargs)

    save, job.save_checkpoint = job.save_checkpoint, save_rested
