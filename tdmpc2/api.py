"""The library: make environments and agents, train, load runs and evaluate them from Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tdmpc2.common.run.resume_checks import RunResult
from tdmpc2.common.run.run_files import read_status
from tdmpc2.common.run.schemas import SpecFile
from tdmpc2.common.run.spec import RunOptions
from tdmpc2.common.system import cli
from tdmpc2.common.system.atomic_files import read_json
from tdmpc2.common.system.config_checks import require, require_known
from tdmpc2.common.system.paths import default_runs_dir
from tdmpc2.envs import factory
from tdmpc2.envs.task_variants import part

if TYPE_CHECKING:
    from tdmpc2.common.interfaces import Agent, TaskEnv
    from tdmpc2.common.training.evaluation import Evaluation


@dataclass(frozen=True)
class LoadedRun:
    """Records of a run.

    Attributes:
        directory: the run directory.
        spec: contents of `spec.json`.
        state: state of the run, e.g. `COMPLETED`.
        eval: columns of `eval.csv`, each with one value per evaluation.
        train: columns of `train.csv`, each with one value per recorded episode.
    """

    directory: Path
    spec: Mapping[str, Any]
    state: str
    eval: Mapping[str, Sequence[float]]
    train: Mapping[str, Sequence[float]]


def make_env(task: str, *, seed: int = 1, obs: Literal["state", "rgb"] = "state") -> TaskEnv:
    """Make the environment of a task.

    Args:
        task: name of a task of the suite, `gym:ID` or `module:ID`.
        seed: seed of the environment's only generator.
        obs: `state`, or `rgb` for pixels.

    Returns:
        An environment with the interface of Gymnasium; a step is a decision (see `TaskEnv`).

    Raises:
        UserError: the task is unknown, or something it needs is missing.
    """
    return factory.make_env(task, seed=seed, obs=obs)


def make_agent(
    method: str, env: TaskEnv, *, seed: int = 1, device: str = "cpu", **settings: Any
) -> Agent:
    """Make a newly initialized agent.

    Args:
        method: name of a method, or `package.module:Class`.
        env: environment that it will act in, from `make_env`.
        seed: seed of its weights and noise.
        device: device of the networks.
        **settings: hyperparameters that differ from the defaults, e.g. `model_size=1`.

    Returns:
        The agent; `act(obs[None], first=…, explore=False)` returns actions `(1, A)`.

    Raises:
        UserError: the method or a setting is unknown, or a value is out of range.
    """
    import torch

    from tdmpc2.runners import registry, setup

    task: Any = env.task  # type: ignore[attr-defined]
    spec = registry.make_spec(method, task.name, seed, overrides=settings, require_assets=False)
    return registry.make_agent(spec, setup.env_spec(task, env), torch.device(device))


def train(
    task: str,
    *,
    method: str = "tdmpc2",
    seed: int = 1,
    env_steps: int | None = None,
    variant: str | None = None,
    runs: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
    **settings: Any,
) -> RunResult:
    """Train an agent as `tdmpc2/train.py` does; resume the run if it was started before.

    Args:
        task: name of a task of the suite, `gym:ID` or `module:ID`.
        method: name of a method, or `package.module:Class`.
        seed: seed of all random numbers.
        env_steps: budget in control steps; None for that of the task.
        variant: name of the settings; None derives it from them.
        runs: folder that holds all runs; None for the default of the commands.
        options: further options of the run, see `RunOptions`, e.g. `{"eval_every": 1000}`.
        **settings: hyperparameters and switches of tasks that differ from the defaults.

    Returns:
        State and directory of the run.

    Raises:
        UserError: a name is unknown, a value is out of range, or the run cannot be continued.
        StoppedError: a signal stopped the run.
    """
    from tdmpc2.runners.online import run
    from tdmpc2.runners.registry import make_spec

    require_known(RunOptions, options or {})
    chosen = {**(options or {}), "runs": Path(runs) if runs is not None else default_runs_dir()}
    overrides, switches = part(settings)
    spec = make_spec(
        method,
        task,
        seed,
        env_steps=env_steps,
        variant=variant,
        overrides=overrides,
        task_switches=switches,
    )
    return run(spec, cli.build(RunOptions, chosen))


def load_run(directory: str | Path) -> LoadedRun:
    """Load the records of a run.

    Args:
        directory: the run directory, e.g. `train(…).directory`.

    Raises:
        UserError: the directory holds no run, or a file is damaged.
    """
    import numpy as np

    folder = Path(directory)
    spec, status = read_json(folder / "spec.json", SpecFile), read_status(folder)
    require(spec is not None and status is not None, f"{folder}: contains no run")
    assert spec is not None
    assert status is not None
    columns: list[dict[str, Any]] = []
    for name in ("eval", "train"):
        path = folder / f"{name}.csv"
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        rows = np.array([[float(v) for v in line.split(",")] for line in lines[1:]])
        names = lines[0].split(",") if lines else []
        columns.append({key: rows[:, i] for i, key in enumerate(names)} if len(rows) else {})
    return LoadedRun(folder, dict(spec), status["state"], *columns)


def evaluate(run: str | Path, *, episodes: int = 10, seed: int = 0) -> Evaluation:
    """Evaluate the agent of a run without exploration noise.

    Args:
        run: run directory, or one of its checkpoints.
        episodes: number of episodes.
        seed: seed of the episodes and of the planner's noise.

    Returns:
        Returns, successes and lengths of the episodes.

    Raises:
        UserError: `run` is no run, is damaged, or is a multi-task run.
    """
    from tdmpc2.evaluate import EvaluateOptions
    from tdmpc2.runners.evaluate_checkpoint import evaluate_checkpoint

    return evaluate_checkpoint(EvaluateOptions(run=Path(run), episodes=episodes, seed=seed))[1]
