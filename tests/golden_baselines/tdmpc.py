"""The golden file of TD-MPC."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch
from torch import Tensor

from baselines.tdmpc.agent import TDMPC
from baselines.tdmpc.config import TDMPCConfig
from baselines.tdmpc.losses import model_loss
from tdmpc2.common.replay.episode_replay import Replay
from tdmpc2.common.replay.types import Batch, Episode
from tdmpc2.noise import PlanNoise
from tdmpc2.planner import estimate_value
from tdmpc2.prior import GaussianNoisePrior
from tdmpc2.task_context import NO_TASK
from tests.golden_baselines.errors import Errors
from tests.golden_baselines.reader import GoldenBaseline

SAME_NAME = (
    *("latent_dim", "mlp_dim", "enc_dim", "horizon", "num_samples", "iterations", "num_elites"),
    *("temperature", "momentum", "rho", "consistency_coef", "reward_coef", "value_coef"),
    *("grad_clip_norm", "tau", "lr", "batch_size", "per_alpha", "per_beta", "discount"),
)
NETWORKS = {
    "_encoder": "encoder",
    "_dynamics": "dynamics",
    "_reward": "reward_head",
    "_pi": "policy",
    "_Q1": "q_functions.0",
    "_Q2": "q_functions.1",
}
# Of Linear, LayerNorm, tanh, Linear, ELU, Linear, those with parameters.
Q_LAYERS = {"0": "layers.0", "1": "norm", "3": "layers.1", "5": "layers.2"}

OFFICIAL_BOUND = 1 - 1e-6


class GoldenTDMPC(GoldenBaseline):
    """Networks, prioritized replay, five consecutive updates, and six planning calls.

    The fifth update has a clipped gradient and clipped losses.
    """

    file = "tdmpc_v1"
    num_updates = 5

    @property
    def plans(self) -> list[str]:
        """Prefixes of the recorded planning calls."""
        return [key.removesuffix("/prev_mean") for key in self.arrays if "/prev_mean" in key]

    def config(self) -> TDMPCConfig:
        """The recorded configuration in this project's names."""
        r = self.raw
        initial_min_std, min_std, min_std_decisions = _linear(r["std_schedule"])
        first_horizon, horizon, horizon_decisions = _linear(r["horizon_schedule"])
        assert (first_horizon, horizon, min_std) == (1, r["horizon"], r["min_std"])
        values: dict[str, Any] = {name: r[name] for name in SAME_NAME}
        return TDMPCConfig.make(
            **values,
            num_pi_samples=int(r["mixture_coef"] * r["num_samples"]),
            target_every=r["update_freq"],
            prior_std=min_std,
            min_std=min_std,
            initial_min_std=initial_min_std,
            min_std_decisions=int(min_std_decisions),
            horizon_decisions=int(horizon_decisions),
            seed_decisions=r["seed_steps"],
        )

    def agent(self, after: int = 0) -> TDMPC:
        """See `GoldenBaseline.agent`."""
        env = self.env(self.raw["obs_shape"][0])
        agent = TDMPC(self.config(), env, seed=0, device=self.device)
        agent.model.load_state_dict(self.weights(after))
        agent.num_updates = after
        return agent

    def batch(self, n: int) -> Batch:
        """The batch of the n-th update."""
        reward = self(f"update{n}/reward")[..., 0]
        return Batch(
            obs=self(f"update{n}/obs"),
            action=self(f"update{n}/action"),
            reward=reward,
            terminated=torch.zeros_like(reward),
            weight=self(f"update{n}/weight"),
        )

    def update_noise(self, n: int) -> Tensor:
        """The noise `(2H + 1, B, A)` of the n-th update."""
        return torch.cat([self(f"update{n}/{of}_noise") for of in ("target_policy", "policy")])

    def update(self, agent: TDMPC, n: int) -> dict[str, Tensor]:
        """See `GoldenBaseline.update`; the priorities are `(B,)`."""
        c, batch, noise = agent.config, self.batch(n), self.update_noise(n)
        discount = agent.discount(None, c.batch_size)
        with torch.no_grad():
            outcome = model_loss(c, agent.model, batch, discount, noise[: c.horizon])
        metrics, priority = agent.update_on(batch, noise)
        del metrics["q_mean"]  # not recorded
        # The official code divides by the horizon after this loss.
        return metrics | {"weighted_loss": outcome.loss * c.horizon, "priority": priority}

    def expected(self, n: int, name: str) -> Tensor:
        """See `GoldenBaseline.expected`."""
        return self(f"update{n}/{name}") if name == "priority" else super().expected(n, name)

    def weights_of(self, agent: TDMPC) -> dict[str, Tensor]:
        """See `GoldenBaseline.weights_of`."""
        return dict(agent.model.state_dict())

    def _converted(self, key: str, x: Tensor) -> tuple[str, Tensor]:
        model, network, layer, kind = re.split("[/.]", key)
        target = {"model": "", "model_target": "target_"}[model]
        is_q = network in ("_Q1", "_Q2")
        place = Q_LAYERS[layer] if is_q else f"layers.{int(layer) // 2}"
        return f"{target}{NETWORKS[network]}.{place}.{kind}", x

    def replay(self) -> Replay:
        """A replay buffer with the recorded episodes and initial priorities."""
        c, replay_obs = self.config(), self.arrays["replay/obs"]
        replay = Replay(
            self.raw["max_buffer_size"],
            c.horizon,
            replay_obs.shape[2:],
            self.raw["action_dim"],
            generator=torch.Generator().manual_seed(0),
            device=self.device,
            priorities=(c.per_alpha, c.per_beta),
        )
        rest = (self.arrays["replay/action"], self.arrays["replay/reward"])
        for obs, action, reward in zip(replay_obs, *rest, strict=True):
            replay.add(Episode(obs, action, reward))
        # Differs from the official code: here an episode has one more sub-trajectory, its last.
        never = np.flatnonzero(self.arrays["replay/priorities0"] == 0)
        assert replay._tree is not None
        replay._tree.set(self.rows(never), np.zeros(len(never)))
        return replay

    def rows(self, index: np.ndarray) -> np.ndarray:
        """Rows of transitions in the replay buffer, which adds a row at the end of an episode."""
        length = self.raw["episode_length"]
        return index // length * (length + 1) + index % length

    def plan_noise(self, case: str) -> PlanNoise:
        """The noise of a planning call, with the batch dimension added."""
        # A vanishing Exp(1) value makes that elite win the Gumbel-max choice.
        elite = torch.ones(1, self.raw["num_elites"], device=self.device)
        elite[0, int(self.arrays[f"{case}/elite_index"])] = 1e-30
        # The policy's sequences come last in the official code, first in this project.
        terminal_policy = self(f"{case}/terminal_policy_noise")
        terminal_policy = terminal_policy.roll(self.config().num_pi_samples, dims=1)
        key = f"{case}/action_noise"
        return PlanNoise(
            policy=self(f"{case}/policy_noise")[:, None],
            samples=self(f"{case}/sample_noise")[:, :, None],
            terminal_policy=terminal_policy[:, None],
            heads=None,
            elite=elite,
            action=self(key)[None] if self.has(key) else None,
        )

    def plan(self, agent: TDMPC, case: str) -> tuple[Tensor, Tensor]:
        """Runs a planning call with the recorded noise; the action `(A,)` and mean `(H, A)`."""
        decisions, first, evaluation = (int(x) for x in re.findall(r"=(\d+)", case))
        previous_mean = self(f"{case}/prev_mean")[:, None]
        # `act` plans with the horizon of this number of decisions, and with this noise.
        agent.decisions = decisions
        agent.previous_mean = {True: previous_mean, False: previous_mean}
        agent.plan_noise = lambda *_, **__: self.plan_noise(case)
        obs = self.arrays[f"{case}/obs"][None]
        action = agent.act(obs, first=np.array([first == 1]), explore=not evaluation)
        mean = agent.previous_mean[not evaluation]
        assert mean is not None
        return torch.from_numpy(action)[0], mean[:, 0]


