"""Soft Actor-Critic (SAC; Haarnoja et al., 2018, arXiv:1812.05905), a baseline of the paper.

Twin critics without normalization, a squashed Gaussian actor and a learned temperature.
"""

from __future__ import annotations

import copy
import math
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.flops import sac_update_gflop
from baselines.networks import MLP, num_parameters
from baselines.sac_config import SACConfig
from tdmpc2.common.interfaces import Accelerable, Counters, EnvSpec, Event, FunctionSlot
from tdmpc2.common.numerics.discount import episode_discount
from tdmpc2.common.numerics.optim import Adam, Draws, descend, differentiate, move_toward
from tdmpc2.common.numerics.seeding import derive_seed
from tdmpc2.common.replay.episode_replay import Replay
from tdmpc2.common.replay.types import Batch, to_device
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.training.base_agent import BaseAgent

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class ActorSample(NamedTuple):
    """Actions sampled from a squashed Gaussian.

    Attributes:
        action: `(..., A)`, sampled actions a.
        log_prob: `(...)`, ln π(a|s).
        mean: `(..., A)`, actions without noise.
    """

    action: Tensor
    log_prob: Tensor
    mean: Tensor


class Networks(nn.Module):
    """Actor, twin critics and their target networks, and the logarithm of the temperature α.

    Args:
        config: sizes, range of log σ and initial temperature.
        obs_dim: O, size of the observation.
        action_dim: A.
    """

    def __init__(self, config: SACConfig, obs_dim: int, action_dim: int) -> None:
        super().__init__()
        self.log_std_range = (config.log_std_min, config.log_std_max)
        hidden = [config.hidden_dim] * config.num_hidden
        common: dict[str, Any] = {"activation": "relu", "precision": config.precision}
        self.actor = MLP([obs_dim, *hidden, 2 * action_dim], **common)
        q = [obs_dim + action_dim, *hidden, 1]
        self.critics = nn.ModuleList(MLP(q, **common) for _ in range(2))
        self.target_critics = copy.deepcopy(self.critics).requires_grad_(False)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(config.initial_temperature)))

    def act(self, obs: Tensor, noise: Tensor) -> ActorSample:
        """Sample actions for observations `(..., O)` with standard normal noise ε `(..., A)`.

        With actor outputs (μ, s) (Appendix C of the SAC paper):

            log σ = log_std_min + ½·(log_std_max − log_std_min)·(tanh(s) + 1)
            u = μ + σ·ε,  a = tanh(u)
            ln π(a|s) = Σ_i [ln N(u_i; μ_i, σ_i) − ln(1 − tanh²(u_i))]
        """
        mean, raw = self.actor(obs).chunk(2, dim=-1)
        low, high = self.log_std_range
        log_std = low + 0.5 * (high - low) * (torch.tanh(raw) + 1)
        u = mean + log_std.exp() * noise
        gaussian = -0.5 * noise.square() - log_std - HALF_LOG_2PI
        log_slope = 2 * (math.log(2) - u - F.softplus(-2 * u))  # ln(1 − tanh²(u)), stable
        return ActorSample(torch.tanh(u), (gaussian - log_slope).sum(-1), torch.tanh(mean))

    def q(
        self, obs: Tensor, action: Tensor, *, target: bool = False, frozen: bool = False
    ) -> Tensor:
        """Return the values `(2, ...)` of both critics.

        Args:
            obs: `(..., O)`.
            action: `(..., A)`.
            target: whether to use the target networks.
            frozen: compute gradients for the inputs only, not for parameters.
        """
        x = torch.cat([obs, action], dim=-1)
        critics = self.target_critics if target else self.critics
        return torch.stack([critic(x, frozen=frozen)[..., 0] for critic in critics])


class Outcome(NamedTuple):
    """A scalar loss `()` and its metrics, scalar tensors by name."""

    loss: Tensor
    metrics: dict[str, Tensor]


def critic_loss(nets: Networks, batch: Batch, discount: float, noise: Tensor) -> Outcome:
    """Compute the soft Q-function loss (SAC paper, Section 4.2).

    J_Q = Σ_{j=1,2} mean_b (Q_j(s, a) − y)²,
    y = r + γ·(1 − d)·(min_j Q̄_j(s', a') − α·ln π(a'|s')),  a' ~ π(·|s'),

    where d is 1 if the episode terminated at s'.

    Args:
        nets: the networks.
        batch: B single transitions (sub-trajectories with H = 1).
        discount: γ.
        noise: `(B, A)`, standard normal, for a'.
    """
    obs, next_obs = batch.obs
    with torch.no_grad():
        next_sample = nets.act(next_obs, noise)
        temperature = nets.log_temperature.exp()
        value = nets.q(next_obs, next_sample.action, target=True).amin(0)
        soft_value = value - temperature * next_sample.log_prob
        target = batch.reward[0] + discount * (1 - batch.terminated[0]) * soft_value
    q = nets.q(obs, batch.action[0])
    loss = (q - target).square().mean(-1).sum()
    return Outcome(loss, {"critic_loss": loss.detach(), "q": q.detach().mean()})


