"""Gradient steps of TD-MPC2 on batches that go through in parts, in one process or in several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from tdmpc2.agent import TDMPC2
from tdmpc2.common.numerics.distributed import World
from tdmpc2.common.numerics.optim import Gradients
from tdmpc2.common.replay.types import Batch
from tdmpc2.common.system.errors import UserError
from tdmpc2.losses import first_values
from tdmpc2.noise import UpdateNoise


class _Sum(NamedTuple):
    """Means over the parts of all processes, and the outcome of each part of this one."""

    gradients: Gradients
    metrics: dict[str, Tensor]
    outcomes: list[Any]


class SplitUpdate:
    """Learns from batches of which every process holds a share, in parts one after the other.

    All losses are means over rows, so the mean of the parts' gradients is the gradient of the
    whole. What is not such a mean is shared before it is used: noise and the choice of
    Q-functions (all processes draw those of the whole batch, alike), the percentiles behind the
    value scale, the norm that gradients are clipped to, and the tasks whose embeddings are
    brought back to unit length. So a step is that of one process on the whole batch, but for
    rounding.

    Args:
        agent: the same in all processes.
        world: the processes.
        parts: of each process's share, to save memory.

    Raises:
        UserError: the batch cannot be divided so.
    """

    def __init__(self, agent: TDMPC2, world: World, parts: int) -> None:
        size = agent.config.batch_size
        if size % (world.size * parts):
            raise UserError(
                f"batch_size={size}: not a multiple of {parts} parts (accumulate=) in each of "
                f"{world.size} process(es)"
            )
        self.agent, self.world, self.parts = agent, world, parts

    def act(
        self, obs: np.ndarray, *, first: np.ndarray, explore: bool, task: np.ndarray | None = None
    ) -> np.ndarray:
        """See `TDMPC2.act`."""
        return self.agent.act(obs, first=first, explore=explore, task=task)

    def update(self, replay: Any) -> dict[str, Tensor]:
        """One gradient step; see `TDMPC2.update`.

        Args:
            replay: its `sample` draws a whole batch and returns a part of it.
        """
        agent = self.agent
        size = agent.config.batch_size
        share = size // self.world.size
        mine = slice(self.world.rank * share, (self.world.rank + 1) * share)
        noise = agent.train_noise.update(size).rows(mine)
        batch = replay.sample(size, agent.replay_length, part=mine).to(agent.device)
        return self.update_on(batch, noise)

    def update_on(self, batch: Batch, noise: UpdateNoise) -> dict[str, Tensor]:
        """One gradient step on this process's share of a batch, with its share of the noise."""
        agent, model = self.agent, self.agent.model
        tasks = None if batch.task is None else self.world.gather(batch.task)
        step = batch.reward.shape[1] // self.parts
        rows = [slice(i * step, (i + 1) * step) for i in range(self.parts)]
        batches = [_rows_of(batch, one) for one in rows]
        noises = [noise.rows(one) for one in rows]

        model.renormalize_task_embedding(tasks)
        learned = self._mean(
            agent.model_loss, agent.model_params, zip(batches, noises, strict=True)
        )
        norm = agent.step(agent.optimizer, agent.model_params, learned.gradients)

        model.renormalize_task_embedding(tasks)
        parts = [
            (outcome.latents, part.task, draws)
            for outcome, part, draws in zip(learned.outcomes, batches, noises, strict=True)
        ]
        values = self.world.gather(torch.cat([first_values(model, *part) for part in parts]))
        policy = self._mean(
            lambda *part: agent.policy_loss(*part, values), agent.policy_params, parts
        )
        agent.value_scale.copy_(policy.outcomes[0].value_scale)
        pi_norm = agent.step(agent.policy_optimizer, agent.policy_params, policy.gradients)
        model.update_target(agent.config.tau)
        norms = {"grad_norm": norm, "pi_grad_norm": pi_norm}
        return learned.metrics | policy.metrics | norms

    def _mean(self, loss: Callable[..., Any], params: list[nn.Parameter], parts: Any) -> _Sum:
        """Gradients and metrics of a loss, averaged over all parts of all processes."""
        total: list[Tensor] = []
        outcomes: list[Any] = []
        for part in parts:
            outcome, gradients = self.agent.differentiate(loss, params, *part)
            # CUDA graphs write the next part's results over those of this one.
            outcomes.append(_copied(outcome))
            if total:
                torch._foreach_add_(total, list(gradients))
            else:
                total = [gradient.clone() for gradient in gradients]
        torch._foreach_div_(total, len(outcomes))
        names = sorted(outcomes[0].metrics)
        metrics = [_mean([outcome.metrics[name] for outcome in outcomes]) for name in names]
        self.world.mean_([*total, *metrics])
        return _Sum(tuple(total), dict(zip(names, metrics, strict=True)), outcomes)


def _copied(outcome: Any) -> Any:
    """An outcome whose tensors nobody writes over; what was differentiated is let go."""
    fields = {
        name: {key: x.detach().clone() for key, x in value.items()}
        if isinstance(value, dict)
        else value.detach().clone()
        for name, value in outcome._asdict().items()
        if value is not None
    }
    return outcome._replace(**fields)


def _mean(values: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(values)).mean(0)


def _rows_of(batch: Batch, rows: slice) -> Batch:
    """Some rows of a batch drawn without priorities."""
    return Batch(
        *(x[:, rows].contiguous() for x in (batch.obs, batch.action, batch.reward)),
        batch.terminated[:, rows].contiguous(),
        task=None if batch.task is None else batch.task[rows],
    )
