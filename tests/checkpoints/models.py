"""Small models, and official files of them, for the tests in this folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tdmpc2.checkpoints.exporting import official_state
from tdmpc2.checkpoints.model import Model
from tdmpc2.checkpoints.model_file import load_model
from tdmpc2.checkpoints.official import KeyFormat
from tdmpc2.common.interfaces import EnvSpec
from tdmpc2.common.system.errors import UserError
from tdmpc2.config import TDMPC2Config
from tdmpc2.envs.multitask import multitask_spec
from tdmpc2.envs.tasks import get_task
from tdmpc2.world_model import WorldModel
from tests.helpers import env_spec, randomize_

# Fast planning; the dimensions are those of the smoke size.
FAST = {"horizon": 1, "iterations": 1, "num_samples": 8, "num_elites": 4, "num_pi_samples": 2}
TASKS = ("toy-pointmass", "cartpole-balance", "mw-reach")


def model(*tasks: str, obs: str = "state", **overrides: Any) -> Model:
    """Return a model of the smoke size with perturbed weights."""
    env = multitask_spec([get_task(task) for task in tasks or ("walker-walk",)])
    config = TDMPC2Config.make(
        **{"model_size": "smoke", "multitask": len(tasks) > 1, **FAST, **overrides}
    )
    weights = randomize_(WorldModel(config, env), std=0.05).state_dict()
    return Model(config, env, weights, {"origin": "run", "sha256": "0" * 64})


def official_file(path: Path, of: Model, keys: KeyFormat = "new", **changes: Any) -> Path:
    """Write an official checkpoint of a model; a change to None removes the key."""
    state = official_state(of, keys) | changes
    torch.save({"model": {k: v for k, v in state.items() if v is not None or "__" in k}}, path)
    return path


def shapes(size: str, env: EnvSpec, **options: Any) -> dict[str, Tensor]:
    """Return weights of a model size on the meta device."""
    multitask = env.num_tasks > 1
    with torch.device("meta"):
        config = TDMPC2Config.make(model_size=size, multitask=multitask, **options)
        return dict(WorldModel(config, env).state_dict())


def single_task(obs_dim: int = 24, action_dim: int = 6, *, episodic: bool = False) -> EnvSpec:
    """Return the shapes of a single task."""
    return env_spec(obs_shape=(obs_dim,), action_dims=(action_dim,), episodic=episodic)


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    """Return whether two state dicts have the same names and equal values."""
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def refused(path: Path, message: str, **options: Any) -> None:
    """Check that `load_model` rejects a file with a message of one line that matches."""
    with pytest.raises(UserError, match=message) as caught:
        load_model(path, **options)
    assert "\n" not in str(caught.value)