def _linear(schedule: str) -> tuple[float, ...]:
    """Start, end and duration of `linear(start, end, duration)`."""
    return tuple(float(x) for x in re.findall(r"[\d.]+", schedule))


@torch.no_grad()
def errors_of_tdmpc_networks(golden: GoldenTDMPC, agent: TDMPC) -> Errors:
    """Every network's output on the recorded observations and actions."""
    errors, model = Errors(), agent.model
    obs, action = golden("component/obs"), golden("component/action")
    latent = model.encode(obs)
    errors.scaled("latent", latent, golden("component/latent"))
    goal = model.encode(obs, target=True)
    errors.scaled("target_latent", goal, golden("component/target_latent"))
    errors.scaled("next_latent", model.next(latent, action), golden("component/next_latent"))
    errors.scaled("reward", model.reward(latent, action), golden("component/reward"))
    for target, prefix in ((False, ""), (True, "target_")):
        recorded = torch.stack([golden(f"component/{prefix}q{i}")[:, 0] for i in (1, 2)])
        errors.scaled(f"{prefix}q", model.both_q(latent, action, target=target), recorded)
    sample = model.pi(latent, golden("component/pi_noise"))
    errors.scaled("pi_mean", sample.mean, golden("component/pi_mean"))
    errors.scaled("pi_action", sample.action, golden("component/pi_action"))
    # Outputs and noise so large that both the noise and the action are clipped.
    prior = GaussianNoisePrior(0.2, agent.config.prior_noise_clip)
    noise = golden("component/wide_pi_noise")
    wide = prior.sample(model.policy(8 * latent), noise, None).action
    # Differs from the official code: actions are clipped at ±1, there at ±(1 − 1e-6).
    wide = wide.clamp(-OFFICIAL_BOUND, OFFICIAL_BOUND)
    errors.scaled("wide_pi_action", wide, golden("component/wide_pi_action"))
    return errors


