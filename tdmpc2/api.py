"""The library: make environments and agents, train, load runs and evaluate them from Python."""

from __future__ import annotations

import numbers
import os
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
from tdmpc2.common.system.config_checks import SEED, require, require_known
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.paths import default_runs_dir, user_path
from tdmpc2.common.system.regular_files import regular
from tdmpc2.envs import factory
from tdmpc2.envs.task_variants import part

if TYPE_CHECKING:
    from tdmpc2.common.interfaces import Agent, TaskEnv
    from tdmpc2.common.training.evaluation import Evaluation


TASK = "the name of a task, such as gym:Hopper-v5"
METHOD = "the name of a method, such as tdmpc2 or package.module:Class"
_TEXTS = ("task",)
"""Columns of `eval.csv` that hold no numbers, in runs of several tasks."""


@dataclass(frozen=True)
class LoadedRun:
    """Records of a run.

    Attributes:
        directory: the run directory.
        spec: contents of `spec.json`.
        state: state of the run, e.g. `COMPLETED`.
        eval: columns of `eval.csv`, each with one value per evaluation; in runs of several tasks,
            per evaluation and task.
        train: columns of `train.csv`, each with one value per line.
    """

    directory: Path
    spec: Mapping[str, Any]
    state: str
    eval: Mapping[str, Sequence[Any]]
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
        UserError: the task is unknown, something it needs is missing, or an argument has another
            type.
    """
    return factory.make_env(_text("task", task, TASK), seed=_seed(seed), obs=obs)


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
        UserError: the method, a setting or the device is unknown, a value is out of range, or an
            argument has another type.
    """
    from tdmpc2.common.numerics.torch_setup import choose_device
    from tdmpc2.runners import registry, setup, specs

    task: Any = getattr(env, "task", None)
    kind = type(env).__name__
    require(task is not None, f"env: {kind} was not made by tdmpc2.make_env; pass what it returns")
    name, place = _text("method", method, METHOD), choose_device(_text("device", device))
    spec = specs.make_spec(name, task.name, _seed(seed), overrides=settings, require_assets=False)
    return registry.make_agent(spec, setup.env_spec(task, env), place)


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
        UserError: a name is unknown, a value is out of range or of another type, or the run cannot
            be continued.
        StoppedError: a signal stopped the run.
    """
    from tdmpc2.runners.online import run
    from tdmpc2.runners.specs import make_spec

    options = {} if options is None else options
    require(isinstance(options, Mapping), f"options={options!r}: must be a dict of options")
    require_known(RunOptions, options)
    require("runs" not in options, "options: runs is an argument of its own; use runs=")
    misplaced = sorted(settings.keys() & cli.schema_of(RunOptions).keys())
    text = "".join(misplaced[:1])
    require(not misplaced, f"{text} is an option of the run; use options={{'{text}': …}}")
    folder = default_runs_dir() if runs is None else _path("runs", runs)
    chosen = {**_without_numpy(options), "runs": folder}
    overrides, switches = part(_without_numpy(settings))
    spec = make_spec(
        _text("method", method, METHOD),
        _text("task", task, TASK),
        _seed(seed),
        env_steps=None if env_steps is None else _whole("env_steps", env_steps),
        variant=None if variant is None else _text("variant", variant),
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
    folder = _path("directory", directory)
    spec, status = read_json(folder / "spec.json", SpecFile), read_status(folder)
    require(spec is not None and status is not None, f"{folder}: contains no run")
    assert spec is not None
    assert status is not None
    columns = [_columns(folder / f"{name}.csv") for name in ("eval", "train")]
    return LoadedRun(folder, dict(spec), status["state"], *columns)


def _columns(path: Path) -> dict[str, Any]:
    """Return the columns of a CSV file of a run, without a line that is still being written."""
    import numpy as np

    try:
        lines = regular(path).read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
        rows = [line.split(",") for line in lines]
        if {len(row) for row in rows} - {len(row) for row in rows[:1]}:
            raise ValueError("its lines have different numbers of columns")
        # Only the names of tasks are text.
        return {
            name: np.array(values, str if name in _TEXTS else float)
            for name, *values in zip(*rows, strict=True)
        }
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: damaged ({error}); restore it") from None


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

    wanted = EvaluateOptions(
        run=_path("run", run), episodes=_whole("episodes", episodes), seed=_seed(seed)
    )
    return evaluate_checkpoint(wanted)[1]


def _text(name: str, value: Any, kind: str = "a text") -> str:
    """Return an argument that must be text."""
    require(isinstance(value, str), f"{name}={value!r}: must be {kind}")
    return value


def _whole(name: str, value: Any) -> int:
    """Return an argument that must be an integer, of any type: 3, 1e6 or `np.int64(3)`."""
    known = isinstance(value, numbers.Real) and not isinstance(value, bool)
    require(known and value == value // 1, f"{name}={value!r}: must be an integer")
    return int(value)


def _without_numpy(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values with those of NumPy's types as those of Python."""
    import numpy as np

    return {k: v.item() if isinstance(v, np.generic) else v for k, v in values.items()}


def _seed(value: Any) -> int:
    """Return an argument that must be a seed."""
    seed = _whole("seed", value)
    SEED.check("seed", seed)
    return seed


def _path(name: str, value: Any) -> Path:
    """Return an argument that must be a path, as the commands read it; it is made absolute."""
    fits = isinstance(value, str | os.PathLike)
    require(fits, f"{name}={value!r}: must be a path, such as train(…).directory")
    return user_path(os.fspath(value), name)
