"""Reads the files of one run (`spec.json`, `status.json`, `eval.csv`) and the reference scores.

Each reader takes the list of problems and appends what it could not use, with file and line.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from analysis.records.csv_lines import count_in, fields_of, number_in, whole_lines
from analysis.records.problems import Problem
from tdmpc2.common.run.spec import variant_name
from tdmpc2.envs.physics import repairs_of
from tdmpc2.envs.tasks import TASKS

METRICS = ("episode_return", "episode_return_sd", "episode_success", "episode_length")
LATER_METRICS = ("episode_success_ever",)  # not in records of version 0.1.0
_NUMBERS = (*METRICS, *LATER_METRICS)
STATES = ("RUNNING", "COMPLETED", "DIVERGED", "FAILED", "CANCELLED", "INTERRUPTED")
ENDED_EARLY = ("DIVERGED", "FAILED", "CANCELLED")
SIMULATORS = {
    "dmcontrol": ("dm_control", "mujoco"),
    "metaworld": ("metaworld", "mujoco"),
    "maniskill2": ("mani_skill2", "sapien"),
    "myosuite": ("myosuite", "mujoco"),
}
"""Packages that tasks of a domain run on, as an attempt's record names them."""
SPEC_FORMAT = 1
MULTITASK, MULTITASK_METRIC = "multitask", "score"
"""Domain and metric in the spec of a run that learns several tasks from a dataset."""
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

Run = dict[str, Any]
"""Key and facts of one run."""


@dataclass(frozen=True, eq=False)
class Points:
    """The scores of one run as they stand in its file, in that order.

    Attributes:
        steps: `(num_points,)` env steps.
        values: `(num_points,)` for each metric the file holds.
    """

    steps: np.ndarray
    values: dict[str, np.ndarray]

    @classmethod
    def of(cls, rows: Sequence[tuple[int, dict[str, float]]]) -> Points:
        """From the rows of a file, all of which hold the same metrics."""
        names = rows[0][1] if rows else ()
        return cls(
            np.array([step for step, _ in rows], dtype="int64"),
            {name: np.array([values[name] for _, values in rows]) for name in names},
        )


@dataclass(frozen=True)
class Score:
    """How a task's published score is read from the records.

    Attributes:
        metric: the metric of the tidy table that carries it.
        scale: factor that brings it to [0, 1].
        label: axis label.
    """

    metric: str
    scale: float
    label: str


_RETURN = Score("episode_return", 1 / 1000, "episode return")
_SUCCESS = Score("episode_success", 1.0, "success rate")
SCORES = {"return": _RETURN, "return/10": _RETURN, "success": _SUCCESS, "success%": _SUCCESS}
"""By the `metric` of a spec; the paper prints return / 10 and success in per cent."""


def read_run(directory: Path, problems: list[Problem]) -> Run | None:
    """Key and facts of one run, or None where its spec cannot be used.

    Args:
        directory: the run directory.
        problems: grows by whatever is wrong with `spec.json` and `status.json`.
    """
    spec_file, status_file = directory / "spec.json", directory / "status.json"
    if not spec_file.exists() and not (directory / "eval.csv").exists():
        problems.append(Problem(str(directory), None, "holds no run yet", "warning"))
        return None
    spec = read_json(spec_file, problems)
    if spec is None:
        return None
    wrong = _check_spec(spec)
    if wrong:
        problems.append(Problem(str(spec_file), None, f"{wrong}; run left out"))
        return None
    status = read_json(status_file, problems) or {}
    state = status.get("state", "UNKNOWN")
    if status and state not in STATES:
        what = f"unknown state {state!r} (valid: {', '.join(STATES)})"
        problems.append(Problem(str(status_file), None, what))
    if state in ENDED_EARLY:
        what = f"{state}, its data is kept; {status.get('message') or 'no message'}"
        problems.append(Problem(str(directory), None, what, "warning"))
    attempts = _attempts(directory / "attempts.json")
    size = spec.get("model_size")
    several = spec["domain"] == MULTITASK
    facts = {key: spec.get(key) for key in ("tasks", "dataset_name")} if several else {}
    return {
        **{key: spec[key] for key in ("method", "task", "domain", "seed")},
        "overrides": {**spec["overrides"], **_switches(spec)},
        "variant": (_variant(spec) if several else spec["variant"]) + _mark(spec),
        "model_size": "" if size is None else str(size),
        "dataset": spec.get("dataset") or "",
        "obs": spec.get("obs") or "state",
        "score": spec["metric"],
        "state": str(state),
        "budget": spec.get("budget"),
        "budget_unit": spec.get("budget_unit", ""),
        "commit": ", ".join(_commits(attempts) or filter(None, [spec.get("commit")])),
        "num_parameters": spec.get("num_parameters"),
        "simulators": _simulators(attempts, _domains(spec)),
        "directory": directory,
        **facts,
    }


