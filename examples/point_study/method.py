"""A method in one file: a linear policy, regressed on rewarded actions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tdmpc2.common.interfaces import EnvSpec
from tdmpc2.common.training.base_agent import BaseAgent, BaseConfig


@dataclass(frozen=True)
class PursuitConfig(BaseConfig):
    """Hyperparameters; each is an option of the commands."""

    lr: float = 1e-2
    batch_size: int = 32


class Pursuit(BaseAgent):
    """Imitates the actions in the replay buffer, weighted by their rewards.

    Args:
        config: hyperparameters.
        env: shapes of the environment.
        seed: seed of weights and noise.
        device: device of the network.
    """

    config_class = PursuitConfig

    def __init__(
        self, config: PursuitConfig, env: EnvSpec, *, seed: int, device: Any = "cpu"
    ) -> None:
        super().__init__(config, env, seed=seed, device=device)
        with self.parameter_seed(seed):
            self.policy = nn.Linear(env.obs_shape[0], env.action_dim).to(self.device)
        self.optimizer = torch.optim.Adam(self.policy.parameters(), lr=config.lr)

    @torch.no_grad()
    def act(
        self, obs: np.ndarray, *, first: np.ndarray, explore: bool, task: np.ndarray | None = None
    ) -> np.ndarray:
        """Return actions `(B, A)`; see `Agent.act`."""
        action = self.policy(torch.as_tensor(obs, device=self.device))
        if explore:
            action = action + 0.3 * self.train_noise.normal(*action.shape)
        return action.clamp(-1, 1).cpu().numpy()

    def update(self, replay: Any) -> dict[str, Tensor]:
        """Take one gradient step; see `Agent.update`."""
        batch = replay.sample(self.config.batch_size, 1).to(self.device)
        error = (self.policy(batch.obs[0]) - batch.action[0]).square().sum(-1)
        loss = (batch.reward[0] * error).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return {"loss": loss.detach()}
