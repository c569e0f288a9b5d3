"""Table of methods, and construction of their configs and agents."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, NamedTuple

from tdmpc2.common.run.spec import RunSpec
from tdmpc2.common.system import cli
from tdmpc2.common.system.config_checks import require_known
from tdmpc2.common.system.errors import UserError, did_you_mean
from tdmpc2.common.system.user_code import load_object
from tdmpc2.envs.task_variants import task_of

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
        pixels: whether agents learn from pixels; True if that is not known.
    """

    agent: str
    config: str | None = None
    multitask: bool = False
    pixels: bool = True


METHODS: dict[str, Method] = {
    "tdmpc2": Method("tdmpc2.agent:TDMPC2", "tdmpc2.config:TDMPC2Config", multitask=True),
    "sac": Method("baselines.sac:SAC", "baselines.sac_config:SACConfig", pixels=False),
    "tdmpc": Method(
        "baselines.tdmpc.agent:TDMPC",
        "baselines.tdmpc.config:TDMPCConfig",
        multitask=True,
        pixels=False,
    ),
    "dreamerv3": Method(
        "baselines.dreamerv3.agent:DreamerV3",
        "baselines.dreamerv3.config:DreamerV3Config",
        pixels=False,
    ),
}

ENTRY_POINTS = "tdmpc2_repro.methods"
"""Entry-point group of methods in other packages: `name = "package.module:Class"`."""
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


def require_multitask(method: str) -> None:
    """Check that a method has multi-task agents.

    Raises:
        UserError: it has none.
    """
    if not agent_class(method).multitask:
        valid = " or ".join(multitask_methods())
        raise UserError(f"method={method}: learns one task at a time; use {valid}")


def check_pixels(method: str, overrides: Mapping[str, Any]) -> None:
    """Check that a method can learn from pixels with the given hyperparameters.

    Args:
        method: key of `METHODS`.
        overrides: hyperparameters that differ from the defaults.

    Raises:
        UserError: it cannot.
    """
    if not _method(method).pixels:
        valid = " or ".join(name for name, row in METHODS.items() if row.pixels)
        raise UserError(f"method={method}: supports obs=state only; use {valid} for pixels")
    config = make_config(method, overrides)
    if hasattr(config, "check_pixels"):
        config.check_pixels()


def make_config(method: str, overrides: Mapping[str, Any], task_set: str | None = None) -> Any:
    """Return the config of a method's agent.

    Args:
        method: key of `METHODS`.
        overrides: hyperparameters that differ from the defaults; they are converted to the types
            of the fields, so that 8 and 8.0 give the same run.
        task_set: name of the task set of a multi-task agent; None for a single task.

    Raises:
        UserError: a field is unknown, a value is out of range, or the method has no multi-task
            agents.
    """
    cls = config_class(method)
    require_known(cls, overrides)
    kinds, make = cli.schema_of(cls), cls.make
    several: dict[str, Any] = {}
    if task_set is not None:
        known = inspect.signature(make).parameters
        require_multitask(method)
        several["multitask"] = True
        if "dataset" in known and task_set in QUIRKY_DATASETS:
            several["dataset"] = task_set
    typed = {name: cli.parse_value(name, str(x), kinds[name]) for name, x in overrides.items()}
    return make(**several, **typed)


def make_agent(
    spec: RunSpec, env: EnvSpec, device: torch.device, *, to_train: bool = True
) -> Agent:
    """Return a newly initialized agent for a run.

    Args:
        spec: the run.
        env: shapes of its task or tasks.
        device: device of the networks.
        to_train: whether checkpoints of it must be complete; to act, older ones are enough.
    """
    config = make_config(spec.method, dict(spec.overrides), spec.task if spec.tasks else None)
    agent = agent_class(spec.method)(config, env, seed=spec.seed, device=device)
    if spec.method not in METHODS:
        from tdmpc2.runners.own_methods import check_agent

        check_agent(spec.method, agent, to_train=to_train)
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
    task_dim = dict(spec.overrides).get("task_dim", 0)
    if task_dim:
        return f"task_dim={task_dim}: seeds with a task embedding are trained one by one; use seed="
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
