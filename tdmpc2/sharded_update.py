"""TD-MPC2 updates with micro-batches (gradient accumulation) and several processes."""

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


class _MeanLoss(NamedTuple):
    """A loss averaged over the micro-batches of all processes.

    Attributes:
        gradients: mean gradients.
        metrics: mean metrics.
        outcomes: result of the loss for each micro-batch of this process.
    """

    gradients: Gradients
    metrics: dict[str, Tensor]
    outcomes: list[Any]


class SplitUpdate:
    """Updates an agent with batches split over processes and then into micro-batches.

    Each process holds one shard of the batch and processes it in micro-batches, one after the
    other. Losses are means over rows, so the mean of the micro-batches' gradients is the gradient
    of the whole batch. Quantities that are not means over rows are computed for the whole batch:
    noise and chosen Q-functions (all processes sample the same ones), the percentiles of the value
    scale, the norm for gradient clipping, and the tasks whose embeddings are renormalized. A step
    therefore equals that of one process on the whole batch, except for rounding.

    Args:
        agent: the agent, with equal parameters in all processes.
        world: the processes.
        parts: micro-batches per shard, to save memory (`accumulate`).

    Raises:
        UserError: the batch size is not divisible by processes · micro-batches.
    """

    def __init__(self, agent: TDMPC2, world: World, parts: int) -> None:
        size = agent.config.batch_size
        if size % (world.size * parts):
            raise UserError(
                f"batch_size={size}: must be a multiple of accumulate={parts} times the number of "
                f"processes ({world.size})"
            )
        self.agent, self.world, self.parts = agent, world, parts

    def act(
        self, obs: np.ndarray, *, first: np.ndarray, explore: bool, task: np.ndarray | None = None
    ) -> np.ndarray:
        """Return actions `(B, A)`; see `TDMPC2.act`.

        Args:
            obs: `(B, *obs_shape)`.
            first: `(B,)`, True for environments at the first step of an episode.
            explore: True for training, False for evaluation.
            task: `(B,)`, task indices; None for one task.
        """
        return self.agent.act(obs, first=first, explore=explore, task=task)

    def update(self, replay: Any) -> dict[str, Tensor]:
        """Take one gradient step on a batch from `replay` and return scalar metrics.

        Args:
            replay: replay buffer whose `sample(batch_size, length, part=rows)` samples a whole
                batch and returns the given rows of it.
        """
        agent = self.agent
        size = agent.config.batch_size
        shard_size = size // self.world.size
        shard = slice(self.world.rank * shard_size, (self.world.rank + 1) * shard_size)
        noise = agent.train_noise.update(size).rows(shard)
        batch = replay.sample(size, agent.replay_length, part=shard).to(agent.device)
        return self.update_on(batch, noise)

    def update_on(self, batch: Batch, noise: UpdateNoise) -> dict[str, Tensor]:
        """Take one gradient step on this process's shard of a batch and of the noise."""
        agent, model = self.agent, self.agent.model
        tasks = None if batch.task is None else self.world.gather(batch.task)
        size = batch.reward.shape[1] // self.parts
        slices = [slice(i * size, (i + 1) * size) for i in range(self.parts)]
        batches = [_rows_of(batch, rows) for rows in slices]
        noises = [noise.rows(rows) for rows in slices]

        model.renormalize_task_embedding(tasks)
        learned = self._mean(
            agent.model_loss, agent.model_params, zip(batches, noises, strict=True)
        )
        norm = agent.step(agent.optimizer, agent.model_params, learned.gradients)

        model.renormalize_task_embedding(tasks)
        policy_args = [
            (outcome.latents, micro_batch.task, micro_noise)
            for outcome, micro_batch, micro_noise in zip(
                learned.outcomes, batches, noises, strict=True
            )
        ]
        values = self.world.gather(torch.cat([first_values(model, *args) for args in policy_args]))
        policy = self._mean(
            lambda latents, task, noise: agent.policy_loss(latents, task, noise, values),
            agent.policy_params,
            policy_args,
        )
        agent.value_scale.copy_(policy.outcomes[0].value_scale)
        pi_norm = agent.step(agent.policy_optimizer, agent.policy_params, policy.gradients)
        model.update_target(agent.config.tau)
        norms = {"grad_norm": norm, "pi_grad_norm": pi_norm}
        return learned.metrics | policy.metrics | norms

    def _mean(
        self, loss: Callable[..., Any], params: list[nn.Parameter], micro_batches: Any
    ) -> _MeanLoss:
        """Average gradients and metrics of a loss over all micro-batches of all processes.

        Args:
            loss: the loss.
            params: parameters to differentiate with respect to.
            micro_batches: arguments of the loss for each micro-batch.
        """
        total: list[Tensor] = []
        outcomes: list[Any] = []
        for args in micro_batches:
            outcome, gradients = self.agent.differentiate(loss, params, *args)
            # Copied because CUDA graphs overwrite these results at the next micro-batch.
            outcomes.append(_detached_copy(outcome))
            if total:
                torch._foreach_add_(total, list(gradients))
            else:
                total = [gradient.clone() for gradient in gradients]
        torch._foreach_div_(total, len(outcomes))
        names = sorted(outcomes[0].metrics)
        metrics = [_mean([outcome.metrics[name] for outcome in outcomes]) for name in names]
        self.world.mean_([*total, *metrics])
        return _MeanLoss(tuple(total), dict(zip(names, metrics, strict=True)), outcomes)


def _detached_copy(outcome: Any) -> Any:
    """Return a copy of a loss's result with its own tensors and without graph."""
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
    """Return some rows of a batch that was sampled without priorities."""
    return Batch(
        obs=batch.obs[:, rows].contiguous(),
        action=batch.action[:, rows].contiguous(),
        reward=batch.reward[:, rows].contiguous(),
        terminated=batch.terminated[:, rows].contiguous(),
        task=None if batch.task is None else batch.task[rows],
    )
