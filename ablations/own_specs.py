"""Ablations that a user defines in a TOML file."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from ablations.specs import ABLATIONS, NO_ABLATION, OWN, Ablation, check_distinct
from tdmpc2.common.system.errors import UserError, did_you_mean
from tdmpc2.envs.tasks import get_task


def read_specs(path: Path) -> tuple[Ablation, ...]:
    """Read user-defined ablations from a TOML file with one table per ablation.

    ```toml
    [small-latent]
    settings = { latent_dim = 128 }
    claim = "A small latent scores lower."    # this and the following fields are optional
    expected = "lower"                        # or "same"
    factor = "latent size"                    # panel in the figures
    tasks = ["walker-run", "dog-run"]
    ```

    Raises:
        UserError: the file cannot be read or is not TOML, a field is unknown or invalid, a table
            changes nothing, or two change the same.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: is not TOML: {error}") from None
    if not tables:
        raise UserError(f"{path}: defines no ablation; add a table, such as [small-latent]")
    own = tuple(_own(name, table, f"{path}: {name}") for name, table in tables.items())
    check_distinct(own, f"{path}: ")
    return own


def _own(name: str, table: Any, where: str) -> Ablation:
    """Parse one table of a user's file."""
    types = {"settings": dict, "claim": str, "expected": str, "factor": str, "tasks": list}
    names = {dict: "table", str: "string", list: "list"}
    if not isinstance(table, dict):
        raise UserError(f"{where}: must be a table, [{name}]")
    for key, value in table.items():
        if key not in types:
            raise UserError(f"{where}: unknown field '{key}'{did_you_mean(key, types)}")
        if not isinstance(value, types[key]):
            raise UserError(f"{where}: {key}={value!r} must be a {names[types[key]]}")
    if not set(name) <= _NAME_CHARACTERS:
        raise UserError(f"{where}: names may contain only letters, digits, - and _")
    if any(name == one.variant for one in ABLATIONS) or name == "default":
        raise UserError(f"{where}: this name is already in use; choose another (see --list)")
    expected = table.get("expected")
    if expected not in (None, "lower", "same"):
        raise UserError(f"{where}: expected={expected!r} must be 'lower' or 'same'")
    if not table.get("settings"):
        raise UserError(f"{where}: changes nothing; add settings = {{ key = value }}")
    for key, value in table["settings"].items():
        single = isinstance(value, str | int | float) and len(str(value).split()) <= 1
        if not single:
            raise UserError(f"{where}: {key}={value!r} must be one number, one word, true or false")
    for task in table.get("tasks", [""]):
        if not isinstance(task, str):
            raise UserError(f"{where}: tasks={table['tasks']!r} must be a list of names")
    if table.get("tasks") == []:
        raise UserError(f"{where}: tasks=[] names no task; leave it out for the paper's tasks")
    changes = " ".join(f"{key}={_as_text(value)}" for key, value in table["settings"].items())
    factor, claim = table.get("factor", OWN), table.get("claim", "")
    try:
        tasks = tuple(get_task(task).name for task in table.get("tasks", ()))
        own = Ablation(name, changes, factor, "", claim, expected, tasks=tasks)
        for key in own.settings:
            if key in NO_ABLATION:
                raise UserError(f"{key} is no design choice: {NO_ABLATION[key]}")
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    return own


_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")


def _as_text(value: Any) -> str:
    """Format a TOML value as a command-line value."""
    return str(value).lower() if isinstance(value, bool) else str(value)
