"""The noise of planning calls and updates, which losses and planner take as an argument.

It is sampled here, outside of them, so that they are pure functions: tests replay recorded noise,
and the saved state of one generator restores it on resume.

Shapes: B environments or rows, H decisions, I iterations, N samples, P of them from the policy
prior, K Q-functions, A action dimensions.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from tdmpc2.common.numerics import gpu_forms
from tdmpc2.config import TDMPC2Config

SHIFT_PAD = 3


class IterationNoise(NamedTuple):
    """Noise of one iteration of MPPI: the fields of `PlanNoise` without the dimension I."""

    samples: Tensor
    terminal_policy: Tensor
    heads: Tensor | None
    dropout: Tensor | None


class PlanNoise(NamedTuple):
    """All noise of one planning call.

    Attributes:
        policy: `(H, B, P, A)`, standard normal, for the trajectories of the policy prior.
        samples: `(I, H, B, N − P, A)`, standard normal, for the Gaussian samples.
        terminal_policy: `(I, B, N, A)`, standard normal, for the terminal actions.
        heads: `(I, 2)`, indices of the Q-functions averaged in each iteration; None if all are.
        elite: `(B, num_elites)`, Exp(1) samples that choose the elite to execute.
        action: `(B, A)`, standard normal exploration noise; None in evaluation.
        dropout: `(I, K, B, N, mlp_dim)`, dropout factors; None without dropout in planning.
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
        """Yield the noise of each iteration.

        Args:
            dim: index of the dimension I.
        """
        for i in range(self.samples.shape[dim]):
            yield IterationNoise(
                self.samples.select(dim, i),
                self.terminal_policy.select(dim, i),
                None if self.heads is None else self.heads.select(dim, i),
                None if self.dropout is None else self.dropout.select(dim, i),
            )


