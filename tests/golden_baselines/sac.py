"""The golden file of SAC."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from baselines.sac import SAC
from baselines.sac_config import SACConfig
from tdmpc2.common.replay.types import Batch
from tests.golden_baselines.errors import Errors
from tests.golden_baselines.reader import GoldenBaseline


class GoldenSAC(GoldenBaseline):
    """Networks and six consecutive updates, the last three with terminals and time-outs."""

    file = "sac"
    num_updates = 6

    def config(self) -> SACConfig:
        """The recorded configuration in this project's names."""
        r = self.raw
        assert r["actor_lr"] == r["critic_lr"] == r["alpha_lr"]
        log_std_min, log_std_max = r["log_std_bounds"]
        return SACConfig.make(
            hidden_dim=r["hidden_dim"],
            num_hidden=r["hidden_depth"],
            log_std_min=log_std_min,
            log_std_max=log_std_max,
            batch_size=r["batch_size"],
            lr=r["actor_lr"],
            initial_temperature=r["init_temperature"],
            target_entropy=float(r["target_entropy"]),
            discount=r["discount"],
            tau=r["critic_tau"],
            target_every=r["critic_target_update_frequency"],
            actor_every=r["actor_update_frequency"],
        )

    def agent(self, after: int = 0) -> SAC:
        """See `GoldenBaseline.agent`."""
        agent = SAC(self.config(), self.env(self.raw["obs_dim"]), seed=0, device=self.device)
        agent.nets.load_state_dict(self.weights(after))
        agent.num_updates = after
        return agent

    def batch(self, n: int) -> Batch:
        """The batch of the n-th update; a time-out is not terminal."""
        return Batch(
            obs=torch.stack([self(f"update{n}/obs"), self(f"update{n}/next_obs")]),
            action=self(f"update{n}/action")[None],
            reward=self(f"update{n}/reward")[None, :, 0],
            terminated=1 - self(f"update{n}/not_done_no_max")[None, :, 0],
        )

    def update(self, agent: SAC, n: int) -> dict[str, Tensor]:
        """See `GoldenBaseline.update`."""
        noise = [self(f"update{n}/{name}") for name in ("target_policy_noise", "policy_noise")]
        metrics = agent.update_on(self.batch(n), *noise)
        # Here one optimizer serves actor and temperature; their norms are recorded separately.
        actor = [p.grad for p in agent.nets.actor.parameters() if p.grad is not None]
        temperature = agent.nets.log_temperature.grad
        assert temperature is not None
        return {
            "critic_loss": metrics["critic_loss"],
            "actor_loss": metrics["actor_loss"],
            "entropy": metrics["entropy"],
            "alpha_before": metrics["alpha"],
            "critic_grad_norm": metrics["grad_norm"],
            "actor_grad_norm": torch.nn.utils.get_total_norm(actor),
            "alpha_grad": temperature.abs(),
        }

    def weights_of(self, agent: SAC) -> dict[str, Tensor]:
        """See `GoldenBaseline.weights_of`."""
        return dict(agent.nets.state_dict())

    def _converted(self, key: str, x: Tensor) -> tuple[str, Tensor]:
        if key == "log_alpha":
            return "log_temperature", x
        network, sub, layer, kind = re.split("[/.]", key)
        place = f"layers.{int(layer) // 2}.{kind}"  # official numbers count activations too
        if network == "actor":
            return f"actor.{place}", x
        ours = {"critic": "critics", "critic_target": "target_critics"}[network]
        return f"{ours}.{int(sub.removeprefix('Q')) - 1}.{place}", x


@torch.no_grad()
def errors_of_sac_networks(golden: GoldenSAC, agent: SAC) -> Errors:
    """Critics, target critics, and the actor's samples with their log probabilities."""
    errors, nets = Errors(), agent.nets
    obs, action = golden("component/obs"), golden("component/action")
    for target, prefix in ((False, ""), (True, "target_")):
        recorded = [golden(f"component/{prefix}q{i}")[:, 0] for i in (1, 2)]
        errors.scaled(f"{prefix}q", nets.q(obs, action, target=target), torch.stack(recorded))
    sample = nets.act(obs, golden("component/pi_noise"))
    errors.scaled("action", sample.action, golden("component/pi_action"))
    errors.scaled("mean", sample.mean, golden("component/pi_mean"))
    errors.scaled("log_prob", sample.log_prob, golden("component/pi_log_prob"))
    return errors
