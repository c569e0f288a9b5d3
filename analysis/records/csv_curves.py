"""Reader of learning curves in CSV files: the released ones, and a user's own.

The input is either a folder `<method>/<task>.csv` with the columns `step,reward|success,seed`, the
layout of the released curves, or one file with the columns `task`, `seed`, a step, a score and, if
it holds several methods, `method`.
"""

from __future__ import annotations

import csv
import math
from pathlib import Path

from analysis.records.evaluations import ENV_STEPS, SCORES, Points
from analysis.records.problems import Problem, Severity
from analysis.records.run_reader import PAPER_EPISODES, Run
from tdmpc2.common.system.errors import did_you_mean
from tdmpc2.envs.tasks import ALIASES, PIXEL_ENV_STEPS, TASKS

STEP_COLUMNS = ("env_step", "env_steps", "step")
SCORE_COLUMNS = {
    "episode_return": "return",
    "return": "return",
    "reward": "return",
    "episode_success": "success",
    "success": "success",
}
"""Kind of score by column name."""
PIXELS = "-pixels"
"""Suffix of the method in the released folders if the agent learns from pixels."""


def read_curves(path: Path, source: str, problems: list[Problem]) -> list[tuple[Run, Points]]:
    """Read every run of a folder or file of curves, with its points in the order of the file.

    Args:
        path: a folder `<method>/<task>.csv`, or one CSV file.
        source: name of the source in the tidy table.
        problems: list to which unusable content is appended, with file and line.
    """
    if path.is_file():
        return _read_file(path, source, path.stem, None, problems)
    files = sorted(path.glob("*/*.csv"))
    if not files:
        problems.append(Problem(str(path), None, "contains no curves (<method>/<task>.csv)"))
    return [
        run
        for file in files
        for run in _read_file(file, source, file.parent.name, file.stem, problems)
    ]


def _read_file(
    path: Path, source: str, method: str, task: str | None, problems: list[Problem]
) -> list[tuple[Run, Points]]:
    """Return the runs of one file; `method` and `task` apply if it lacks those columns."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        problems.append(Problem(str(path), None, f"cannot be read: {error}"))
        return []
    lines = csv.reader(text.splitlines())
    header = [name.strip() for name in next(lines, [])]
    columns = _columns(header, task)
    if isinstance(columns, str):
        problems.append(Problem(str(path), 1, f"{columns}; file skipped"))
        return []
    rows: dict[tuple[str, str, int], list[tuple[int, dict[str, float]]]] = {}
    unknown: set[str] = set()
    cut = bool(text) and not text.endswith("\n")
    for number, fields in enumerate(lines, start=2):
        try:
            row = _row(header, fields)
            name = task or row["task"]
            name = ALIASES.get(name, name)
            if name not in TASKS:
                if name not in unknown:
                    what = f"unknown task '{name}'{did_you_mean(name, TASKS)}; skipped"
                    problems.append(Problem(str(path), number, what))
                unknown.add(name)
                continue
            point = _point(row, *columns, TASKS[name].metric)
            key = (row.get("method", method), name, _seed(row["seed"]))
        except ValueError as error:
            last = cut and number == text.count("\n") + 1
            what = "incomplete last line" if last else str(error)
            severity: Severity = "warning" if last else "error"
            problems.append(Problem(str(path), number, f"{what}; line skipped", severity))
            continue
        rows.setdefault(key, []).append(point)
    if not rows and not unknown:
        problems.append(Problem(str(path), None, "no usable line", "warning"))
    return [(facts_of(source, *key, path), Points.of(own)) for key, own in rows.items()]


def _columns(header: list[str], task: str | None) -> tuple[str, str] | str:
    """Return the names of the step and score columns, or a message about the header."""
    step = next((name for name in STEP_COLUMNS if name in header), None)
    score = next((name for name in SCORE_COLUMNS if name in header), None)
    missing = [
        *(["seed"] if "seed" not in header else []),
        *(["task"] if task is None and "task" not in header else []),
        *([" or ".join(STEP_COLUMNS)] if step is None else []),
        *([" or ".join(SCORE_COLUMNS)] if score is None else []),
    ]
    if step is None or score is None or missing:
        return f"missing column: {'; '.join(missing)}"
    return step, score


def _row(header: list[str], fields: list[str]) -> dict[str, str]:
    """Return the fields by column; raise ValueError if their number differs."""
    if len(fields) != len(header):
        raise ValueError(f"{len(fields)} fields for {len(header)} columns")
    return {name: field.strip() for name, field in zip(header, fields, strict=True)}


def _point(row: dict[str, str], step: str, score: str, metric: str) -> tuple[int, dict[str, float]]:
    """Return env step and score of one line; raise ValueError if it is invalid."""
    kind = SCORE_COLUMNS[score]
    if kind != metric:
        raise ValueError(f"column {score}, but the task is scored by its {metric}")
    at, value = _number(row, step), _number(row, score)
    if not math.isfinite(value):
        raise ValueError(f"{score} is {row[score]}, not a finite number")
    if at < 0 or not at.is_integer():
        raise ValueError(f"{step} is {row[step]}, not a non-negative integer")
    if kind == "success" and not 0 <= value <= 1:
        raise ValueError(f"{score} is {row[score]}, not a fraction from 0 to 1")
    return int(at), {SCORES[kind].metric: value}


def _number(row: dict[str, str], name: str) -> float:
    """Return the value of a column; raise ValueError if it is not a number."""
    try:
        return float(row[name])
    except ValueError:
        raise ValueError(f"{name} is not a number: '{row[name]}'") from None


def _seed(text: str) -> int:
    """Return the seed; raise ValueError if it is not an integer."""
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"seed is not an integer: '{text}'") from None


def facts_of(source: str, method: str, task: str, seed: int, path: Path) -> Run:
    """Return the facts of a run of which only the curve is known.

    The run is assumed to have completed the paper's budget of its task.

    Args:
        source: name of the source.
        method: name of the method, ending in `PIXELS` if it learned from pixels.
        task: name in the task table.
        seed: seed of the run.
        path: file or folder of the curve.
    """
    pixels = method.endswith(PIXELS)
    return {
        "source": source,
        "method": method.removesuffix(PIXELS),
        "variant": "default[obs=rgb]" if pixels else "default",
        "model_size": "",
        "dataset": "",
        "task": task,
        "seed": seed,
        "domain": TASKS[task].domain,
        "obs": "rgb" if pixels else "state",
        "score": TASKS[task].metric,
        "state": "COMPLETED",
        "budget": PIXEL_ENV_STEPS if pixels else TASKS[task].env_steps,
        "budget_unit": "env_steps",
        "overrides": {},
        "commit": "",
        "num_parameters": None,
        "simulators": "",
        "directory": path,
        "task_set": "",
        "tasks": [task],
        "step_unit": ENV_STEPS,
        "dataset_name": "",
        "checksum": "",
        "eval_episodes": PAPER_EPISODES,
    }
