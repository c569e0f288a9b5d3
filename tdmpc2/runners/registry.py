"""The methods of the suite, and the settings of a run checked against them."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from tdmpc2.common.interfaces import Agent, EnvSpec
from tdmpc2.common.run.spec import RunSpec, Scalar, overrides_of, variant_name
from tdmpc2.common.system import cli
from tdmpc2.common.system.config_checks import require
from tdmpc2.common.system.errors import UserError, did_you_mean
from tdmpc2.common.training.lockstep import BatchedAgents
from tdmpc2.envs.assets import MissingAssetsError, find_assets
from tdmpc2.envs.factory import check_obs
from tdmpc2.envs.multitask import get_task_set
from tdmpc2.envs.physics import Physics
from tdmpc2.envs.task_variants import departures, switches_of, task_of
from tdmpc2.envs.tasks import PIXEL_ENV_STEPS, Task, get_task

# Method name → where its agent is; imported only when used.
METHODS: dict[str, str] = {
    "tdmpc2": "tdmpc2.agent:TDMPC2",
    "sac": "baselines.sac:SAC",
    "tdmpc": "baselines.tdmpc.agent:TDMPC",
    "dreamerv3": "baselines.dreamerv3.agent:DreamerV3",
}

MULTITASK_METHODS = ("tdmpc2", "tdmpc")  # whose agents can learn several tasks from a dataset
OFFLINE_UPDATES = 10_000_000
"""Default budget of learning from a dataset: that of the paper's code."""
QUIRKY_DATASETS = ("mt30", "mt80")  # whose released models differ


def agent_class(method: str) -> type[Any]:
    """The agent of a method.

    Raises:
        UserError: unknown method.
    """
    if method not in METHODS:
        raise UserError(f"unknown method '{method}'{did_you_mean(method, METHODS)}")
    module, _, name = METHODS[method].partition(":")
    return getattr(importlib.import_module(module), name)


def make_spec(
    method: str,
    task: str,
    seed: int,
    *,
    env_steps: int | None = None,
    variant: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    obs: str = "state",
    assets: str = "official",
    task_switches: Mapping[str, bool | str] | None = None,
    start: Mapping[str, Scalar] | None = None,
    require_assets: bool = True,
) -> RunSpec:
    """A checked `RunSpec`; overrides that equal the defaults are dropped from it.

    Args:
        method: a key of `METHODS`.
        task: name or alias in the task table.
        seed: of everything random.
        env_steps: budget; the task's own if None.
        variant: name of the set of overrides; derived from them if None.
        overrides: settings of the method.
        obs: `state` or `rgb`.
        assets: source of the models, for the tasks that need some; others pass it over.
        task_switches: switches of `TaskSwitches`.
        start: facts of the trained model that it goes on from; see `tdmpc2.finetune`.
        require_assets: False to plan a run whose models are not there yet; it then carries the
            first source that is wanted.

    Raises:
        MissingAssetsError: the models are missing, or of another source.
        UserError: anything unknown, out of range or without effect.
    """
    table_row = get_task(task)
    check_obs(table_row, obs)
    if obs == "rgb":
        table_row = dataclasses.replace(table_row, env_steps=PIXEL_ENV_STEPS)
    models = _assets_label(table_row, assets, require_assets) if table_row.assets else None
    what = _changed(method, overrides or {})
    budget = table_row.env_steps if env_steps is None else env_steps
    require(budget >= 1, f"env_steps={budget}: must be at least 1")
    _check_seed(seed)
    switches = switches_of(task_switches or {}, table_row)
    return RunSpec(
        method=method,
        task=table_row.name,
        seed=seed,
        budget=budget,
        overrides=what,
        variant=_named(variant, (*what, *departures(switches))),
        obs=obs,
        assets=models,
        task_switches=switches,
        start=tuple(sorted((start or {}).items())),
    )


def _assets_label(task: Task, assets: str, required: bool) -> str:
    """Source of the models that a run uses, or will use once they are there."""
    assert task.assets is not None
    try:
        return find_assets(task.assets, assets).label
    except MissingAssetsError:
        if required:
            raise
        return assets.partition(",")[0]


