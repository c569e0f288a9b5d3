"""The policy prior: what the policy network's output means, and its entropy term."""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from tdmpc2.config import TDMPC2Config

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class PolicySample(NamedTuple):
    """A batch of actions drawn from the prior; shapes `(..., A)` and `(...)`.

    Attributes:
        action: sampled actions in [-1, 1].
        mean: actions without noise.
        log_std: of the Gaussian before squashing (zero where masked or not defined).
        entropy_bonus: what the policy loss multiplies by the entropy coefficient.
    """

    action: Tensor
    mean: Tensor
    log_std: Tensor
    entropy_bonus: Tensor


class PolicyPrior(Protocol):
    """Interprets the policy network's output."""

    def out_dim(self, action_dim: int) -> int:
        """Size of the network's output."""
        ...

    def sample(self, output: Tensor, noise: Tensor, mask: Tensor | None) -> PolicySample:
        """Actions for network outputs `(..., out_dim)` and standard normal noise `(..., A)`."""
        ...


class MaxEntropyPrior:
    """Squashed Gaussian with a maximum-entropy bonus (paper, Eq. 4).

    log σ = log_std_min + ½(log_std_max − log_std_min)(tanh(s) + 1), a = tanh(μ + σε).
    """

    def __init__(self, config: TDMPC2Config) -> None:
        self.form = config.entropy_form
        self.log_std_min = config.log_std_min
        self.log_std_range = config.log_std_max - config.log_std_min

    def out_dim(self, action_dim: int) -> int:
        """Mean and log standard deviation."""
        return 2 * action_dim

    def sample(self, output: Tensor, noise: Tensor, mask: Tensor | None) -> PolicySample:
        """See `PolicyPrior.sample`; `mask (..., A)` zeroes the padding of multi-task actions."""
        mean, raw_log_std = output.chunk(2, dim=-1)
        log_std = self.log_std_min + 0.5 * self.log_std_range * (torch.tanh(raw_log_std) + 1)
        if mask is None:
            num_valid: Tensor | float = float(noise.shape[-1])
        else:
            mean, log_std, noise = mean * mask, log_std * mask, noise * mask
            num_valid = mask.sum(-1)
        action = torch.tanh(mean + log_std.exp() * noise)
        bonus = self._entropy_bonus(log_std, noise, action, num_valid)
        return PolicySample(action, torch.tanh(mean), log_std, bonus)

    def _entropy_bonus(
        self, log_std: Tensor, noise: Tensor, action: Tensor, num_valid: Tensor | float
    ) -> Tensor:
        """Minus the (scaled) log-probability.

        paper: A·[Σ(−½ε² − log σ) − ½ ln 2π] − Σ ln(relu(1 − a²) + 1e-6), negated: the
        Gaussian part is scaled by A, the tanh correction is not.
        official_2024: −A·Σ log N(u), without the tanh correction.
        exact: −log π(a) of the squashed Gaussian, neither part scaled.
        """
        residual = -0.5 * noise.square() - log_std
        if self.form == "official_2024":
            return -num_valid * (residual - HALF_LOG_2PI).sum(-1)
        correction = torch.log(torch.relu(1 - action.square()) + 1e-6).sum(-1)
        if self.form == "exact":
            return correction - (residual.sum(-1) - num_valid * HALF_LOG_2PI)
        return correction - num_valid * (residual.sum(-1) - HALF_LOG_2PI)


class GaussianNoisePrior:
    """Deterministic policy with clipped Gaussian noise, TD-MPC's; no entropy bonus.

    a = clip(tanh(μ) + clip(σε, ±c), −1, 1); the outer clip passes gradients straight through.

    Args:
        std: σ.
        noise_clip: c.
    """

    def __init__(self, std: float, noise_clip: float) -> None:
        self.std, self.noise_clip = std, noise_clip

    def out_dim(self, action_dim: int) -> int:
        """Mean only."""
        return action_dim

    def sample(self, output: Tensor, noise: Tensor, mask: Tensor | None) -> PolicySample:
        """See `PolicyPrior.sample`."""
        mean = torch.tanh(output)
        offset = (self.std * noise).clamp(-self.noise_clip, self.noise_clip)
        if mask is not None:
            mean, offset = mean * mask, offset * mask
        action = mean + offset
        # Differs from the official code: actions are clipped at ±1, there at ±(1 − 1e-6).
        action = action + (action.clamp(-1, 1) - action).detach()
        zeros = torch.zeros_like(mean)
        return PolicySample(action, mean, zeros, zeros.sum(-1))


def make_prior(config: TDMPC2Config) -> PolicyPrior:
    """The prior that `config.policy_prior` names."""
    if config.policy_prior == "max_entropy":
        return MaxEntropyPrior(config)
    return GaussianNoisePrior(config.prior_std, config.prior_noise_clip)
