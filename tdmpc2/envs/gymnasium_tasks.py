"""Tasks from registered Gymnasium environments: by id, or by a table of a TOML file."""

from __future__ import annotations

import json
import os
import sys
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from tdmpc2.common.system.config_checks import require
from tdmpc2.common.system.errors import UserError, did_you_mean
from tdmpc2.envs.probing import ask
from tdmpc2.envs.tasks import ALIASES, RETURN_RANGE, SUITES, TASKS, Task, is_score_range

DOMAIN = "gymnasium"
VARIABLE = "TDMPC2_TASKS"
"""Environment variable: comma-separated TOML files with a table for each task."""
PREFIX = "gym:"
ENV_STEPS, EVAL_EVERY = 1_000_000, 50_000
MAX_NAME = 200  # characters of a folder name

FIELDS: Mapping[str, type] = {
    "id": str,
    "kwargs": dict,
    "action_repeat": int,
    "episode_length": int,
    "episodic": bool,
    "metric": str,
    "success_key": str,
    "score_range": list,
    "budget": int,
    "eval_every": int,
}
"""Fields of a table and their types; `id` is required."""
_NOUNS = {str: "a string", dict: "a table", int: "a positive integer", bool: "true or false"}
_NOUNS[list] = "a list of two increasing, finite numbers"


@cache
def find_task(name: str) -> Task | None:
    """Return the task of a Gymnasium environment; None if the name has neither form.

    Args:
        name: `gym:ID` or `module:ID`, optionally with arguments of the environment as in a URL
            (`gym:Hopper-v5?frame_skip=2`); or a table in a file that `TDMPC2_TASKS` names.

    Raises:
        UserError: the environment cannot be made, or learning in it is not supported.
    """
    found = own_tables().get(name)
    if found is not None:
        where, table = found
        recipe = _recipe(table["id"], table.get("kwargs", {}))
        return _task(name, recipe, table, where)
    if ":" not in name:
        return None
    encoded, _, query = name.partition("?")
    env_id = unquote(encoded).removeprefix(PREFIX)
    recipe = _recipe(env_id, arguments_of(query))
    return _task(_name_of(recipe), recipe, {}, f"task '{name}'")


def with_arguments(name: str, text: str) -> str:
    """Return the name of a Gymnasium task with further arguments of the environment.

    Args:
        name: `gym:ID` or `module:ID`.
        text: JSON object of the arguments, the value of `gym_kwargs=`.

    Raises:
        UserError: the text is no JSON object, or the task has no such form.
    """
    try:
        more = json.loads(text)
    except (ValueError, RecursionError):
        more = None
    example = """gym_kwargs='{"frame_skip": 2}'"""
    require(isinstance(more, dict), f"gym_kwargs={text}: must be a JSON object, such as {example}")
    encoded, _, query = name.partition("?")
    require(":" in encoded, f"gym_kwargs: has no effect in {name}; it applies to task=gym:ID")
    return _name_of(_recipe(unquote(encoded).removeprefix(PREFIX), arguments_of(query) | more))


def arguments_of(query: str) -> dict[str, Any]:
    """Return the arguments in the part of a name or recipe after `?`.

    Values are JSON, or else text.
    """
    pairs = (pair.partition("=") for pair in query.split("&") if pair)
    return {unquote(key): _value(unquote(text)) for key, _, text in pairs}


def recorded(task: Task) -> dict[str, Any]:
    """Return what must stay the same during a run: the environment; empty for built-in tasks."""
    if task.domain != DOMAIN:
        return {}
    return {
        "environment": (
            f"{task.env_id}, observations {task.obs_dim}, actions {task.action_dim}, action_repeat "
            f"{task.action_repeat}, episode_length {task.episode_length}, "
            f"episodic {str(task.episodic).lower()}"
        )
    }


def examine(task: Task) -> dict[str, Any]:
    """Return facts about the environment of a user, for `spec.json`; empty for built-in tasks.

    For a task of a plugin this is its `score_range`, if it is not that of the paper's tasks. A
    Gymnasium environment is also examined: two processes play the same episodes, one of them after
    another episode. If what they see differs, the environment has randomness that its seed does not
    control: a warning is printed and `repeatable` is false.

    Raises:
        UserError: the environment raises an error or returns invalid values.
    """
    if task.domain != DOMAIN:
        ranged = task.score_range != RETURN_RANGE
        return {"score_range": task.score_range} if ranged else {}
    fresh, used = ask(DOMAIN, ("fresh", "used"), task.name)
    repeatable = fresh == used
    if not repeatable:
        print(
            f"task '{task.name}': two processes with the same seed saw different episodes, so its "
            "runs are not repeatable and a resume is not bit-exact (repeatable=false in spec.json)",
            file=sys.stderr,
        )
    return {"repeatable": repeatable, "score_range": task.score_range}


