"""Reader of other people's result files: the interchange CSV, BMPC's JSON and MR.Q's text tables.

Everything becomes a `Series`: the curve of one seed, or the mean of unknown seeds, on one task.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from analysis.records import curve_checks
from analysis.records.csv_curves import read_curves
from analysis.records.evaluations import SCORES, averaged
from analysis.records.problems import Problem
from analysis.records.source_options import report
from analysis.records.sources import RESERVED
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.paths import listed_paths
from tdmpc2.common.system.texts import counted
from tdmpc2.envs.tasks import TASKS

SUFFIXES = (".csv", ".json", ".txt")
MEAN = None
"""Seed of a series that is a mean over seeds."""
_BLOCK = re.compile(r"Env: *(\S+)")


@dataclass(frozen=True, eq=False)
class Series:
    """A learning curve of one seed, or of a mean over seeds, on one task.

    Attributes:
        source: name of the file or folder.
        method: name of the method, as the source writes it.
        task: name of the task, that of the task table if it is one of its tasks.
        seed: the seed; None for a mean over seeds.
        steps: env steps `(n,)`, ascending.
        values: returns or success `(n,)`.
        kind: `return` or `success`.
    """

    source: str
    method: str
    task: str
    seed: int | None
    steps: np.ndarray
    values: np.ndarray
    kind: str

    @property
    def scores(self) -> np.ndarray:
        """Normalized scores `(n,)` from 0 to 100, for tasks of the table."""
        return self.values / (10.0 if self.kind == "return" else 0.01)


def read_files(
    files: str, folder: Path | None, problems: list[Problem], others: Collection[str] = ()
) -> list[Series]:
    """Read all series of the options `files=` and `results=`; a file named twice is read once.

    Args:
        files: paths of result files, separated by commas.
        folder: folder of more result files.
        problems: list to which what is not used is appended.
        others: names of the sources beside the files.

    Raises:
        UserError: A file or the folder does not exist, or two sources have the same name.
    """
    paths = listed_paths(files, "files")
    if folder is not None:
        if not folder.is_dir():
            raise UserError(f"results={folder}: no such folder")
        paths += sorted(path for path in folder.iterdir() if _suffix(path) in SUFFIXES)
    for path in paths:
        if not path.exists():
            raise UserError(f"{path}: no such file or folder")
    named: dict[str, Path] = {}
    for path in paths:
        if path.stem in RESERVED or path.stem in others:
            what = f"another source is named '{path.stem}'; give the file a different name"
            raise UserError(f"{path}: {what}")
        first = named.setdefault(path.stem, path)
        if first.resolve() != path.resolve():
            what = f"both would be the source '{path.stem}'; give the files different names"
            raise UserError(f"{first}, {path}: {what}")
    return [one for path in named.values() for one in read_field(path, problems)]


def read_field(path: Path, problems: list[Problem], name: str | None = None) -> list[Series]:
    """Read all series of a result file, or of a folder of learning curves.

    Args:
        path: a CSV, JSON or text file, or a folder as `curves=` accepts it.
        problems: list to which what is not used is appended, with file and line.
        name: name of the source; default: that of the file or folder.
    """
    source = name or path.stem
    try:
        if _suffix(path) == ".json" and path.is_file():
            found = _read_json(path, source, problems)
        elif _suffix(path) == ".txt" and path.is_file():
            found = _read_text(path, source, problems)
        else:
            found = _read_csv(path, source, problems)
    except (OSError, UnicodeDecodeError) as error:
        problems.append(Problem(str(path), None, f"cannot be read: {error}"))
        return []
    return list(_without_duplicates(found, path, problems))


def _suffix(path: Path) -> str:
    return path.suffix.lower()


def _read_csv(path: Path, source: str, problems: list[Problem]) -> list[Series]:
    found, pixels = [], []
    for run, points in read_curves(path, source, problems):
        if run.get("obs") == "rgb":
            pixels.append(run)
            continue
        kind = next(kind for kind, score in SCORES.items() if score.metric in points.values)
        values = points.values[SCORES[kind].metric]
        order = np.argsort(points.steps, kind="stable")
        variant = "" if run["variant"] == "default" else f" ({run['variant']})"
        identity = (source, f"{run['method']}{variant}", run["task"], run["seed"])
        found.append(Series(*identity, points.steps[order], values[order], kind))
    if pixels:
        what = f"{len(pixels)} curves learned from pixels; skipped"
        problems.append(Problem(str(path), None, what, "warning"))
    return found


def _read_json(path: Path, source: str, problems: list[Problem]) -> list[Series]:
    """Read `{method: {task: {"steps": [...], "values": [...]}}}`, means over seeds."""

    def refuse(where: str, what: str) -> None:
        problems.append(Problem(str(path), None, f"{where}: {what}; skipped"))

    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        problems.append(Problem(str(path), error.lineno, f"not JSON: {error.msg}; file skipped"))
        return []
    except (ValueError, RecursionError) as error:  # numbers too long, or nested too deeply
        refuse("file", f"cannot be read, {error}")
        return []
    if not isinstance(content, dict):
        refuse("file", "not an object {method: {task: {steps, values}}}")
        return []
    found = []
    for method, tasks in content.items():
        if not method:
            refuse("file", "a method without a name")
            continue
        if not isinstance(tasks, dict):
            refuse(method, "not an object {task: {steps, values}}")
            continue
        for task, curve in tasks.items():
            where = f"{method}, {task}"
            if not isinstance(curve, dict) or not {"steps", "values"} <= curve.keys():
                refuse(where, "no lists 'steps' and 'values'")
                continue
            try:
                found.append(_series(source, method, task, MEAN, curve, str(path), problems))
            except (ValueError, TypeError, RecursionError) as error:
                refuse(where, str(error))
    return found


def _series(
    source: str,
    method: str,
    task: str,
    seed: int | None,
    curve: Mapping[str, Sequence[Any]],
    where: str,
    problems: list[Problem],
) -> Series:
    """Return a series; raise ValueError if a number is invalid.

    Args:
        source: name of the source.
        method: name of the method.
        task: name of the task in the file.
        seed: the seed, or None.
        curve: lists `steps` and `values`.
        where: file, for problems.
        problems: list to which an unknown task is appended.
    """
    if not task:
        raise ValueError("no name of the task")
    name = curve_checks.task_named(task)
    if name not in TASKS:
        problems.append(curve_checks.own_task(task, where, None))
    kind = TASKS[name].metric if name in TASKS else "return"
    if len(curve["steps"]) != len(curve["values"]):
        raise ValueError(f"{len(curve['steps'])} steps for {len(curve['values'])} values")
    steps = np.array([curve_checks.step(step, "steps") for step in curve["steps"]], dtype="int64")
    values = [curve_checks.score(value, kind, name, "values") for value in curve["values"]]
    order = np.argsort(steps, kind="stable")
    return Series(source, method, name, seed, steps[order], np.array(values)[order], kind)


def _read_text(path: Path, source: str, problems: list[Problem]) -> list[Series]:
    """Read MR.Q's tables: dashes, `Env: NAME`, a header `Timestep, Seed 0, …`, and rows of tabs."""
    found: list[Series] = []
    task = ""
    header: list[str] = []
    rows: list[list[str]] = []

    def close() -> None:
        for place, column in enumerate(header[1:], start=1):
            seed = column.removeprefix("Seed").strip()
            curve = {"steps": [row[0] for row in rows], "values": [row[place] for row in rows]}
            try:
                number = curve_checks.seed(seed)
                found.append(_series(source, path.stem, task, number, curve, str(path), problems))
            except ValueError as error:
                what = f"{task}, {column}: {error}; skipped"
                problems.append(Problem(str(path), None, what))

    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        fields = [field.strip() for field in line.split("\t")]
        named = _BLOCK.match(line.strip())
        if named:
            close()
            task, header, rows = named[1], [], []
        elif fields[0] == "Timestep":
            header = fields
        elif header and len(fields) == len(header):
            rows.append(fields)
        elif line.strip(" -\t"):
            what = f"{len(fields)} fields, not Timestep and seeds" if task else "no line Env: NAME"
            problems.append(Problem(str(path), number, f"{what}; line skipped"))
    close()
    return found


