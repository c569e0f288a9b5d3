"""Evaluate a trained model on one, several or all of its tasks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tdmpc2.agent import TDMPC2
from tdmpc2.checkpoints.model import Model
from tdmpc2.common.numerics.seeding import derive_seed
from tdmpc2.common.system.errors import DivergedError, UserError, did_you_mean
from tdmpc2.common.training.evaluation import Evaluation, evaluate
from tdmpc2.common.training.vector_env import EnvGroup
from tdmpc2.envs.tasks import Task, get_task, list_tasks
from tdmpc2.runners.setup import env_arguments, make_env_group
from tdmpc2.runners.specs import make_spec


@dataclass(frozen=True)
class TaskResult:
    """Result of a task.

    Attributes:
        task: a row of the task table.
        outcome: results of the episodes.
    """

    task: Task
    outcome: Evaluation

    @property
    def score(self) -> float:
        """Normalized score, 0 to 100: return / 10, or success in percent (paper, Section 4)."""
        success = float(self.outcome.successes.mean())
        return self.task.normalized_score(self.outcome.mean_return, success)

    def row(self) -> dict[str, Any]:
        """Return plain values for a JSON file."""
        episodes = {
            "returns": self.outcome.returns.tolist(),
            "successes": self.outcome.successes.tolist(),
        }
        named = {"task": self.task.name, "metric": self.task.metric, "score": self.score}
        return {**named, **self.outcome.row(), **episodes}


def choose_tasks(model: Model, wanted: str | None) -> tuple[str, ...]:
    """Return the names of the tasks to evaluate.

    Args:
        model: a single- or multi-task model.
        wanted: `all`, a task, or a list of tasks; None for a model of one task.

    Raises:
        UserError: the model was not trained on a task, a task is named twice, or no task of a
            multi-task model is given.
    """
    names = model.env.task_names
    if wanted == "all" or (wanted is None and len(names) == 1):
        return names
    if wanted is None:
        raise UserError(f"task= is missing: one of the model's {len(names)} tasks, or all")
    chosen = tuple(task.name for task in list_tasks(wanted, "task"))
    for name in chosen:
        if name not in names:
            raise UserError(
                f"task={name}: the model was not trained on this task{did_you_mean(name, names)}"
            )
    return chosen


def evaluate_tasks(
    model: Model,
    agent: TDMPC2,
    names: Sequence[str],
    *,
    episodes: int,
    seed: int = 0,
    workers: int | None = None,
) -> Iterator[TaskResult]:
    """Evaluate tasks one after the other; the result of a task does not depend on the others.

    A model of one task uses the seeds of `tdmpc2/evaluate.py`, so that both report the same
    results. A multi-task model uses different seeds for each task.

    Args:
        model: the model from which the agent was made.
        agent: an agent with the model's weights.
        names: names of the tasks, all of them tasks of the model.
        episodes: episodes per task, planned as one batch.
        seed: seed of environments and planning noise.
        workers: number of environment processes; see `make_env_group`.

    Raises:
        UserError: the simulator or the models of a task are missing, or the agent returns NaN or
            Inf.
    """
    for name in names:
        task, keys = get_task(name), (name,) if model.env.num_tasks > 1 else ()
        agent.seed_evaluation(derive_seed(seed, "evaluation noise", *keys))
        seeds = [derive_seed(seed, "evaluation", *keys, i) for i in range(episodes)]
        index = [model.env.task_names.index(name)] * episodes
        with contextlib.closing(_environments(model, task, episodes, workers)) as group:
            try:
                outcome = evaluate(agent, group, seeds, tasks=index if model.multitask else None)
            except DivergedError as error:
                raise UserError(f"{name}: {error}; the model cannot be used") from None
        yield TaskResult(task, outcome)


def _environments(model: Model, task: Task, episodes: int, workers: int | None) -> EnvGroup:
    """Make the environments of one task, with the model's settings and shapes."""
    obs, assets = model.facts.get("obs", "state"), model.facts.get("assets") or "official"
    switches = model.facts.get("protocol", {})
    spec = make_spec(
        "tdmpc2",
        task.name,
        0,
        obs=obs,
        assets=assets.partition("-")[0],
        task_switches=switches,
    )
    if spec.assets not in (None, assets):
        raise UserError(
            f"{task.name}: the installed assets are {spec.assets}, but the model was trained with "
            f"{assets}"
        )
    arguments = env_arguments(spec)
    if model.multitask:
        arguments["padded_to"] = model.env
    return make_env_group(arguments, episodes, workers)
