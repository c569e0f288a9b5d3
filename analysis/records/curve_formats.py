"""Formats of CSV files of learning curves: which columns hold what, and in which unit."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from analysis.records.curve_checks import task_named
from tdmpc2.envs.tasks import TASKS

SPARSE_STEP_COLUMN = "time/total_timesteps"
"""Column of the steps of Stable-Baselines3, not all of whose rows are evaluations."""
ENV_STEP_COLUMNS = (
    *("env_step", "env_steps", "step", "Step", SPARSE_STEP_COLUMN, "total_timesteps"),
    *("timesteps", "global_step"),
)
AGENT_STEP_COLUMNS = ("agent_step", "agent_steps")
TASK_COLUMNS = ("task", "env_name", "env", "env_id")
METHOD_COLUMNS = ("method", "exp_name", "algo")
BUDGET_COLUMN = "budget"
"""Column that declares the budget of the runs, in env steps."""
SCORE_COLUMNS = {
    "episode_return": "return",
    "episode_reward": "return",
    "avg_return": "return",
    "mean_reward": "return",
    "return": "return",
    "reward": "return",
    "episode_success": "success",
    "avg_success": "success",
    "success_rate": "success",
    "success": "success",
}
"""Kind of score by column name; the names that say most come first."""
SCORE_NAMES = {
    **SCORE_COLUMNS,
    **{
        f"{place}{mark}{name}": kind
        for place in ("eval", "evaluation", "test")
        for mark in ("/", "_")
        for name, kind in SCORE_COLUMNS.items()
    },
}
"""Kind of score by column or tag."""
RANKED_NAMES = tuple(sorted(SCORE_NAMES, key=lambda name: name in SCORE_COLUMNS))
"""Names of scores; of those that a run has, the first one is read: evaluations before training."""
_WANDB = " - "
_WANDB_BOUNDS = ("__MIN", "__MAX")
_TASK_PLACE = " "
"""What stands for the task in the name of a run."""
_SEEDS = (r"(?:^|-)seed-?(\d+)(?=-|$)", r"(?:^|-)(?:s-?)?(\d+)(?=-|$)")
"""Forms of the seed in the name of a run, the first one that occurs counts."""
PIXELS = "-pixels"
"""Suffix of the method in the released folders if the agent learns from pixels."""


@dataclass(frozen=True)
class Identity:
    """What the place of a file says about its runs; None where its columns must say it."""

    method: str
    variant: str = "default"
    task: str | None = None
    seed: str | None = None


@dataclass(frozen=True)
class Format:
    """Columns of a CSV file.

    Attributes:
        step: column of the step.
        agent_steps: whether steps are decisions of the agent, without action repeat.
        scores: score columns, each with its kind, and the identity that its name states.
        task: column of the task.
        seed: column of the seed.
        method: column of the method.
        metric: column that names the metric of the only score column, in interchange files.
        note: how ambiguous units were read; empty if nothing is ambiguous.
    """

    step: str
    agent_steps: bool
    scores: tuple[tuple[str, str, Identity | None], ...]
    task: str | None = None
    seed: str | None = None
    method: str | None = None
    metric: str | None = None
    note: str = ""


def format_of(header: list[str], identity: Identity) -> Format | str:
    """Return the format of a file, or what is missing.

    Args:
        header: names of its columns.
        identity: what its place says about its runs.
    """
    step = next((name for name in (*AGENT_STEP_COLUMNS, *ENV_STEP_COLUMNS) if name in header), None)
    env_step = next((name for name in ENV_STEP_COLUMNS[:2] if name in header), None)
    step = env_step or step
    if step == "Step" and any(_WANDB in name for name in header):
        return _wandb_format(header, identity)
    task, seed, method = (
        next((name for name in names if name in header), None)
        for names in (TASK_COLUMNS, ("seed",), METHOD_COLUMNS)
    )
    metric = "metric" if {"metric", "value"} <= set(header) else None
    found = [(name, SCORE_NAMES[name], None) for name in RANKED_NAMES if name in header]
    scores = (("value", "", None),) if metric else tuple(found)
    missing = [
        *(["seed"] if seed is None and identity.seed is None else []),
        *(["task"] if task is None and identity.task is None else []),
        *([" or ".join(ENV_STEP_COLUMNS[:3])] if step is None else []),
        *(["episode_return or return or reward or success"] if not scores else []),
    ]
    if step is None or missing:
        return f"missing column: {'; '.join(missing)}"
    agent_steps, note = step in AGENT_STEP_COLUMNS, ""
    if step == "step" and seed is None and found and found[0][0] == "episode_reward":
        agent_steps = True  # eval.csv of the official TD-MPC2 code
        note = (
            "steps are read as agent steps, as the official code writes them: times action repeat"
        )
    elif step not in (*AGENT_STEP_COLUMNS, "env_step", "env_steps", "step"):
        note = _as_env_steps(step)
    return Format(step, agent_steps, scores, task, seed, method, metric, note)


def score_name(column: str) -> str:
    """Return the name of the score in a column, which exports of wandb put after that of a run."""
    return column.rpartition(_WANDB)[2]


def _wandb_format(header: list[str], identity: Identity) -> Format | str:
    """Return the format of an export of wandb: `Step` and a column `<run> - <metric>` per run."""
    scores = []
    for name in header:
        run, _, metric = name.rpartition(_WANDB)
        if run and metric in SCORE_NAMES and not name.endswith(_WANDB_BOUNDS):
            scores.append((name, SCORE_NAMES[metric], run_identity(run, identity)))
    if not scores:
        return (
            f"missing column: no `<run> - <metric>` with a metric such as {list(SCORE_NAMES)[10]}"
        )
    return Format("Step", False, tuple(scores), note=_as_env_steps("Step"))


def run_identity(run: str, identity: Identity) -> Identity:
    """Return method, task and seed from the name of a run, such as `sac-walker-walk-seed1`.

    Args:
        run: name of the run.
        identity: what the place of the file says, for everything that the name does not contain.
    """
    tokens = [token for token in re.split(r"[-_/ =]+", run.lower()) if token]
    task, start, end = _task_in(tokens)
    text = "-".join(tokens if task is None else [*tokens[:start], _TASK_PLACE, *tokens[end:]])
    found = [list(re.finditer(form, text)) for form in _SEEDS]
    seed = next((matches[-1] for matches in found if matches), None)
    parts = (text,) if seed is None else (text[: seed.start()], text[seed.end() :])
    methods = (re.sub(rf"[-{_TASK_PLACE}]+", "-", part).strip("-") for part in parts)
    return Identity(
        next(filter(None, methods), identity.method),
        identity.variant,
        task or identity.task,
        str(int(seed[1])) if seed else identity.seed,
    )


def _task_in(tokens: list[str]) -> tuple[str | None, int, int]:
    """Return the task with the longest name in that of a run, and where it starts and ends.

    Short names of Meta-World tasks, such as `sweep`, also mean other things: they count
    with `mw-` before or a version after them.
    """
    spans = [(i, j) for i in range(len(tokens)) for j in range(i + 1, len(tokens) + 1)]
    for start, end in sorted(spans, key=lambda span: -len("-".join(tokens[slice(*span)]))):
        name = "-".join(tokens[start:end])
        if f"mw-{name}" not in TASKS and (task := task_named(name)) in TASKS:
            return task, start, end
    return None, 0, 0


def _as_env_steps(column: str) -> str:
    """Return the note on a step column whose unit the file does not state."""
    return (
        f"column {column} is read as env steps; if it counts decisions of the agent, rename it to "
        "agent_step"
    )


def place_of(file: Path, folder: Path) -> Identity | str:
    """Return what the place of a file below a folder says, or why it cannot be read.

    Args:
        file: the CSV file.
        folder: the folder of all curves, or the file itself.
    """
    parts = file.relative_to(folder).parts if folder != file else file.parts
    if file.name == "eval.csv" and len(parts) >= 4:
        task, seed, experiment = parts[-4:-1]
        if seed.isdigit():  # logs/<task>/<seed>/<experiment>/eval.csv of the official code
            return Identity("tdmpc2", experiment, task, seed)
    if folder == file:
        return Identity(file.stem)
    if file.name == "progress.csv" and len(parts) == 4:
        number = re.search(r"(\d+)\D*$", parts[2])
        return Identity(parts[0], "default", parts[1], number[1] if number else None)
    if len(parts) == 2:
        return Identity(parts[0], task=file.stem)
    if len(parts) == 1:
        return Identity(file.stem)
    return (
        "not <method>/<task>.csv, <task>/<seed>/<experiment>/eval.csv or "
        "<method>/<task>/<seed>/progress.csv; skipped (run directories: runs=DIR)"
    )