def _without_duplicates(
    found: Iterable[Series], path: Path, problems: list[Problem]
) -> Iterable[Series]:
    """Yield the first series of each method, task and seed; name the others, and repeated steps.

    A repeated step gets the mean of its values.
    """
    seen: set[tuple[str, str, int | None]] = set()
    for series in found:
        key = (series.method, series.task, series.seed)
        if key in seen:
            what = f"{series.method}, {series.task}, seed {series.seed}: occurs twice; first used"
            problems.append(Problem(str(path), None, what))
        elif len(series.steps):
            seen.add(key)
            steps, values = averaged(series.steps, series.values)
            if more := len(series.steps) - len(steps):
                what = (
                    f"{series.method}, {series.task}, seed {series.seed}: {counted(more, 'value')} "
                    "of repeated steps; each step has the mean of its values"
                )
                problems.append(Problem(str(path), None, what, "warning"))
            yield replace(series, steps=steps, values=values)


def report_field(problems: Sequence[Problem]) -> None:
    """Print problems on stderr; tasks outside the table of tasks take one line together."""
    report([problem for problem in problems if not problem.unknown_task])
    names = list(dict.fromkeys(one.unknown_task for one in problems if one.unknown_task))
    if names:
        listed = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        print(f"{len(names)} tasks without a normalized score: {listed}", file=sys.stderr)