def _variant(spec: dict[str, Any]) -> str:
    """Of a multi-task run: a name derived from its overrides is derived again without the size.

    The size stands by itself, and runs of all sizes are one series of a figure.
    """
    overrides = spec["overrides"]
    if spec["variant"] != variant_name(tuple(overrides.items())):
        return str(spec["variant"])
    return variant_name(tuple((k, v) for k, v in overrides.items() if k != "model_size"))


def _domains(spec: dict[str, Any]) -> list[str]:
    """Domains of the tasks of a run, in order."""
    if spec["domain"] != MULTITASK:
        return [spec["domain"]]
    return list(dict.fromkeys(TASKS[task].domain for task in spec["tasks"] if task in TASKS))


def _attempts(path: Path) -> list[dict[str, Any]]:
    """What each attempt noted of itself; nothing if that cannot be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    listed = found if isinstance(found, list) else []
    return [attempt for attempt in listed if isinstance(attempt, dict)]


def _commits(attempts: Sequence[dict[str, Any]]) -> list[str]:
    """Those that a run was carried out by, the first one first."""
    return list(dict.fromkeys(str(a["commit"]) for a in attempts if a.get("commit")))


def parts_of(column: Iterable[str]) -> list[str]:
    """What a column `commit` or `simulators` of runs lists; some stand there more than once."""
    return [part for line in column for part in str(line).split(", ") if part]


def short_commits(column: Iterable[str]) -> list[str]:
    """Ten digits of every commit in such a column."""
    return [commit[:10] for commit in parts_of(column)]


def _simulators(attempts: Sequence[dict[str, Any]], domains: Sequence[str]) -> str:
    """Versions of the packages that tasks of these run on, as the last attempt noted them."""
    needed = [name for domain in domains for name in SIMULATORS.get(domain, ())]
    packages = attempts[-1].get("packages") if attempts else None
    if not isinstance(packages, dict):
        return ""
    return ", ".join(f"{name} {packages[name]}" for name in needed if name in packages)


def _switches(spec: dict[str, Any]) -> dict[str, Any]:
    """Recorded switches of the tasks, but for the physics, which `_mark` states."""
    return {k: v for k, v in spec.get("protocol", {}).items() if k != "physics"}


def _physics(spec: dict[str, Any]) -> str:
    """Return `paper`, `simulator`, or `0.4.0`, whose records state none for affected tasks."""
    affected = any(repairs_of(task) for task in spec.get("tasks") or [spec["task"]])
    return spec.get("protocol", {}).get("physics", "0.4.0" if affected else "paper")


def _mark(spec: dict[str, Any]) -> str:
    """What sets a run apart from the paper's ground, for its variant: `[assets=standin]`."""
    usual = {"obs": (None, "state"), "assets": (None, "official")}
    marks = [f"{key}={spec[key]}" for key in usual if spec.get(key) not in usual[key]]
    if _physics(spec) != "paper":
        marks.append(f"physics={_physics(spec)}")
    return f"[{','.join(marks)}]" if marks else ""


