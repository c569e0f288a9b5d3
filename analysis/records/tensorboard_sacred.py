"""Reader of runs that were recorded with TensorBoard or Sacred.

Both record scores, but not always method, task and seed. For TensorBoard these come from the
folders, `<method>/<task>/<seed>/…`; for Sacred from `config.json`, which must contain `task` and
`seed` and may contain `method`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from analysis.records import curve_checks
from analysis.records.curve_facts import facts_of
from analysis.records.curve_formats import RANKED_NAMES, SCORE_NAMES, Identity
from analysis.records.evaluations import SCORES, Points
from analysis.records.file_search import files_below
from analysis.records.problems import Problem
from analysis.records.run_reader import Run
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.regular_files import regular
from tdmpc2.envs.tasks import TASKS

EVENTS = "events.out.tfevents.*"


def read_tensorboard(path: Path, source: str, problems: list[Problem]) -> list[tuple[Run, Points]]:
    """Read every run below a folder `<method>/<task>/<seed>/` with TensorBoard events.

    Args:
        path: the folder.
        source: name of the source in the tidy table.
        problems: list to which unusable runs are appended.

    Raises:
        UserError: If the package `tensorboard` is not installed.
    """
    try:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    except ImportError as error:
        raise UserError(f"reading TensorBoard needs `pip install tensorboard` ({error})") from None
    folders = sorted({file.parent for file in files_below(path, EVENTS)})
    if not folders:
        problems.append(Problem(str(path), None, f"contains no TensorBoard run ({EVENTS})"))
    runs: list[tuple[Run, Points]] = []
    for folder in folders:
        names = folder.relative_to(path).parts
        seed = re.search(r"(\d+)\D*$", names[2]) if len(names) >= 3 else None
        if seed is None:
            what = f"not <method>/<task>/<seed>/ below {path}; skipped"
            problems.append(Problem(str(folder), None, what))
            continue
        try:
            scalars = _scalars(EventAccumulator(str(folder), size_guidance=_ALL).Reload())
        except Exception as error:  # damaged files raise many types of errors
            what = f"cannot be read: {type(error).__name__}: {error}; skipped"
            problems.append(Problem(str(folder), None, what))
            continue
        identity = Identity(names[0], task=names[1], seed=seed[1])
        runs += _run(source, identity, folder, scalars, problems)
    return runs


_UNUSABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)
"""Errors of files of Sacred that are damaged or nested too deeply."""
_ALL = {"scalars": 0, "tensors": 0}
"""Number of events that are kept: all."""


def _scalars(events: Any) -> dict[str, list[tuple[Any, Any]]]:
    """Return step and value of every scalar, whether it is encoded as a number or as a tensor."""
    from tensorboard.util.tensor_util import make_ndarray

    tags = events.Tags()
    found = {
        tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags["scalars"]
    }
    for tag in tags["tensors"]:
        arrays = [(e.step, make_ndarray(e.tensor_proto)) for e in events.Tensors(tag)]
        if all(array.size == 1 and array.dtype.kind in "fiu" for _, array in arrays):
            found[tag] = [(step, array.item()) for step, array in arrays]
    return found


def read_sacred(path: Path, source: str, problems: list[Problem]) -> list[tuple[Run, Points]]:
    """Read every run of Sacred's file observer below a folder.

    Args:
        path: the folder.
        source: name of the source in the tidy table, and of the method if a run's configuration
            does not contain one.
        problems: list to which unusable runs are appended.
    """
    folders = sorted(file.parent for file in files_below(path, "metrics.json"))
    if not folders:
        problems.append(Problem(str(path), None, "contains no Sacred run (metrics.json)"))
    for folder in sorted({file.parent for file in files_below(path, "config.json")} - set(folders)):
        what = "no metrics.json: nothing was recorded; skipped"
        problems.append(Problem(str(folder), None, what, "warning"))
    runs: list[tuple[Run, Points]] = []
    for folder in folders:
        try:
            config = json.loads(regular(folder / "config.json").read_text(encoding="utf-8"))
            metrics = json.loads(regular(folder / "metrics.json").read_text(encoding="utf-8"))
            method = str(config.get("method", source))
            identity = Identity(method, task=str(config["task"]), seed=str(config["seed"]))
            scalars = {
                name: list(zip(metric["steps"], metric["values"], strict=True))
                for name, metric in metrics.items()
            }
        except _UNUSABLE as error:
            what = f"unusable, {type(error).__name__}: {error}; skipped"
            problems.append(Problem(str(folder), None, what))
            continue
        runs += _run(source, identity, folder, scalars, problems)
    return runs


def _run(
    source: str,
    identity: Identity,
    folder: Path,
    scalars: dict[str, list[tuple[Any, Any]]],
    problems: list[Problem],
) -> Iterator[tuple[Run, Points]]:
    """Yield the run if it recorded the score of its task."""
    task = curve_checks.task_named(str(identity.task))
    known = TASKS[task].metric if task in TASKS else None
    tags = [name for name in RANKED_NAMES if known in (None, SCORE_NAMES[name])]
    tag = next((name for name in tags if name in scalars), None)
    if tag is None:
        listed = ", ".join(sorted(scalars)[:8]) or "none"
        what = f"no evaluation {known or 'score'} among its scalars ({listed}); skipped"
        problems.append(Problem(str(folder), None, what))
        return
    kind = SCORE_NAMES[tag]
    rows = []
    for place, (at, value) in enumerate(scalars[tag], start=1):
        try:
            point = {SCORES[kind].metric: curve_checks.score(_mean(value), kind, task, tag)}
            rows.append((curve_checks.step(at), point))
        except curve_checks.PercentError as error:
            what = f"{tag}, entry {place}: {error}; run skipped"
            problems.append(Problem(str(folder), None, what))
            return
        except (ValueError, RecursionError) as error:
            problems.append(Problem(str(folder), None, f"{tag}, entry {place}: {error}; skipped"))
    try:
        own = replace(identity, task=task, seed=str(curve_checks.seed(identity.seed)))
    except ValueError as error:
        problems.append(Problem(str(folder), None, f"{error}; skipped"))
        return
    if task not in TASKS:
        problems.append(curve_checks.own_task(task, str(folder), None))
    points = Points.of(rows)
    yield facts_of(source, own, points.steps, folder, kind=kind), points


def _mean(value: Any) -> Any:
    """Return a value of Sacred as a number: the mean of an array, the content of a numpy scalar."""
    if isinstance(value, Mapping):
        value = next((value[key] for key in ("value", "values") if key in value), "an object")
    if isinstance(value, list):
        numbers = [_mean(one) for one in value]
        return sum(float(one) for one in numbers) / len(numbers) if numbers else "an empty array"
    return value
