"""Roll out an episode: sample responses to its prompts and judge them."""

import argparse
from collections.abc import Sequence

import torch
from megatron.core import mpu
from torch import Tensor

from . import forward, ppo
from .experience import Experience, gather_over_data_parallel
from .roles import RoleModel
from .tokens import Tokens, encode_prompt


def roll_out(
    models: dict[str, RoleModel],
    prompts: Sequence[str],
    tokens: Tokens,
    args: argparse.Namespace,
    *,
    first_position: int,
    prompt_rows: list[int],
    kl_coef: float,
) -> Experience:
    """The experience of the episode whose prompts start at `first_position`, equal on every rank.

    `prompt_rows` are the rows of `prompts` for the whole episode; each data-parallel rank takes its share.
    """
    share = _local_share(len(prompt_rows))
    positions, rows = [first_position + i for i in share], [prompt_rows[i] for i in share]
    encoded = [encode_prompt(tokens, prompts[row], args.seq_length - args.response_length) for row in rows]
    sampled, mask = _sample(models["policy"], encoded, positions, tokens, args)
    batch = args.rollout_batch_size
    logprobs = forward.logprobs(models["policy"], sampled, batch)
    kl = (logprobs - forward.logprobs(models["reference"], sampled, batch)) * mask
    judged = forward.scores(models["reward"], sampled, batch)
    values = forward.scores(models["value"], sampled, batch)
    # The score is read after the response's last token, one position behind its choice.
    score = judged.gather(1, (ppo.last_position(mask) + 1).unsqueeze(1)).squeeze(1)
    device = torch.cuda.current_device()
    drawn = torch.tensor(positions, device=device), torch.tensor(rows, device=device)
    local = (*drawn, sampled, mask, score, kl, logprobs, values)
    return _with_advantages(*(gather_over_data_parallel(part) for part in local), args=args, kl_coef=kl_coef)


def _local_share(num_samples: int) -> range:
    share = num_samples // mpu.get_data_parallel_world_size()
    start = share * mpu.get_data_parallel_rank()
    return range(start, start + share)


def _with_advantages(
    positions: Tensor,
    prompt_rows: Tensor,
    tokens: Tensor,
    mask: Tensor,
    score: Tensor,
    kl: Tensor,
    logprobs: Tensor,
    values: Tensor,
    *,
    args: argparse.Namespace,
    kl_coef: float,
) -> Experience:
    rewards = ppo.penalised_rewards(score, kl, mask, kl_coef)
    advantages, returns = ppo.advantages_and_returns(rewards, values, mask, args.discount, args.gae_lambda)
    return Experience(positions, prompt_rows, tokens, mask, score, kl.sum(dim=1), logprobs, values, advantages, returns)


def _sample(
    policy: RoleModel,
    encoded: list[list[int]],
    positions: list[int],
    tokens: Tokens,
    args: argparse.Namespace,
) -> tuple[Tensor, Tensor]:
    """Token ids [batch, sequence] of prompts with sampled responses, and the mask of their choices.

    Every step is a forward pass over the whole sequence: the example has no key-value cache, because
    sampling is not what it is about.
    """
    device = torch.cuda.current_device()
    rows = torch.full((len(encoded), args.seq_length), tokens.end, dtype=torch.long, device=device)
    for row, ids in zip(rows, encoded, strict=True):
        row[: len(ids)] = torch.tensor(ids, device=device)
    lengths = torch.tensor([len(ids) for ids in encoded], device=device)
    uniform = _uniform(positions, args).to(device)
    mask = torch.zeros(rows.shape, device=device)
    every, running = (
        torch.arange(len(rows), device=device),
        torch.ones(len(rows), dtype=torch.bool, device=device),
    )
    for step in range(args.response_length):
        last = lengths + step - 1
        logits = forward.next_token_logits(policy, rows, last, args.rollout_batch_size)
        chosen = _draw(logits[:, : tokens.vocab_size], uniform[:, step])
        rows[every, last + 1] = torch.where(running, chosen, tokens.end)
        mask[every, last] = running.float()
        running &= chosen != tokens.end
    # Rows that ended early keep the end token as padding, which the mask hides.
    return rows, mask


def _uniform(positions: list[int], args: argparse.Namespace) -> Tensor:
    """Random numbers that depend on the seed and the prompt's position alone, not on who draws them."""
    draws = []
    for position in positions:
        generator = torch.Generator().manual_seed(args.seed * 1_000_003 + position)
        draws.append(torch.rand(args.response_length, generator=generator, dtype=torch.float64))
    return torch.stack(draws)


def _draw(logits: Tensor, uniform: Tensor) -> Tensor:
    """One token per row by inverting the cumulative distribution at `uniform`."""
    probabilities = torch.softmax(logits.double(), dim=-1)
    if torch.are_deterministic_algorithms_enabled():  # then torch refuses this sum on a GPU, where its order may vary
        cumulative = probabilities.cpu().cumsum(dim=-1).to(logits.device)
    else:
        cumulative = probabilities.cumsum(dim=-1)
    target = (uniform * cumulative[:, -1]).unsqueeze(1)
    return torch.searchsorted(cumulative, target, right=True).squeeze(1).clamp(max=logits.shape[1] - 1)
