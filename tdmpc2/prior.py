"""Policy priors: action distributions given by the policy network, and their entropy bonus."""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from tdmpc2.config import TDMPC2Config

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class PolicySample(NamedTuple):
    """A batch of actions sampled from the prior.

    Attributes:
        action: `(..., A)`, sampled actions in [-1, 1].
        mean: `(..., A)`, actions without noise.
        log_std: `(..., A)`, log standard deviation of the Gaussian before squashing; zero for
            masked dimensions and for priors without one.
        entropy_bonus: `(...)`, the term that the policy loss multiplies by the entropy
            coefficient.
    """

    action: Tensor
    mean: Tensor
    log_std: Tensor
    entropy_bonus: Tensor


class PolicyPrior(Protocol):
    """Interface of a distribution over actions with parameters from the policy network."""

    def out_dim(self, action_dim: int) -> int:
        """Return the size of the network's output for A = `action_dim`."""
        ...

    def sample(self, output: Tensor, noise: Tensor, mask: Tensor | None) -> PolicySample:
        """Sample actions.

        Args:
            output: `(..., out_dim)`, outputs of the policy network.
            noise: `(..., A)`, standard normal.
            mask: `(..., A)`, 1 for valid action dimensions and 0 for padding; None if all are
                valid.
        """
        ...


class MaxEntropyPrior:
    """Squashed Gaussian with an entropy bonus (paper, Section 3.1 and Eq. 4).

    From the network's outputs (μ, s), each `(..., A)`, and ε ~ N(0, I):

        log σ = log_std_min + ½·(log_std_max − log_std_min)·(tanh(s) + 1)
        a = tanh(μ + σ·ε)

    Args:
        config: range of log σ and form of the entropy bonus.
    """

    def __init__(self, config: TDMPC2Config) -> None:
        self.form = config.entropy_form
        self.log_std_min = config.log_std_min
        self.log_std_range = config.log_std_max - config.log_std_min

    def out_dim(self, action_dim: int) -> int:
        """Return 2·A: μ and s for each action dimension."""
        return 2 * action_dim

    def sample(self, output: Tensor, noise: Tensor, mask: Tensor | None) -> PolicySample:
        """Sample actions; see `PolicyPrior.sample`.

        Args:
            output: `(..., 2·A)`, μ and s.
            noise: `(..., A)`, standard normal.
            mask: `(..., A)`, multiplies μ, log σ and ε; None if all dimensions are valid.
        """
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
        """Return the entropy bonus `(...)`, the negative (scaled) log-probability of a.

        With g = Σ_i (−½ε_i² − log σ_i), c = Σ_i ln(relu(1 − a_i²) + 1e-6) and A = `num_valid`:

        - paper: c − A·(g − ½ ln 2π). The Gaussian part is scaled by A, the tanh correction
          is not. This is the first official release.
        - official_2024: −A·Σ_i log N(u_i; μ_i, σ_i), u = μ + σ·ε, without tanh correction.
        - exact: c − (g − A·½ ln 2π) = −log π(a) of the squashed Gaussian.
        """
        residual = -0.5 * noise.square() - log_std
        if self.form == "official_2024":
            return -num_valid * (residual - HALF_LOG_2PI).sum(-1)
        correction = torch.log(torch.relu(1 - action.square()) + 1e-6).sum(-1)
        if self.form == "exact":
            return correction - (residual.sum(-1) - num_valid * HALF_LOG_2PI)
        return correction - num_valid * (residual.sum(-1) - HALF_LOG_2PI)


class GaussianNoisePrior:
    """TD-MPC's deterministic policy with clipped Gaussian noise, without entropy bonus.

    a = clip(tanh(μ) + clip(σ·ε, −c, c), −1, 1), with a straight-through gradient of the outer
    clip (Hansen et al., 2022).

    Args:
        std: σ.
        noise_clip: c.
    """

    def __init__(self, std: float, noise_clip: float) -> None:
        self.std, self.noise_clip = std, noise_clip

    def out_dim(self, action_dim: int) -> int:
        """Return A: μ for each action dimension."""
        return action_dim

    def sample(self, output: Tensor, noise: Tensor, mask: Tensor | None) -> PolicySample:
        """Sample actions; see `PolicyPrior.sample`.

        Args:
            output: `(..., A)`, μ before the tanh.
            noise: `(..., A)`, standard normal.
            mask: `(..., A)`, multiplies tanh(μ) and the noise; None if all dimensions are valid.
        """
        mean = torch.tanh(output)
        offset = (self.std * noise).clamp(-self.noise_clip, self.noise_clip)
        if mask is not None:
            mean, offset = mean * mask, offset * mask
        action = mean + offset
        # Differs from the official code: clipped to ±1 instead of ±(1 − 1e-6).
        action = action + (action.clamp(-1, 1) - action).detach()
        zeros = torch.zeros_like(mean)
        return PolicySample(action, mean, zeros, zeros.sum(-1))


def make_prior(config: TDMPC2Config) -> PolicyPrior:
    """Return the policy prior selected by `config.policy_prior`."""
    if config.policy_prior == "max_entropy":
        return MaxEntropyPrior(config)
    return GaussianNoisePrior(config.prior_std, config.prior_noise_clip)
