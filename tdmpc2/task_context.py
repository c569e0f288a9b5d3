"""What networks know of the task: its embedding and its valid actions (paper, Section 3.3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tdmpc2.common.interfaces import EnvSpec
from tdmpc2.layers import (
    EMBEDDING_INIT,
)


class TaskContext(NamedTuple):
    """Task-dependent inputs of the networks; both None in single-task learning.

    Attributes:
        embedding: `(..., B, task_dim)`, task embeddings e, broadcast over leading dimensions.
        action_mask: `(..., B, A)`, 1 for valid action dimensions and 0 for padding.
    """

    embedding: Tensor | None = None
    action_mask: Tensor | None = None

    def detach(self) -> TaskContext:
        """Return the context with a detached task embedding."""
        if self.embedding is None:
            return self
        return self._replace(embedding=self.embedding.detach())

    def over_samples(self) -> TaskContext:
        """Insert a dimension for the planner's samples: `(B, dim)` becomes `(B, 1, dim)`."""
        return TaskContext(*(None if x is None else x.unsqueeze(-2) for x in self))


NO_TASK = TaskContext()


class TaskAware(nn.Module):
    """A model for one task, or for several tasks with learned embeddings (paper, Section 3.3)."""

    config: Any
    action_masks: Tensor
    next: Callable[..., Tensor]

    def _add_tasks(self, env: EnvSpec, task_dim: int) -> None:
        """Create task embeddings, initially U(−0.02, 0.02), and action masks if `task_dim > 0`."""
        self.task_embedding: nn.Parameter | None = None
        if task_dim:
            table = torch.empty(env.num_tasks, task_dim)
            self.task_embedding = nn.Parameter(
                nn.init.uniform_(table, -EMBEDDING_INIT, EMBEDDING_INIT)
            )
            valid = torch.arange(env.action_dim) < torch.tensor(env.action_dims)[:, None]
            self.register_buffer("action_masks", valid.float(), persistent=False)

    def context(self, task: Tensor | None) -> TaskContext:
        """Return embedding and action mask of the rows; `NO_TASK` without task embeddings.

        Args:
            task: `(B,)`, task index of every row; None if the model has only one task.

        Raises:
            ValueError: `task` is None for a model of several tasks.
        """
        if self.task_embedding is None:
            return NO_TASK
        if task is None:
            if len(self.task_embedding) > 1:
                raise ValueError("task=None: a multi-task model needs the task index of every row")
            return TaskContext(self.task_embedding, self.action_masks)
        return TaskContext(self.task_embedding[task], self.action_masks[task])

    def rollout(
        self,
        latent: Tensor,
        actions: Tensor,
        context: TaskContext = NO_TASK,
        product: Tensor | None = None,
    ) -> list[Tensor]:
        """Return the latents z_0..z_H of action sequences.

        Args:
            latent: z_0, `(..., L)`.
            actions: `(H, ..., A)`.
            context: task context of the rows.
            product: not used; see `WorldModel.rollout`.
        """
        latents = [latent]
        for action in actions:
            latents.append(self.next(latents[-1], action, context))
        return latents

    @torch.no_grad()
    def renormalize_task_embedding(self, task: Tensor | None) -> None:
        """Project the embeddings of `task` onto the unit ball in place: ‖e‖₂ ≤ 1 (Section 3.3)."""
        if self.task_embedding is None or not self.config.normalize_task_embedding:
            return
        if task is None:  # see `context`
            task = torch.zeros(1, dtype=torch.long, device=self.task_embedding.device)
        torch.embedding_renorm_(self.task_embedding.data, task, 1.0, 2.0)
