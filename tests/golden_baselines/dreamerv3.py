"""The golden file of DreamerV3."""

from __future__ import annotations

import re

import torch
import torch.nn.functional as F
from torch import Tensor

from baselines.dreamerv3.agent import DreamerV3
from baselines.dreamerv3.behavior import Noise, imagine, lambda_returns
from baselines.dreamerv3.config import DreamerV3Config
from baselines.dreamerv3.rssm import State
from baselines.dreamerv3.world_model import balanced_divergence
from tdmpc2.common.replay.types import Sequences
from tdmpc2.regression import symlog
from tests.golden_baselines.errors import Errors
from tests.golden_baselines.reader import GoldenBaseline

SAME_NAME = (
    *("deter", "hidden", "stoch", "classes", "encoder_layers", "encoder_units"),
    *("decoder_layers", "decoder_units", "head_layers", "head_units"),
    *("batch_size", "batch_length", "return_lambda", "unimix", "free_nats"),
)
NETWORKS = {
    "agent/wm/enc/mlp": "encoder",
    "agent/wm/rssm": "rssm",
    "agent/wm/dec/mlp": "decoder",
    "agent/wm/rew": "reward_head",
    "agent/wm/cont": "continue_head",
    "agent/task_behavior/ac/actor": "actor",
    "agent/task_behavior/critic/net": "critic",
    "agent/task_behavior/critic/slow": "slow_critic",
}
LAYERS = {
    "img_in": "input",
    "img_out": "prior_hidden",
    "img_stats": "prior_output",
    "obs_out": "posterior_hidden",
    "obs_stats": "posterior_output",
    "h0": "hidden.0",
    "h1": "hidden.1",
    "dist_state/out": "outputs.0",
    "dist_out/out": "outputs.0",
    "dist_out/std": "outputs.1",
}
ARRAYS = {"kernel": "weight", "bias": "bias", "norm/scale": "scale", "norm/bias": "shift"}
WHOLE = {
    "agent/wm/rssm/initial": "rssm.initial_deter",
    "agent/wm/rssm/gru/kernel": "rssm.gru",
    "agent/wm/rssm/gru/norm/scale": "rssm.gru_scale",
    "agent/wm/rssm/gru/norm/bias": "rssm.gru_shift",
    "agent/task_behavior/ac/retnorm_extr/low/value": "low",
    "agent/task_behavior/ac/retnorm_extr/high/value": "high",
}
PARAMETER = re.compile("/".join(f"({'|'.join(names)})" for names in (NETWORKS, LAYERS, ARRAYS)))
# Names of the recorded losses and norms, and the agent's.
METRICS = {
    "state_loss_mean": "obs_loss",
    "reward_loss_mean": "reward_loss",
    "cont_loss_mean": "continue_loss",
    "dyn_loss_mean": "dyn_loss",
    "rep_loss_mean": "rep_loss",
    "model_opt_loss": "model_loss",
    "model_opt_grad_norm": "grad_norm",
    "actor_opt_loss": "actor_loss",
    "actor_opt_grad_norm": "pi_grad_norm",
    "extr_critic_critic_opt_loss": "critic_loss",
    "extr_critic_critic_opt_grad_norm": "critic_grad_norm",
    "policy_entropy_mean": "entropy",
}
OF_ACTOR_AND_CRITIC = re.compile("actor_opt|critic_opt")