def read_evaluations(path: Path, problems: list[Problem]) -> Points:
    """The usable points of an `eval.csv`, in the order of the file.

    Args:
        path: the file; every whole line ends in a newline.
        problems: grows by missing columns and by every line that was skipped.
    """
    lines = whole_lines(path, problems)
    if not lines:
        return Points.of([])
    header = lines[0].strip().split(",")
    missing = [name for name in ("env_step", *METRICS) if name not in header]
    if missing:
        problems.append(Problem(str(path), 1, f"missing column {', '.join(missing)}"))
    if "env_step" in missing:
        return Points.of([])
    rows: list[tuple[int, dict[str, float]]] = []
    for number, line in enumerate(lines[1:], start=2):
        try:
            row = fields_of(header, line)
            values = {name: number_in(row, name) for name in _NUMBERS if name in row}
            rows.append((count_in(row, "env_step"), values))
        except ValueError as error:
            problems.append(Problem(str(path), number, f"{error}; line skipped"))
    return Points.of(rows)


def read_reference_scores(
    path: Path, problems: list[Problem]
) -> list[tuple[str, str, float, float, int]]:
    """`(task, policy, mean, sd, episodes)` of the two policies that learn nothing.

    Args:
        path: `floors/<task>.json`.
        problems: grows by what is wrong with it.
    """
    content = read_json(path, problems)
    if content is None:
        return []
    try:
        if content["task"] != path.stem:
            raise ValueError(f"task {content['task']!r} in a file of that name")
        rows = []
        for policy in ("uniform", "zero"):
            mean, sd = (float(content[policy][key]) for key in ("mean", "sd"))
            if not (math.isfinite(mean) and math.isfinite(sd)):
                raise ValueError(f"{policy} is not finite")
            rows.append((path.stem, policy, mean, sd, int(content["episodes"])))
    except (KeyError, TypeError, ValueError) as error:
        what = f"unusable, {type(error).__name__}: {error}; reference scores left out"
        problems.append(Problem(str(path), None, what))
        return []
    return rows


def read_json(path: Path, problems: list[Problem]) -> dict[str, Any] | None:
    """The object in a file, or None and a problem.

    Args:
        path: of the file.
        problems: grows where there is none that can be read.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        problems.append(Problem(str(path), None, "is missing"))
        return None
    except json.JSONDecodeError as error:
        problems.append(Problem(str(path), error.lineno, f"no valid JSON: {error.msg}"))
        return None
    except (OSError, UnicodeDecodeError) as error:
        problems.append(Problem(str(path), None, f"cannot be read: {error}"))
        return None
    if not isinstance(content, dict):
        problems.append(Problem(str(path), 1, "no JSON object"))
        return None
    return content


def _check_spec(spec: dict[str, Any]) -> str:
    """What is wrong with a spec, empty when nothing is."""
    missing = [key for key in _SPEC_TYPES if key not in spec]
    if missing:
        return f"lacks {', '.join(missing)}"
    for key, kind in _SPEC_TYPES.items():
        if not isinstance(spec[key], kind):
            return f"{key} is {spec[key]!r}, not of type {kind.__name__}"
    if spec["format"] != SPEC_FORMAT:
        return f"format {spec['format']}, known is {SPEC_FORMAT}"
    if spec["domain"] == MULTITASK:
        return _check_multitask(spec)
    if spec["metric"] not in SCORES:
        return f"unknown metric {spec['metric']!r} (valid: {', '.join(SCORES)})"
    return ""


def _check_multitask(spec: dict[str, Any]) -> str:
    """What is wrong with the spec of a run of several tasks, empty when nothing is."""
    if spec["metric"] != MULTITASK_METRIC:
        return f"unknown metric {spec['metric']!r} of several tasks (valid: {MULTITASK_METRIC})"
    tasks = spec.get("tasks")
    if not isinstance(tasks, list) or not all(isinstance(task, str) for task in tasks):
        return f"tasks is {tasks!r}, not a list of names"
    if not tasks or len(set(tasks)) < len(tasks):
        return "tasks names none, or one twice"
    return ""
