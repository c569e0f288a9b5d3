"""The TD-MPC agent: plans with a task-oriented latent model and learns after each episode."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from baselines.flops import tdmpc_plan_gflop, tdmpc_update_gflop
from baselines.networks import num_parameters
from baselines.tdmpc import losses
from baselines.tdmpc.config import TDMPCConfig
from baselines.tdmpc.model import TOLD
from tdmpc2 import planner
from tdmpc2.common.interfaces import (
    Accelerable,
    Counters,
    EnvSpec,
    Event,
    FunctionSlot,
    Planning,
)
from tdmpc2.common.numerics.discount import episode_discount
from tdmpc2.common.numerics.optim import Adam, Draws, descend, differentiate, move_toward
from tdmpc2.common.numerics.seeding import derive_seed
from tdmpc2.common.replay.episode_replay import Replay
from tdmpc2.common.replay.types import Batch, to_device
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.training.base_agent import BaseAgent
from tdmpc2.noise import PlanNoise


class _Functions:
    """Functions that the agent calls through attributes, so that compiled ones can replace them."""

    def __init__(self) -> None:
        self.prepare = planner.prepare
        self.iterate = planner.iterate
        self.plan = planner.plan
        self.model_loss = losses.model_loss
        self.policy_loss = losses.policy_loss
        self.differentiate = differentiate


class TDMPC(BaseAgent):
    """The TD-MPC agent: model, optimizers and planner state.

    Args:
        config: hyperparameters.
        env: shapes, tasks and episode lengths of the environment.
        seed: seed of the parameters and of all noise.
        device: device of parameters and noise.

    Raises:
        UserError: observations are images.
    """

    # Differs from the official code, without visible effect on results: the replay buffer is
    # sampled with replacement also when it is full, and sub-trajectories may start one transition
    # later.
    config_class = TDMPCConfig
    multitask = True
    updates_within_episodes = False

    def __init__(
        self, config: TDMPCConfig, env: EnvSpec, *, seed: int, device: torch.device | str = "cpu"
    ) -> None:
        if env.pixels:
            raise UserError("method=tdmpc: supports obs=state only; use tdmpc2 for pixels")
        config = config.for_task(env.task_names[0] if env.num_tasks == 1 else "")
        self.config, self.env, self.device = config, env, torch.device(device)
        self.replay_length = config.horizon
        self.replay_priorities = (config.per_alpha, config.per_beta)
        self.seed_decisions = config.seed_decisions
        with self.parameter_seed(seed):
            self.model = TOLD(config, env).to(self.device)
        self.policy_params = list(self.model.policy.parameters())
        self.model_params = [
            p
            for name, p in self.model.named_parameters()
            if p.requires_grad and not name.startswith("policy.")
        ]
        assert config.lr is not None
        self.optimizer = Adam(self.model_params, lr=config.lr, fused=True)
        self.policy_optimizer = Adam(self.policy_params, lr=config.lr, fused=True)
        fixed = config.discount_from == "fixed"
        discounts = [
            config.discount if fixed else episode_discount(length) for length in env.episode_lengths
        ]
        self.discounts = torch.tensor(discounts, device=self.device)
        self.train_noise = Draws(derive_seed(seed, "train noise"), self.device)
        self.eval_noise = Draws(derive_seed(seed, "evaluation noise"), self.device)
        self.previous_mean: dict[bool, Tensor | None] = {True: None, False: None}
        self.decisions = 0  # at the end of the last episode; schedules use this value
        self.num_updates = 0
        self.functions = _Functions()

    @classmethod
    def gflop(cls, config: TDMPCConfig, obs_dim: int, action_dim: int) -> dict[str, float]:
        """Return the operations of a plan and an update, in GFLOP.

        Args:
            config: hyperparameters.
            obs_dim: observation dimension.
            action_dim: action dimension.
        """
        plan = tdmpc_plan_gflop(config, action_dim)
        return {"plan": plan, "update": tdmpc_update_gflop(config, obs_dim, action_dim)}

    def num_parameters(self) -> int:
        """Return the number of learned parameters, without target networks."""
        return num_parameters(self.model)

    def accelerable(self) -> Accelerable:
        """Declare what can be replaced: planning and losses on a GPU, networks on a CPU."""
        c, f, m = self.config, self.functions, self.model
        names = ("prepare", "iterate", "model_loss", "policy_loss")
        bf16 = c.precision == "bf16"
        return Accelerable(
            self.device,
            compiled=[FunctionSlot(f, name) for name in names],
            protected=[FunctionSlot(f, name) for name in ("plan", "differentiate")],
            compiled_on=["cuda"],
            networks=[m],
            native_layers="baselines.kernels.layers:NATIVE",
            bf16_layers="baselines.kernels.bf16_layers:NATIVE" if bf16 else None,
            planning=Planning(
                function=FunctionSlot(f, "plan"),
                networks=[m.dynamics, m.reward_head, m.policy, m.q_functions],
                rows=c.num_samples + c.num_pi_samples,
                optimizers=[self.optimizer, self.policy_optimizer],
            ),
        )

    # --- schedule --------------------------------------------------------------------

    def updates_due(self, event: Event, counters: Counters) -> int:
        """Return the number of updates due after an event.

        After an episode, one update per decision of it; after the first episode that completes
        the seed decisions, `pretrain_updates` (default: as many as seed decisions).
        """
        c = self.config
        if event != "episode_end":
            return 0
        self.decisions = counters.decisions
        if counters.decisions < c.seed_decisions:
            return 0
        if counters.decisions - counters.episode_decisions < c.seed_decisions:
            return c.seed_decisions if c.pretrain_updates is None else c.pretrain_updates
        return counters.episode_decisions

    # --- acting ----------------------------------------------------------------------

    @torch.no_grad()
    def act(
        self, obs: np.ndarray, *, first: np.ndarray, explore: bool, task: np.ndarray | None = None
    ) -> np.ndarray:
        """Return actions `(B, A)` for a batch of environments.

        Horizon and σ_min of the planner are constant during an episode.

        Args:
            obs: `(B, O)`.
            first: `(B,)`, True for environments at the first step of an episode.
            explore: True for training, with exploration noise; False for evaluation.
            task: `(B,)`, task indices of a multi-task agent; None for one task.
        """
        c, tasks = self.config, None if task is None else to_device(task, self.device)
        horizon = c.planning_horizon(self.decisions)
        self.model.renormalize_task_embedding(tasks)
        result = self.functions.plan(
            c,
            self.model,
            to_device(obs, self.device),
            self.model.context(tasks),
            self.discount(tasks, len(obs)),
            self.warm_start(first, explore, horizon),
            self.plan_noise(len(obs), horizon, explore=explore),
            min_std=c.planning_min_std(self.decisions),
            clip=c.clip_action,
            preparation=self.functions.prepare,
            iteration=self.functions.iterate,
        )
        self.previous_mean[explore] = result.mean
        return result.action.cpu().numpy()

    def plan_noise(self, batch: int, horizon: int, *, explore: bool) -> PlanNoise:
        """Sample the noise of one planning call.

        Args:
            batch: B, the number of environments.
            horizon: H of this plan.
            explore: whether to include exploration noise.
        """
        c, a = self.config, self.env.action_dim
        source = self.train_noise if explore else self.eval_noise
        assert c.iterations is not None
        num_sequences = c.num_samples + c.num_pi_samples
        return PlanNoise(
            policy=source.normal(horizon, batch, c.num_pi_samples, a),
            samples=source.normal(c.iterations, horizon, batch, c.num_samples, a),
            terminal_policy=source.normal(c.iterations, batch, num_sequences, a),
            heads=None,
            elite=source.exponential(batch, c.num_elites),
            action=source.normal(batch, a) if explore else None,
        )

    def warm_start(self, first: np.ndarray, explore: bool, horizon: int) -> Tensor:
        """Return the initial mean `(H, B, A)` of the next plan; see `planner.warm_start`.

        Args:
            first: `(B,)`, True for environments at the first step of an episode.
            explore: True for training, False for evaluation.
            horizon: H of the next plan.
        """
        shape = (horizon, self.env.action_dim)
        return planner.warm_start(self.previous_mean[explore], first, *shape, self.device)

    def discount(self, task: Tensor | None, batch: int) -> Tensor:
        """Return the discounts γ `(B,)` of B = `batch` rows with tasks `task`, `(B,)` or None."""
        return self.discounts.expand(batch) if task is None else self.discounts[task]

    def seed_evaluation(self, seed: int) -> None:
        """Seed the noise of evaluation."""
        self.eval_noise.generator.manual_seed(seed)

    # --- learning --------------------------------------------------------------------

    def update(self, replay: Replay) -> dict[str, Tensor]:
        """Take one gradient step on a batch from `replay` and return scalar metrics.

        Updates the priorities of the batch unless it was sampled without priorities.
        """
        batch = replay.sample(self.config.batch_size, self.replay_length).to(self.device)
        shape = (self.config.batch_size, self.env.action_dim)
        noise = self.train_noise.normal(2 * self.config.horizon + 1, *shape)
        metrics, priority = self.update_on(batch, noise)
        if batch.weight is not None:  # datasets are sampled without priorities
            assert batch.start is not None
            replay.update_priorities(batch.start, priority)
        return metrics

    def update_on(self, batch: Batch, noise: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Take one gradient step on a given batch with given noise.

        Updates the model, then the policy; every `target_every` steps the target encoder and
        Q-functions, θ̄ ← θ̄ + τ·(θ − θ̄).

        Args:
            batch: sub-trajectories of H transitions.
            noise: `(2H + 1, B, A)`, standard normal: the first H for the actions in the target,
                the last H + 1 for those in the policy loss.

        Returns:
            Scalar metrics, and new priorities `(B,)` of the rows.
        """
        c, model = self.config, self.model
        batch = batch._replace(start=None)  # compiled losses do not need row numbers
        target_noise, policy_noise = noise[: c.horizon], noise[c.horizon :]
        model.renormalize_task_embedding(batch.task)
        discount = self.discount(batch.task, batch.reward.shape[1])
        outcome, gradients = self.functions.differentiate(
            self.functions.model_loss, self.model_params, *(c, model, batch, discount, target_noise)
        )
        norm = descend(self.optimizer, self.model_params, gradients, c.grad_clip_norm)

        model.renormalize_task_embedding(batch.task)
        policy, gradients = self.functions.differentiate(
            self.functions.policy_loss,
            self.policy_params,
            *(c, model, outcome.latents, batch.task, policy_noise),
        )
        pi_norm = descend(self.policy_optimizer, self.policy_params, gradients, c.grad_clip_norm)

        self.num_updates += 1
        if self.num_updates % c.target_every == 0:
            move_toward(
                [*model.target_encoder.parameters(), *model.target_q_functions.parameters()],
                [*model.encoder.parameters(), *model.q_functions.parameters()],
                c.tau,
            )
        norms = {"grad_norm": norm, "pi_grad_norm": pi_norm}
        return outcome.metrics | policy.metrics | norms, outcome.priority

    # --- state -----------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return all state that resuming needs, as tensors and plain containers."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "policy_optimizer": self.policy_optimizer.state_dict(),
            "train_noise": self.train_noise.generator.get_state(),
            "eval_noise": self.eval_noise.generator.get_state(),
            "previous_mean": dict(self.previous_mean),
            "decisions": self.decisions,
            "num_updates": self.num_updates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state returned by `state_dict`."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.policy_optimizer.load_state_dict(state["policy_optimizer"])
        self.train_noise.generator.set_state(state["train_noise"])
        self.eval_noise.generator.set_state(state["eval_noise"])
        self.previous_mean = dict(state["previous_mean"])
        self.decisions = state["decisions"]
        self.num_updates = state["num_updates"]