class GoldenDreamerV3(GoldenBaseline):
    """Two consecutive whole updates on one batch, with resets inside sequences and a terminal."""

    file = "dreamerv3_v1"
    num_updates = 2

    def config(self) -> DreamerV3Config:
        """The recorded configuration in this project's names."""
        r = self.raw
        assert r["actor_opt"] == r["critic_opt"]
        return DreamerV3Config.make(
            **{name: r[name] for name in SAME_NAME},
            num_bins=r["bins"],
            imagination=r["imag_horizon"],
            discount_horizon=float(r["horizon"]),
            dyn_scale=r["loss_scales"]["dyn"],
            rep_scale=r["loss_scales"]["rep"],
            slow_coef=float(r["loss_scales"]["slowreg"]),
            entropy_coef=r["actent"],
            actor_min_std=r["minstd"],
            actor_max_std=r["maxstd"],
            model_lr=r["model_opt"]["lr"],
            model_eps=r["model_opt"]["eps"],
            model_clip_norm=float(r["model_opt"]["clip"]),
            lr=r["actor_opt"]["lr"],
            eps=r["actor_opt"]["eps"],
            clip_norm=float(r["actor_opt"]["clip"]),
            slow_share=r["slow_critic_fraction"],
            return_decay=r["retnorm"]["decay"],
        )

    def agent(self, after: int = 0) -> DreamerV3:
        """See `GoldenBaseline.agent`."""
        agent = DreamerV3(self.config(), self.env(self.raw["obs_dim"]), seed=0, device=self.device)
        self.load(agent, model_after=after, behavior_after=after)
        return agent

    def load(self, agent: DreamerV3, *, model_after: int, behavior_after: int) -> None:
        """Loads the recorded weights after some number of updates of each model."""
        for network, after in ((agent.model, model_after), (agent.behavior, behavior_after)):
            weights = self.weights(after)
            network.load_state_dict({name: weights[name] for name in network.state_dict()})
        agent.return_range.copy_(self.weights(behavior_after)["return_range"])

    def batch(self) -> Sequences:
        """The batch of both updates, time first."""
        first = self("in/is_first").float().t().clone()
        first[0] = 1.0
        # The recorded actions follow the observations of their rows; here they lead to them.
        action = self("in/action").transpose(0, 1).roll(1, dims=0)
        return Sequences(
            obs=self("in/state").transpose(0, 1),
            action=action * (1 - first)[..., None],
            reward=self("in/reward").t(),
            first=first,
            terminated=self("in/is_terminal").float().t(),
        )

    def posterior_noise(self, n: int) -> Tensor:
        """The uniform noise `(L, B, S)` of the posterior states in the n-th update."""
        return self(f"update{n}/posterior_uniform")

    def imagination_noise(self, n: int) -> Noise:
        """The noise of the imagined trajectories in the n-th update."""
        # The action after the last state enters no loss.
        action = self(f"update{n}/action_noise")[:-1]
        uniform = self(f"update{n}/imagined_uniform")
        return Noise(self.time_major(action), self.time_major(uniform))

    def time_major(self, x: Tensor) -> Tensor:
        """Arrays `(N, B·L, ...)` with their starting states in the order L·B of this project."""
        starts = (self.raw["batch_size"], self.raw["batch_length"])
        return x.unflatten(1, starts).transpose(1, 2).flatten(1, 2)

    def update(self, agent: DreamerV3, n: int) -> dict[str, Tensor]:
        """See `GoldenBaseline.update`."""
        noise = (self.posterior_noise(n), self.imagination_noise(n))
        metrics = agent.update_on(self.batch(), *noise)
        return {recorded: metrics[ours] for recorded, ours in METRICS.items()}

    def expected(self, n: int, name: str) -> Tensor:
        """See `GoldenBaseline.expected`."""
        recorded = super().expected(n, name)
        return recorded * self.discount if OF_ACTOR_AND_CRITIC.search(name) else recorded

    def gradients(self, n: int) -> dict[str, Tensor]:
        """See `GoldenBaseline.gradients`."""
        behavior = self.renamed(f"update{n}/grad/actor_opt/")
        behavior |= self.renamed(f"update{n}/grad/critic_opt/")
        model = self.renamed(f"update{n}/grad/model_opt/")
        return model | {name: self.discount * gradient for name, gradient in behavior.items()}

    def gradients_of(self, agent: DreamerV3) -> dict[str, Tensor]:
        """See `GoldenBaseline.gradients_of`; no gradient is large enough to be clipped."""
        networks = (agent.model, agent.behavior)
        parameters = (pair for network in networks for pair in network.named_parameters())
        return {name: p.grad for name, p in parameters if p.grad is not None}

    @property
    def discount(self) -> float:
        """γ = 332/333: the ratio of this project's losses of actor and critic to the recorded ones.

        Differs from the official code: its loss weights are cumprod(γ·cont)/γ, here they are
        cumprod(γ·cont). Losses, gradients and norms differ by this factor, weights do not: Adam
        cancels it up to its ε.
        """
        return self.config().discount

    def weights(self, after: int = 0) -> dict[str, Tensor]:
        """See `GoldenBaseline.weights`; `return_range` is `(2,)`."""
        weights = super().weights(after)
        ends = [weights.pop(end) for end in ("low", "high")]
        return weights | {"return_range": torch.stack(ends)}

    def weights_of(self, agent: DreamerV3) -> dict[str, Tensor]:
        """See `GoldenBaseline.weights_of`."""
        networks = agent.model.state_dict() | agent.behavior.state_dict()
        return {**networks, "return_range": agent.return_range}

    def _converted(self, key: str, x: Tensor) -> tuple[str, Tensor]:
        x = x.t() if key.endswith("/kernel") else x  # the recorded kernels are (in, out)
        if key in WHOLE:
            return WHOLE[key], x
        match = PARAMETER.fullmatch(key)
        if not match:
            raise KeyError(f"{self.file}: unknown parameter {key}")
        network, layer, array = match.groups()
        return f"{NETWORKS[network]}.{LAYERS[layer]}.{ARRAYS[array]}", x