def make_offline_spec(
    method: str,
    tasks: str,
    seed: int,
    dataset: str,
    *,
    num_updates: int = OFFLINE_UPDATES,
    variant: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    physics: Physics = "paper",
) -> RunSpec:
    """A checked `RunSpec` of learning several tasks from a dataset.

    Args:
        method: a key of `METHODS`.
        tasks: a suite, or several tasks by commas.
        seed: of everything random.
        dataset: its checksum.
        num_updates: budget, gradient steps.
        variant: name of the set of overrides; derived from them if None.
        overrides: settings of the method.
        physics: of evaluations, see `TaskSwitches`.

    Raises:
        UserError: anything unknown or out of range; a method that learns one task at a time.
    """
    name, members = get_task_set(tasks)
    _check_seed(seed)
    require(num_updates >= 1, f"num_updates={num_updates}: must be at least 1")
    what = _changed(method, overrides or {}, name)
    require(
        not dict(what).get("prioritized_replay"),
        "prioritized_replay=true: datasets are sampled uniformly",
    )
    switches = switches_of({"physics": physics}, *members)
    return RunSpec(
        method=method,
        task=name,
        seed=seed,
        budget=num_updates,
        budget_unit="num_updates",
        overrides=what,
        variant=_named(variant, (*what, *departures(switches))),
        task_switches=switches,
        tasks=tuple(task.name for task in members),
        dataset=dataset,
    )


def require_multitask(method: str) -> None:
    """Refuses a method whose agents learn one task only."""
    others = " or ".join(MULTITASK_METHODS)
    text = f"method={method}: learns one task at a time; use {others}"
    require(method in MULTITASK_METHODS, text)


def make_config(method: str, overrides: Mapping[str, Any], task_set: str | None = None) -> Any:
    """The config of a method's agent.

    Args:
        method: a key of `METHODS`.
        overrides: settings that differ from the defaults.
        task_set: name of the set of tasks that it learns; None for a single task.

    Raises:
        UserError: unknown field, a value out of range, or a method that learns one task only.
    """
    make = agent_class(method).config_class.make
    several: dict[str, Any] = {}
    if task_set is not None:
        known = inspect.signature(make).parameters
        require_multitask(method)
        several["multitask"] = True
        if "dataset" in known and task_set in QUIRKY_DATASETS:
            several["dataset"] = task_set
    return make(**several, **overrides)


def _changed(
    method: str, overrides: Mapping[str, Any], task_set: str | None = None
) -> tuple[tuple[str, Scalar], ...]:
    """Those overrides that are none of the defaults, sorted by name."""
    checked = _as_on_the_command_line(agent_class(method).config_class, overrides)
    config, default = (make_config(method, one, task_set) for one in (checked, {}))
    if not hasattr(config, "model_size"):
        return overrides_of(config, default)
    size = {"model_size": config.model_size}
    changed = dict(overrides_of(config, make_config(method, size, task_set)))
    if config.model_size != default.model_size:
        changed |= size
    return tuple(sorted(changed.items()))


def _check_seed(seed: int) -> None:
    require(0 <= seed < 2**32, f"seed={seed}: must lie in 0..{2**32 - 1}")  # as libraries want it


def _named(variant: str | None, what: tuple[tuple[str, Scalar], ...]) -> str:
    """The variant's name, checked, or derived from what it sets."""
    if variant is None:
        return variant_name(what)
    require(
        0 < len(variant) <= 100 and not variant.startswith(".") and "/" not in variant,
        f"variant={variant}: must be usable as a folder's name",
    )
    return variant


def _as_on_the_command_line(
    config_class: type[Any], overrides: Mapping[str, Any]
) -> dict[str, Any]:
    """Values of the types that fields declare, so that 8 and 8.0 are the same run."""
    kinds = cli.schema_of(config_class)
    return {
        name: cli.parse_value(name, str(value), kinds[name]) if name in kinds else value
        for name, value in overrides.items()
    }


def make_agent(spec: RunSpec, env: EnvSpec, device: torch.device) -> Agent:
    """The agent of a run, freshly initialized."""
    config = make_config(spec.method, dict(spec.overrides), spec.task if spec.tasks else None)
    return agent_class(spec.method)(config, env, seed=spec.seed, device=device)


def has_seed_batch(method: str) -> bool:
    """Whether a method's agents of several seeds can act and learn as one batch."""
    return getattr(agent_class(method), "seed_batch_class", None) is not None


def why_alone(spec: RunSpec) -> str | None:
    """Why the seeds of such runs cannot be trained as one batch; None where they can."""
    if spec.tasks:
        return f"{spec.task}: agents of several tasks are trained one by one"
    task = task_of(spec)
    if not has_seed_batch(spec.method):
        return f"method {spec.method} trains one seed per process only"
    if task.episodic:
        return f"{spec.task}: episodes of different lengths; train its seeds one by one"
    if not task.seeded_resets:
        return f"{spec.task}: one generator in a process; train its seeds one by one"
    return None


def make_seed_batch(agents: Sequence[Agent], going: Sequence[bool]) -> BatchedAgents:
    """Agents of one method and task as one batch.

    Args:
        agents: of several seeds, as their runs have restored them.
        going: whether each agent's run goes on; the others only fill their places.
    """
    module, _, name = agents[0].seed_batch_class.partition(":")  # type: ignore[attr-defined]
    return getattr(importlib.import_module(module), name)(agents, going)
