"""The training loop: roll out an episode, train on it, save, until the last one."""

import argparse
import sys
from pathlib import Path

import torch
from megatron.training.async_utils import maybe_finalize_async_save
from megatron.training.checkpointing import save_checkpoint
from megatron.training.training import preprocess_common_state_dict

import megatron_resume
from megatron_resume.data import EpisodeSampler, JsonlPrompts
from megatron_resume.errors import PromptError

from . import trace
from .experience import Experience, minibatches
from .final_state import write_final_state
from .options import read_options
from .ppo import AdaptiveKLController
from .refuse import refuse
from .report import Report
from .roles import TRAINED, arguments_of
from .rollout import roll_out
from .start import load_models, start_megatron
from .tokens import build_tokens
from .update import train_policy, train_value


class Job:
    """Everything that the loop uses; the state that a resume brings back is in models and controller."""

    def __init__(self, args: argparse.Namespace, prompts: JsonlPrompts) -> None:
        self.args = args
        self.prompts = prompts
        self.sampler = EpisodeSampler(
            len(prompts),
            samples_per_episode=args.samples_per_episode,
            seed=args.seed,
            shuffle=args.shuffle_prompts,
            datasets=prompts,
            described={"tokenizer": args.tokenizer_model or args.tokenizer_type},
        )
        megatron_resume.track("prompts", self.sampler)  # first: a changed dataset is refused before any work
        self.tokens = build_tokens()
        self.models = load_models(args)
        self.controller = AdaptiveKLController(args.init_kl_coef, args.kl_target, args.kl_horizon)
        megatron_resume.track("kl_controller", self.controller)
        self.trace_file = Path(args.trace_file or Path(args.output) / "trace.jsonl")

    def run(self) -> None:
        """Train from the next episode to the last."""
        with Report(self.args.train_iters, self.args.num_episodes) as report:
            for episode in range(megatron_resume.progress().episode, self.args.num_episodes):
                self._episode(episode, report)
        self._finish_saves(wait=True)

    def _episode(self, episode: int, report: Report) -> None:
        with megatron_resume.phase("rollout"):
            experience = roll_out(
                self.models,
                self.prompts,
                self.tokens,
                self.args,
                first_position=self.sampler.consumed_samples,
                prompt_rows=self.sampler.take(self.args.samples_per_episode).tolist(),
                kl_coef=self.controller.coefficient,
            )
        for minibatch in minibatches(experience, self.args.global_batch_size, self.args.ppo_epochs):
            done = self._iteration(episode, minibatch)
            report.show(done, self.controller.coefficient)
        self.controller.update(experience.kl.mean().item(), len(experience))
        megatron_resume.advance(samples=len(experience))
        self._save_if_due(episode + 1)

    def _iteration(self, episode: int, minibatch: Experience) -> trace.Iteration:
        policy, value = self.models["policy"], self.models["value"]
        lr = policy.optimizer.param_groups[0]["lr"]
        done = trace.Iteration(
            attempt=megatron_resume.progress().attempt,
            episode=episode,
            iteration=policy.args.iteration + 1,
            prompt_ids=minibatch.positions.tolist(),
            prompt_rows=minibatch.prompt_rows.tolist(),
            tokens_sha256=trace.tokens_digest(minibatch),
            reward=minibatch.score.mean().item(),
            policy_loss=train_policy(policy, minibatch),
            value_loss=train_value(value, minibatch),
            kl=minibatch.kl.mean().item(),
            lr=float(lr),
        )
        if torch.distributed.get_rank() == 0:
            trace.append(self.trace_file, done)
        self._finish_saves(wait=False)
        return done

    def _save_if_due(self, episodes_done: int) -> None:
        is_due = episodes_done % self.args.save_episode_interval == 0 or episodes_done == self.args.num_episodes
        # Asked to end, by SIGTERM: the process leaves by itself when this save is committed.
        if not megatron_resume.should_stop() and not is_due:
            return
        for role in TRAINED:
            built = self.models[role]
            with arguments_of(built.args):
                save_checkpoint(
                    built.args.iteration,
                    built.model,
                    built.optimizer,
                    built.scheduler,
                    num_floating_point_operations_so_far=0,
                    preprocess_common_state_dict_fn=preprocess_common_state_dict,
                )

    def _finish_saves(self, *, wait: bool) -> None:
        if self.args.async_save:
            maybe_finalize_async_save(blocking=wait, terminate=wait)


def main() -> int:
    """Run the job; the exit status of the process."""
    options = read_options(sys.argv[1:])
    try:
        prompts = JsonlPrompts(options.prompt_file, key=options.prompt_key, cache_dir=options.prompt_index_dir)
    except PromptError as error:
        refuse(str(error))
    args = start_megatron(options)
    job = Job(args, prompts)
    job.run()
    if args.final_state_file:
        write_final_state(args.final_state_file, args, job.models)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
    return 0
