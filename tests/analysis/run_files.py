"""Helpers that write run directories in the trainer's format."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tdmpc2.envs.task_variants import switches_of
from tdmpc2.envs.tasks import TASKS

HEADER = (
    "env_step,agent_step,episode_return,episode_return_sd,episode_success,"
    "episode_success_ever,episode_length,num_episodes"
)


def eval_line(step: int, episode_return: float, *, sd: float = 0.0, success: float = 0.0) -> str:
    """Return one line of `eval.csv`, newline included."""
    return f"{step},{step // 2},{episode_return},{sd},{success},{success},500,10\n"


def write_run(
    runs: Path,
    points: Sequence[tuple[int, float]] | Mapping[int, float],
    *,
    method: str = "tdmpc2",
    variant: str = "default",
    task: str = "walker-walk",
    seed: int = 1,
    tag: str = "0123456789",
    state: str = "COMPLETED",
    sd: float = 0.0,
    eval_csv: str | None = None,
    **spec: Any,
) -> Path:
    """Write one run directory.

    Args:
        runs: folder of all runs.
        points: env step and score; the score is a success rate if `metric="success"` is in `spec`,
            else an episode return.
        method: method of the run.
        variant: variant of the run.
        task: task of the run.
        seed: seed of the run.
        tag: end of the directory's name.
        state: state in `status.json`.
        sd: standard deviation of the returns over the episodes of an evaluation.
        eval_csv: content of `eval.csv`, which replaces the points.
        spec: entries of `spec.json` that differ from the defaults.

    Returns:
        The run directory.
    """
    directory = runs / method / variant / task / f"seed{seed}-{tag}"
    directory.mkdir(parents=True)
    content = {
        "format": 1,
        "method": method,
        "variant": variant,
        "task": task,
        "domain": "dmcontrol",
        "metric": "return",
        "seed": seed,
        "budget": 100_000,
        "budget_unit": "env_steps",
        "overrides": {},
        "model_size": 5,
        "identity": tag,
        "protocol": dict(switches_of({}, TASKS[task])) if task in TASKS else {},
        **spec,
    }
    (directory / "spec.json").write_text(json.dumps(content))
    status = {"state": state, "env_step": 0, "env_steps": 100_000, "message": "", "updated": ""}
    (directory / "status.json").write_text(json.dumps(status))
    if eval_csv is None:
        success = content["metric"] == "success"
        lines = [
            eval_line(step, 0.0, success=score) if success else eval_line(step, score, sd=sd)
            for step, score in dict(points).items()
        ]
        eval_csv = "".join([f"{HEADER}\n", *lines])
    (directory / "eval.csv").write_text(eval_csv)
    return directory


def write_table(path: Path, header: str, lines: Sequence[str]) -> Path:
    """Write a CSV file of curves, with its parent folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in (header, *lines)), encoding="utf-8")
    return path


def write_reference_scores(
    runs: Path, task: str, uniform: tuple[float, float], zero: tuple[float, float]
) -> Path:
    """Write `floors/<task>.json` from mean and standard deviation of each policy."""
    path = runs / "floors" / f"{task}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    policies = {
        name: {"mean": mean, "sd": sd}
        for name, (mean, sd) in (("uniform", uniform), ("zero", zero))
    }
    path.write_text(json.dumps({"task": task, "episodes": 10, **policies}))
    return path
