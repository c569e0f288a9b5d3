"""Settings fit an agent, its replay buffer and its episodes, or are refused at the start."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from baselines.dreamerv3.agent import DreamerV3
from baselines.dreamerv3.config import DreamerV3Config
from baselines.tdmpc.agent import TDMPC
from baselines.tdmpc.config import TDMPCConfig
from tdmpc2.agent import TDMPC2
from tdmpc2.common.interfaces import EnvSpec
from tdmpc2.common.replay import ram_budget
from tdmpc2.common.replay.types import ShortEpisodesError
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.training.base_agent import BaseAgent, BaseConfig
from tdmpc2.runners.setup import check_fits, make_replay
from tests.common.test_trainer import LENGTH, make_trainer
from tests.helpers import env_spec, tiny_config

CPU = torch.device("cpu")
ENV = env_spec()  # episodes of 500 decisions
SHORT = env_spec((4,), episode_lengths=(LENGTH,))


class Sampling(BaseAgent):
    """Samples sub-trajectories and learns nothing."""

    def act(self, obs: np.ndarray, **how: Any) -> np.ndarray:
        return np.zeros((len(obs), self.env.action_dim), np.float32)

    def update(self, replay: Any) -> dict[str, Any]:
        replay.sample(4, self.replay_length)
        return {"loss": torch.zeros(())}


def agent_of(members: dict[str, Any], env: EnvSpec = ENV, **settings: Any) -> BaseAgent:
    return type("Method", (Sampling,), members)(BaseConfig(**settings), env, seed=0)


def refused(agent: BaseAgent, message: str, env: EnvSpec = ENV) -> None:
    with pytest.raises(UserError, match=message):
        check_fits(agent, env, 10_000, CPU)


def test_all_environments_finish_an_episode_before_the_first_update() -> None:
    refused(agent_of({"num_envs": 3}), r"500 decisions in each of 3 .*; use at least 1501$")


def test_the_advice_of_a_refusal_is_the_bound() -> None:
    """The first update of TD-MPC2 follows one decision more than `seed_decisions`."""
    for least, make in (
        (501, lambda n: agent_of({}, seed_decisions=n)),
        (500, lambda n: TDMPC2(tiny_config(seed_decisions=n, buffer_size=501), ENV, seed=0)),
    ):
        refused(make(least - 1), f"use at least {least}$")
        check_fits(make(least), ENV, 10_000, CPU)
    refused(agent_of({"replay_length": 501}), r"^replay_length=501: .*; use a smaller replay_l")


@pytest.mark.parametrize(("within", "least"), [(True, 2 * LENGTH + 1), (False, LENGTH)])
def test_sequences_that_are_longer_than_an_episode(
    within: bool, least: int, tmp_path: Path
) -> None:
    """Two episodes of 50 decisions have 102 rows, one has 51."""
    members: dict[str, Any] = {"replay_across_episodes": True, "replay_length": LENGTH + 2}
    members["updates_within_episodes"] = within
    refused(
        agent_of(members, SHORT, seed_decisions=least - 1),
        f": updates start after 2 whole episodes of 50 decisions; use at least {least}$",
        SHORT,
    )
    trainer = make_trainer(tmp_path, env_steps=3 * LENGTH)
    agent = trainer.agent = agent_of(members, SHORT, seed_decisions=least)
    check_fits(agent, SHORT, 3 * LENGTH, CPU)
    trainer.replay = make_replay(agent, SHORT, 0, CPU)
    trainer.run()
    assert trainer.progress.num_updates == 3 * LENGTH - least


def test_seed_decisions_of_agents_that_update_after_episodes(tmp_path: Path) -> None:
    """Those of TD-MPC may end in the first episode, after which its updates begin."""
    sizes = {"latent_dim": 4, "mlp_dim": 8, "enc_dim": 8, "num_samples": 8, "num_pi_samples": 2}
    config = TDMPCConfig.make(seed_decisions=LENGTH, pretrain_updates=3, num_elites=4, **sizes)
    trainer = make_trainer(tmp_path, env_steps=LENGTH)
    agent = trainer.agent = TDMPC(config, SHORT, seed=0)
    check_fits(agent, SHORT, LENGTH, CPU)
    trainer.replay = make_replay(agent, SHORT, 0, CPU)
    trainer.run()
    assert trainer.progress.num_updates == 3


def test_transitions_are_stored_for_one_environment_without_stacked_frames_only() -> None:
    now = {"replay_visibility": "transition"}
    pixels = dataclasses.replace(env_spec((9, 64, 64)), frame_stack=3)
    for agent, env in ((agent_of(now | {"num_envs": 2}), ENV), (agent_of(now, pixels), pixels)):
        refused(agent, "^replay_visibility=transition: supports one environment without", env)
    across = now | {"num_envs": 2, "replay_across_episodes": True}
    check_fits(agent_of(across), ENV, 10_000, CPU)


def test_sequences_of_images_take_four_bytes_per_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ram_budget, "available_memory", lambda: 500_000_000)
    pixels = dataclasses.replace(env_spec((9, 64, 64)), frame_stack=3)
    agent = agent_of({"replay_across_episodes": True}, pixels)
    refused(agent, "needs 0.8 GB for 5,511 rows", pixels)  # 9·64·64·4 bytes


WHILE_IT_GROWS: dict[str, Any] = {"replay_visibility": "transition", "replay_length": 5}


def test_the_current_episode_is_long_enough_for_each_update(tmp_path: Path) -> None:
    """At the first update, and when the buffer has removed the only finished episode."""
    least = {"seed_decisions": 5, "buffer_size": LENGTH + 6}
    for name, message in (
        ("seed_decisions", "^seed_decisions=4: updates need 5 decisions; use at least 5$"),
        ("buffer_size", "^buffer_size=55: an episode and a sequence of 6 take 56 rows; use at "),
    ):
        less = agent_of(WHILE_IT_GROWS, SHORT, **{**least, name: least[name] - 1})
        refused(less, message, SHORT)
    trainer = make_trainer(tmp_path, env_steps=3 * LENGTH)
    agent = trainer.agent = agent_of(WHILE_IT_GROWS, SHORT, **least)
    check_fits(agent, SHORT, 150, CPU)
    trainer.replay = make_replay(agent, SHORT, 0, CPU)
    trainer.run()
    assert trainer.progress.num_updates == 3 * LENGTH - 5


def test_one_row_less_would_leave_nothing_to_sample(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, env_steps=3 * LENGTH)
    trainer.agent = agent_of(WHILE_IT_GROWS, SHORT, seed_decisions=5, buffer_size=LENGTH + 5)
    trainer.replay = make_replay(trainer.agent, SHORT, 0, CPU)
    with pytest.raises(ShortEpisodesError):
        trainer.run()


def test_a_single_transition_needs_no_further_rows() -> None:
    now = {"replay_visibility": "transition"}
    check_fits(agent_of(now, seed_decisions=1, buffer_size=501), ENV, 10_000, CPU)
    across = DreamerV3Config.make(model_size="small", num_envs=1, seed_decisions=64)
    check_fits(DreamerV3(across, ENV, seed=0), ENV, 10_000, CPU)
