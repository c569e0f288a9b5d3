"""The methods of the suite, and the settings of a run checked against them."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from tdmpc2.common import cli
from tdmpc2.common.errors import UserError, did_you_mean
from tdmpc2.common.lockstep import Pack
from tdmpc2.common.protocols import Agent, EnvSpec
from tdmpc2.common.spec import RunSpec, overrides_of, variant_name
from tdmpc2.envs.assets import find_assets
from tdmpc2.envs.factory import check_obs
from tdmpc2.envs.protocol import departures, task_of
from tdmpc2.envs.tasks import PIXEL_ENV_STEPS, get_task

# Method name → where its agent is; imported only when used.
METHODS: dict[str, str] = {
    "tdmpc2": "tdmpc2.agent:TDMPC2",
    "sac": "baselines.sac:SAC",
    "tdmpc": "baselines.tdmpc.agent:TDMPC",
    "dreamerv3": "baselines.dreamerv3.agent:DreamerV3",
}


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
    protocol: Mapping[str, bool] | None = None,
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
        protocol: switches of `Protocol`.

    Raises:
        UserError: anything unknown, out of range or without effect; models missing, or of
            another source.
    """
    table_row = get_task(task)
    check_obs(table_row, obs)
    if obs == "rgb":
        table_row = dataclasses.replace(table_row, env_steps=PIXEL_ENV_STEPS)
    models = find_assets(table_row.assets, assets).label if table_row.assets else None
    config_class = agent_class(method).config_class
    config = config_class.make(**_as_on_the_command_line(config_class, overrides or {}))
    size = {"model_size": config.model_size} if hasattr(config, "model_size") else {}
    changed = dict(overrides_of(config, config_class.make(**size)))
    if size and config.model_size != config_class.make().model_size:
        changed.update(size)
    budget = table_row.env_steps if env_steps is None else env_steps
    if budget < 1:
        raise UserError(f"env_steps={budget}: must be at least 1")
    if not 0 <= seed < 2**32:  # what every library accepts
        raise UserError(f"seed={seed}: must lie in 0..{2**32 - 1}")
    if variant is not None and (
        not 0 < len(variant) <= 100 or variant.startswith(".") or "/" in variant
    ):
        raise UserError(f"variant={variant}: must be usable as a folder's name")
    what = tuple(sorted(changed.items()))
    switches = departures(protocol or {}, table_row)
    return RunSpec(
        method=method,
        task=table_row.name,
        seed=seed,
        budget=budget,
        overrides=what,
        variant=variant or variant_name((*what, *switches)),
        obs=obs,
        assets=models,
        protocol=switches,
    )


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
    """The agent of a run, freshly initialised."""
    cls = agent_class(spec.method)
    config = cls.config_class.make(**dict(spec.overrides))
    return cls(config, env, seed=spec.seed, device=device)


def can_pack(method: str) -> bool:
    """Whether a method's agents of several seeds can act and learn as one batch."""
    return getattr(agent_class(method), "packed_by", None) is not None


def why_alone(spec: RunSpec) -> str | None:
    """Why the seeds of such runs cannot be trained as one batch; None where they can."""
    task = task_of(spec)
    if not can_pack(spec.method):
        return f"method {spec.method} trains one seed per process only"
    if task.episodic:
        return f"{spec.task}: episodes of different lengths; train its seeds one by one"
    if not task.seeded_resets:
        return f"{spec.task}: one generator in a process; train its seeds one by one"
    return None


def make_pack(agents: Sequence[Agent], going: Sequence[bool]) -> Pack:
    """Agents of one method and task as one batch.

    Args:
        agents: of several seeds, as their runs have restored them.
        going: whether each agent's run goes on; the others only fill their places.
    """
    module, _, name = agents[0].packed_by.partition(":")  # type: ignore[attr-defined]
    return getattr(importlib.import_module(module), name)(agents, going)
