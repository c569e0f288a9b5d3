"""Room of runs that other tools recorded: folders of TensorBoard events and of Sacred.

Either says what was scored, not always by whom on what, so the folders say the rest:
`<method>/<task>/<seed>/…` for TensorBoard; Sacred's `config.json` has `task` and `seed`, and
`method` where the folder's name is not to stand for it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from analysis.records.csv_curves import SCORE_COLUMNS, facts_of
from analysis.records.problems import Problem
from analysis.records.run_reader import SCORES, Points, Run
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
"""Names under which scores are known, and the kind of score; evaluations before all else."""
EVENTS = "events.out.tfevents.*"


def read_tensorboard(path: Path, source: str, problems: list[Problem]) -> list[tuple[Run, Points]]:
    """Every run below a folder `<method>/<task>/<seed>/` with TensorBoard events.

    Args:
        path: the folder.
        source: name of where they come from, for the tidy table.
        problems: grows by what could not be used.

    Raises:
        UserError: the package `tensorboard` is not installed.
    """
    try:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    except ImportError as error:
        raise UserError(f"reading TensorBoard needs `pip install tensorboard` ({error})") from None
    folders = sorted({file.parent for file in path.rglob(EVENTS)})
    if not folders:
        problems.append(Problem(str(path), None, f"holds no TensorBoard run ({EVENTS})"))
    found: list[tuple[Run, Points]] = []
    for folder in folders:
        parts = folder.relative_to(path).parts
        seed = re.search(r"(\d+)\D*$", parts[2]) if len(parts) >= 3 else None
        if seed is None:
            what = f"not <method>/<task>/<seed>/ below {path}; left out"
            problems.append(Problem(str(folder), None, what))
            continue
        events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
        scalars = {
            tag: [(event.step, event.value) for event in events.Scalars(tag)]
            for tag in events.Tags()["scalars"]
        }
        identity = (parts[0], parts[1], int(seed[1]))
        found += _run(source, identity, folder, scalars, problems)
    return found


def read_sacred(path: Path, source: str, problems: list[Problem]) -> list[tuple[Run, Points]]:
    """Every run of Sacred's file observer below a folder.

    Args:
        path: the folder.
        source: name of where they come from, for the tidy table, and of the method where a run's
            configuration names none.
        problems: grows by what could not be used.
    """
    folders = sorted(file.parent for file in path.rglob("metrics.json"))
    if not folders:
        problems.append(Problem(str(path), None, "holds no Sacred run (metrics.json)"))
    found: list[tuple[Run, Points]] = []
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
            what = f"unusable, {type(error).__name__}: {error}; left out"
            problems.append(Problem(str(folder), None, what))
            continue
        found += _run(source, identity, folder, scalars, problems)
    return found


def _run(
    source: str,
    identity: tuple[str, str, int],
    folder: Path,
    scalars: dict[str, list[tuple[Any, Any]]],
    problems: list[Problem],
) -> Iterator[tuple[Run, Points]]:
    """The run, if its task is known and it was scored as that task is."""
    method, name, seed = identity
    task = ALIASES.get(name, name)
    if task not in TASKS:
        problems.append(Problem(str(folder), None, f"unknown task '{name}'; left out"))
        return
    kind = TASKS[task].metric
    tags = [tag for tag in sorted(TAGS, key=lambda tag: "eval" not in tag) if TAGS[tag] == kind]
    tag = next((tag for tag in tags if tag in scalars), None)
    if tag is None:
        there = ", ".join(sorted(scalars)[:8]) or "nothing"
        what = f"no {kind} of evaluations among its scalars ({there}); left out"
        problems.append(Problem(str(folder), None, what))
        return
    rows = [(int(step), {SCORES[kind].metric: float(value)}) for step, value in scalars[tag]]
    yield facts_of(source, method, task, seed, folder), Points.of(rows)
