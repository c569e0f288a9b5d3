"""Reader of the facts of one run directory (`spec.json`, `status.json`) and of reference scores.

Each function appends what it could not use, with file and line, to a list of problems.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from analysis.records import curve_checks
from analysis.records.evaluations import (
    ENV_STEPS,
    MULTITASK_METRIC,
    NUM_UPDATES,
    TASK_SCORES,
    score_name,
)
from analysis.records.problems import UNREADABLE, Problem
from tdmpc2.common.run.spec import algorithm_settings, unusual, variant_name, without_precision
from tdmpc2.common.system.regular_files import regular
from tdmpc2.envs.adapters import ADAPTERS
from tdmpc2.envs.physics import recorded_physics
from tdmpc2.envs.tasks import TASKS

STATES = ("RUNNING", "COMPLETED", "DIVERGED", "FAILED", "CANCELLED", "INTERRUPTED")
ENDED_EARLY = ("DIVERGED", "FAILED", "CANCELLED")
SPEC_FORMAT = 1
PAPER_EPISODES = 10
"""Episodes per evaluation in the paper, for records that do not state their number."""
MULTITASK = "multitask"
"""Domain in the spec of a run that learns several tasks from a dataset."""
_SPEC_TYPES = {
    "format": int,
    "method": str,
    "variant": str,
    "task": str,
    "domain": str,
    "metric": str,
    "seed": int,
    "overrides": dict,
}
_OPTIONAL_TYPES: dict[str, tuple[type, ...]] = {
    "budget": (int,),
    "budget_unit": (str,),
    "obs": (str,),
    "assets": (str,),
    "model_size": (int, str),
    "dataset": (str,),
    "dataset_name": (str,),
    "commit": (str,),
    "num_parameters": (int, float),
    "eval_episodes": (int,),
    "score_range": (list,),
}
"""Types of keys that may be absent or null."""

Run = dict[str, Any]
"""Key and facts of one run."""
_LARGEST = 1e300  # of the range of a score
_NAMED = 3
"""Maximum number of tasks that a problem lists."""


def read_run(directory: Path, problems: list[Problem]) -> Run | None:
    """Return key and facts of one run, or None if its spec cannot be used.

    The `task` of a multi-task run is the name of its task set, as is its `task_set`, which is empty
    for other runs. `tasks` lists the tasks that the run learns.

    Args:
        directory: the run directory.
        problems: list to which problems in `spec.json` and `status.json` are appended.
    """
    spec_file, status_file = directory / "spec.json", directory / "status.json"
    if not spec_file.exists() and not (directory / "eval.csv").exists():
        problems.append(Problem(str(directory), None, "contains no run yet", "warning"))
        return None
    spec = read_json(spec_file, problems)
    if spec is None:
        return None
    error = _check_spec(spec)
    if error:
        problems.append(Problem(str(spec_file), None, f"{error}; run excluded"))
        return None
    status = read_json(status_file, problems) or {}
    state = status.get("state", "UNKNOWN")
    if status and state not in STATES:
        what = f"unknown state {state!r} (valid: {', '.join(STATES)})"
        problems.append(Problem(str(status_file), None, what))
    if state in ENDED_EARLY:
        what = f"{state}, its data are kept; {status.get('message') or 'no message'}"
        problems.append(Problem(str(directory), None, what, "warning"))
    attempts = _attempts(directory / "attempts.json", problems)
    size = spec.get("model_size")
    multitask = spec["domain"] == MULTITASK
    tasks = spec["tasks"] if multitask else [spec["task"]]
    if multitask and (unknown := [task for task in tasks if task not in TASKS]):
        named = ", ".join(unknown[:_NAMED]) + (", …" if len(unknown) > _NAMED else "")
        what = f"{named}: not in the task table, so the domain is unknown"
        problems.append(Problem(str(spec_file), None, what, "warning"))
    return {
        **{key: spec[key] for key in ("method", "task", "domain", "seed")},
        "overrides": {**spec["overrides"], **_switches(spec)},
        "variant": _variant(spec, multitask) + _mark(spec),
        "model_size": "" if size is None else str(size),
        "dataset": spec.get("dataset") or "",
        "obs": spec.get("obs") or "state",
        "score": _score(spec),
        "state": str(state),
        "budget": spec.get("budget"),
        "budget_unit": spec.get("budget_unit", ""),
        "commit": ", ".join(_commits(attempts) or filter(None, [spec.get("commit")])),
        "num_parameters": spec.get("num_parameters"),
        "simulators": _simulators(attempts, _domains(spec)),
        "directory": directory,
        "task_set": spec["task"] if multitask else "",
        "tasks": tasks,
        "step_unit": NUM_UPDATES if multitask else ENV_STEPS,
        "dataset_name": spec.get("dataset_name") or "",
        "eval_episodes": spec.get("eval_episodes") or PAPER_EPISODES,
    }


def _variant(spec: dict[str, Any], multitask: bool) -> str:
    """Return the variant of a run without its precision, and for multi-task runs without its size.

    A name that was derived from the overrides is derived again without these. The size is a
    separate column, and a figure shows runs of all sizes as one series.
    """
    overrides, named = spec["overrides"], str(spec["variant"])
    settings = algorithm_settings(overrides)
    if named == variant_name(tuple(overrides.items())):
        hidden = "model_size" if multitask else None
        return variant_name(tuple((k, v) for k, v in settings.items() if k != hidden))
    plain = named if settings == overrides else without_precision(named)
    return named if plain == "default" and settings else plain


def _domains(spec: dict[str, Any]) -> list[str]:
    """Return the domains of a run's tasks, in order."""
    if spec["domain"] != MULTITASK:
        return [spec["domain"]]
    return list(dict.fromkeys(TASKS[task].domain for task in spec["tasks"] if task in TASKS))


