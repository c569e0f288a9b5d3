"""Checks of the state of methods from outside this suite: complete, and possible to restore."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tdmpc2.common.numerics.optim import Draws, all_finite
from tdmpc2.common.run.storable import can_be_loaded
from tdmpc2.common.system.config_checks import require
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.memory_errors import out_of_memory
from tdmpc2.common.system.paths import PACKAGES
from tdmpc2.common.system.user_code import described
from tdmpc2.common.training.base_agent import BaseAgent

GENERATORS = (Draws, torch.Generator, np.random.Generator, np.random.RandomState, random.Random)


def check_state(what: str, agent: BaseAgent) -> None:
    """Check that a checkpoint can hold the state of a new agent, and that nothing is missing.

    What a `state_dict` of the user contains is not compared with the agent.

    Args:
        what: the method, for messages.
        agent: the agent.

    Raises:
        UserError: the state holds an object that a checkpoint cannot, or is not finite, or lacks a
            module, an optimizer, a learned tensor or a generator.
    """
    state = agent.state_dict()
    require(isinstance(state, dict), f"{what}: state_dict returned no dict")
    for name, value in state.items():
        require(
            can_be_loaded(_without_content(value)),
            f"{what}: its state has {name}, of type {type(value).__name__}, which a checkpoint "
            "cannot hold; keep numbers, text, tensors, and lists, tuples or dicts of these",
        )
        require(
            all_finite(value),
            f"{what}: its state has {name}, a tensor of which is not finite: the run would count "
            "as diverged; use None or finite numbers (buffers of modules: persistent=False)",
        )
    if _of_this_project(agent):
        _check_complete(what, agent, state)


def checked_state(what: str, agent: BaseAgent, state: Any) -> Any:
    """Return a state that is to be saved, with the names that the first one had.

    Args:
        what: the method, for messages.
        agent: the agent.
        state: its state.

    Raises:
        UserError: it has other names than the state of the new agent, which a resume restores.
    """
    if isinstance(state, dict) and _of_this_project(agent):
        first = vars(agent).setdefault("_names_in_state", set(state))
        changed = ", ".join(sorted(first ^ state.keys()))
        require(
            not changed,
            f"{what}: its state has changed ({changed}), so that no run could be resumed; create "
            "all modules and optimizers in __init__, and keep them",
        )
    return state


def load_state(
    what: str, agent: BaseAgent, load: Callable[[dict[str, Any]], None], state: dict[str, Any]
) -> None:
    """Restore the state of an agent, whose class may have changed since it was saved.

    Args:
        what: the method, for messages.
        agent: the agent.
        load: its `load_state_dict`.
        state: the state.

    Raises:
        UserError: the state does not fit the class.
    """
    names: set[str] = set()
    if getattr(load, "__func__", None) is BaseAgent.load_state_dict:
        names = state.keys() ^ agent.state_dict().keys()
    wrong = f"only one of them has {', '.join(sorted(names))}"
    if not names:
        try:
            return load(state)
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            if out_of_memory(error) is not None:
                raise
            wrong = described(error)
    raise UserError(
        f"{what}: the checkpoint does not fit the class as it is now ({wrong}); restore its code, "
        "or train in another folder with runs="
    )


def _of_this_project(agent: BaseAgent) -> bool:
    """Return whether a method has inherited its `state_dict` from a class of this project."""
    return _unchecked(agent).__module__.partition(".")[0] in PACKAGES


def _unchecked(agent: BaseAgent) -> Callable[..., Any]:
    """Return the function `state_dict` of a method, without the checks of `own_methods`."""
    found: Any = type(agent).__mro__[1]
    return found.state_dict


def _check_complete(what: str, agent: BaseAgent, state: dict[str, Any]) -> None:
    """Raise a `UserError` if a `state_dict` of this project overlooks something in an agent.

    The names in such a state are those of the attributes that it contains.
    """
    lost = [name for name in agent.state_fields if name not in state]
    require(not lost, f"{what}: its state_dict does not contain state_fields ({', '.join(lost)})")
    in_state = {"behavior" if name == "behaviour" else name for name in state}  # see `DreamerV3`
    saved = {id(agent)}
    for name in in_state & vars(agent).keys():
        for item in _held(vars(agent)[name], inside_objects=False):
            saved.update((id(item), id(getattr(item, "generator", None))))
            if isinstance(item, nn.Module):
                saved.update(map(id, [*item.modules(), *item.parameters()]))
    for name, value in vars(agent).items():
        for item in _held(value):
            cure = None if id(item) in saved else _cure(item)
            if cure is not None:
                inside = "" if item is value else f"{type(value).__name__} with "
                kind = f"{inside}{type(item).__name__}"
                if _unchecked(agent) is not BaseAgent.state_dict:
                    cure = "save it in a state_dict and load_state_dict of your own"
                raise UserError(f"{what}: checkpoints would not contain {name} ({kind}); {cure}")


def _held(value: Any, *, inside_objects: bool = True) -> Iterator[Any]:
    """Yield a value and all that it holds at any depth, each object once.

    Args:
        value: the value.
        inside_objects: whether to look into objects that are no containers.
    """
    seen: set[int] = set()
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if id(item) not in seen:
            seen.add(id(item))
            yield item
            waiting += _content(item, inside_objects)


def _content(item: Any, inside_objects: bool) -> Iterable[Any]:
    """Return what a container holds or, if wanted, an object of a class has as attributes."""
    if isinstance(item, dict):
        return item.values()
    if isinstance(item, list | tuple | set | frozenset | deque):
        return item
    others = type | FunctionType | ModuleType | Tensor | torch.optim.Optimizer
    if not inside_objects or isinstance(item, others):
        return ()
    return getattr(item, "__dict__", {}).values()


def _cure(item: Any) -> str | None:
    """Return how to save an object that `BaseAgent.state_dict` overlooks; None if it need not."""
    if isinstance(item, Tensor):
        learned = item.is_leaf and item.requires_grad
        return "name it in state_fields (in modules: use nn.Parameter)" if learned else None
    if isinstance(item, GENERATORS):
        return "take noise from self.train_noise"
    if hasattr(item, "load_state_dict") and not isinstance(item, type):
        return (
            "keep modules and optimizers as attributes of their own or in an nn.ModuleList, and "
            "save others in a state_dict of your own"
        )
    return None


def _without_content(value: Any) -> Any:
    """Return a value with empty tensors: they need no space, and the types stay."""
    if type(value) is Tensor:
        return torch.empty(0, dtype=value.dtype)
    if type(value) in (list, tuple):
        return type(value)(_without_content(item) for item in value)
    if isinstance(value, dict):
        return {key: _without_content(item) for key, item in value.items()}
    return value