def own_tables() -> dict[str, tuple[str, dict[str, Any]]]:
    """Return the tables of the files in `TDMPC2_TASKS`: a label for messages, and the fields.

    Raises:
        UserError: a file cannot be read, or a table is invalid.
    """
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for text in filter(None, map(str.strip, os.environ.get(VARIABLE, "").split(","))):
        try:
            tables = tomllib.loads(Path(text).read_text(encoding="utf-8"))
        except OSError as error:
            raise UserError(
                f"{VARIABLE}={text}: cannot be read ({error.strerror}); correct the path, or unset "
                "the variable"
            ) from None
        except (ValueError, RecursionError) as error:
            raise UserError(f"{text}: is not TOML: {error}") from None
        for name, table in tables.items():
            where = f"{text}: {name}"
            _check_table(name, table, where)
            require(name not in found, f"{where}: the name is taken; choose another name")
            found[name] = where, table
    return found


def _check_table(name: str, table: Any, where: str) -> None:
    """Check names and types of a table; the other values are checked where they are used."""
    require(isinstance(table, dict), f"{where}: must be a table, [{name}]")
    require(
        name.replace("-", "").replace("_", "").isalnum() and name.isascii(),
        f"{where}: names may contain only letters, digits, - and _",
    )
    for known, what in ((TASKS, "task"), (ALIASES, "task"), (SUITES, "suite")):
        require(name not in known, f"{where}: a {what} has this name; choose another name")
    for key, value in table.items():
        require(key in FIELDS, f"{where}: unknown field '{key}'{did_you_mean(key, FIELDS)}")
        fits = type(value) is FIELDS[key] and (type(value) is not int or value > 0)
        if key == "score_range":
            fits = fits and is_score_range(value)
        require(fits, f"{where}: {key}={value!r} must be {_NOUNS[FIELDS[key]]}")
    require("id" in table, f"{where}: has no id; add the id of a registered environment")
    metric = table.get("metric", "return")
    require(metric in ("return", "success"), f"{where}: metric={metric} must be return or success")


def _task(name: str, recipe: str, table: Mapping[str, Any], where: str) -> Task:
    """Return the task of an environment.

    Args:
        name: name of the task.
        recipe: id and arguments of the environment.
        table: fields that a user has set.
        where: label of the task in messages.
    """
    require(len(quote(name)) <= MAX_NAME, f"{where}: the name is too long; use a table in a file")
    (facts,) = ask(DOMAIN, ("spaces",), recipe, where)
    repeat, length = table.get("action_repeat", 1), table.get("episode_length")
    if length is None:
        limit = facts["max_episode_steps"]
        require(
            limit is not None,
            f"{where}: has no time limit; set max_episode_steps in gym_kwargs, or episode_length "
            f"in a table of a file in {VARIABLE}",
        )
        fits = type(limit) is int and limit > 0  # Gymnasium accepts true
        require(fits, f"{where}: max_episode_steps={limit!r} must be a positive integer")
        length = -(-limit // repeat)
    score_range = table.get("score_range")
    return Task(
        name=name,
        domain=DOMAIN,
        env_id=recipe,
        obs_dim=facts["obs_dim"],
        action_dim=facts["action_dim"],
        action_repeat=repeat,
        episode_length=length,
        env_steps=table.get("budget", ENV_STEPS),
        eval_every=table.get("eval_every", EVAL_EVERY),
        metric=table.get("metric", "return"),
        paper_name=name if table else recipe.rpartition(":")[2],
        episodic=table.get("episodic", facts["episodic"]),
        score_range=tuple(score_range) if score_range else None,
        success_key=table.get("success_key", "success"),
    )


def _recipe(env_id: str, arguments: Mapping[str, Any]) -> str:
    """Return id and arguments of an environment as one text, with the arguments in order.

    Raises:
        UserError: JSON has no such value as that of an argument, e.g. a date of TOML.
    """
    try:
        pairs = [f"{quote(k, safe='')}={quote(_text(v), safe='')}" for k, v in arguments.items()]
    except (TypeError, RecursionError) as error:
        raise UserError(
            f"{env_id}: an argument cannot be written as JSON ({error}); use numbers, texts, true, "
            "false, lists and tables"
        ) from None
    return "?".join(filter(None, (env_id, "&".join(sorted(pairs)))))


def _name_of(recipe: str) -> str:
    """Return the name of a task without a table, which may also be the name of a folder."""
    env_id, mark, query = recipe.partition("?")
    prefix = "" if ":" in env_id else PREFIX
    return f"{prefix}{quote(env_id, safe=':')}{mark}{query}"


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _text(value: Any) -> str:
    """Return the inverse of `_value`."""
    if isinstance(value, str) and _value(value) == value:
        return value
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
