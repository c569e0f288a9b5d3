"""Reader of runs that were recorded with TensorBoard or Sacred.

Both record scores, but not always method, task and seed. For TensorBoard these come from the
folders, `<method>/<task>/<seed>/…`; for Sacred from `config.json`, which must contain `task` and
`seed` and may contain `method`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from analysis.records.csv_curves import SCORE_COLUMNS, facts_of
from analysis.records.evaluations import SCORES, Points
from analysis.records.problems import Problem
from analysis.records.run_reader import Run
from tdmpc2.common.system.errors import UserError
from tdmpc2.envs.tasks import ALIASES, TASKS

TAGS = {
    **SCORE_COLUMNS,
    "episode_reward": "return",
    **{
        f"{place}{mark}{name}": kind
        for place in ("eval", "evaluation", "test")
        for mark in ("/", "_")
        for name, kind in {**SCORE_COLUMNS, "episode_reward": "return"}.items()
    },
}
"""Kind of score by tag; tags of evaluations take precedence over the others."""
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
    folders = sorted({file.parent for file in path.rglob(EVENTS)})
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
        events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
        scalars = {
            tag: [(event.step, event.value) for event in events.Scalars(tag)]
            for tag in events.Tags()["scalars"]
        }
        identity = (names[0], names[1], int(seed[1]))
        runs += _run(source, identity, folder, scalars, problems)
    return runs


def read_sacred(path: Path, source: str, problems: list[Problem]) -> list[tuple[Run, Points]]:
    """Read every run of Sacred's file observer below a folder.

    Args:
        path: the folder.
        source: name of the source in the tidy table, and of the method if a run's configuration
            does not contain one.
        problems: list to which unusable runs are appended.
    """
    folders = sorted(file.parent for file in path.rglob("metrics.json"))
    if not folders:
        problems.append(Problem(str(path), None, "contains no Sacred run (metrics.json)"))
    runs: list[tuple[Run, Points]] = []
    for folder in folders:
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
            identity = (str(config.get("method", source)), str(config["task"]), int(config["seed"]))
            scalars = {
                name: list(zip(metric["steps"], metric["values"], strict=True))
                for name, metric in metrics.items()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            what = f"unusable, {type(error).__name__}: {error}; skipped"
            problems.append(Problem(str(folder), None, what))
            continue
        runs += _run(source, identity, folder, scalars, problems)
    return runs


def _run(
    source: str,
    identity: tuple[str, str, int],
    folder: Path,
    scalars: dict[str, list[tuple[Any, Any]]],
    problems: list[Problem],
) -> Iterator[tuple[Run, Points]]:
    """Yield the run if its task is known and it recorded the score of that task."""
    method, name, seed = identity
    task = ALIASES.get(name, name)
    if task not in TASKS:
        problems.append(Problem(str(folder), None, f"unknown task '{name}'; skipped"))
        return
    kind = TASKS[task].metric
    tags = [tag for tag in sorted(TAGS, key=lambda tag: "eval" not in tag) if TAGS[tag] == kind]
    tag = next((tag for tag in tags if tag in scalars), None)
    if tag is None:
        names = ", ".join(sorted(scalars)[:8]) or "none"
        what = f"no evaluation {kind} among its scalars ({names}); skipped"
        problems.append(Problem(str(folder), None, what))
        return
    rows = [(int(step), {SCORES[kind].metric: float(value)}) for step, value in scalars[tag]]
    yield facts_of(source, method, task, seed, folder), Points.of(rows)