@torch.no_grad()
def errors_of_dreamerv3_networks(golden: GoldenDreamerV3, agent: DreamerV3) -> Errors:
    """The world model on the batch before each update, and each of its losses by element.

    Args:
        golden: the file.
        agent: any; its weights are replaced.
    """
    errors, model, batch = Errors(), agent.model, golden.batch()
    for n in range(1, golden.num_updates + 1):
        golden.load(agent, model_after=n - 1, behavior_after=n - 1)
        embed = model.encode(batch.obs)
        noise = golden.posterior_noise(n)
        state, posterior = model.rssm.observe(batch.action, embed, batch.first, noise)
        prior, features = model.rssm.prior(state.deter), state.features
        dyn, rep, _ = balanced_divergence(posterior, prior, agent.config.free_nats)
        goes_on = model.continue_head(features)[0][..., 0]
        found = {
            "observe/embed": embed,
            "observe/deter": state.deter,
            "observe/post_stoch": state.stoch.unflatten(-1, posterior.shape[-2:]),
            "observe/post_logit": posterior,
            "observe/prior_logit": prior,
            "loss/state": (model.decoder(features)[0] - symlog(batch.obs)).square().sum(-1),
            "loss/reward": model.regression.loss(model.reward_head(features)[0], batch.reward),
            "loss/cont": F.binary_cross_entropy_with_logits(
                goes_on, 1 - batch.terminated, reduction="none"
            ),
            "loss/dyn": dyn,
            "loss/rep": rep,
        }
        for name, ours in found.items():
            recorded = golden(f"update{n}/{name}").transpose(0, 1)
            compare = errors.relative if name.startswith("loss/") else errors.scaled
            compare(name, ours, recorded)
    return errors


@torch.no_grad()
def errors_of_dreamerv3_imagination(golden: GoldenDreamerV3, agent: DreamerV3) -> Errors:
    """The imagined trajectory of each update, its returns, values and loss weights.

    Args:
        golden: the file.
        agent: any; its weights are replaced.
    """
    errors, c, batch = Errors(), agent.config, golden.batch()
    model, behavior, noise = agent.model, agent.behavior, golden.posterior_noise
    decode = behavior.regression.decode
    for n in range(1, golden.num_updates + 1):
        golden.load(agent, model_after=n - 1, behavior_after=n - 1)
        embed = model.encode(batch.obs)
        state, _ = model.rssm.observe(batch.action, embed, batch.first, noise(n))
        start = State(*(x.flatten(0, 1) for x in state))
        # Trajectories start from the states of the world model before its step, and continue with
        # the world model after it.
        golden.load(agent, model_after=n, behavior_after=n - 1)
        features = imagine(model, behavior, start, golden.imagination_noise(n)).features
        after = features[1:]
        goes_on = torch.cat([1 - batch.terminated.flatten()[None], model.goes_on(after)])
        reward, value = model.reward(after), decode(behavior.critic(features)[0])
        returns = lambda_returns(reward, value[1:], c.discount * goes_on[1:], c.return_lambda)
        action_noise = golden.time_major(golden(f"update{n}/action_noise"))
        deter, stoch = features.split([c.deter, c.stoch_dim], dim=-1)
        found = {
            "deter": deter,
            "stoch": stoch.unflatten(-1, (c.stoch, c.classes)),
            "action": behavior.act(features, action_noise),
            "cont": goes_on,
            "weight": torch.cumprod(c.discount * goes_on, 0) / golden.discount,
            "reward": reward,
            "return": returns,
            "value": value[:-1],
            "slow_value": decode(behavior.slow_critic(features)[0]),
        }
        for name, ours in found.items():
            if golden.has(f"update{n}/imagine/{name}"):  # the states of the first update only
                recorded = golden.time_major(golden(f"update{n}/imagine/{name}"))
                errors.scaled(f"imagined {name}", ours, recorded)
    return errors