def _attempts(path: Path, problems: list[Problem]) -> list[dict[str, Any]]:
    """Return the records of the attempts; empty if the file is missing or cannot be used."""
    try:
        content = json.loads(regular(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except (OSError, ValueError, RecursionError) as error:
        what = f"{UNREADABLE}: {error}; commits and versions are not shown"
        problems.append(Problem(str(path), None, what, "warning"))
        return []
    attempts = content if isinstance(content, list) else []
    return [attempt for attempt in attempts if isinstance(attempt, dict)]


def _commits(attempts: Sequence[dict[str, Any]]) -> list[str]:
    """Return the commits that a run was executed with, the first one first."""
    return list(dict.fromkeys(str(a["commit"]) for a in attempts if a.get("commit")))


def parts_of(column: Iterable[str]) -> list[str]:
    """Return all entries of a `commit` or `simulators` column, which may repeat."""
    return [entry for line in column for entry in str(line).split(", ") if entry]


def short_commits(column: Iterable[str]) -> list[str]:
    """Return the first ten digits of every commit in a `commit` column."""
    return [commit[:10] for commit in parts_of(column)]


def _simulators(attempts: Sequence[dict[str, Any]], domains: Sequence[str]) -> str:
    """Return the versions of the domains' packages, as recorded by the last attempt."""
    known = [ADAPTERS[domain] for domain in domains if domain in ADAPTERS]
    needed = [name for adapter in known for name in adapter.distributions]
    packages = attempts[-1].get("packages") if attempts else None
    if not isinstance(packages, dict):
        return ""
    return ", ".join(f"{name} {packages[name]}" for name in needed if packages.get(name))


def _score(spec: dict[str, Any]) -> str:
    """Return the name of the score; records of Gymnasium environments state its range."""
    if "score_range" not in spec:
        return str(spec["metric"])
    return score_name(spec["metric"], spec["score_range"])


def _switches(spec: dict[str, Any]) -> dict[str, Any]:
    """Recorded switches of the tasks, but for the physics, which `_mark` states."""
    return {k: v for k, v in spec.get("protocol", {}).items() if k != "physics"}


def _mark(spec: dict[str, Any]) -> str:
    """Return the variant's suffix for what is not the paper's: `[assets=standin]`.

    The precision is included; `precisions.pooled` takes it out where it distinguishes nothing.
    """
    marks = [f"{key}={value}" for key, value in unusual(spec).items()]
    if spec.get("repeatable") is False:
        marks.append("repeatable=false")
    physics = recorded_physics(spec)
    if physics != "paper":
        marks.append(f"physics={physics}")
    if "precision" in spec["overrides"]:
        marks.append(f"precision={spec['overrides']['precision']}")
    return f"[{','.join(marks)}]" if marks else ""


_CONDITION = re.compile(r"[\[,]((?:obs|assets|repeatable|physics)=[^,\]]+)")


def conditions_of(variant: str) -> tuple[str, ...]:
    """Return what `_mark` has appended to a variant, but for the precision.

    Runs that differ in it can't be compared: `("obs=rgb",)` for `default[obs=rgb,precision=bf16]`.
    """
    return tuple(_CONDITION.findall(variant))


def read_reference_scores(
    path: Path, problems: list[Problem]
) -> list[tuple[str, str, float, float, int]]:
    """Return `(task, policy, mean, sd, episodes)` for the uniform random and the zero policy.

    Args:
        path: `floors/<task>.json`.
        problems: list to which a problem is appended if the file is unusable; the result is then
            empty.
    """
    content = read_json(path, problems)
    if content is None:
        return []
    try:
        return _reference_rows(content, path.stem)
    except (KeyError, TypeError, ValueError) as error:
        what = f"unusable, {type(error).__name__}: {error}; reference scores excluded"
        problems.append(Problem(str(path), None, what))
        return []


def _reference_rows(content: dict[str, Any], task: str) -> list[tuple[str, str, float, float, int]]:
    """Return the rows of `read_reference_scores`; raise an error if the content is invalid."""
    if content["task"] != task:
        raise ValueError(f"task is {content['task']!r}, not the name of the file")
    rows = []
    for policy in ("uniform", "zero"):
        mean, sd = (float(content[policy][key]) for key in ("mean", "sd"))
        if not (math.isfinite(mean) and math.isfinite(sd)):
            raise ValueError(f"{policy} is not finite")
        rows.append((task, policy, mean, sd, int(content["episodes"])))
    return rows


def read_json(path: Path, problems: list[Problem]) -> dict[str, Any] | None:
    """Return the object in a JSON file, or None if there is none.

    Args:
        path: the file.
        problems: list to which a problem is appended if the result is None.
    """
    try:
        content = json.loads(regular(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        problems.append(Problem(str(path), None, "is missing"))
        return None
    except json.JSONDecodeError as error:
        problems.append(Problem(str(path), error.lineno, f"invalid JSON: {error.msg}"))
        return None
    except (OSError, ValueError, RecursionError) as error:  # also thousands of digits or brackets
        problems.append(Problem(str(path), None, f"{UNREADABLE}: {error}"))
        return None
    if not isinstance(content, dict):
        problems.append(Problem(str(path), 1, "not a JSON object"))
        return None
    return content


def _check_spec(spec: dict[str, Any]) -> str:
    """Return what is wrong with a spec, or an empty string."""
    missing = [key for key in _SPEC_TYPES if key not in spec]
    if missing:
        return f"missing key {', '.join(missing)}"
    for key, kind in _SPEC_TYPES.items():
        if not isinstance(spec[key], kind):
            return f"{key} is {spec[key]!r}, not of type {kind.__name__}"
    if spec["format"] != SPEC_FORMAT:
        return f"format is {spec['format']}, supported is {SPEC_FORMAT}"
    if not isinstance(spec.get("protocol", {}), dict):
        return f"protocol is {spec['protocol']!r}, not of type dict"
    for key, kinds in _OPTIONAL_TYPES.items():
        value = spec.get(key)
        if not isinstance(value, (*kinds, type(None))):
            return f"{key} is {value!r}, not of type {' or '.join(k.__name__ for k in kinds)}"
    try:
        curve_checks.seed(spec["seed"])
        for key in ("budget", "eval_episodes", "num_parameters"):
            curve_checks.step(spec.get(key) or 0, key)
    except ValueError as error:
        return str(error)
    if not _is_range(spec.get("score_range")):
        return f"score_range is {spec['score_range']!r}, not two increasing numbers"
    if spec["domain"] == MULTITASK:
        return _check_multitask(spec)
    if spec["metric"] not in TASK_SCORES:
        return f"unknown metric {spec['metric']!r} (valid: {', '.join(TASK_SCORES)})"
    return ""


def _is_range(score_range: list[Any] | None) -> bool:
    """Return whether a range is two increasing finite numbers, or absent."""
    if not score_range:
        return True
    numbers = [x for x in score_range if isinstance(x, int | float) and abs(x) < _LARGEST]
    return len(numbers) == len(score_range) == 2 and numbers[0] < numbers[1]


def _check_multitask(spec: dict[str, Any]) -> str:
    """Return what is wrong with the spec of a multi-task run, or an empty string."""
    if spec["metric"] != MULTITASK_METRIC:
        return f"unknown multi-task metric {spec['metric']!r} (valid: {MULTITASK_METRIC})"
    tasks = spec.get("tasks")
    if not isinstance(tasks, list) or not all(isinstance(task, str) for task in tasks):
        return f"tasks is {tasks!r}, not a list of names"
    if not tasks or len(set(tasks)) < len(tasks):
        return "tasks is empty or contains a task twice"
    return ""