def errors_of_tdmpc_replay(golden: GoldenTDMPC) -> Errors:
    """Probabilities and weights of each batch, its contents, and the priorities after it."""
    errors, replay = Errors(), golden.replay()
    assert replay._tree is not None
    all_rows = golden.rows(np.arange(len(golden.arrays["replay/priorities0"])))
    for n in range(1, golden.num_updates + 1):
        probability = torch.from_numpy(replay._tree.get(all_rows) / replay._tree.total)
        errors.absolute("probability", probability, golden(f"update{n}/probability").cpu())
        rows = golden.rows(golden.arrays[f"update{n}/index"])
        batch = replay.batch_at(torch.from_numpy(rows).to(golden.device))
        errors.absolute("obs", batch.obs, golden(f"update{n}/obs"))
        errors.absolute("action", batch.action, golden(f"update{n}/action"))
        weight = golden(f"update{n}/weight")
        if n == 5:  # its rewards and weights were enlarged by hand
            weight = weight / 4
        else:
            errors.absolute("reward", batch.reward, golden(f"update{n}/reward"))
        errors.relative("weight", replay.importance_weights(rows), weight)
        replay.update_priorities(torch.from_numpy(rows), golden(f"update{n}/priority"))
        priority = torch.from_numpy(replay._tree.get(all_rows) ** (1 / replay.alpha))
        recorded = golden(f"update{n}/priorities_after").cpu()
        errors.relative("priorities_after", priority[recorded > 0], recorded[recorded > 0])
        errors.absolute("zero priorities_after", priority[recorded == 0], recorded[recorded == 0])
    return errors


def errors_of_tdmpc_plans(golden: GoldenTDMPC, agent: TDMPC) -> Errors:
    """All recorded planning calls.

    Args:
        golden: the file.
        agent: with the weights from after the last update.
    """
    errors, model = Errors(), agent.model
    for case in golden.plans:
        with torch.no_grad():
            value = estimate_value(
                model,
                model.encode(golden(f"{case}/obs")[None])[:, None],
                golden(f"{case}/first_iteration_actions")[:, None],
                NO_TASK,
                agent.discount(None, 1)[:, None],
                golden(f"{case}/terminal_policy_noise")[None, 0],
                None,
            )
        errors.scaled("value", value, golden(f"{case}/first_iteration_value"))
        action, mean = golden.plan(agent, case)
        errors.absolute("action", action, golden(f"{case}/action").cpu())
        errors.absolute("mean", mean, golden(f"{case}/mean"))
    return errors


def errors_of_tdmpc_schedules(golden: GoldenTDMPC) -> Errors:
    """The planner's horizon and least standard deviation at twelve numbers of decisions."""
    errors, c, decisions = Errors(), golden.config(), golden.arrays["schedule/step"].tolist()
    horizon = torch.tensor([c.planning_horizon(n) for n in decisions])
    errors.absolute("horizon", horizon, golden("schedule/horizon").cpu())
    min_std = torch.tensor([c.planning_min_std(n) for n in decisions])
    errors.absolute("min_std", min_std, golden("schedule/min_std").cpu())
    return errors
