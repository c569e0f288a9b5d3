"""Checks of the state of methods from outside this suite: complete, and possible to restore."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tdmpc2.common.numerics.optim import Draws, all_finite
from tdmpc2.common.run.storable import can_be_loaded
from tdmpc2.common.system.config_checks import require
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.memory_errors import out_of_memory
from tdmpc2.common.system.user_code import described
from tdmpc2.common.training.base_agent import BaseAgent

GENERATORS = (Draws, torch.Generator, np.random.Generator, np.random.RandomState, random.Random)


def check_state(what: str, agent: BaseAgent) -> None:
    """Check that a checkpoint can hold the state of a new agent, and that nothing is missing.

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
    if type(agent).state_dict is BaseAgent.state_dict:
        _check_complete(what, agent)


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
        "or use another folder with runs="
    )


def _check_complete(what: str, agent: BaseAgent) -> None:
    """Raise a `UserError` if `BaseAgent.state_dict` overlooks something that it should contain."""
    saved: set[int] = set()
    for name, value in vars(agent).items():
        if isinstance(value, nn.Module):
            saved.update(map(id, [*value.modules(), *value.parameters()]))
        elif isinstance(value, torch.optim.Optimizer):
            saved.add(id(value))
        elif isinstance(value, Draws):
            saved.update((id(value), id(value.generator)))
        elif name in agent.state_fields:
            saved.update(map(id, _items(value)))
    for name, value in vars(agent).items():
        for item in _items(value):
            cure = None if id(item) in saved else _cure(item)
            if cure is not None:
                inside = "" if item is value else f"{type(value).__name__} with "
                kind = f"{inside}{type(item).__name__}"
                raise UserError(f"{what}: checkpoints would not contain {name} ({kind}); {cure}")


def _items(value: Any) -> Iterator[Any]:
    """Yield all that a nested container holds, or a value that is no container."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple | set):
        for item in value:
            yield from _items(item)
    else:
        yield value


def _cure(item: Any) -> str | None:
    """Return how to save an object that `BaseAgent.state_dict` overlooks; None if it need not."""
    if isinstance(item, Tensor):
        return "name it in state_fields" if item.is_leaf and item.requires_grad else None
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
