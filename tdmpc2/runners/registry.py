"""Table of methods, and construction of validated run specifications, configs and agents."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, NamedTuple

from tdmpc2.common.run.spec import RunSpec, Scalar, overrides_of, variant_name
from tdmpc2.common.system import cli
from tdmpc2.common.system.config_checks import SEED, STEPS, require
from tdmpc2.common.system.errors import UserError, did_you_mean
from tdmpc2.common.system.user_code import load_object
from tdmpc2.envs.assets import MissingAssetsError, check_sources, find_assets
from tdmpc2.envs.factory import check_obs
from tdmpc2.envs.physics import Physics
from tdmpc2.envs.task_sets import get_task_set
from tdmpc2.envs.task_variants import departures, switches_of, task_of
from tdmpc2.envs.tasks import PIXEL_ENV_STEPS, Task, get_task

if TYPE_CHECKING:
    import torch

    from tdmpc2.common.interfaces import Agent, EnvSpec
    from tdmpc2.common.training.lockstep import BatchedAgents


class Method(NamedTuple):
    """Where a method is implemented; its classes are imported when used.

    Attributes:
        agent: `"module:Class"` of its agent.
        config: `"module:Class"` of the agent's `config_class`, in a module that does not import
            torch, so that `--help` is fast; None asks the agent.
        multitask: the agent's `multitask`, for the methods of this suite.
    """

    agent: str
    config: str | None = None
    multitask: bool = False


METHODS: dict[str, Method] = {
    "tdmpc2": Method("tdmpc2.agent:TDMPC2", "tdmpc2.config:TDMPC2Config", multitask=True),
    "sac": Method("baselines.sac:SAC", "baselines.sac_config:SACConfig"),
    "tdmpc": Method(
        "baselines.tdmpc.agent:TDMPC", "baselines.tdmpc.config:TDMPCConfig", multitask=True
    ),
    "dreamerv3": Method(
        "baselines.dreamerv3.agent:DreamerV3", "baselines.dreamerv3.config:DreamerV3Config"
    ),
}

ENTRY_POINTS = "tdmpc2_repro.methods"
"""Entry-point group of methods in other packages: `name = "package.module:Class"`."""
OFFLINE_UPDATES = 10_000_000
"""Default number of updates for training from a dataset: that of the official code."""
QUIRKY_DATASETS = ("mt30", "mt80")  # the released models for these have special settings


@cache
def registered_methods() -> dict[str, Method]:
    """Return the methods of this suite and of installed packages by name."""
    others = entry_points(group=ENTRY_POINTS)
    return {**{point.name: Method(point.value) for point in others}, **METHODS}


def _method(name: str) -> Method:
    """Return the row of a method: of a registered one, or of `package.module:Class`."""
    known = registered_methods()
    if name in known:
        return known[name]
    if ":" in name:
        return Method(name)
    raise UserError(
        f"unknown method '{name}'{did_you_mean(name, known)}; a method of your own is named as "
        "package.module:Class"
    )


@cache
def agent_class(method: str) -> type[Any]:
    """Return the agent class of a method; this imports torch.

    Args:
        method: name of a registered method, or `package.module:Class`.

    Raises:
        UserError: the method is unknown, cannot be imported, or does not fulfil the interface.
    """
    target = _method(method).agent
    found = load_object(f"method={method}", target)
    if method in METHODS:
        return found
    from tdmpc2.runners.own_methods import checked_class

    return checked_class(method, found)


def config_class(method: str) -> Any:
    """Return the config class of a method, without importing torch for a method of this suite.

    Args:
        method: name of a registered method, or `package.module:Class`.

    Raises:
        UserError: as for `agent_class`.
    """
    config = _method(method).config
    if config is None:
        return agent_class(method).config_class
    return load_object(f"method={method}", config)


def multitask_methods() -> tuple[str, ...]:
    """Return the methods of this suite with multi-task agents, which learn from a dataset."""
    return tuple(method for method, row in METHODS.items() if row.multitask)


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
        UserError: a value is unknown, out of range or without effect.
    """
    table_row = get_task(task)
    check_obs(table_row, obs)
    check_sources(assets)
    if obs == "rgb":
        table_row = dataclasses.replace(table_row, env_steps=PIXEL_ENV_STEPS)
    models = _assets_label(table_row, assets, require_assets) if table_row.assets else None
    changed_overrides = _changed_overrides(method, overrides or {})
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


