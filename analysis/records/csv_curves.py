"""Reader of learning curves in CSV files: the released ones, and those of other people.

The input is one file or a folder. The layouts are the released `<method>/<task>.csv` with the
columns `step,reward|success,seed`; one file with columns for task, seed, step, score and, for
several methods, method (also the interchange columns `exp_name,env_name,seed,metric,env_step,
value`); the official code's `<task>/<seed>/<experiment>/eval.csv`; exports of wandb; and
`<method>/<task>/<seed>/progress.csv` of Stable-Baselines3. See `curve_formats.py`.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from analysis.records import curve_checks
from analysis.records.curve_facts import facts_of
from analysis.records.curve_formats import (
    BUDGET_COLUMN,
    SCORE_NAMES,
    Format,
    Identity,
    format_of,
    place_of,
    score_name,
)
from analysis.records.evaluations import SCORES, Points
from analysis.records.file_search import files_below
from analysis.records.problems import Problem, Severity
from analysis.records.run_reader import Run
from analysis.records.score_columns import (
    best_kind,
    nameless,
    others_in,
    refused_columns,
    sparse_columns,
)
from tdmpc2.envs.tasks import TASKS

Key = tuple[str, str, str, int]
"""Method, variant, task and seed."""


def read_curves(
    path: Path, source: str, problems: list[Problem], tasks: Collection[str] = ()
) -> list[tuple[Run, Points]]:
    """Read every run of a folder or file of curves, with its points in the order of the file.

    Args:
        path: a folder, or one CSV file.
        source: name of the source in the tidy table.
        problems: list to which unusable content is appended, with file and line.
        tasks: read only the files `<task>.csv` of these tasks; all files if empty.
    """
    files = [path] if path.is_file() else files_below(path, "*.csv")
    if not files:
        problems.append(Problem(str(path), None, "contains no curves (<method>/<task>.csv)"))
    runs = []
    for file in (file for file in files if not tasks or file.stem in tasks):
        place = place_of(file, path)
        if isinstance(place, str):
            problems.append(Problem(str(file), None, place))
        else:
            runs += _read_file(file, source, place, problems)
    return runs


def _read_file(
    path: Path, source: str, place: Identity, problems: list[Problem]
) -> list[tuple[Run, Points]]:
    """Return the runs of one file."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        first = text.partition("\n")[0]
        separator = ";" if first.count(";") > first.count(",") else ","
        lines = csv.reader(text.splitlines(), delimiter=separator)
        header = [name.strip() for name in next(lines, [])]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        what = f"cannot be read: {error}; save it as UTF-8 text"
        problems.append(Problem(str(path), None, what))
        return []
    twice = [name for name, count in Counter(header).items() if name and count > 1]
    form = f"column {twice[0]} occurs twice" if twice else format_of(header, place)
    if isinstance(form, str):
        problems.append(Problem(str(path), 1, f"{form}; file skipped"))
        return []
    if form.note:
        problems.append(Problem(str(path), 1, form.note, "warning"))
    file = _File(path, place, header, form)
    file.read(lines, text, problems)
    return file.runs(source, problems)


