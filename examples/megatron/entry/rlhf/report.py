"""Tell people how the run goes: a progress bar or lines of text, and TensorBoard."""

import sys
from types import TracebackType

import torch
from megatron.training import get_tensorboard_writer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from .trace import Iteration

CURVES = ("reward", "policy_loss", "value_loss", "kl", "lr")


class Report:
    """One per process: rank 0 prints, the last rank holds Megatron's TensorBoard writer."""

    def __init__(self, num_iterations: int, num_episodes: int) -> None:
        self._num_iterations = num_iterations
        self._num_episodes = num_episodes
        self._prints = torch.distributed.get_rank() == 0
        self._bar: Progress | None = None

    def __enter__(self) -> "Report":
        if self._prints and sys.stdout.isatty():
            self._bar = Progress(
                TextColumn("[bold]{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[curves]}"),
                TimeRemainingColumn(),
                console=Console(),
            )
            self._bar.add_task("PPO", total=self._num_iterations, curves="")
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        writer = get_tensorboard_writer()
        if writer is not None:
            writer.flush()

    def show(self, done: Iteration, kl_coef: float) -> None:
        """Report one iteration; every rank calls this."""
        self._write_curves(done, kl_coef)
        episode = f"episode {done.episode + 1}/{self._num_episodes}"
        if self._bar is not None:
            curves = f"{episode}  reward {done.reward:+.2f}  kl {done.kl:+.2f}"
            self._bar.update(self._bar.task_ids[0], completed=done.iteration, curves=curves)
        elif self._prints:
            iteration = f"iteration {done.iteration}/{self._num_iterations}"
            rates = f"lr {done.lr:.2e} kl_coef {kl_coef:.4f}"
            print(f"{episode} {iteration} {_curves(done)} {rates}", flush=True)

    def _write_curves(self, done: Iteration, kl_coef: float) -> None:
        writer = get_tensorboard_writer()
        if writer is None:
            return
        for name in CURVES:
            writer.add_scalar(f"ppo/{name}", getattr(done, name), done.iteration)
        writer.add_scalar("ppo/kl_coef", kl_coef, done.iteration)


def _curves(done: Iteration) -> str:
    return (
        f"reward {done.reward:+.4f} kl {done.kl:+.4f} "
        f"policy_loss {done.policy_loss:+.4f} value_loss {done.value_loss:.4f}"
    )
