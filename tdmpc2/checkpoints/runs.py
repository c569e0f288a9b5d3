"""From a run of this project to its model."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from tdmpc2.checkpoints.architecture import check_weights
from tdmpc2.checkpoints.model import Model
from tdmpc2.common.interfaces import EnvSpec
from tdmpc2.common.run.checkpoint import CheckpointStore
from tdmpc2.common.run.spec import RunSpec
from tdmpc2.common.system.atomic_files import read_json, sha256_of
from tdmpc2.common.system.errors import UserError
from tdmpc2.config import TDMPC2Config
from tdmpc2.envs.multitask import multitask_spec, padded_spec
from tdmpc2.envs.pixels import FRAME_STACK, PIXELS
from tdmpc2.envs.task_variants import task_of
from tdmpc2.envs.tasks import get_task
from tdmpc2.runners.registry import make_config

# What the number of a checkpoint counts, by the unit of the run's budget.
_STEP_UNITS = {"env_steps": "decisions", "num_updates": "updates"}


def model_of_run(path: Path) -> Model:
    """The model of a run's newest checkpoint, or of one of its checkpoints.

    Args:
        path: a run directory, or one of its `checkpoints/…`.

    Raises:
        UserError: neither, no or a damaged checkpoint, or a run of another method.
    """
    directory, checkpoint = find_checkpoint(path)
    known = read_json(directory / "spec.json")
    if known["method"] != "tdmpc2":
        raise UserError(f"{directory}: a run of {known['method']}; only tdmpc2's have such models")
    state = CheckpointStore(directory).load_agent(checkpoint)
    try:
        config, env = _config(known), _env(known)
        weights = state["agent"]["model"]
        check_weights(weights, config, env)
    except UserError as error:
        raise UserError(f"{checkpoint}: {error}") from None
    facts = {
        "origin": "run",
        "source": f"{directory.name}/checkpoints/{checkpoint.name}",
        "sha256": sha256_of(checkpoint / "state.pt"),
        "variant": known["variant"],
        "task": known["task"],
        "run_seed": known["seed"],
        "identity": known["identity"],
        "step": int(checkpoint.name),
        "step_unit": _STEP_UNITS[known.get("budget_unit", "env_steps")],
        "obs": known.get("obs", "state"),
        "assets": known.get("assets"),
        "protocol": dict(known.get("protocol", {})),
    }
    return Model(config, env, weights, facts)


def find_checkpoint(path: Path) -> tuple[Path, Path]:
    """Run directory and checkpoint that a path names.

    Raises:
        UserError: it names none.
    """
    is_checkpoint = (path / "manifest.json").is_file()
    directory = path.parent.parent if is_checkpoint else path
    if not (directory / "spec.json").is_file():
        raise UserError(f"{path}: neither a run directory nor a checkpoint of one")
    if is_checkpoint:
        return directory, path
    found = CheckpointStore(directory).existing()
    if not found:
        raise UserError(f"{path}: has no checkpoint yet")
    return directory, found[-1]


def _config(known: dict[str, Any]) -> TDMPC2Config:
    """The configuration of a run, as its `spec.json` tells it."""
    task_set = known["task"] if known.get("tasks") else None
    return make_config(known["method"], known["overrides"], task_set)


def _env(known: dict[str, Any]) -> EnvSpec:
    """Shapes and tasks of a run, by the task table: no simulator is needed."""
    if known.get("tasks"):
        return multitask_spec([get_task(name) for name in known["tasks"]])
    spec = RunSpec(
        method=known["method"],
        task=known["task"],
        seed=known["seed"],
        budget=known["budget"],
        task_switches=tuple(sorted(known.get("protocol", {}).items())),
    )
    if known.get("start"):
        return padded_spec(task_of(spec), known["start"])
    env = multitask_spec([task_of(spec)])
    if known.get("obs", "state") == "state":
        return env
    return dataclasses.replace(
        env, obs_shape=(3 * FRAME_STACK, PIXELS, PIXELS), frame_stack=FRAME_STACK
    )
