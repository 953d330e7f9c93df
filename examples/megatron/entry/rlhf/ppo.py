"""The mathematics of PPO: advantages, losses, and the adaptive KL penalty. Nothing here knows Megatron."""

import torch
from torch import Tensor


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of `values` where `mask` is 1; 0 where the mask is empty."""
    return (values * mask).sum() / mask.sum().clamp(min=1)


def whiten(values: Tensor, mask: Tensor) -> Tensor:
    """`values` with mean 0 and variance 1 under `mask`, and 0 elsewhere."""
    mean = masked_mean(values, mask)
    variance = masked_mean((values - mean) ** 2, mask)
    return (values - mean) * torch.rsqrt(variance + 1e-8) * mask


def penalised_rewards(scores: Tensor, kl: Tensor, mask: Tensor, kl_coef: float) -> Tensor:
    """Rewards per token, [batch, sequence]: the KL penalty everywhere, the score at the last token."""
    rewards = -kl_coef * kl * mask
    rows = torch.arange(len(scores), device=scores.device)
    rewards[rows, last_position(mask)] += scores
    return rewards


def last_position(mask: Tensor) -> Tensor:
    """The last position of each row where `mask` is 1."""
    positions = torch.arange(mask.shape[1], device=mask.device)
    return (positions * mask).argmax(dim=1)


def advantages_and_returns(
    rewards: Tensor, values: Tensor, mask: Tensor, discount: float, gae_lambda: float
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (Schulman et al. 2016, eq. 16), whitened, and the returns.

    All are [batch, sequence]; the actions of a row are contiguous, and its episode ends after them.
    """
    values = values * mask
    advantages = torch.zeros_like(values)
    following = torch.zeros_like(values[:, 0])
    next_value = torch.zeros_like(values[:, 0])
    for position in range(values.shape[1] - 1, -1, -1):
        delta = rewards[:, position] + discount * next_value - values[:, position]
        following = (delta + discount * gae_lambda * following) * mask[:, position]
        next_value = values[:, position]
        advantages[:, position] = following
    return whiten(advantages, mask), advantages + values


def policy_loss(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor, clip: float) -> Tensor:
    """PPO's clipped surrogate objective (Schulman et al. 2017, eq. 7), negated, mean over actions."""
    ratio = torch.exp((logprobs - old_logprobs) * mask)
    clipped = ratio.clamp(1 - clip, 1 + clip)
    return masked_mean(-torch.minimum(ratio * advantages, clipped * advantages), mask)


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, clip: float) -> Tensor:
    """Squared error of the values, with steps away from the old values clipped, mean over actions."""
    clipped = old_values + (values - old_values).clamp(-clip, clip)
    error = torch.maximum((values - returns) ** 2, (clipped - returns) ** 2)
    return masked_mean(error, mask) / 2


class AdaptiveKLController:
    """The KL coefficient that follows a target (Ziegler et al. 2019, section 2.2)."""

    def __init__(self, coefficient: float, target: float, horizon: int) -> None:
        self.coefficient = coefficient
        self.target = target
        self.horizon = horizon

    def update(self, kl: float, num_samples: int) -> None:
        """Move the coefficient after `num_samples` samples whose mean KL per response was `kl`."""
        error = min(max(kl / self.target - 1, -0.2), 0.2)
        self.coefficient *= 1 + error * num_samples / self.horizon

    def state_dict(self) -> dict[str, float]:
        return {"coefficient": self.coefficient}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.coefficient = float(state["coefficient"])
