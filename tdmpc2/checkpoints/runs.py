"""Load the model of a run of this project."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from tdmpc2.checkpoints.architecture import check_weights
from tdmpc2.checkpoints.model import Model
from tdmpc2.common.interfaces import EnvSpec
from tdmpc2.common.run.checkpoint import CheckpointStore
from tdmpc2.common.run.schemas import Manifest, SpecFile
from tdmpc2.common.run.spec import RunSpec
from tdmpc2.common.system.atomic_files import read_json, sha256_of
from tdmpc2.common.system.errors import UserError
from tdmpc2.config import TDMPC2Config
from tdmpc2.envs.multitask import multitask_spec, padded_spec
from tdmpc2.envs.pixels import FRAME_STACK, PIXELS
from tdmpc2.envs.task_variants import task_of
from tdmpc2.envs.tasks import get_task
from tdmpc2.runners.registry import make_config

# Unit of a checkpoint's number, by the unit of the run's budget.
_STEP_UNITS = {"env_steps": "decisions", "num_updates": "updates"}


def model_of_run(path: Path) -> Model:
    """Return the model of a run's newest checkpoint, or of a given checkpoint.

    Args:
        path: a run directory, or one of its `checkpoints/…`.

    Raises:
        UserError: the path is neither, the checkpoint is missing or damaged, or the run is of
            another method.
    """
    directory, checkpoint = find_checkpoint(path)
    known = read_json(directory / "spec.json", SpecFile)
    if known["method"] != "tdmpc2":
        raise UserError(f"{directory}: a run of {known['method']}; only tdmpc2 is supported")
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
        # Not from its name, which a copy of a checkpoint need not have.
        "step": read_json(checkpoint / "manifest.json", Manifest)["agent_step"],
        "step_unit": _STEP_UNITS[known.get("budget_unit", "env_steps")],
        "obs": known.get("obs", "state"),
        "assets": known.get("assets"),
        "protocol": dict(known.get("protocol", {})),
    }
    return Model(config, env, weights, facts)


def find_checkpoint(path: Path) -> tuple[Path, Path]:
    """Return the run directory and the checkpoint of a path.

    Raises:
        UserError: there is none.
    """
    is_checkpoint = (path / "manifest.json").is_file()
    directory = path.parent.parent if is_checkpoint else path
    if not (directory / "spec.json").is_file():
        advice = "; evaluate model files with python -m tdmpc2.checkpoints evaluate"
        raise UserError(
            f"{path}: neither a run directory nor a checkpoint of one{advice * path.is_file()}"
        )
    if is_checkpoint:
        return directory, path
    checkpoints = CheckpointStore(directory).existing()
    if not checkpoints:
        raise UserError(f"{path}: has no checkpoint yet")
    return directory, checkpoints[-1]


def _config(known: dict[str, Any]) -> TDMPC2Config:
    """Return the configuration of a run from its `spec.json`."""
    task_set = known["task"] if known.get("tasks") else None
    return make_config(known["method"], known["overrides"], task_set)


def _env(known: dict[str, Any]) -> EnvSpec:
    """Return the shapes and tasks of a run from the task table, without a simulator."""
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