def require_multitask(method: str) -> None:
    """Check that a method has multi-task agents.

    Raises:
        UserError: it has none.
    """
    if not agent_class(method).multitask:
        valid = " or ".join(multitask_methods())
        raise UserError(f"method={method}: learns one task at a time; use {valid}")


def make_config(method: str, overrides: Mapping[str, Any], task_set: str | None = None) -> Any:
    """Return the config of a method's agent.

    Args:
        method: key of `METHODS`.
        overrides: hyperparameters that differ from the defaults.
        task_set: name of the task set of a multi-task agent; None for a single task.

    Raises:
        UserError: a field is unknown, a value is out of range, or the method has no multi-task
            agents.
    """
    make = config_class(method).make
    several: dict[str, Any] = {}
    if task_set is not None:
        known = inspect.signature(make).parameters
        require_multitask(method)
        several["multitask"] = True
        if "dataset" in known and task_set in QUIRKY_DATASETS:
            several["dataset"] = task_set
    return make(**several, **overrides)


def _changed_overrides(
    method: str, overrides: Mapping[str, Any], task_set: str | None = None
) -> tuple[tuple[str, Scalar], ...]:
    """Return the overrides that differ from the defaults, sorted by name."""
    checked = _to_declared_types(config_class(method), overrides)
    config, default = (make_config(method, values, task_set) for values in (checked, {}))
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


def _to_declared_types(cls: type[Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Convert values to the declared types of the fields, so that 8 and 8.0 give the same run."""
    kinds = cli.schema_of(cls)
    return {
        name: cli.parse_value(name, str(value), kinds[name]) if name in kinds else value
        for name, value in overrides.items()
    }


def make_agent(spec: RunSpec, env: EnvSpec, device: torch.device) -> Agent:
    """Return a newly initialized agent for a run.

    Args:
        spec: the run.
        env: shapes of its task or tasks.
        device: device of the networks.
    """
    config = make_config(spec.method, dict(spec.overrides), spec.task if spec.tasks else None)
    agent = agent_class(spec.method)(config, env, seed=spec.seed, device=device)
    if spec.method not in METHODS:
        from tdmpc2.runners.own_methods import check_agent

        check_agent(spec.method, agent)
    return agent


def has_seed_batch(method: str) -> bool:
    """Return whether agents of several seeds of a method can be trained as one batch."""
    return agent_class(method).seed_batch_class is not None


def why_alone(spec: RunSpec) -> str | None:
    """Return why seeds of a run cannot be trained as one batch; None if they can."""
    if spec.tasks:
        return f"{spec.task}: seeds of multi-task agents are trained one by one; use seed="
    task = task_of(spec)
    if not has_seed_batch(spec.method):
        return f"method={spec.method}: has no seed batches; train its seeds one by one with seed="
    if task.episodic:
        return f"{spec.task}: episode lengths differ; train its seeds one by one with seed="
    if not task.seeded_resets:
        return f"{spec.task}: uses a global generator; train its seeds one by one with seed="
    return None


def make_seed_batch(agents: Sequence[Agent], going: Sequence[bool]) -> BatchedAgents:
    """Return the seed batch of several agents of one method and task.

    Args:
        agents: agents of several seeds, restored by their runs.
        going: whether the run of each agent continues; the other agents keep the batch size.
    """
    target = agents[0].seed_batch_class
    assert target is not None
    return load_object("seed_batch_class", target)(agents, going)
