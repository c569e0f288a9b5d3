"""Checks of methods from outside this suite, so that a fault in one is a line that names it.

What a method returns reaches the replay buffer, the records and the checkpoints. Without these
checks some faults show much later, such as a checkpoint that cannot be loaded.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tdmpc2.common.interfaces import Counters, Event
from tdmpc2.common.system.config_checks import NOUNS, REQUIRED, kinds_of, require
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.training.base_agent import BaseAgent, BaseConfig
from tdmpc2.runners.own_states import check_state, checked_state, load_state

METRIC_NAME = re.compile(r"[\w./ -]+")
ROUNDING = 1e-5  # by which actions may exceed [-1, 1]
INIT = "super().__init__(config, env, seed=seed, device=device)"
# Arguments with which the suite calls functions of a method, after `self`.
CALLS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "__init__": (("config", "env"), ("seed", "device")),
    "act": (("obs",), ("first", "explore", "task")),
    "update": (("replay",), ()),
    "updates_due": (("event", "counters"), ()),
    "seed_evaluation": (("seed",), ()),
    "state_dict": ((), ()),
    "load_state_dict": (("state",), ()),
}


def checked_class(method: str, found: Any) -> type[BaseAgent]:
    """Return the class of a method, with checks of the actions and metrics that it returns.

    Args:
        method: name of the method, for messages.
        found: what this name stands for.

    Raises:
        UserError: it is no subclass of `BaseAgent`, lacks a function, or has one that the suite
            cannot call, or its config has a field that the suite cannot read.
    """
    what = f"method={method}"
    require(
        isinstance(found, type) and issubclass(found, BaseAgent),
        f"{what}: {getattr(found, '__name__', found)} is not a subclass of "
        f"{BaseAgent.__module__}.BaseAgent",
    )
    lacking = sorted(found.__abstractmethods__)
    require(not lacking, f"{what}: {found.__name__} has no {' and no '.join(lacking)}")
    for name, (places, names) in CALLS.items():
        try:
            given = (None,) * (1 + len(places))
            inspect.signature(getattr(found, name)).bind(*given, **dict.fromkeys(names))
        except TypeError as error:
            call = ", ".join((*places, *(f"{keyword}={keyword}" for keyword in names)))
            raise UserError(f"{what}: {name}({call}) cannot be called: {error}") from None
    config = found.config_class
    basic = {field.name for field in dataclasses.fields(BaseConfig)}
    require(
        hasattr(config, "make") and basic <= set(getattr(config, "__dataclass_fields__", ())),
        f"{what}: its config_class is {config!r}; it must be a subclass of "
        f"{BaseAgent.__module__}.BaseConfig that is a frozen dataclass",
    )
    _check_config(what, config)

    class Checked(found):
        # Those of a method of the suite would train that method instead of its subclass.
        seed_batch_class = vars(found).get("seed_batch_class")
        micro_batches = multitask = False

        def act(self, obs: np.ndarray, **how: Any) -> np.ndarray:
            shape = (len(obs), self.env.action_dim)
            return _actions(what, super().act(obs, **how), shape)

        def update(self, replay: Any) -> dict[str, Tensor]:
            return _metrics(what, super().update(replay))

        def updates_due(self, event: Event, counters: Counters) -> int:
            due = super().updates_due(event, counters)
            due = int(_number(f"{what}: updates_due", due, whole=True))
            require(
                not due or event == "episode_end" or self.updates_within_episodes,
                f"{what}: updates_due returned {due} within an episode, but "
                "updates_within_episodes is False",
            )
            return due

        def num_parameters(self) -> int:
            return int(_number(f"{what}: num_parameters", super().num_parameters(), whole=True))

        def state_dict(self) -> dict[str, Any]:
            return checked_state(what, self, super().state_dict())

        def load_state_dict(self, state: dict[str, Any]) -> None:
            load_state(what, self, super().load_state_dict, state)

        @classmethod
        def updates_per_decision(cls, config: Any) -> float:
            mean = super().updates_per_decision(config)
            return _number(f"{what}: updates_per_decision", mean)

        @classmethod
        def gflop(cls, config: Any, obs_dim: int, action_dim: int) -> dict[str, float] | None:
            work = super().gflop(config, obs_dim, action_dim)
            if work is None:
                return None
            names = sorted(work) if isinstance(work, dict) else type(work).__name__
            wrong = f"{what}: gflop returned {names}; it must return plan (optional) and update"
            require(names in (["update"], ["plan", "update"]), wrong)
            return {name: _number(f"{what}: gflop {name}", x) for name, x in work.items()}

    for attribute in ("__name__", "__qualname__", "__module__", "__doc__"):
        setattr(Checked, attribute, getattr(found, attribute))
    return Checked


def _check_config(what: str, config: type) -> None:
    """Raise a `UserError` if a field of a config has no default or another type than settings."""
    try:
        kinds = kinds_of(config)
    except Exception as error:  # the types are code of the user
        raise UserError(f"{what}: the types of its config cannot be read: {error}") from error
    for field in dataclasses.fields(config):
        label, kind = f"{what}: config field '{field.name}'", kinds[field.name]
        require(
            kind.type in NOUNS and all(isinstance(choice, str) for choice in kind.choices),
            f"{label} has the type {field.type}; it must be int, float, bool, str, Path or a "
            "Literal of texts, or one of these | None",
        )
        given = field.default, field.default_factory
        require(given != (REQUIRED, REQUIRED), f"{label} has no default")


def check_agent(method: str, agent: BaseAgent, *, to_train: bool) -> None:
    """Check the attributes of a new agent, and that its state can be saved and loaded.

    Args:
        method: name of the method, for messages.
        agent: the agent.
        to_train: whether its state will be saved.

    Raises:
        UserError: an attribute is missing or has an impossible value, or a checkpoint of the agent
            would be incomplete or could not be loaded.
    """
    what = f"method={method}"
    missing = [name for name in ("config", "env", "eval_noise") if not hasattr(agent, name)]
    require(not missing, f"{what}: has no {missing and missing[0]}; its __init__ must call {INIT}")
    for name, least in (("num_envs", 1), ("replay_length", 1), ("seed_decisions", 0)):
        number = getattr(agent, name)
        wrong = f"{what}: {name} is {number!r}; it must be an integer ≥ {least}"
        require(isinstance(number, int) and number >= least, wrong)
    known = ("transition", "episode")
    require(
        agent.replay_visibility in known,
        f"{what}: replay_visibility is {agent.replay_visibility!r}; it must be one of {known}",
    )
    priorities = agent.replay_priorities
    pair = isinstance(priorities, tuple | list) and len(priorities) == 2
    require(
        priorities is None or (pair and all(isinstance(x, int | float) for x in priorities)),
        f"{what}: replay_priorities is {priorities!r}; it must be None or two numbers, alpha and "
        "beta",
    )
    absent = [name for name in agent.state_fields if not hasattr(agent, name)]
    require(not absent, f"{what}: state_fields names {absent and absent[0]}, which it has not")
    if to_train:
        check_state(what, agent)


def _number(what: str, returned: Any, *, whole: bool = False) -> float:
    """Return a number that is finite and not negative.

    Args:
        what: method and function, for messages.
        returned: what the function returned.
        whole: whether it must be an integer.

    Raises:
        UserError: it is something else.
    """
    kinds = int | np.integer if whole else int | float | np.number
    good = isinstance(returned, kinds) and 0 <= float(returned) < float("inf")
    kind = "an integer" if whole else "a number"
    require(good, f"{what} returned {returned!r}; it must return {kind} ≥ 0")
    return float(returned)


def _actions(what: str, returned: Any, shape: tuple[int, int]) -> np.ndarray:
    """Return actions `(B, A)` in float32. NaN and Inf stay: the loop ends the run as diverged.

    Args:
        what: the method, for messages.
        returned: what `act` returned.
        shape: the shape `(B, A)` that is expected.

    Raises:
        UserError: it is no array of this shape, or is not in [-1, 1].
    """
    actions: np.ndarray
    try:
        if isinstance(returned, Tensor):
            returned = returned.detach().cpu().float().numpy()
        actions = np.asarray(returned, dtype=np.float32)
    except (TypeError, ValueError):
        actions = np.empty(0)
    require(
        actions.shape == shape,
        f"{what}: act returned {_shown(returned)}; it must return an array of shape {shape}",
    )
    largest = np.nan_to_num(np.abs(actions), nan=0.0, posinf=0.0).max(initial=0.0)
    require(
        largest <= 1 + ROUNDING,
        f"{what}: act returned an action of {largest:g}; clamp its actions to [-1, 1]",
    )
    return np.where(np.isinf(actions), actions, actions.clip(-1, 1))


def _metrics(what: str, returned: Any) -> dict[str, Tensor]:
    """Return the metrics of an update as scalar tensors.

    Raises:
        UserError: they are no dict of numbers, or a name cannot be that of a column.
    """
    require(
        isinstance(returned, Mapping),
        f"{what}: update returned {_shown(returned)}; it must return its metrics as a dict",
    )
    metrics = {}
    for name, value in returned.items():
        good = isinstance(name, str) and METRIC_NAME.fullmatch(name) is not None
        require(good, f"{what}: metric {name!r}: must be named with letters, digits and _ . / -")
        try:
            metric = torch.as_tensor(value).detach().float()
        except (TypeError, ValueError, RuntimeError):
            metric = torch.empty(0)
        wrong = f"{what}: metric {name} is {_shown(value)}; it must be one number"
        require(metric.numel() == 1, wrong)
        metrics[name] = metric.reshape(())
    return metrics


def _shown(value: Any) -> str:
    """Return an object as a message shows it: shape and type of an array, else the type."""
    kind = type(value).__name__
    if isinstance(value, np.ndarray | Tensor):
        return f"{kind} of shape {tuple(value.shape)} and type {value.dtype}"
    return kind
