"""Reference scores of tasks: returns of random and zero actions, which training must exceed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import pandas as pd

from tdmpc2.common.numerics.seeding import derive_seed
from tdmpc2.common.system.atomic_files import read_json, write_json
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.training.evaluation import Evaluation, UniformPolicy, ZeroPolicy, evaluate
from tdmpc2.envs.assets import AssetSet, find_assets
from tdmpc2.envs.factory import make_env
from tdmpc2.envs.physics import repairs_of
from tdmpc2.envs.tasks import Task


class Returns(TypedDict):
    """Returns of a reference over several episodes."""

    mean: float
    sd: float


class Scores(TypedDict):
    """File with the reference scores of a task."""

    uniform: Returns
    zero: Returns
    physics: NotRequired[str]


EPISODES = 10
SIGMAS = 3.0


def measure_reference_scores(
    tasks: Iterable[Task], runs: Path, *, assets: str = "official"
) -> dict[Task, dict[str, Any]]:
    """Measure the returns of uniform random and zero actions over ten episodes of each task.

    Each task is measured once; the result is stored in `<runs>/floors/<task>.json`, or in
    `<runs>/floors/<source>/<task>.json` if its object models are not the official ones, and in
    a folder `physics=simulator` if the physics is not the paper's.

    Args:
        tasks: tasks with their switches, see `task_of`.
        runs: folder of all runs.
        assets: wanted sources of the object models of tasks that need some.

    Returns:
        Task → `{"uniform": {"mean", "sd"}, "zero": {"mean", "sd"}, …}`.
    """
    reference_scores = {}
    for task in dict.fromkeys(tasks):
        models = find_assets(task.assets, assets) if task.assets is not None else None
        folder = runs / "floors"  # folder name of version 0.1, kept for compatibility
        if models is not None and models.source != "official":
            folder /= models.label
        physics = task.physics if repairs_of(task.name) else None
        if physics not in (None, "paper"):
            folder /= f"physics={physics}"
        path = folder / f"{task.name}.json"
        try:
            scores = read_json(path, Scores)
        except UserError:  # damaged: measured again, with the same result
            scores = None
        if scores is None or scores.get("physics") != physics:  # 0.4.0 recorded no physics
            scores = _measure(task, models or assets)
            if physics is not None:
                scores["physics"] = physics
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, scores)
        reference_scores[task] = scores
    return reference_scores


def _measure(task: Task, assets: AssetSet | str) -> dict[str, Any]:
    seeds = [derive_seed(0, "floors", i) for i in range(EPISODES)]
    with contextlib.ExitStack() as stack:
        made = (make_env(task, seed=i, assets=assets) for i in range(EPISODES))
        envs = [stack.enter_context(contextlib.closing(env)) for env in made]
        shape = envs[0].action_space.shape
        assert shape is not None
        uniform = evaluate(UniformPolicy(shape[0], derive_seed(0, "uniform")), envs, seeds)
        zero = evaluate(ZeroPolicy(shape[0]), envs, seeds)
    return {
        "task": task.name,
        "episodes": EPISODES,
        "uniform": _mean_and_sd(uniform),
        "zero": _mean_and_sd(zero),
    }


def _mean_and_sd(result: Evaluation) -> dict[str, float]:
    return {"mean": result.mean_return, "sd": result.sd_return}


def threshold(floor: dict[str, Any], evaluations: pd.DataFrame) -> float:
    """Compute the return above which a run counts as learned.

    threshold = max(mean_uniform, mean_zero, mean_untrained) + 3 max(sd_uniform, sd_zero,
    sd_untrained), with means and standard deviations of the return over the episodes of each
    reference. The untrained agent is the agent of the run before its first update.

    Args:
        floor: reference scores of the task (see `measure_reference_scores`).
        evaluations: `eval.csv` of the run; its line at env step 0 is the untrained agent.
    """
    start = evaluations[evaluations.env_step == 0].iloc[0]
    means = [floor["uniform"]["mean"], floor["zero"]["mean"], start.episode_return]
    sds = [floor["uniform"]["sd"], floor["zero"]["sd"], start.episode_return_sd]
    return float(max(means) + SIGMAS * max(sds))
