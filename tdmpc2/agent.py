"""The TD-MPC2 agent: acts by planning, learns world model and policy prior (paper, Section 3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tdmpc2 import planner
from tdmpc2.agent_functions import AgentFunctions
from tdmpc2.common.interfaces import (
    Accelerable,
    Counters,
    EnvSpec,
    Event,
    FunctionSlot,
    Planning,
    WholeSteps,
)
from tdmpc2.common.numerics import gpu_forms
from tdmpc2.common.numerics.optim import Adam, Gradients, descend
from tdmpc2.common.numerics.seeding import derive_seed
from tdmpc2.common.replay.episode_replay import Replay
from tdmpc2.common.replay.types import Batch, to_device
from tdmpc2.common.training.base_agent import BaseAgent
from tdmpc2.config import TDMPC2Config
from tdmpc2.flops import plan_gflop, update_gflop
from tdmpc2.losses import ModelLoss, PolicyLoss
from tdmpc2.noise import NoiseSource, UpdateNoise
from tdmpc2.task_context import TaskContext
from tdmpc2.world_model import WorldModel


class TDMPC2(BaseAgent):
    """The TD-MPC2 agent: world model, optimizers, value scale and planner state.

    Losses and planning are pure functions of parameters, batch and noise (`losses`, `planner`);
    `act` and `update` sample the noise and keep the state.

    Args:
        config: hyperparameters and feature flags.
        env: shapes, tasks and episode lengths of the environment.
        seed: seed of the parameters and of all noise.
        device: device of parameters and noise.
    """

    config_class = TDMPC2Config
    seed_batch_class = "tdmpc2.seed_batch:SeedBatch"  # trains several seeds in one process
    multitask = True
    micro_batches = True

    def __init__(
        self, config: TDMPC2Config, env: EnvSpec, *, seed: int, device: torch.device | str = "cpu"
    ) -> None:
        self.config, self.env, self.device = config, env, torch.device(device)
        self.replay_length = config.horizon
        prioritized = config.prioritized_replay
        self.replay_priorities = (config.per_alpha, config.per_beta) if prioritized else None
        # Updates begin at decision number `first_update`, counted from 0 as in the official code.
        self.first_update = config.num_seed_decisions(max(env.episode_lengths))
        self.seed_decisions = self.first_update + 1
        self.seed_with_agent = config.seed_with == "agent"
        with self.parameter_seed(seed):
            self.model = WorldModel(config, env).to(self.device)
        learned = [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]
        self.model_params = [p for name, p in learned if not name.startswith("policy")]
        self.policy_params = [p for name, p in learned if name.startswith("policy")]
        self.optimizer, self.policy_optimizer = self._make_optimizers()
        self.train_noise = self._noise_source(derive_seed(seed, "train noise"))
        self.eval_noise = self._noise_source(derive_seed(seed, "evaluation noise"))
        self.value_scale = torch.ones((), device=self.device)
        discounts = [config.discount(length) for length in env.episode_lengths]
        self.discounts = torch.tensor(discounts, device=self.device)
        self.previous_mean: dict[bool, Tensor | None] = {True: None, False: None}
        self._last_min_std: tuple[float, Tensor] | None = None
        self.decisions = 0
        self.functions = AgentFunctions(self)

    @classmethod
    def gflop(cls, config: TDMPC2Config, obs_dim: int, action_dim: int) -> dict[str, float]:
        """Return the operations of a plan and an update, in GFLOP.

        Args:
            config: hyperparameters.
            obs_dim: observation dimension.
            action_dim: action dimension.
        """
        found = {"plan": plan_gflop(config, action_dim)} if config.planning else {}
        return found | {"update": update_gflop(config, obs_dim, action_dim)}

    def accelerable(self) -> Accelerable:
        """Declare what can be replaced by compiled and native versions."""
        c, f, m = self.config, self.functions, self.model
        names, pieces = ["prepare", "iterate", "model_loss", "policy_loss"], []
        if gpu_forms.wanted(self.device):
            names += ["choose", "gather"]
            pieces.append(FunctionSlot(f, "clip"))  # its norms are kept beyond a step
        planning = Planning(
            function=FunctionSlot(f, "plan"),
            networks=(m.dynamics, m.reward_head, m.policy, m.q_functions),
            rows=c.num_samples,
            optimizers=(self.optimizer, self.policy_optimizer),
        )
        return Accelerable(
            self.device,
            compiled=[FunctionSlot(f, name) for name in names],
            pieces=pieces,
            protected=[FunctionSlot(f, name) for name in ("plan", "differentiate")],
            networks=[m],
            native_layers="tdmpc2.kernels.layers:NATIVE",
            gpu_layers="tdmpc2.kernels.layers:TRITON",
            bf16_layers="tdmpc2.kernels.bf16_layers:NATIVE" if c.precision == "bf16" else None,
            planning=planning,
            whole_steps=None if self.model.multitask else self._whole_steps(),
        )

    def _whole_steps(self) -> WholeSteps:
        return WholeSteps(
            functions=[FunctionSlot(self.functions, name) for name in ("decide", "learn")],
            generators=(self.train_noise.generator, self.eval_noise.generator),
            optimizers=(self.optimizer, self.policy_optimizer),
        )

    def _make_optimizers(self) -> tuple[Adam, Adam]:
        """Return Adam for the model (encoder: lr·enc_lr_scale) and Adam for the policy."""
        c = self.config
        encoder = list(self.model.encoder.parameters())
        others = [p for p in self.model_params if not any(p is e for e in encoder)]
        groups = [{"params": encoder, "lr": c.lr * c.enc_lr_scale}, {"params": others}]
        model = Adam(groups, lr=c.lr, fused=True)
        policy = Adam(self.policy_params, lr=c.lr, eps=c.pi_eps, fused=True)
        return model, policy

    def _noise_source(self, seed: int) -> NoiseSource:
        generator = torch.Generator(self.device).manual_seed(seed)
        return NoiseSource(self.config, self.env.action_dim, self.env.pixels, generator)

    # --- schedule --------------------------------------------------------------------

    def updates_due(self, event: Event, counters: Counters) -> int:
        """Return the number of updates due after an event.

        `pretrain_updates` (default: as many as seed decisions) right after the seed decisions,
        then one update per decision.
        """
        if event != "decision":
            return 0
        self.decisions = counters.decisions
        last_index = counters.decisions - 1  # the official code counts decisions from 0
        if last_index < self.first_update:
            return 0
        if last_index == self.first_update:
            pretrain = self.config.pretrain_updates
            return self.first_update if pretrain is None else pretrain
        return 1

    def min_std(self) -> float:
        """Return σ_min of the planner."""
        return self.config.planning_min_std(self.decisions)

    # --- acting ----------------------------------------------------------------------

    @torch.no_grad()
    def act(
        self, obs: np.ndarray, *, first: np.ndarray, explore: bool, task: np.ndarray | None = None
    ) -> np.ndarray:
        """Return actions `(B, A)` for a batch of environments.

        Args:
            obs: `(B, *obs_shape)`.
            first: `(B,)`, True for environments at the first step of an episode.
            explore: True for training, with exploration noise; False for evaluation. Training and
                evaluation have separate generators and warm starts, so that evaluation does not
                change training.
            task: `(B,)`, task indices of a multi-task agent; None for one task.
        """
        observation = to_device(obs, self.device)
        tasks = None if task is None else to_device(task, self.device)
        self.model.renormalize_task_embedding(tasks)
        if not self.config.planning:
            noise, context = self._noise(explore), self.model.context(tasks)
            return self._act_with_prior(observation, context, noise, explore=explore)
        action, self.previous_mean[explore] = self.functions.decide(
            observation, tasks, self.warm_start(first, explore), self._min_std(), explore
        )
        return action.cpu().numpy()

    def follow_evaluation(self) -> None:
        """Project the embeddings of all tasks, as `act` does in an evaluation."""
        self.model.renormalize_task_embedding(torch.arange(self.env.num_tasks, device=self.device))

    def _min_std(self) -> Tensor:
        """Return σ_min as a tensor `()`, the same one as long as the value is the same."""
        value = self.min_std()
        if self._last_min_std is None or self._last_min_std[0] != value:
            self._last_min_std = value, torch.full((), value, device=self.device)
        return self._last_min_std[1]

    def decide(
        self, obs: Tensor, task: Tensor | None, mean: Tensor, min_std: Tensor, explore: bool
    ) -> tuple[Tensor, Tensor]:
        """Plan with noise of this agent; return action and μ. See `act` and `planner.plan`.

        Args:
            obs: `(B, *obs_shape)`.
            task: `(B,)`, task indices; None for one task.
            mean: `(H, B, A)`, initial μ.
            min_std: `()`, σ_min.
            explore: True for training, False for evaluation.
        """
        context, discount = self.model.context(task), self.discount(task, len(obs))
        plan = self.functions.plan(
            *(self.config, self.model, obs, context, discount, mean),
            self._noise(explore).plan(len(obs), explore=explore),
            min_std=min_std,
            preparation=self.functions.prepare,
            iteration=self.functions.iterate,
            choice=self.functions.choose,
        )
        return plan.action, plan.mean

    def _act_with_prior(
        self, obs: Tensor, context: TaskContext, noise: NoiseSource, *, explore: bool
    ) -> np.ndarray:
        """Act without planning: a sample of the policy prior if `explore`, else its mean."""
        policy_noise, shift = noise.prior(len(obs))
        sample = self.model.pi(self.model.encode(obs, context, shift), policy_noise, context)
        return (sample.action if explore else sample.mean).cpu().numpy()

    def _noise(self, explore: bool) -> NoiseSource:
        return self.train_noise if explore else self.eval_noise

    def seed_evaluation(self, seed: int) -> None:
        """Seed the noise of evaluation."""
        self.eval_noise.generator.manual_seed(seed)

    def discount(self, task: Tensor | None, batch: int) -> Tensor:
        """Return the discounts γ `(B,)` of B = `batch` rows with tasks `task`, `(B,)` or None."""
        return self.discounts.expand(batch) if task is None else self.discounts[task]

    def warm_start(self, first: np.ndarray, explore: bool) -> Tensor:
        """Return the initial mean `(H, B, A)` of the next plan; see `planner.warm_start`."""
        shape = (self.config.horizon, self.env.action_dim)
        return planner.warm_start(self.previous_mean[explore], first, *shape, self.device)

    # --- learning --------------------------------------------------------------------

    def update(self, replay: Replay) -> dict[str, Tensor]:
        """Take one gradient step on a batch from `replay` and return scalar metrics."""
        if self._can_gather(replay):
            return self.functions.learn(replay, replay.draw(self.config.batch_size))[0]
        batch = replay.sample(self.config.batch_size, self.replay_length).to(self.device)
        metrics, priority = self.functions.learn(batch._replace(start=None))
        if priority is not None:
            assert batch.start is not None
            replay.update_priorities(batch.start, priority)
        return metrics

    def _can_gather(self, replay: Replay) -> bool:
        """Return whether an update itself gathers its batch: on GPUs, with fewer kernels."""
        by_priority = self.config.prioritized_replay
        if by_priority or self.model.multitask or not gpu_forms.wanted(self.device):
            return False
        return isinstance(replay, Replay) and replay.device.type == self.device.type

    def learn(
        self, batch: Batch | Replay, places: Tensor | None = None
    ) -> tuple[dict[str, Tensor], Tensor | None]:
        """Take one gradient step on a batch with noise of this agent; see `update_on`.

        Args:
            batch: the batch, or the replay buffer that holds it.
            places: `(B,)`, places of the batch in the buffer (`Replay.draw`).
        """
        if isinstance(batch, Replay):
            assert places is not None
            batch = self.functions.gather(batch, places)._replace(start=None)
        return self.update_on(batch, self.train_noise.update(self.config.batch_size))

    def update_on(
        self, batch: Batch, noise: UpdateNoise
    ) -> tuple[dict[str, Tensor], Tensor | None]:
        """Take one gradient step on a given batch with given noise.

        Updates the model (encoder, dynamics, reward, Q-functions, task embedding), then the
        policy, then the target networks.

        Returns:
            Scalar metrics, and priorities `(B,)` of the rows (None without prioritized replay).
        """
        self.model.renormalize_task_embedding(batch.task)
        outcome, gradients = self.differentiate(self.model_loss, self.model_params, batch, noise)
        norm = self.step(self.optimizer, self.model_params, gradients)
        metrics = outcome.metrics | {"grad_norm": norm}
        metrics |= self.update_policy(outcome.latents, batch.task, noise)
        self.model.update_target(self.config.tau)
        return metrics, outcome.priority

    def update_policy(
        self, latents: Tensor, task: Tensor | None, noise: UpdateNoise
    ) -> dict[str, Tensor]:
        """Take one gradient step on the policy loss (paper, Eq. 4) and return scalar metrics.

        Args:
            latents: `(H + 1, B, latent_dim)`, detached latents of the model's rollout.
            task: `(B,)`, task indices; None for one task.
            noise: noise of this update.
        """
        self.model.renormalize_task_embedding(task)
        outcome, gradients = self.differentiate(
            self.policy_loss, self.policy_params, latents, task, noise
        )
        self.value_scale.copy_(outcome.value_scale)
        norm = self.step(self.policy_optimizer, self.policy_params, gradients)
        return outcome.metrics | {"pi_grad_norm": norm}

    def model_loss(self, batch: Batch, noise: UpdateNoise) -> ModelLoss:
        """Compute `losses.model_loss` with the parameters of this agent."""
        discount = self.discount(batch.task, batch.reward.shape[1])
        return self.functions.model_loss(self.config, self.model, batch, discount, noise)

    def policy_loss(
        self,
        latents: Tensor,
        task: Tensor | None,
        noise: UpdateNoise,
        values: Tensor | None = None,
    ) -> PolicyLoss:
        """Compute `losses.policy_loss` without changing the agent's value scale.

        Args:
            latents: `(H + 1, B, latent_dim)`, detached latents of the model's rollout.
            task: `(B,)`, task indices; None for one task.
            noise: noise of this update.
            values: `(B',)`, Q at t = 0 of the whole batch if `latents` is a micro-batch of it.
        """
        args = (self.config, self.model, latents, task, self.value_scale, noise, values)
        return self.functions.policy_loss(*args)

    def differentiate(
        self, loss: Callable[..., Any], params: list[nn.Parameter], *args: Any
    ) -> tuple[Any, Gradients]:
        """Return the result of a loss and its gradients.

        Args:
            loss: `self.model_loss` or `self.policy_loss`.
            params: parameters to differentiate with respect to.
            *args: arguments of `loss`.
        """
        return self.functions.differentiate(loss, params, *args)

    def step(self, optimizer: Adam, params: list[nn.Parameter], gradients: Gradients) -> Tensor:
        """Take one Adam step on gradients clipped to norm `grad_clip_norm` (20).

        Args:
            optimizer: optimizer of `params`.
            params: parameters to update.
            gradients: one gradient per parameter.

        Returns:
            The global norm of the gradients before clipping.
        """
        limit, clip = self.config.grad_clip_norm, self.functions.clip
        return descend(optimizer, params, gradients, limit, clip)

    # --- state -----------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return all state that resuming needs, as tensors and plain containers."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "policy_optimizer": self.policy_optimizer.state_dict(),
            "value_scale": self.value_scale.clone(),
            "train_noise": self.train_noise.generator.get_state(),
            "eval_noise": self.eval_noise.generator.get_state(),
            "previous_mean": dict(self.previous_mean),
            "decisions": self.decisions,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state returned by `state_dict`."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.policy_optimizer.load_state_dict(state["policy_optimizer"])
        self.value_scale.copy_(state["value_scale"])
        self.train_noise.generator.set_state(state["train_noise"])
        self.eval_noise.generator.set_state(state["eval_noise"])
        self.previous_mean = dict(state["previous_mean"])
        self.decisions = state["decisions"]
