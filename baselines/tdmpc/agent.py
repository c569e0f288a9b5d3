"""TD-MPC: planning with a task-oriented latent model, learned between episodes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from baselines.networks import num_parameters, use_kernels
from baselines.tdmpc import losses
from baselines.tdmpc.config import TDMPCConfig
from baselines.tdmpc.model import TOLD
from tdmpc2 import kernels as tdmpc2_kernels
from tdmpc2 import planner
from tdmpc2.common.interfaces import Counters, EnvSpec, Event
from tdmpc2.common.numerics.compile import Compiler
from tdmpc2.common.numerics.optim import (
    Draws,
    descend,
    differentiate,
    episode_discount,
    move_toward,
)
from tdmpc2.common.numerics.seeding import derive_seed
from tdmpc2.common.replay.episode_replay import Replay
from tdmpc2.common.replay.types import Batch, to_device
from tdmpc2.common.system.errors import UserError
from tdmpc2.kernels.blocked import BlockedWeights
from tdmpc2.noise import PlanNoise


class TDMPC:
    """The agent: model, optimizers, and the plans it goes on from.

    Differs from the released code in what can't be seen in results: it samples with replacement
    also once the memory is full, and sub-trajectories may start one transition later.

    Args:
        config: hyperparameters.
        env: shapes and tasks.
        seed: of the parameters and of every draw.
        device: where parameters and noise live.

    Raises:
        UserError: observations are images.
    """

    config_class = TDMPCConfig
    num_envs = 1
    replay_visibility: Literal["transition", "episode"] = "episode"
    replay_across_episodes = False

    def __init__(
        self, config: TDMPCConfig, env: EnvSpec, *, seed: int, device: torch.device | str = "cpu"
    ) -> None:
        if env.pixels:
            raise UserError("method tdmpc learns from states here; use obs=state")
        config = config.for_task(env.task_names[0] if env.num_tasks == 1 else "")
        self.config, self.env, self.device = config, env, torch.device(device)
        self.replay_length = config.horizon
        self.replay_priorities = (config.per_alpha, config.per_beta)
        self.seed_decisions = config.seed_decisions - 1  # they are counted from 0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "parameters"))
            self.model = TOLD(config, env).to(self.device)
        self.policy_params = list(self.model.policy.parameters())
        self.model_params = [
            p
            for name, p in self.model.named_parameters()
            if p.requires_grad and not name.startswith("policy.")
        ]
        assert config.lr is not None
        self.optimizer = torch.optim.Adam(self.model_params, lr=config.lr, fused=True)
        self.policy_optimizer = torch.optim.Adam(self.policy_params, lr=config.lr, fused=True)
        fixed = config.discount_from == "fixed"
        discounts = [
            config.discount if fixed else episode_discount(length) for length in env.episode_lengths
        ]
        self.discounts = torch.tensor(discounts, device=self.device)
        self.train_noise = Draws(derive_seed(seed, "train noise"), self.device)
        self.eval_noise = Draws(derive_seed(seed, "evaluation noise"), self.device)
        self.previous_mean: dict[bool, Tensor | None] = {True: None, False: None}
        self.decisions = 0  # at the end of the last episode, where schedules stand
        self.num_updates = 0
        self.compiler = compiler = Compiler(self.device)
        self._preparation = compiler.compile(planner.prepare)
        self._iteration = compiler.compile(planner.iterate)
        self._model_loss = compiler.compile(losses.model_loss)
        self._policy_loss = compiler.compile(losses.policy_loss)
        self._plan = compiler.protect(planner.plan)
        self._blocked: BlockedWeights | None = None
        self._differentiate = compiler.protect(differentiate)

    def num_parameters(self) -> int:
        """Learned parameters; target networks don't count."""
        return num_parameters(self.model)

    def compile(self, on_failure: Callable[[], None] | None = None) -> None:
        """From now on, all is compiled on a GPU, and goes through native kernels on a CPU."""
        if self.device.type == "cpu":
            use_kernels(self.model)
            if tdmpc2_kernels.load() and BlockedWeights.possible():
                self._blocked = BlockedWeights(self.model.blockable())
        else:
            self.compiler.switch_on(on_failure)

    # --- schedule --------------------------------------------------------------------

    def updates_due(self, event: Event, counters: Counters) -> int:
        """After an episode as many as it had decisions; a burst when seeding ends."""
        c = self.config
        if event != "episode_end":
            return 0
        self.decisions = counters.decisions
        if counters.decisions < c.seed_decisions:
            return 0
        if counters.num_updates == 0:
            return c.seed_decisions if c.pretrain_updates is None else c.pretrain_updates
        return counters.episode_decisions

    # --- acting ----------------------------------------------------------------------

    @torch.no_grad()
    def act(
        self, obs: np.ndarray, *, first: np.ndarray, explore: bool, task: np.ndarray | None = None
    ) -> np.ndarray:
        """Actions `(B, A)` for a batch of environments; see `Agent.act`.

        Horizon and least standard deviation of the plan are those of the episode's beginning.
        """
        c, tasks = self.config, None if task is None else to_device(task, self.device)
        horizon = c.planning_horizon(self.decisions)
        self.model.renormalize_task_embedding(tasks)
        with contextlib.nullcontext() if self._blocked is None else self._blocked.in_use():
            result = self._plan(
                c,
                self.model,
                to_device(obs, self.device),
                self.model.context(tasks),
                self.discount(tasks, len(obs)),
                self.warm_start(first, explore, horizon),
                self.plan_noise(len(obs), horizon, explore=explore),
                min_std=c.planning_min_std(self.decisions),
                clip=c.clip_action,
                preparation=self._preparation,
                iteration=self._iteration,
            )
        self.previous_mean[explore] = result.mean
        return result.action.cpu().numpy()

    def plan_noise(self, batch: int, horizon: int, *, explore: bool) -> PlanNoise:
        """Draws for one planning call."""
        c, a = self.config, self.env.action_dim
        draws = self.train_noise if explore else self.eval_noise
        assert c.iterations is not None
        return PlanNoise(
            policy=draws.normal(horizon, batch, c.num_pi_samples, a),
            samples=draws.normal(c.iterations, horizon, batch, c.num_samples, a),
            terminal_policy=draws.normal(c.iterations, batch, c.num_samples + c.num_pi_samples, a),
            heads=None,
            elite=draws.exponential(batch, c.num_elites),
            action=draws.normal(batch, a) if explore else None,
        )

    def warm_start(self, first: np.ndarray, explore: bool, horizon: int) -> Tensor:
        """See `planner.warm_start`."""
        shape = (horizon, self.env.action_dim)
        return planner.warm_start(self.previous_mean[explore], first, *shape, self.device)

    def discount(self, task: Tensor | None, batch: int) -> Tensor:
        """Discounts `(B,)` of the rows."""
        return self.discounts.expand(batch) if task is None else self.discounts[task]

    def seed_evaluation(self, seed: int) -> None:
        """Re-seeds the noise of evaluation."""
        self.eval_noise.generator.manual_seed(seed)

    # --- learning --------------------------------------------------------------------

    def update(self, replay: Replay) -> dict[str, Tensor]:
        """One gradient step on a batch drawn by priority, whose priorities it renews."""
        batch = replay.sample(self.config.batch_size, self.replay_length).to(self.device)
        shape = (self.config.batch_size, self.env.action_dim)
        noise = self.train_noise.normal(2 * self.config.horizon + 1, *shape)
        metrics, priority = self.update_on(batch, noise)
        if batch.weight is not None:  # datasets are sampled without priorities
            assert batch.start is not None
            replay.update_priorities(batch.start, priority)
        return metrics

    def update_on(self, batch: Batch, noise: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """One gradient step of model and policy on a given batch.

        Args:
            batch: of H transitions.
            noise: `(2H + 1, B, A)`: H for the actions of the target, the rest for the policy's.

        Returns:
            Scalar metrics, and the rows' priorities `(B,)`.
        """
        c, model = self.config, self.model
        batch = batch._replace(start=None)  # compiled losses need no row numbers
        target_noise, policy_noise = noise[: c.horizon], noise[c.horizon :]
        model.renormalize_task_embedding(batch.task)
        discount = self.discount(batch.task, batch.reward.shape[1])
        outcome, gradients = self._differentiate(
            self._model_loss, self.model_params, *(c, model, batch, discount, target_noise)
        )
        norm = descend(self.optimizer, self.model_params, gradients, c.grad_clip_norm)

        model.renormalize_task_embedding(batch.task)
        policy, gradients = self._differentiate(
            self._policy_loss,
            self.policy_params,
            *(c, model, outcome.latents, batch.task, policy_noise),
        )
        pi_norm = descend(self.policy_optimizer, self.policy_params, gradients, c.grad_clip_norm)

        if self._blocked is not None:
            self._blocked.forget()
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
        """Everything that resuming needs, as tensors and plain containers."""
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
        """Restores what `state_dict` returned."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.policy_optimizer.load_state_dict(state["policy_optimizer"])
        self.train_noise.generator.set_state(state["train_noise"])
        self.eval_noise.generator.set_state(state["eval_noise"])
        self.previous_mean = dict(state["previous_mean"])
        self.decisions = state["decisions"]
        self.num_updates = state["num_updates"]
