"""Environments that write into their arrays or change torch do not change what is recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tdmpc2.common.interfaces import TaskEnv
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.training.base_agent import BaseAgent, BaseConfig
from tdmpc2.envs.factory import make_env
from tests.common.test_trainer import make_trainer
from tests.helpers import env_spec


class Buffers(TaskEnv):
    """An environment that returns one array at each step, and writes into its actions."""

    def __init__(self, env: Any) -> None:
        self.env, self.buffer = env, np.zeros(4, np.float32)
        self.action_space, self.observation_space = env.action_space, env.observation_space
        self.action_repeat, self.episode_length = env.action_repeat, env.episode_length

    def reset(self, **how: Any) -> Any:
        self.buffer[:], info = self.env.reset(**how)
        return self.buffer, info

    def step(self, action: np.ndarray) -> Any:
        self.buffer[:], *others = self.env.step(action)
        action[:] = 9
        return self.buffer, *others

    def generator_state(self) -> Any:
        return self.env.generator_state()

    def set_generator_state(self, state: Any) -> None:
        self.env.set_generator_state(state)


def test_arrays_that_an_environment_uses_again_do_not_change_the_replay(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    usual, reusing = (make_trainer(tmp_path / name, env_steps=100) for name in ("a", "b"))
    reusing.envs = [Buffers(env) for env in reusing.envs]
    for trainer in (usual, reusing):
        trainer.run()
    for one, other in zip(usual.replay.episodes(0), reusing.replay.episodes(0), strict=True):
        for name in ("obs", "action", "reward"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


class Linear(BaseAgent):
    """Takes the default number of updates, each of which does nothing."""

    def act(self, obs: np.ndarray, **how: Any) -> np.ndarray:
        return np.zeros((len(obs), 2), np.float32)

    def update(self, replay: Any) -> dict[str, Any]:
        return {"loss": torch.zeros(())}


def test_one_update_per_decision_of_several_environments(tmp_path: Path) -> None:
    """One of the three environments ends its episodes after 20 of 50 decisions."""
    trainer = make_trainer(tmp_path, env_steps=360)
    trainer.agent = Linear(BaseConfig(seed_decisions=130), env_spec(), seed=0)
    trainer.envs = [make_env("toy-pointmass", seed=i) for i in range(3)]
    trainer.envs[1].episode_length = 20
    trainer.run()
    assert trainer.progress.decisions == 3 * (50 + 20 + 50)
    assert trainer.progress.num_updates == 360 - 130


def test_an_agent_is_told_of_the_decisions_of_all_environments(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, env_steps=100)
    trainer.envs = [make_env("toy-pointmass", seed=i) for i in range(2)]
    trainer.envs[1].episode_length = 20
    trainer.run()
    events = [(event, *vars(counters).values()) for event, counters in trainer.agent.events]
    assert events[0] == ("decision", 2, 0, 1, 2)
    assert events[20] == ("decision", 41, 0, 21, 1)
    assert events[50] == ("episode_end", 70, 10, 50, 70)


@pytest.mark.parametrize("number", [0, 1])
def test_an_environment_that_changes_a_setting_of_torch_is_refused(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In an evaluation, before its result is recorded, and in an episode."""
    trainer = make_trainer(tmp_path)
    env: Any = [trainer.eval_envs.envs[0], trainer.envs[0]][number]
    reset, before = env.reset, torch.get_num_threads()

    def changing(**how: Any) -> Any:
        torch.set_num_threads(before + 1)
        return reset(**how)

    monkeypatch.setattr(env, "reset", changing)
    try:
        with pytest.raises(UserError, match=f"number of threads from {before} to {before + 1} for"):
            trainer.run()
    finally:
        torch.set_num_threads(before)
    assert (tmp_path / "eval.csv").exists() == (number == 1)