class UpdateNoise(NamedTuple):
    """All noise of one gradient step.

    Attributes:
        target_policy: `(H, B, A)`, standard normal, for the actions in the TD-target.
        target_heads: `(2,)`, indices of the target Q-functions whose minimum is taken; None for
            all.
        policy: `(H + 1, B, A)`, standard normal, for the actions in the policy loss.
        policy_heads: `(2,)`, indices of the Q-functions averaged in the policy loss; None for
            all.
        model_dropout: `(num_q, H, B, mlp_dim)`, dropout factors of the model loss; None without
            dropout there.
        target_dropout: `(K, H, B, mlp_dim)`, dropout factors of the TD-target, or None.
        policy_dropout: `(K, H + 1, B, mlp_dim)`, dropout factors of the policy loss, or None.
        shift: `(H + 1, B, 2)`, pixel offsets; None for states.
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
        """Return the noise of some rows of the batch; all rows share the chosen Q-functions."""
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
    """Samples the noise of an agent from one generator.

    Args:
        config: config of the agent.
        action_dim: A.
        pixels: whether observations are images, which are randomly shifted.
        generator: source of all samples; its device is the device of the noise.
    """

    def __init__(
        self, config: TDMPC2Config, action_dim: int, pixels: bool, generator: Generator
    ) -> None:
        self.config = config
        self.action_dim = action_dim
        self.pixels = pixels
        self.generator = generator
        self.num_iterations = config.num_iterations(action_dim)
        ordered = list(itertools.permutations(range(config.num_q), 2))
        self._pairs_of_heads = torch.tensor(ordered, device=generator.device)  # (·, 2)

    def normal(self, *shape: int) -> Tensor:
        """Return standard normal samples of the given shape."""
        return torch.randn(*shape, generator=self.generator, device=self.generator.device)

    def normals(self, *shapes: tuple[int, ...]) -> list[Tensor]:
        """Return standard normal samples of several shapes; on a GPU, all from one kernel."""
        if not gpu_forms.wanted(self.generator.device):
            return [self.normal(*shape) for shape in shapes]
        sizes = [math.prod(shape) for shape in shapes]
        padded = [size + -size % 4 for size in sizes]  # so that kernels load vectors
        pieces = self.normal(sum(padded)).split(padded)
        return [
            piece[:size].view(shape)
            for piece, size, shape in zip(pieces, sizes, shapes, strict=True)
        ]

    def prior(self, batch: int) -> tuple[Tensor, Tensor | None]:
        """Return noise `(B, A)` for acting with the policy prior, and pixel offsets or None."""
        noise = self.normal(batch, self.action_dim)
        return noise, self._shift(batch) if self.pixels else None

    def plan(self, batch: int, *, explore: bool) -> PlanNoise:
        """Sample the noise of one planning call.

        Args:
            batch: B, the number of environments.
            explore: whether to include exploration noise.
        """
        c, a, i = self.config, self.action_dim, self.num_iterations
        heads = None
        if c.num_q > 2:
            heads = self._pairs(i)
        dropout = None
        if c.dropout > 0 and c.dropout_in == "everywhere":
            dropout = self._dropout(i, min(c.num_q, 2), batch, c.num_samples, c.mlp_dim)
        elite = torch.empty(batch, c.num_elites, device=self.generator.device)
        shapes = [
            (c.horizon, batch, c.num_pi_samples, a),
            (i, c.horizon, batch, c.num_samples - c.num_pi_samples, a),
            (i, batch, c.num_samples, a),
        ]
        together = explore and gpu_forms.wanted(self.generator.device)
        drawn = self.normals(*shapes, *[(batch, a)] * together)
        policy, samples, terminal_policy = drawn[:3]
        elite = elite.exponential_(generator=self.generator)
        action = None
        if explore:
            action = drawn[3] if together else self.normal(batch, a)
        return PlanNoise(
            policy=policy,
            samples=samples,
            terminal_policy=terminal_policy,
            heads=heads,
            elite=elite,
            action=action,
            dropout=dropout,
            shift=self._shift(batch) if self.pixels else None,
        )

    def update(self, batch: int) -> UpdateNoise:
        """Sample the noise of one gradient step on a batch of B = `batch` rows."""
        c, h = self.config, self.config.horizon
        pair = min(c.num_q, 2)
        masks: dict[str, Tensor] = {}
        if c.dropout > 0:
            masks["model_dropout"] = self._dropout(c.num_q, h, batch, c.mlp_dim)
            if c.dropout_in == "everywhere":
                masks["target_dropout"] = self._dropout(pair, h, batch, c.mlp_dim)
            if c.dropout_in != "model_loss":
                masks["policy_dropout"] = self._dropout(pair, h + 1, batch, c.mlp_dim)
        shapes = [(h, batch, self.action_dim), (h + 1, batch, self.action_dim)]
        some = c.num_q > 2
        target_heads = policy_heads = None
        if gpu_forms.wanted(self.generator.device):
            target_policy, policy = self.normals(*shapes)
            if some:
                target_heads, policy_heads = self._pairs(2).unbind()
        else:  # in the order of recorded runs
            target_policy = self.normal(*shapes[0])
            target_heads = self._pairs(1)[0] if some else None
            policy = self.normal(*shapes[1])
            policy_heads = self._pairs(1)[0] if some else None
        return UpdateNoise(
            target_policy=target_policy,
            target_heads=target_heads,
            policy=policy,
            policy_heads=policy_heads,
            shift=self._shift(h + 1, batch) if self.pixels else None,
            **masks,
        )

    def _pairs(self, num: int) -> Tensor:
        """Return the indices `(num, 2)` of two different Q-functions each."""
        generator, num_q = self.generator, self.config.num_q
        device = generator.device
        if gpu_forms.wanted(device):  # `randperm` takes five kernels for each pair
            table = self._pairs_of_heads
            chosen = torch.randint(len(table), (num,), generator=generator, device=device)
            return table.index_select(0, chosen)
        orders = [torch.randperm(num_q, generator=generator, device=device) for _ in range(num)]
        return torch.stack([order[:2] for order in orders])

    def _dropout(self, *shape: int) -> Tensor:
        """Return dropout factors of the given shape: 0 with probability p, else 1/(1 − p).

        Samples the geometric gaps between dropped units: about p·n samples for n units. On a
        GPU, one sample per unit is faster, because it takes fewer kernels.
        """
        p, num = self.config.dropout, math.prod(shape)
        if gpu_forms.wanted(self.generator.device):
            kept = torch.empty(shape, device=self.generator.device)
            return kept.bernoulli_(1 - p, generator=self.generator).div_(1 - p)
        expected = num * p
        # With ten standard deviations more gaps than expected, the probability that they do not
        # reach the last unit is about 1e-23.
        num_gaps = math.ceil(expected + 10 * expected**0.5 + 10)
        gaps = torch.empty(num_gaps, device=self.generator.device, dtype=torch.float64)
        dropped = gaps.geometric_(p, generator=self.generator).cumsum(0).long() - 1
        factors = torch.full((num + 1,), 1 / (1 - p), device=gaps.device)
        # Units beyond the end are written to the extra last entry. `index_fill_` instead of
        # indexed assignment: the latter copies the number to a GPU and synchronizes.
        factors.index_fill_(0, dropped.clamp(max=num), 0.0)
        return factors[:num].view(shape)

    def _shift(self, *shape: int) -> Tensor:
        """Return pixel offsets `(*shape, 2)`, uniform integers in 0..2·pad; see `random_shift`."""
        return torch.randint(
            2 * SHIFT_PAD + 1,
            (*shape, 2),
            generator=self.generator,
            device=self.generator.device,
        )
