"""The elites of MPPI: refitting mean and standard deviation, and choosing the action to execute.

Shapes: B environments, H decisions, N samples, E elites, A action dimensions.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tdmpc2.common.numerics import gpu_forms
from tdmpc2.common.numerics.ranking import places
from tdmpc2.planning_interfaces import PlanningConfig


class Refit(NamedTuple):
    """Result of one iteration of MPPI.

    Attributes:
        mean, std: `(H, B, A)`, μ and σ refitted to the elites.
        first: `(B, E, A)`, first actions of the elites; on a GPU `(B, N, A)`, those of all samples.
        score: `(B, E)`, weights w of the elites, which sum to 1; on a GPU `(B, N)`, τ·V of all
            samples.
        place: `(B, N)`, on a GPU the place of every sample by value, from 0 for the best.
    """

    mean: Tensor
    std: Tensor
    first: Tensor
    score: Tensor
    place: Tensor | None = None


def refit(
    config: PlanningConfig, actions: Tensor, value: Tensor, mean: Tensor, min_std: Tensor
) -> Refit:
    """Refit mean and standard deviation to the E sequences of largest value.

        w^i = exp(τ·(V^i − V_max)) / Σ_j exp(τ·(V^j − V_max))
        μ ← m·μ + (1 − m)·μ̂,  μ̂ = Σ_i w^i·a^i
        σ ← clip(sqrt(Σ_i w^i·(a^i − μ̂)²), σ_min, σ_max)

    with temperature τ and momentum m.

    Args:
        config: E, τ, m and σ_max.
        actions: `(H, B, N, A)`.
        value: V, `(B, N)`, without NaN.
        mean: `(H, B, A)`, μ of the previous iteration.
        min_std: `()`, σ_min.
    """
    place = None
    if gpu_forms.wanted(value.device):
        place, score, first = places(value), config.temperature * value, actions[0]
        new_mean, spread = _weighted(actions, score, place < config.num_elites)
    else:
        elite_value, elite_index = torch.topk(value, config.num_elites, dim=1)
        index = elite_index[None, :, :, None].expand(*actions.shape[:2], -1, actions.shape[-1])
        elites = actions.gather(2, index)
        score, first = torch.softmax(config.temperature * elite_value, dim=1), elites[0]
        weight = score[None, :, :, None]
        new_mean = (weight * elites).sum(2)
        spread = (weight * (elites - new_mean[:, :, None]).square()).sum(2).sqrt()
    mean = config.momentum * mean + (1 - config.momentum) * new_mean
    std = torch.maximum(spread, min_std).clamp(max=config.max_std)
    return Refit(mean, std, first, score, place)


def _weighted(actions: Tensor, score: Tensor, elite: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation `(H, B, A)` of the elites, weighted by softmax(score).

    All sums are over the same samples for every action, so that one kernel computes them.

    Args:
        actions: `(H, B, N, A)`.
        score: `(B, N)`.
        elite: `(B, N)`, True for elites.
    """
    score, elite = (x[None, :, :, None].expand(actions.shape) for x in (score, elite))
    # The best sample is an elite, so its score is the largest among them.
    weight = torch.where(elite, (score - score.amax(2, keepdim=True)).exp(), 0.0)
    total = weight.sum(2)
    mean = (weight * actions).sum(2) / total
    square = (weight * (actions - mean[:, :, None]).square()).sum(2) / total
    return mean, square.sqrt()


def choose(
    refit: Refit, elite_noise: Tensor, action_noise: Tensor | None, *, clip: bool = True
) -> Tensor:
    """Choose the action `(B, A)` to execute: the first action of an elite sampled with weight w.

    a = a^i_0 + σ_0·ε with i ~ Categorical(w); ε = 0 in evaluation.

    Args:
        refit: result of the last iteration.
        elite_noise: `(B, E)`, Exp(1) samples.
        action_noise: `(B, A)`, standard normal exploration noise ε; None in evaluation.
        clip: whether to clip the action to [-1, 1].
    """
    # Gumbel-max: argmax_i(ln w_i − ln x_i) with x_i ~ Exp(1) is a sample of Categorical(w).
    log_noise = elite_noise.log()
    if refit.place is None:
        elite = (refit.score.log() - log_noise).argmax(1)
    else:  # ln w_i = τ·V_i up to a constant
        last = log_noise.shape[1] - 1
        key = refit.score - log_noise.gather(1, refit.place.clamp(max=last))
        elite = torch.where(refit.place <= last, key, -torch.inf).argmax(1)
    batch = torch.arange(elite.shape[0], device=elite.device)
    action = refit.first[batch, elite]
    if action_noise is not None:
        action = action + refit.std[0] * action_noise
    return action.clamp(-1, 1) if clip else action
