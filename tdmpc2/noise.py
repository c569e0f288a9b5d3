"""Randomness as an argument: every random draw of a planning call and of an update."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from tdmpc2.config import TDMPC2Config

SHIFT_PAD = 3


class IterationNoise(NamedTuple):
    """The draws of one iteration of MPPI, as in `PlanNoise` without the first dimension."""

    samples: Tensor
    terminal_policy: Tensor
    heads: Tensor | None
    dropout: Tensor | None


class PlanNoise(NamedTuple):
    """All draws of one planning call (B environments, I iterations, N samples, P prior ones).

    Attributes:
        policy: `(H, B, P, A)`, of the prior's trajectories.
        samples: `(I, H, B, N − P, A)`, of the sampled sequences.
        terminal_policy: `(I, B, N, A)`, of the terminal policy action.
        heads: `(I, 2)`, Q-functions averaged in each iteration; None when all are.
        elite: `(B, num_elites)`, Exp(1) draws that choose the elite to execute.
        action: `(B, A)`, exploration noise; None in evaluation.
        dropout: `(I, K, B, N, mlp_dim)` factors; None without dropout in planning.
        shift: `(B, 2)`, pixel offsets; None for states.
    """

    policy: Tensor
    samples: Tensor
    terminal_policy: Tensor
    heads: Tensor | None
    elite: Tensor
    action: Tensor | None
    dropout: Tensor | None = None
    shift: Tensor | None = None

    def iterations(self, dim: int = 0) -> Iterator[IterationNoise]:
        """The draws of each iteration in turn.

        Args:
            dim: the dimension of the iterations.
        """
        each = (self.samples, self.terminal_policy, self.heads, self.dropout)
        for i in range(self.samples.shape[dim]):
            yield IterationNoise(*(None if x is None else x.select(dim, i) for x in each))


class UpdateNoise(NamedTuple):
    """All draws of one gradient step (batch B, horizon H).

    Attributes:
        target_policy: `(H, B, A)`, of the actions in the TD-target.
        target_heads: `(2,)`, target Q-functions whose minimum is taken; None for all.
        policy: `(H + 1, B, A)`, of the actions in the policy loss.
        policy_heads: `(2,)`, Q-functions averaged in the policy loss; None for all.
        model_dropout: `(N, H, B, mlp_dim)` factors for the model loss, or None.
        target_dropout: `(K, H, B, mlp_dim)`, or None.
        policy_dropout: `(K, H + 1, B, mlp_dim)`, or None.
        shift: `(H + 1, B, 2)`, pixel offsets, or None.
    """

    target_policy: Tensor
    target_heads: Tensor | None
    policy: Tensor
    policy_heads: Tensor | None
    model_dropout: Tensor | None = None
    target_dropout: Tensor | None = None
    policy_dropout: Tensor | None = None
    shift: Tensor | None = None

    def rows(self, rows: slice) -> UpdateNoise:
        """The draws of some rows of the batch; Q-functions are drawn for all rows alike."""
        by_row = (self.target_policy, self.policy, self.shift)
        masks = (self.model_dropout, self.target_dropout, self.policy_dropout)
        target_policy, policy, shift = (None if x is None else x[:, rows] for x in by_row)
        model, target, prior = (None if x is None else x[:, :, rows] for x in masks)
        assert target_policy is not None
        assert policy is not None
        return UpdateNoise(
            *(target_policy, self.target_heads, policy, self.policy_heads),
            *(model, target, prior, shift),
        )


class NoiseSource:
    """Draws the noise of an agent from one generator.

    Args:
        config: of the agent.
        action_dim: A.
        pixels: whether observations are images, which are randomly shifted.
        generator: where every draw comes from; its device is that of the draws.
    """

    def __init__(
        self, config: TDMPC2Config, action_dim: int, pixels: bool, generator: Generator
    ) -> None:
        self.config = config
        self.action_dim = action_dim
        self.pixels = pixels
        self.generator = generator
        self.num_iterations = config.num_iterations(action_dim)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal draws."""
        return torch.randn(*shape, generator=self.generator, device=self.generator.device)

    def prior(self, batch: int) -> tuple[Tensor, Tensor | None]:
        """Draws `(B, A)` for acting with the prior alone, and pixel offsets or None."""
        draws = self.normal(batch, self.action_dim)
        return draws, self._shift(batch) if self.pixels else None

    def plan(self, batch: int, *, explore: bool) -> PlanNoise:
        """Draws for one planning call."""
        c, a, i = self.config, self.action_dim, self.num_iterations
        heads = None
        if c.num_q > 2:
            heads = torch.stack([self._pair() for _ in range(i)])
        dropout = None
        if c.dropout > 0 and c.dropout_in == "everywhere":
            dropout = self._dropout(i, min(c.num_q, 2), batch, c.num_samples, c.mlp_dim)
        elite = torch.empty(batch, c.num_elites, device=self.generator.device)
        return PlanNoise(
            policy=self.normal(c.horizon, batch, c.num_pi_samples, a),
            samples=self.normal(i, c.horizon, batch, c.num_samples - c.num_pi_samples, a),
            terminal_policy=self.normal(i, batch, c.num_samples, a),
            heads=heads,
            elite=elite.exponential_(generator=self.generator),
            action=self.normal(batch, a) if explore else None,
            dropout=dropout,
            shift=self._shift(batch) if self.pixels else None,
        )

    def update(self, batch: int) -> UpdateNoise:
        """Draws for one gradient step."""
        c, h = self.config, self.config.horizon
        pair = min(c.num_q, 2)
        masks: dict[str, Tensor] = {}
        if c.dropout > 0:
            masks["model_dropout"] = self._dropout(c.num_q, h, batch, c.mlp_dim)
            if c.dropout_in == "everywhere":
                masks["target_dropout"] = self._dropout(pair, h, batch, c.mlp_dim)
            if c.dropout_in != "model_loss":
                masks["policy_dropout"] = self._dropout(pair, h + 1, batch, c.mlp_dim)
        return UpdateNoise(
            target_policy=self.normal(h, batch, self.action_dim),
            target_heads=self._pair() if c.num_q > 2 else None,
            policy=self.normal(h + 1, batch, self.action_dim),
            policy_heads=self._pair() if c.num_q > 2 else None,
            shift=self._shift(h + 1, batch) if self.pixels else None,
            **masks,
        )

    def _pair(self) -> Tensor:
        """Two different Q-functions out of N."""
        order = torch.randperm(
            self.config.num_q, generator=self.generator, device=self.generator.device
        )
        return order[:2]

    def _dropout(self, *shape: int) -> Tensor:
        """Dropout factors: 0 with probability p, else 1/(1 − p).

        The gaps between dropped units are geometric, so that rare drops need few draws.
        """
        p, num = self.config.dropout, math.prod(shape)
        expected = num * p
        # Ten standard deviations more than are expected reach the end, but for one time in 1e23.
        num_gaps = math.ceil(expected + 10 * expected**0.5 + 10)
        gaps = torch.empty(num_gaps, device=self.generator.device, dtype=torch.float64)
        dropped = gaps.geometric_(p, generator=self.generator).cumsum(0).long() - 1
        factors = torch.full((num + 1,), 1 / (1 - p), device=gaps.device)
        # The last one is where all beyond the end go. Assigning a number by index would copy it to
        # a GPU, and wait.
        factors.index_fill_(0, dropped.clamp(max=num), 0.0)
        return factors[:num].view(shape)

    def _shift(self, *shape: int) -> Tensor:
        """Pixel offsets 0..2·pad."""
        return torch.randint(
            2 * SHIFT_PAD + 1,
            (*shape, 2),
            generator=self.generator,
            device=self.generator.device,
        )
