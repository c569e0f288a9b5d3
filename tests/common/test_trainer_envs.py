"""Environments that write into their arrays or change torch do not change what is recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tdmpc2.common.interfaces import TaskEnv
from tdmpc2.common.system.errors import UserError
from tests.common.test_trainer import make_trainer


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
