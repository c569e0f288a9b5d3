"""TD-MPC2: scalable, robust world models for continuous control.

As a library: `make_env`, `make_agent`, `train`, `load_run` and `evaluate` (see `tdmpc2.api`),
which are imported when they are first used.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tdmpc2.api import LoadedRun, evaluate, load_run, make_agent, make_env, train

__all__ = ["LoadedRun", "evaluate", "load_run", "make_agent", "make_env", "train"]

_COMMANDS = ("evaluate", "train")  # functions of the library that share their name with a module


class _Command(ModuleType):
    """Module of a command, which calls the function of the library with its name."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        name = self.__name__.rpartition(".")[2]
        return getattr(importlib.import_module("tdmpc2.api"), name)(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return importlib.import_module, (self.__name__,)


class _Library(ModuleType):
    """The package, whose functions are imported when they are first used."""

    def __getattr__(self, name: str) -> Any:
        if name in _COMMANDS:
            return importlib.import_module(f"tdmpc2.{name}")
        if name in __all__:
            return getattr(importlib.import_module("tdmpc2.api"), name)
        raise AttributeError(f"module '{self.__name__}' has no attribute '{name}'")

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _COMMANDS:  # the import system stores the module of the command here
            value.__class__ = _Command
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Library
