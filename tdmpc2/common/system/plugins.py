"""Tables that code outside this project extends: by entry points, or by importing its modules."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from tdmpc2.common.system.user_code import load_module, load_object

VARIABLE = "TDMPC2_PLUGINS"
"""Environment variable: comma-separated modules that are imported before a table is read.

Processes that a command starts inherit it.
"""
CURE = f"install it, add its folder to PYTHONPATH, or unset {VARIABLE}"

Value = TypeVar("Value")


class Plugins:
    """The plugins of one entry-point group, loaded once per process.

    Args:
        group: name of the entry-point group.
        register: called with the object of each entry point.
    """

    def __init__(self, group: str, register: Callable[[Any], None]) -> None:
        self._group, self._register = group, register
        self._loaded = False

    def load(self) -> None:
        """Import the modules named by `TDMPC2_PLUGINS`, and register all entry points.

        Raises:
            UserError: a module cannot be imported, or what it registers is refused.
        """
        if self._loaded:
            return
        self._loaded = True  # before the imports, because plugins may read the table
        try:
            for name in filter(None, map(str.strip, os.environ.get(VARIABLE, "").split(","))):
                load_module(f"{VARIABLE}={name}", name, CURE)
            for entry in importlib.metadata.entry_points(group=self._group):
                what = f"plugin '{entry.name}' ({entry.value})"
                load = load_object if entry.attr else load_module
                self._register(load(what, f"{entry.module}:{entry.attr}".rstrip(":"), CURE))
        except BaseException:
            self._loaded = False  # the next read fails, too, instead of lacking the plugin
            raise


class Table(Mapping[str, Value]):
    """Rows by name; plugins are loaded before the first read.

    Args:
        rows: the rows of this project.
        load: loads the plugins, which call `add`.
    """

    def __init__(self, rows: Mapping[str, Value], load: Callable[[], None]) -> None:
        self._rows, self._load = dict(rows), load

    def add(self, name: str, value: Value) -> None:
        """Add or replace a row."""
        self._rows[name] = value

    def registered(self) -> Mapping[str, Value]:
        """Return the rows so far, without loading plugins."""
        return MappingProxyType(self._rows)

    def __getitem__(self, name: str) -> Value:
        self._load()
        return self._rows[name]

    def __iter__(self) -> Iterator[str]:
        self._load()
        return iter(self._rows)

    def __len__(self) -> int:
        self._load()
        return len(self._rows)
