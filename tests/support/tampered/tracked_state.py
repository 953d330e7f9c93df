"""State of which each rank has its own, tracked as what it is, or as if all ranks shared it."""

import os

import torch
from rlhf.job import Job

import megatron_resume


class Mean:
    """A running mean of what one rank saw, in a tensor beside a count."""

    def __init__(self, rank):
        self.rank, self.count, self.values = rank, 0, torch.zeros(3)

    def state_dict(self):
        return {"rank": self.rank, "count": self.count, "values": self.values}

    def load_state_dict(self, state):
        self.count, self.values = state["count"], state["values"]
        restored = (state["rank"], self.values.tolist())
        os.write(1, f"rank {self.rank} has the mean of {restored}\n".encode())  # in one piece

    def see(self):
        self.count += 1
        self.values += self.rank + 1


def of_each_rank_as_one():
    _track()


def of_each_rank():
    _track(per_rank=True)


def of_rank_1_alone():
    _track(on=lambda rank: rank == 1)


def _track(on=lambda rank: True, **how):
    def run_with_a_mean(self):
        rank = torch.distributed.get_rank()
        mean = Mean(rank)
        megatron_resume.track("mean", mean if on(rank) else None, **how)
        advance = megatron_resume.advance

        def see_and_advance(**counted):
            mean.see()
            advance(**counted)

        megatron_resume.advance = see_and_advance
        return run(self)

    run, Job.run = Job.run, run_with_a_mean
