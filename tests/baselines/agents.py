"""Small agents of the baselines, with a batch and noise for one update."""

from __future__ import annotations

from typing import Any

from baselines.dreamerv3.agent import DreamerV3
from baselines.dreamerv3.behavior import Noise
from baselines.dreamerv3.config import DreamerV3Config
from baselines.sac import SAC
from baselines.sac_config import SACConfig
from baselines.tdmpc.agent import TDMPC
from baselines.tdmpc.config import TDMPCConfig
from tests.baselines.shapes import SMALL, Random, random_batch, random_sequences


def sac(**settings: Any) -> tuple[SAC, list[Any]]:
    """Return a small agent and the arguments of its `update_on`."""
    agent = SAC(SACConfig.make(hidden_dim=32, **settings), SMALL, seed=0)
    random = Random(1)
    return agent, [random_batch(SMALL, 1, 40), random.normal(40, 2), random.normal(40, 2)]


def tdmpc(**settings: Any) -> tuple[TDMPC, list[Any]]:
    """Return a small agent and the arguments of its `update_on`."""
    sizes = {"enc_dim": 32, "mlp_dim": 32, "latent_dim": 12, "horizon": 3, "num_samples": 64}
    sizes |= {"num_pi_samples": 64, "num_elites": 8, "horizon_decisions": 1}
    config = TDMPCConfig.make(**sizes, **settings)
    agent = TDMPC(config, SMALL, seed=0)
    agent.decisions = 10
    for parameter in agent.model.parameters():
        parameter.data += 0.1 * Random(2).normal(*parameter.shape)
    return agent, [random_batch(SMALL, 3, 40), Random(1).normal(7, 40, 2)]


def dreamerv3(**settings: Any) -> tuple[DreamerV3, list[Any]]:
    """Return a small agent and the arguments of its `update_on`."""
    sizes = {"deter": 32, "hidden": 32, "imagination": 4, "encoder_units": 32, "head_units": 32}
    config = DreamerV3Config.make(model_size="small", **sizes, **settings)
    random = Random(1)
    noise = Noise(random.normal(4, 24, 2), random.uniform(4, 24, 16))
    batch = random_sequences(SMALL, 8, 3)
    return DreamerV3(config, SMALL, seed=0), [batch, random.uniform(8, 3, 16), noise]
