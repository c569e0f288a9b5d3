"""Construction of validated run specifications."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from tdmpc2.common.run.spec import RunSpec, Scalar, overrides_of, variant_name
from tdmpc2.common.system.config_checks import SEED, STEPS, require
from tdmpc2.envs.assets import MissingAssetsError, check_sources, find_assets
from tdmpc2.envs.factory import check_obs
from tdmpc2.envs.physics import Physics
from tdmpc2.envs.task_sets import get_task_set
from tdmpc2.envs.task_variants import departures, switches_of
from tdmpc2.envs.tasks import PIXEL_ENV_STEPS, Task, get_task
from tdmpc2.runners.registry import check_pixels, make_config

OFFLINE_UPDATES = 10_000_000
"""Default number of updates for training from a dataset: that of the official code."""


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
    """Return a validated `RunSpec` of an online run; overrides equal to the defaults are dropped.

    Args:
        method: key of `METHODS`.
        task: name or alias in the task table.
        seed: seed of all random numbers.
        env_steps: budget in control steps; None for the default of the task.
        variant: name of the set of overrides; None derives it from them.
        overrides: hyperparameters that differ from the defaults.
        obs: observations, `state` or `rgb`.
        assets: source of the 3D models; ignored for tasks without.
        task_switches: switches of `TaskSwitches`.
        start: facts about the pretrained model that the run starts from; see `tdmpc2.finetune`.
        require_assets: whether the 3D models must be installed. False for planning a run; its
            specification then contains the first source in `assets`.

    Raises:
        MissingAssetsError: the 3D models are missing, or come from another source.
        UserError: a value is unknown, out of range or without effect, or the method cannot learn
            from these observations.
    """
    table_row = get_task(task)
    check_obs(table_row, obs)
    check_sources(assets)
    if obs == "rgb":
        table_row = dataclasses.replace(table_row, env_steps=PIXEL_ENV_STEPS)
    models = _assets_label(table_row, assets, require_assets) if table_row.assets else None
    changed_overrides = _changed_overrides(method, overrides or {})
    if obs == "rgb":
        check_pixels(method, dict(changed_overrides))
    budget = table_row.env_steps if env_steps is None else env_steps
    STEPS.check("env_steps", budget)
    SEED.check("seed", seed)
    switches = switches_of(task_switches or {}, table_row)
    return RunSpec(
        method=method,
        task=table_row.name,
        seed=seed,
        budget=budget,
        overrides=changed_overrides,
        variant=_variant_or_default(variant, (*changed_overrides, *departures(switches))),
        obs=obs,
        assets=models,
        task_switches=switches,
        start=tuple(sorted((start or {}).items())),
    )


def _assets_label(task: Task, assets: str, required: bool) -> str:
    """Return the source of the 3D models that a run uses, or will use once they are installed."""
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
    """Return a validated `RunSpec` for training a multi-task agent from a dataset.

    Args:
        method: key of `METHODS`.
        tasks: a suite, or several tasks separated by commas.
        seed: seed of all random numbers.
        dataset: checksum of the dataset.
        num_updates: budget in gradient steps.
        variant: name of the set of overrides; None derives it from them.
        overrides: hyperparameters that differ from the defaults.
        physics: physics of evaluations, see `TaskSwitches`.

    Raises:
        UserError: a value is unknown or out of range, or the method has no multi-task agents.
    """
    name, members = get_task_set(tasks)
    SEED.check("seed", seed)
    STEPS.check("num_updates", num_updates)
    changed_overrides = _changed_overrides(method, overrides or {}, name)
    require(
        not dict(changed_overrides).get("prioritized_replay"),
        "prioritized_replay=true: datasets are sampled uniformly; use prioritized_replay=false",
    )
    switches = switches_of({"physics": physics}, *members)
    return RunSpec(
        method=method,
        task=name,
        seed=seed,
        budget=num_updates,
        budget_unit="num_updates",
        overrides=changed_overrides,
        variant=_variant_or_default(variant, (*changed_overrides, *departures(switches))),
        task_switches=switches,
        tasks=tuple(task.name for task in members),
        dataset=dataset,
    )


def _changed_overrides(
    method: str, overrides: Mapping[str, Any], task_set: str | None = None
) -> tuple[tuple[str, Scalar], ...]:
    """Return the overrides that differ from the defaults, sorted by name."""
    config, default = (make_config(method, values, task_set) for values in (overrides, {}))
    if not hasattr(config, "model_size"):
        return overrides_of(config, default)
    size = {"model_size": config.model_size}
    changed = dict(overrides_of(config, make_config(method, size, task_set)))
    if config.model_size != default.model_size:
        changed |= size
    return tuple(sorted(changed.items()))


def _variant_or_default(
    variant: str | None, changed_overrides: tuple[tuple[str, Scalar], ...]
) -> str:
    """Return the given name of a variant after a check, or one derived from its settings."""
    if variant is None:
        return variant_name(changed_overrides)
    require(
        0 < len(variant) <= 100 and not variant.startswith(".") and "/" not in variant,
        f"variant={variant}: must be usable as a folder's name (1 to 100 characters, no slash, "
        "no leading dot)",
    )
    return variant