def actor_loss(nets: Networks, obs: Tensor, target_entropy: float, noise: Tensor) -> Outcome:
    """Compute the sum of actor loss and temperature loss (SAC paper, Sections 4.2 and 5).

    J_π = mean_b [α·ln π(a|s) − min_j Q_j(s, a)],  a ~ π(·|s),  for the actor,
    J_α = mean_b [α·(−ln π(a|s) − target_entropy)],               for the temperature α.

    Each loss has gradients for its own parameters only; critics receive none.

    Args:
        nets: the networks.
        obs: `(B, O)`, observations s.
        target_entropy: target of the policy entropy in nats.
        noise: `(B, A)`, standard normal, for a.
    """
    sample = nets.act(obs, noise)
    temperature = nets.log_temperature.exp()
    q = nets.q(obs, sample.action, frozen=True).amin(0)
    actor = (temperature.detach() * sample.log_prob - q).mean()
    entropy = -sample.log_prob.detach().mean()
    metrics = {"actor_loss": actor.detach(), "entropy": entropy, "alpha": temperature.detach()}
    return Outcome(actor + temperature * (entropy - target_entropy), metrics)


class _Functions:
    """Functions that the agent calls through attributes, so that compiled ones can replace them."""

    def __init__(self) -> None:
        self.critic_loss = critic_loss
        self.actor_loss = actor_loss
        self.differentiate = differentiate


