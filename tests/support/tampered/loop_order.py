"""Loops that save, and count episodes, at another moment than they should."""

import os

import msgspec
import numpy as np
import torch
from rlhf import job
from rlhf.job import Job

import megatron_resume
from megatron_resume.adapter import api


def save_before_advance():
    """The order of a careless loop: saves come before the episode is said to be done."""
    due = []
    save = Job._save_if_due
    Job._save_if_due = lambda self, episodes_done: None

    def save_then_advance(*, samples):
        save(due[0], 10**9)
        api.advance(samples=samples)

    run = Job.run
    Job.run = lambda self: (due.append(self), run(self))[1]
    megatron_resume.advance = save_then_advance


def save_before_advance_with_experience():
    class Buffer:
        def state_dict(self):
            return {"tokens": torch.arange(6, dtype=torch.bfloat16), "rows": np.arange(3)}

        def load_state_dict(self, state):
            assert state["tokens"].dtype == torch.bfloat16
            line = f"experience restored: {state['tokens'].tolist()} {state['rows'].tolist()} {api.progress()}\n"
            os.write(1, line.encode())  # in one piece, beside the other rank's

    save_before_advance()
    run = Job.run

    def tracked_run(self):
        megatron_resume.track("experience", Buffer(), experience=True)
        return run(self)

    Job.run = tracked_run


def loop_starts_at_0():
    """Episodes and iterations are counted from the beginning, whatever was loaded."""
    load = job.load_models

    def load_and_forget(args):
        models = load(args)
        for built in models.values():
            built.args.iteration = 0
        return models

    job.load_models = load_and_forget
    megatron_resume.progress = lambda: msgspec.structs.replace(api.progress(), episode=0)