class _File:
    """Rows of one CSV file, collected by run and name of the score."""

    def __init__(self, path: Path, place: Identity, header: list[str], form: Format) -> None:
        self.path, self.place, self.header, self.form = path, place, header, form
        self.points: dict[Key, dict[str, list[tuple[int, float]]]] = {}
        self.percent: dict[tuple[Key, str], tuple[int, str]] = {}
        self.budgets: dict[Key, int] = {}
        self.other_kinds: Counter[tuple[str, str]] = Counter()
        self.own_tasks: set[str] = set()
        self.refused = dict(refused_columns(form))
        self.sparse = sparse_columns(form)

    def read(self, lines: Iterator[list[str]], text: str, problems: list[Problem]) -> None:
        """Read all lines; append a problem for each that is skipped."""
        cut = bool(text) and not text.endswith("\n")
        last = text.count("\n") + 1
        for column, why in self.refused.items():
            problems.append(Problem(str(self.path), 1, f"{column}: {why}; column skipped"))
        for number, fields in enumerate(_whole(lines, self.path, problems), start=2):
            if not any(fields):
                continue
            try:
                self._add(fields, number, problems)
            except ValueError as error:
                half = cut and number == last
                what = "incomplete last line" if half else str(error)
                severity: Severity = "warning" if half else "error"
                problems.append(Problem(str(self.path), number, f"{what}; line skipped", severity))

    def _add(self, fields: list[str], number: int, problems: list[Problem]) -> None:
        """Add the scores of one line; raise ValueError if it is invalid."""
        if len(fields) != len(self.header):
            raise ValueError(f"{len(fields)} fields for {len(self.header)} columns")
        row = {name: field.strip() for name, field in zip(self.header, fields, strict=True)}
        form = self.form
        if form.scores[0][2] is None:
            if not any(
                self._add_score(row, number, column, self.place, problems)
                for column, *_ in form.scores
            ):
                task = self._key(row, self.place)[2]
                names = ", ".join(column for column, *_ in form.scores)
                metric = TASKS[task].metric
                raise ValueError(f"column {names}, but the task is scored by its {metric}")
            return
        curve_checks.step(row[form.step], form.step)
        for column, _, stated in form.scores:
            if stated is None or not row[column] or column in self.refused:
                continue  # exports of wandb leave the cells of other runs empty
            try:
                self._add_score(row, number, column, stated, problems)
            except ValueError as error:
                problems.append(Problem(str(self.path), number, f"{error}; cell skipped"))

    def _add_score(
        self,
        row: dict[str, str],
        number: int,
        column: str,
        identity: Identity,
        problems: list[Problem],
    ) -> bool:
        """Add a score; return False if another column may hold that of the task.

        Args:
            row: fields of the line.
            number: number of the line.
            column: column of the score.
            identity: what is known about the run.
            problems: list to which a task outside the table is appended.

        Raises:
            ValueError: If the score or something about its run is invalid.
        """
        form = self.form
        key = self._key(row, identity)
        task = key[2]
        name = row[form.metric] if form.metric else score_name(column)
        if name not in SCORE_NAMES:
            raise ValueError(f"unknown metric '{name}' (valid: {', '.join(SCORE_NAMES)})")
        kind = SCORE_NAMES[name]
        if task in TASKS and kind != TASKS[task].metric:
            self.other_kinds[name, TASKS[task].metric] += 1
            return form.metric is not None
        if not row[column] and column in self.sparse:
            return True
        if task not in TASKS and task not in self.own_tasks:
            self.own_tasks.add(task)
            problems.append(curve_checks.own_task(task, str(self.path), number))
        repeat = TASKS[task].action_repeat if form.agent_steps and task in TASKS else 1
        at = curve_checks.step(row[form.step], form.step) * repeat
        try:
            value = curve_checks.score(row[column], kind, task, column)
        except curve_checks.PercentError as error:
            self.percent.setdefault((key, name), (number, str(error)))
            return True
        self.points.setdefault(key, {}).setdefault(name, []).append((at, value))
        if row.get(BUDGET_COLUMN):
            self.budgets[key] = curve_checks.step(row[BUDGET_COLUMN], BUDGET_COLUMN)
        return True

    def _key(self, row: dict[str, str], identity: Identity) -> Key:
        """Return the run of a line; raise ValueError if something about it is not stated."""
        form = self.form
        task = row[form.task] if form.task else identity.task
        seed = row[form.seed] if form.seed else identity.seed
        if not task or seed is None:
            empty = "no task in its column" if form.task else nameless("task")
            raise ValueError(nameless("seed") if task else empty)
        method = row[form.method] if form.method else identity.method
        if not method:
            raise ValueError("no method in its column" if form.method else nameless("method"))
        name = curve_checks.task_named(task)
        return method, identity.variant, name, curve_checks.seed(seed)

    def runs(self, source: str, problems: list[Problem]) -> list[tuple[Run, Points]]:
        """Return the runs with their points; append what is left out."""
        where = str(self.path)
        if self.form.metric:
            for (name, metric), count in self.other_kinds.items():
                what = f"{count} lines of {name} skipped: these tasks are scored by their {metric}"
                problems.append(Problem(where, None, what, "warning"))
        for (key, name), (number, error) in self.percent.items():
            found = self.points.pop(key, {})
            kept = {one: found[one] for one in found if SCORE_NAMES[one] != SCORE_NAMES[name]}
            if kept:
                self.points[key] = kept
            what = f"{error}; {key[0]}, {key[2]}, seed {key[3]} skipped"
            problems.append(Problem(where, number, what))
        if not self.points and not self.percent:
            problems.append(Problem(where, None, "no usable line", "warning"))
        runs = []
        left_out = dict.fromkeys(others_in(self.form))
        for key, curves in self.points.items():
            name, *others = best_kind(curves)
            left_out |= dict.fromkeys((other, name) for other in others)
            kind = SCORE_NAMES[name]
            points = Points.of([(at, {SCORES[kind].metric: value}) for at, value in curves[name]])
            method, variant, task, seed = key
            identity = replace(Identity(method, variant), task=task, seed=str(seed))
            budget = self.budgets.get(key)
            steps = np.asarray(points.steps)
            facts = facts_of(source, identity, steps, self.path, kind=kind, budget=budget)
            runs.append((facts, points))
        for other, name in left_out:
            what = f"{other} left out: {name} is read as the score of the same runs"
            problems.append(Problem(where, None, what, "warning"))
        return runs


def _whole(lines: Iterator[list[str]], path: Path, problems: list[Problem]) -> Iterator[list[str]]:
    """Yield the lines up to one that is not CSV, which becomes a problem."""
    try:
        yield from lines
    except csv.Error as error:
        problems.append(Problem(str(path), None, f"not CSV: {error}; the rest is skipped"))