class SAC(BaseAgent):
    """The SAC agent: networks, optimizers and noise generators.

    Args:
        config: hyperparameters.
        env: shapes, task and episode length of the environment.
        seed: seed of the parameters and of all noise.
        device: device of parameters and noise.

    Raises:
        UserError: observations are images, or the environment has several tasks.
    """

    config_class = SACConfig
    replay_visibility: Literal["transition", "episode"] = "transition"

    def __init__(
        self, config: SACConfig, env: EnvSpec, *, seed: int, device: torch.device | str = "cpu"
    ) -> None:
        if env.pixels or env.num_tasks > 1:
            raise UserError("method=sac: supports one task with obs=state only; use method=tdmpc2")
        self.config, self.env, self.device = config, env, torch.device(device)
        self.seed_decisions = config.seed_decisions
        with self.parameter_seed(seed):
            self.nets = Networks(config, env.obs_shape[0], env.action_dim).to(self.device)
        self.critic_params = list(self.nets.critics.parameters())
        self.actor_params = [*self.nets.actor.parameters(), self.nets.log_temperature]
        lr = config.learning_rate(env.task_names[0])
        self.critic_optimizer = Adam(self.critic_params, lr=lr, fused=True)
        self.actor_optimizer = Adam(self.actor_params, lr=lr, fused=True)
        fixed = config.discount_from == "fixed"
        self.discount = config.discount if fixed else episode_discount(env.episode_lengths[0])
        entropy = config.target_entropy
        self.target_entropy = -float(env.action_dim) if entropy is None else entropy
        self.train_noise = Draws(derive_seed(seed, "train noise"), self.device)
        self.eval_noise = Draws(derive_seed(seed, "evaluation noise"), self.device)
        self.num_updates = 0
        self.actor_metrics: dict[str, Tensor] = {}  # of the last update of the actor
        self.functions = _Functions()

    @classmethod
    def gflop(cls, config: SACConfig, obs_dim: int, action_dim: int) -> dict[str, float]:
        """Return the operations of an update, in GFLOP.

        Args:
            config: hyperparameters.
            obs_dim: observation dimension.
            action_dim: action dimension.
        """
        return {"update": sac_update_gflop(config, obs_dim, action_dim)}

    def num_parameters(self) -> int:
        """Return the number of learned parameters, without target networks and temperature."""
        return num_parameters(self.nets.actor, self.nets.critics)

    def accelerable(self) -> Accelerable:
        """Declare what can be replaced: losses on a GPU, networks on a CPU."""
        f = self.functions
        return Accelerable(
            self.device,
            compiled=[FunctionSlot(f, name) for name in ("critic_loss", "actor_loss")],
            protected=[FunctionSlot(f, "differentiate")],
            compiled_on=["cuda"],
            networks=[self.nets],
            native_layers="baselines.kernels.layers:NATIVE",
        )

    def updates_due(self, event: Event, counters: Counters) -> int:
        """Return the number of updates due: one per decision after the seed decisions."""
        return int(event == "decision" and counters.decisions > self.config.seed_decisions)

    @torch.no_grad()
    def act(
        self, obs: np.ndarray, *, first: np.ndarray, explore: bool, task: np.ndarray | None = None
    ) -> np.ndarray:
        """Return actions `(B, A)`: sampled in training, means in evaluation.

        Args:
            obs: `(B, O)`.
            first: `(B,)`, True for environments at the first step of an episode; not used.
            explore: True for training, False for evaluation.
            task: not used.
        """
        source = self.train_noise if explore else self.eval_noise
        noise = source.normal(len(obs), self.env.action_dim)
        sample = self.nets.act(to_device(obs, self.device), noise)
        return (sample.action if explore else sample.mean).cpu().numpy()

    def seed_evaluation(self, seed: int) -> None:
        """Seed the noise of evaluation."""
        self.eval_noise.generator.manual_seed(seed)

    def update(self, replay: Replay) -> dict[str, Tensor]:
        """Take one gradient step on a batch from `replay` and return scalar metrics."""
        size = self.config.batch_size
        batch = replay.sample(size, 1).to(self.device)
        shape = (size, self.env.action_dim)
        return self.update_on(
            batch, self.train_noise.normal(*shape), self.train_noise.normal(*shape)
        )

    def update_on(self, batch: Batch, noise: Tensor, actor_noise: Tensor) -> dict[str, Tensor]:
        """Take one gradient step on a given batch with given noise and return scalar metrics.

        Updates the critics; every `actor_every` steps actor and temperature; every `target_every`
        steps the target critics, θ̄ ← θ̄ + τ·(θ − θ̄). Between updates of the actor its metrics are
        those of the last one; before the first one, those of its loss at the first update.

        Args:
            batch: B single transitions.
            noise: `(B, A)`, standard normal, for the actions in the target.
            actor_noise: `(B, A)`, standard normal, for the actions in the actor loss.
        """
        batch = batch._replace(start=None)  # compiled losses do not need row numbers
        args = (self.nets, batch, self.discount, noise)
        f = self.functions
        critic, gradients = f.differentiate(f.critic_loss, self.critic_params, *args)
        norm = descend(self.critic_optimizer, self.critic_params, gradients)
        metrics = critic.metrics | {"grad_norm": norm}
        self.num_updates += 1
        actor_due = self.num_updates % self.config.actor_every == 0
        if actor_due or not self.actor_metrics:
            actor_args = (self.nets, batch.obs[0], self.target_entropy, actor_noise)
            actor, gradients = f.differentiate(f.actor_loss, self.actor_params, *actor_args)
            if actor_due:
                norm = descend(self.actor_optimizer, self.actor_params, gradients)
            else:
                norm = nn.utils.get_total_norm(gradients)
            known = actor.metrics | {"pi_grad_norm": norm}
            self.actor_metrics = {name: value.clone() for name, value in known.items()}
        if self.num_updates % self.config.target_every == 0:
            online, target = self.nets.critics, self.nets.target_critics
            move_toward(target.parameters(), online.parameters(), self.config.tau)
        return metrics | self.actor_metrics

    def state_dict(self) -> dict[str, Any]:
        """Return all state that resuming needs, as tensors and plain containers."""
        return {
            "nets": self.nets.state_dict(),
            "critic_optimizer": self.critic_optimizer.state_dict(),
            "actor_optimizer": self.actor_optimizer.state_dict(),
            "train_noise": self.train_noise.generator.get_state(),
            "eval_noise": self.eval_noise.generator.get_state(),
            "num_updates": self.num_updates,
            "actor_metrics": dict(self.actor_metrics),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state returned by `state_dict`."""
        self.nets.load_state_dict(state["nets"])
        self.critic_optimizer.load_state_dict(state["critic_optimizer"])
        self.actor_optimizer.load_state_dict(state["actor_optimizer"])
        self.train_noise.generator.set_state(state["train_noise"])
        self.eval_noise.generator.set_state(state["eval_noise"])
        self.num_updates = state["num_updates"]
        metrics = state.get("actor_metrics", {})  # not in checkpoints of version 0.4.0
        self.actor_metrics = {name: value.to(self.device) for name, value in metrics.items()}
