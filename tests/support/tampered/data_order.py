"""Data that comes in another order, is counted by nobody, or comes from something of the script's own."""

import os

import torch
from rlhf import update
from rlhf.job import Job
from torchdata.stateful_dataloader import StatefulDataLoader

import megatron_resume
from megatron_resume.adapter import api
from megatron_resume.data import keys


def tracks_its_rows():
    """A position of the script's own in its data."""

    class Rows:
        position = 0

        def state_dict(self):
            return {"position": self.position}

        def load_state_dict(self, state):
            self.position = state["position"]

    def run_with_rows(self):
        rows = Rows()
        megatron_resume.track("rows", rows)
        os.write(1, f"begins at row {rows.position} {api.progress()}\n".encode())  # in one piece

        def advance(*, samples):
            rows.position += samples
            api.advance(samples=samples)

        megatron_resume.advance = advance
        return run(self)

    run, Job.run = Job.run, run_with_rows


def draws_in_another_order():
    keys._DOMAIN = b"megatron_resume order 2\0"


def draws_and_never_counts():
    """As a loop of one's own that tracks its sampler, and knows neither progress nor advance."""

    def train_without_counting(built, *args, **kwargs):
        counted = built.args.consumed_train_samples
        loss = train(built, *args, **kwargs)
        built.args.consumed_train_samples = counted
        return loss

    train, update._train = update._train, train_without_counting
    megatron_resume.progress = api.Progress
    megatron_resume.advance = lambda *, samples: None


def draws_from_a_loader():
    """As a script whose prompts come from torchdata, each rank with a part of its own."""

    def run_with_loader(self):
        rank = torch.distributed.get_rank()
        loader = StatefulDataLoader(range(rank * 100, rank * 100 + 100), batch_size=4, num_workers=1)
        megatron_resume.track("loader", loader)
        batches = iter(loader)

        def advance(*, samples):
            share = samples // torch.distributed.get_world_size()
            rows = [row for _ in range(share // 4) for row in next(batches).tolist()]
            drawn = f"rank {rank} drew in episode {api.progress().episode}: {' '.join(map(str, rows))}."
            os.write(1, f"{drawn}\n".encode())  # in one piece
            api.advance(samples=samples)

        megatron_resume.advance = advance
        return run(self)

    run, Job.run = Job.run, run_with_loader
