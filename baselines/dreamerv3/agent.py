"""The DreamerV3 agent: acts with a recurrent policy and learns it on imagined rollouts."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from baselines.dreamerv3.behavior import Behavior, Noise, learn
from baselines.dreamerv3.config import DreamerV3Config
from baselines.dreamerv3.networks import Hidden
from baselines.dreamerv3.rssm import State
from baselines.dreamerv3.world_model import WorldModel, model_loss
from baselines.flops import dreamerv3_update_gflop
from baselines.networks import num_parameters
from tdmpc2.common.interfaces import Accelerable, Counters, EnvSpec, Event, FunctionSlot
from tdmpc2.common.numerics.optim import Adam, Draws, descend, differentiate, move_toward
from tdmpc2.common.numerics.precision import products_in
from tdmpc2.common.numerics.seeding import derive_seed
from tdmpc2.common.replay.sequence_replay import SequenceReplay
from tdmpc2.common.replay.types import Sequences, to_device
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.training.base_agent import BaseAgent


class ActNoise(NamedTuple):
    """Noise of a decision.

    Attributes:
        state: `(B, S)`, uniform in [0, 1), for the state.
        action: `(B, A)`, standard normal, for the action.
    """

    state: Tensor
    action: Tensor


def decide(
    model: WorldModel,
    behavior: Behavior,
    state: State,
    action: Tensor,
    obs: Tensor,
    first: Tensor,
    noise: ActNoise,
) -> tuple[State, Tensor]:
    """Return the state after an observation, and the action `(B, A)` in [-1, 1].

    Args:
        model: the world model.
        behavior: the actor.
        state: previous state `(B, ·)`.
        action: `(B, A)`, action that led to the observation.
        obs: `(B, O)`.
        first: `(B,)`, True where the observation is the first of an episode.
        noise: noise of state and action.
    """
    state = model.rssm.observe_one(state, action, model.encode(obs), first, noise.state)
    action = behavior.act(state.features, noise.action)
    return state, action.clamp(-1, 1)  # as the world model bounds it


class DreamerV3(BaseAgent):
    """The DreamerV3 agent: world model, actor and critics, optimizers and recurrent states.

    Args:
        config: hyperparameters.
        env: shapes and task of the environment.
        seed: seed of the parameters and of all noise.
        device: device of parameters and noise.

    Raises:
        UserError: observations are images, or the environment has several tasks.
    """

    config_class = DreamerV3Config
    replay_visibility: Literal["transition", "episode"] = "transition"
    replay_across_episodes = True

    def __init__(
        self,
        config: DreamerV3Config,
        env: EnvSpec,
        *,
        seed: int,
        device: torch.device | str = "cpu",
    ) -> None:
        if env.pixels or env.num_tasks > 1:
            raise UserError(
                "method=dreamerv3: supports one task with obs=state only; use method=tdmpc2"
            )
        c = self.config = config
        self.env, self.device = env, torch.device(device)
        self.num_envs, self.replay_length = c.num_envs, c.batch_length
        self.seed_decisions = c.seed_decisions
        with self.parameter_seed(seed):
            self.model = WorldModel(c, env.obs_shape[0], env.action_dim).to(self.device)
            self.behavior = Behavior(c, env.action_dim).to(self.device)
        self.params = {
            "model": list(self.model.parameters()),
            "actor": list(self.behavior.actor.parameters()),
            "critic": list(self.behavior.critic.parameters()),
        }
        rates = {
            "model": (c.model_lr, c.model_eps),
            "actor": (c.lr, c.eps),
            "critic": (c.lr, c.eps),
        }
        self.optimizers = {
            name: Adam(self.params[name], lr=lr, eps=eps, fused=True)
            for name, (lr, eps) in rates.items()
        }
        self.return_range = torch.zeros(2, device=self.device)
        self.train_noise = Draws(derive_seed(seed, "train noise"), self.device)
        self.eval_noise = Draws(derive_seed(seed, "evaluation noise"), self.device)
        # State and action of the previous decision, in training (True) and evaluation (False).
        self.act_states: dict[bool, tuple[State, Tensor] | None] = {True: None, False: None}
        self.functions = SimpleNamespace(decide=decide, differentiate=differentiate, learn=learn)

    @classmethod
    def gflop(cls, config: DreamerV3Config, obs_dim: int, action_dim: int) -> dict[str, float]:
        """Return the operations of an update, in GFLOP.

        Args:
            config: hyperparameters.
            obs_dim: observation dimension.
            action_dim: action dimension.
        """
        return {"update": dreamerv3_update_gflop(config, obs_dim, action_dim)}

    @classmethod
    def updates_per_decision(cls, config: DreamerV3Config) -> float:
        """Return the mean number of updates per decision after the seed decisions."""
        return config.train_ratio / (config.batch_size * config.batch_length)

    def num_parameters(self) -> int:
        """Return the number of learned parameters, without the slow critic."""
        return num_parameters(self.model, self.behavior)

    def accelerable(self) -> Accelerable:
        """Declare what can be replaced: the code between matrix multiplications."""
        networks = [self.model, self.behavior]
        modules = (module for network in networks for module in network.modules())
        pieces = [FunctionSlot(m, "norm_silu") for m in modules if isinstance(m, Hidden)]
        pieces += [FunctionSlot(self.model.rssm, name) for name in ("gate", "draw", "log_probs")]
        return Accelerable(
            self.device,
            pieces=pieces,
            protected=[FunctionSlot(self.functions, name) for name in vars(self.functions)],
            compiled_on=["cuda"],
            networks=networks,
            native_layers="baselines.kernels.layers:NATIVE",
        )

    def updates_due(self, event: Event, counters: Counters) -> int:
        """Return the number of updates due to replay `train_ratio` observations per decision."""
        if event != "decision":
            return 0
        return max(self.config.updates_after(counters.decisions) - counters.num_updates, 0)

    # --- acting ----------------------------------------------------------------------

    @torch.no_grad()
    def act(
        self, obs: np.ndarray, *, first: np.ndarray, explore: bool, task: np.ndarray | None = None
    ) -> np.ndarray:
        """Return actions `(B, A)`, which are sampled in training and in evaluation.

        Args:
            obs: `(B, O)`.
            first: `(B,)`, True for environments at the first step of an episode.
            explore: True for training, False for evaluation, which have separate generators and
                recurrent states.
            task: not used.
        """
        source, num = self.train_noise if explore else self.eval_noise, len(obs)
        previous, is_first = self.act_states[explore], to_device(first, self.device)
        if previous is None or len(previous[1]) != num:
            start = self.model.rssm.initial()
            zero_action = torch.zeros(num, self.env.action_dim, device=self.device)
            previous = State(*(x.expand(num, -1) for x in start)), zero_action
        noise = ActNoise(
            state=source.uniform(num, self.config.stoch),
            action=source.normal(num, self.env.action_dim),
        )
        observed = to_device(obs, self.device)
        with self._precision():
            decided = self.functions.decide(
                self.model, self.behavior, *previous, observed, is_first, noise
            )
        self.act_states[explore] = decided
        return decided[1].cpu().numpy()

    def seed_evaluation(self, seed: int) -> None:
        """Seed the noise of evaluation."""
        self.eval_noise.generator.manual_seed(seed)

    # --- learning --------------------------------------------------------------------

    def update(self, replay: SequenceReplay) -> dict[str, Tensor]:
        """Take one gradient step on sequences from `replay` and return scalar metrics."""
        c, source = self.config, self.train_noise
        batch = replay.sample(c.batch_size, c.batch_length).to(self.device)
        num_starts = c.batch_size * c.batch_length
        noise = Noise(
            action=source.normal(c.imagination, num_starts, self.env.action_dim),
            state=source.uniform(c.imagination, num_starts, c.stoch),
        )
        return self.update_on(batch, source.uniform(c.batch_length, c.batch_size, c.stoch), noise)

    def update_on(self, batch: Sequences, uniform: Tensor, noise: Noise) -> dict[str, Tensor]:
        """Take one gradient step on a given batch with given noise and return scalar metrics.

        Updates the world model, then actor and critic on rollouts from all L·B posterior states,
        then the slow critic, θ̄ ← θ̄ + slow_share·(θ − θ̄).

        Args:
            batch: sequences of shape `(L, B)`.
            uniform: `(L, B, S)`, uniform noise for the posterior states.
            noise: noise of the rollouts from L·B start states.
        """
        c = self.config
        with self._precision():
            model, gradients = self.functions.differentiate(
                model_loss, self.params["model"], c, self.model, batch, uniform
            )
        norms = {"grad_norm": self._descend("model", gradients, c.model_clip_norm)}
        start = State(*(x.flatten(0, 1) for x in model.state))
        alive = 1 - batch.terminated.flatten()
        with self._precision():
            outcome = self.functions.learn(
                c, self.model, self.behavior, start, alive, self.return_range, noise
            )
        self.return_range.copy_(outcome.range)
        norms["pi_grad_norm"] = self._descend("actor", outcome.actor, c.clip_norm)
        norms["critic_grad_norm"] = self._descend("critic", outcome.critic, c.clip_norm)
        slow, critic = self.behavior.slow_critic, self.behavior.critic
        move_toward(slow.parameters(), critic.parameters(), c.slow_share)
        return model.metrics | outcome.metrics | norms

    def _descend(self, name: str, gradients: tuple[Tensor, ...], clip: float) -> Tensor:
        return descend(self.optimizers[name], self.params[name], gradients, clip)

    def _precision(self) -> contextlib.AbstractContextManager[object]:
        """Return a context in which matrix multiplications use bfloat16 if `precision=bf16`.

        Results are converted to float32.
        """
        return products_in(self.config.precision, self.device.type)

    # --- state -----------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return all state that resuming at an episode boundary needs."""
        return {
            "model": self.model.state_dict(),
            # The key is spelled as in checkpoints of version 0.4.0.
            "behaviour": self.behavior.state_dict(),
            "optimizers": {name: o.state_dict() for name, o in self.optimizers.items()},
            "return_range": self.return_range.clone(),
            "train_noise": self.train_noise.generator.get_state(),
            "eval_noise": self.eval_noise.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state returned by `state_dict`; recurrent states are reset."""
        self.model.load_state_dict(state["model"])
        self.behavior.load_state_dict(state["behaviour"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.return_range.copy_(state["return_range"])
        self.train_noise.generator.set_state(state["train_noise"])
        self.eval_noise.generator.set_state(state["eval_noise"])
        self.act_states = {True: None, False: None}
