"""Helpers that write run directories of multi-task agents in the trainer's format."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tdmpc2.envs.task_variants import switches_of
from tdmpc2.envs.tasks import TASKS

HEADER = (
    "num_updates,task,episode_return,episode_return_sd,episode_success,episode_success_ever,"
    "episode_length,num_episodes,score"
)
PAIR = ("walker-walk", "mw-reach")
"""A task set of two tasks, one scored by return, the other by success."""


def eval_line(step: int, task: str, score: float) -> str:
    """Return one line of `eval.csv`, newline included; `score` is in 0 to 100."""
    success = TASKS[task].metric == "success" if task in TASKS else False
    episode_return = 0.0 if success else 10 * score
    return f"{step},{task},{episode_return},0,{score / 100 * success},0,500,10,{score}\n"


def write_multitask_run(
    runs: Path,
    points: Mapping[int, Sequence[float]],
    *,
    tasks: Sequence[str] = PAIR,
    task_set: str | None = None,
    method: str = "tdmpc2",
    variant: str = "default",
    size: str = "5",
    seed: int = 1,
    tag: str = "0123456789",
    state: str = "COMPLETED",
    eval_csv: str | None = None,
    rates: Sequence[float] = (10.0,),
    numeric: Mapping[str, Any] | None = None,
    **spec: Any,
) -> Path:
    """Write one run directory.

    Args:
        runs: folder of all runs.
        points: updates, and the score of each task, 0 to 100.
        tasks: tasks of the task set, in order.
        task_set: name of the task set; None to join the names of the tasks.
        method: method of the run.
        variant: variant of the run.
        size: model size.
        seed: seed of the run.
        tag: end of the directory's name.
        state: state in `status.json`.
        eval_csv: content of `eval.csv`, which replaces the points.
        rates: updates per second in `timing.csv`.
        numeric: content of `numeric.json`; None for a CPU.
        spec: entries of `spec.json` that differ from the defaults.

    Returns:
        The run directory.
    """
    name = task_set or "+".join(tasks)
    directory = runs / method / variant / name / f"seed{seed}-{tag}"
    directory.mkdir(parents=True)
    content = {
        "format": 1,
        "method": method,
        "variant": variant,
        "task": name,
        "domain": "multitask",
        "metric": "score",
        "model_size": size,
        "num_parameters": None,
        "obs": "state",
        "assets": None,
        "protocol": dict(switches_of({}, *(TASKS[task] for task in tasks if task in TASKS))),
        "seed": seed,
        "budget": max(points, default=1000),
        "budget_unit": "num_updates",
        "overrides": {},
        "identity": tag,
        "tasks": list(tasks),
        "dataset": "ab" * 32,
        "dataset_name": None,
        "commit": "0123456789abcdef",
        **spec,
    }
    (directory / "spec.json").write_text(json.dumps(content))
    status = {"state": state, "num_updates": 0, "budget": content["budget"], "message": ""}
    (directory / "status.json").write_text(json.dumps(status))
    lines = [
        eval_line(step, task, score)
        for step, scores in points.items()
        for task, score in zip(tasks, scores, strict=True)
    ]
    text = "".join([f"{HEADER}\n", *lines]) if eval_csv is None else eval_csv
    (directory / "eval.csv").write_text(text)
    timings = [f"{1000 * i},{i},{rate}\n" for i, rate in enumerate(rates, start=1)]
    (directory / "timing.csv").write_text(
        "".join(["num_updates,seconds,updates_per_second\n", *timings])
    )
    device = numeric or {"device": "cpu", "cpu": "AMD EPYC", "threads": 1}
    (directory / "numeric.json").write_text(json.dumps(dict(device)))
    return directory
