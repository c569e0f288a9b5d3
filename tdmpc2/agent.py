"""TD-MPC2: acting by planning, the model loss and the policy loss (paper, Section 3)."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tdmpc2.common.protocols import Counters, EnvSpec, Event
from tdmpc2.common.replay import Batch, Replay
from tdmpc2.common.seeding import derive_seed
from tdmpc2.config import TDMPC2Config
from tdmpc2.noise import NoiseSource, UpdateNoise
from tdmpc2.planner import plan
from tdmpc2.world_model import TaskContext, WorldModel

VALUE_PERCENTILES = (0.05, 0.95)


class TDMPC2:
    """The agent: world model, optimisers, value scale and planner state.

    The maths of `model_loss`, `policy_loss` and planning is a pure function of parameters,
    batch and noise; `act` and `update` only draw the noise and keep the state.

    Args:
        config: hyperparameters and feature flags.
        env: shapes and tasks.
        seed: of the parameters and of every draw.
        device: where parameters and noise live.
    """

    config_class = TDMPC2Config
    num_envs = 1
    replay_visibility: Literal["transition", "episode"] = "episode"

    def __init__(
        self, config: TDMPC2Config, env: EnvSpec, *, seed: int, device: torch.device | str = "cpu"
    ) -> None:
        self.config, self.env, self.device = config, env, torch.device(device)
        self.replay_length = config.horizon
        self.seed_decisions = config.num_seed_decisions(max(env.episode_lengths))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "parameters"))
            self.model = WorldModel(config, env).to(self.device)
        self.model_params = [
            p
            for name, p in self.model.named_parameters()
            if p.requires_grad and not name.startswith("policy.")
        ]
        self.policy_params = list(self.model.policy.parameters())
        self.optimizer, self.policy_optimizer = self._make_optimizers()
        self.train_noise = self._noise_source(derive_seed(seed, "train noise"))
        self.eval_noise = self._noise_source(derive_seed(seed, "evaluation noise"))
        self.value_scale = torch.ones((), device=self.device)
        discounts = [config.discount(length) for length in env.episode_lengths]
        self.discounts = torch.tensor(discounts, device=self.device)
        self.rho_powers = (
            config.rho ** torch.arange(config.horizon + 1, device=self.device)[:, None]
        )
        self.previous_mean: dict[bool, Tensor | None] = {True: None, False: None}
        self.decisions = 0

    def _make_optimizers(self) -> tuple[torch.optim.Adam, torch.optim.Adam]:
        """Adam for the model (encoder at a lower rate) and one of its own for the policy."""
        c = self.config
        encoder = list(self.model.encoder.parameters())
        others = [p for p in self.model_params if not any(p is e for e in encoder)]
        groups = [{"params": encoder, "lr": c.lr * c.enc_lr_scale}, {"params": others}]
        model = torch.optim.Adam(groups, lr=c.lr, fused=True)
        policy = torch.optim.Adam(self.policy_params, lr=c.lr, eps=c.pi_eps, fused=True)
        return model, policy

    def _noise_source(self, seed: int) -> NoiseSource:
        generator = torch.Generator(self.device).manual_seed(seed)
        return NoiseSource(self.config, self.env.action_dim, self.env.pixels, generator)

    # --- schedule --------------------------------------------------------------------

    def updates_due(self, event: Event, counters: Counters) -> int:
        """A burst when seeding ends, then one update per decision."""
        if event != "decision":
            return 0
        self.decisions = counters.decisions
        last_index = counters.decisions - 1  # the paper's code counts decisions from 0
        if last_index < self.seed_decisions:
            return 0
        if last_index == self.seed_decisions:
            burst = self.config.pretrain_updates
            return self.seed_decisions if burst is None else burst
        return 1

    def min_std(self) -> float:
        """Least standard deviation of the planner; TD-MPC's schedule with its noisy prior."""
        c = self.config
        if c.policy_prior == "max_entropy":
            return c.min_std
        progress = min(self.decisions / c.min_std_decisions, 1.0)
        return c.initial_min_std + progress * (c.min_std - c.initial_min_std)

    # --- acting ----------------------------------------------------------------------

    @torch.no_grad()
    def act(
        self, obs: np.ndarray, *, first: np.ndarray, explore: bool, task: np.ndarray | None = None
    ) -> np.ndarray:
        """Actions `(B, A)` for a batch of environments.

        Args:
            obs: `(B, *obs_shape)`.
            first: `(B,)`, whether each environment is at the first step of an episode.
            explore: exploration noise and its own generator and warm start for training;
                evaluation never disturbs those of training.
            task: `(B,)` task indices of a multi-task agent.
        """
        noise_source = self.train_noise if explore else self.eval_noise
        observation = torch.as_tensor(obs, device=self.device)
        tasks = None if task is None else torch.as_tensor(task, device=self.device)
        self.model.renormalize_task_embedding(tasks)
        context = self.model.context(tasks)
        if not self.config.planning:
            return self._act_with_prior(observation, context, noise_source, explore=explore)
        result = plan(
            self.config,
            self.model,
            observation,
            context,
            self.discount(tasks, len(obs)),
            self._warm_start(first, explore),
            noise_source.plan(len(obs), explore=explore),
            min_std=self.min_std(),
        )
        self.previous_mean[explore] = result.mean
        return result.action.cpu().numpy()

    def _act_with_prior(
        self, obs: Tensor, context: TaskContext, noise: NoiseSource, *, explore: bool
    ) -> np.ndarray:
        """Without planning: a sample of the prior while training, its mean in evaluation."""
        draws, shift = noise.prior(len(obs))
        sample = self.model.pi(self.model.encode(obs, context, shift), draws, context)
        return (sample.action if explore else sample.mean).cpu().numpy()

    def seed_evaluation(self, seed: int) -> None:
        """Re-seeds the noise of evaluation."""
        self.eval_noise.generator.manual_seed(seed)

    def discount(self, task: Tensor | None, batch: int) -> Tensor:
        """Discounts `(B,)` of the rows."""
        return self.discounts.expand(batch) if task is None else self.discounts[task]

    def _warm_start(self, first: np.ndarray, explore: bool) -> Tensor:
        """The last plan shifted by one decision, zeros at its end and where an episode begins."""
        shape = (self.config.horizon, len(first), self.env.action_dim)
        start = torch.zeros(shape, device=self.device)
        previous = self.previous_mean[explore]
        if previous is None or first.all():
            return start
        if previous.shape != shape:
            raise ValueError(f"{shape[1]} environments, but the last plan had {previous.shape[1]}")
        goes_on = torch.as_tensor(~first, device=self.device)[:, None]
        start[:-1] = torch.where(goes_on, previous[1:], start[:-1])
        return start

    # --- learning --------------------------------------------------------------------

    def update(self, replay: Replay) -> dict[str, Tensor]:
        """One gradient step of model, policy and target networks on a batch from `replay`."""
        batch = replay.sample(self.config.batch_size, self.replay_length)
        metrics, priority = self.update_on(batch, self.train_noise.update(self.config.batch_size))
        if priority is not None:
            assert batch.start is not None
            replay.update_priorities(batch.start, priority)
        return metrics

    def update_on(
        self, batch: Batch, noise: UpdateNoise
    ) -> tuple[dict[str, Tensor], Tensor | None]:
        """One gradient step on a given batch with given noise.

        Returns:
            Scalar metrics, and the rows' priorities `(B,)` (None without prioritised replay).
        """
        self.model.renormalize_task_embedding(batch.task)
        loss, latents, metrics, priority = self.model_loss(batch, noise)
        metrics["grad_norm"] = self._step(self.optimizer, self.model_params, loss)
        policy_metrics = self.update_policy(latents, batch.task, noise)
        self.model.update_target(self.config.tau)
        return metrics | policy_metrics, priority

    def _step(self, optimizer: torch.optim.Adam, params: list[nn.Parameter], loss: Tensor):
        """Gradient of `params` only, clipped to norm 20, and one Adam step."""
        optimizer.zero_grad(set_to_none=True)
        loss.backward(inputs=params)
        norm = nn.utils.clip_grad_norm_(params, self.config.grad_clip_norm)
        optimizer.step()
        return norm

    @torch.no_grad()
    def td_target(self, batch: Batch, context: TaskContext, noise: UpdateNoise):
        """Latents of the next observations and y = r + γ·min of two target Qs at (z̄', a' ~ p).

        Returns:
            z̄' `(H, B, L)` and y `(H, B)`.
        """
        model = self.model
        shift = None if noise.shift is None else noise.shift[1:]
        latent = model.encode(batch.obs[1:], context, shift)
        action = model.pi(latent, noise.target_policy, context).action
        q = model.q(
            latent,
            action,
            context,
            heads=noise.target_heads,
            dropout=noise.target_dropout,
            target=True,
        )
        discount = self.discount(batch.task, batch.reward.shape[1])
        bootstrap = model.regression.decode(q).amin(0) * (1 - batch.terminated)
        return latent, batch.reward + discount * bootstrap

    def model_loss(
        self, batch: Batch, noise: UpdateNoise
    ) -> tuple[Tensor, Tensor, dict[str, Tensor], Tensor | None]:
        """Joint-embedding prediction, reward and value loss (paper, Eq. 3).

        L = Σ_t ρ^t [20·MSE(z_{t+1}, z̄_{t+1}) + 0.1·l(R̂_t, r_t) + 0.1·mean_i l(Q̂_i,t, y_t)] / H,
        with z_0 = h(s_0), z_{t+1} = d(z_t, a_t), and gradients through the whole rollout.

        Returns:
            The loss, the latents z_0..z_H `(H + 1, B, L)` detached, metrics, and priorities.
        """
        c, model = self.config, self.model
        context = model.context(batch.task)
        next_latents, target = self.td_target(batch, context, noise)

        shift = None if noise.shift is None else noise.shift[0]
        latents = [model.encode(batch.obs[0], context, shift)]
        for action in batch.action:
            latents.append(model.next(latents[-1], action, context))
        z = torch.stack(latents)

        consistency = (z[1:] - next_latents).square().mean(-1)
        reward = model.regression.loss(model.reward(z[:-1], batch.action, context), batch.reward)
        q = model.q(z[:-1], batch.action, context, dropout=noise.model_dropout)
        value = model.regression.loss(q, target.expand(q.shape[:-1])).mean(0)

        losses = {
            "consistency_loss": self._over_time(consistency, batch.weight),
            "reward_loss": self._over_time(reward, batch.weight),
            "value_loss": self._over_time(value, batch.weight),
        }
        total = (
            c.consistency_coef * losses["consistency_loss"]
            + c.reward_coef * losses["reward_loss"]
            + c.value_coef * losses["value_loss"]
        )
        if model.termination_head is not None:
            logits = model.termination(z[1:], context)
            losses["termination_loss"] = F.binary_cross_entropy_with_logits(
                logits, batch.terminated, weight=batch.weight
            )
            total = total + c.termination_coef * losses["termination_loss"]
        priority = self._priority(q, target) if c.prioritized_replay else None
        metrics = {name: loss.detach() for name, loss in losses.items()}
        return total, z.detach(), metrics | {"total_loss": total.detach()}, priority

    def _over_time(self, loss: Tensor, weight: Tensor | None) -> Tensor:
        """(1/H)·Σ_t ρ^t·mean_b of element-wise losses `(H, B)`, importance-weighted if given."""
        if weight is not None:
            loss = loss * weight
        return (self.rho_powers[:-1] * loss).mean(1).sum() / self.config.horizon

    @torch.no_grad()
    def _priority(self, q: Tensor, target: Tensor) -> Tensor:
        """Σ_t ρ^t·mean_i |Q̂_i − y| for each row, `(B,)`."""
        error = (self.model.regression.decode(q) - target).abs().mean(0)
        return (self.rho_powers[:-1] * error).sum(0)

    def update_policy(
        self, latents: Tensor, task: Tensor | None, noise: UpdateNoise
    ) -> dict[str, Tensor]:
        """One step on the policy loss over the latents of the model's rollout (paper, Eq. 4)."""
        self.model.renormalize_task_embedding(task)
        loss, metrics = self.policy_loss(latents, task, noise)
        metrics["pi_grad_norm"] = self._step(self.policy_optimizer, self.policy_params, loss)
        return metrics

    def policy_loss(
        self, latents: Tensor, task: Tensor | None, noise: UpdateNoise
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """−mean_{t=0..H} ρ^t·mean_b[Q/S + α·entropy bonus], a ~ p(z_t), Q = mean of two.

        S, an average of the 5-95 percentile range of Q at t = 0, is updated first. Only the
        policy's parameters receive gradients.
        """
        # Differs from the official code of 2024-26: the task embedding is frozen here, as in
        # the paper's code; there its gradient leaked into the next model step.
        context = self.model.context(task).detach()
        sample = self.model.pi(latents, noise.policy, context)
        q_output = self.model.q(
            latents,
            sample.action,
            context,
            heads=noise.policy_heads,
            dropout=noise.policy_dropout,
        )
        q = self.model.regression.decode(q_output).mean(0)
        self._update_value_scale(q[0].detach())
        objective = q / self.value_scale + self.config.entropy_coef * sample.entropy_bonus
        loss = -(self.rho_powers * objective).mean()
        return loss, {
            "pi_loss": loss.detach(),
            "pi_scale": self.value_scale.clone(),
            "pi_entropy_bonus": sample.entropy_bonus.detach().mean(),
            "q_mean": q.detach().mean(),
        }

    @torch.no_grad()
    def _update_value_scale(self, q: Tensor) -> None:
        """S ← S + τ(max(1, P95 − P5) − S) with linearly interpolated percentiles of `q (B,)`."""
        low, high = torch.quantile(q, torch.tensor(VALUE_PERCENTILES, device=q.device))
        self.value_scale.lerp_((high - low).clamp(min=1.0), self.config.tau)

    # --- state -----------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything that resuming needs, as tensors and plain containers."""
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
        """Restores what `state_dict` returned."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.policy_optimizer.load_state_dict(state["policy_optimizer"])
        self.value_scale.copy_(state["value_scale"])
        self.train_noise.generator.set_state(state["train_noise"])
        self.eval_noise.generator.set_state(state["eval_noise"])
        self.previous_mean = dict(state["previous_mean"])
        self.decisions = state["decisions"]
