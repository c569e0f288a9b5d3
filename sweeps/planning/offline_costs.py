"""Estimate the cost of multi-task runs from earlier runs, the paper, or operation counts."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

import pandas as pd

from sweeps.planning.costs import (
    BATCHED,
    BYTES_PER_PARAMETER,
    PROCESS_BYTES,
    Cost,
    parameters,
    seconds_per_call,
)
from sweeps.planning.planned_run import PlannedRun
from tdmpc2.common.run.spec import RunSpec, Scalar
from tdmpc2.common.system.atomic_files import read_json
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.regular_files import regular
from tdmpc2.envs.adapters import ADAPTERS
from tdmpc2.envs.tasks import TASKS, get_task
from tdmpc2.runners.fixed_options import OFFLINE_EVAL_EVERY
from tdmpc2.runners.registry import make_config
from tdmpc2.runners.specs import OFFLINE_UPDATES

# Table 1 of the paper: GPU-days of training TD-MPC2 on 80 tasks, by model size, on an RTX 3090.
# The number of updates is not stated; it is assumed to be the default of the official code.
GPU_DAYS = {"1": 3.7, "5": 4.2, "19": 5.3, "48": 12.0, "317": 33.0}
GPU_DAYS_UPDATES = OFFLINE_UPDATES
ENV_BYTES = 40e6  # RAM of one evaluation environment
RECORD_BYTES_PER_LINE = 300

Source = Literal["earlier", "paper", "counted"]
Settings = tuple[str, tuple[tuple[str, Scalar], ...]]  # method, and its non-default settings


class TimedSpec(TypedDict):
    """What is read of a run's `spec.json`."""

    method: str
    overrides: dict[str, Scalar]
    budget_unit: NotRequired[str]


class TimedPath(TypedDict):
    """What is read of a run's `numeric.json`."""

    device: str
    cpu: str


@dataclass(frozen=True)
class Speeds:
    """Speeds of earlier runs.

    Attributes:
        seconds: seconds per update by settings, evaluations included; median over runs.
        devices: names of the devices that they ran on.
    """

    seconds: Mapping[Settings, float]
    devices: tuple[str, ...] = ()


def settings_of(spec: RunSpec) -> Settings:
    """Return what determines the time of an update: the method and its non-default settings."""
    return spec.method, tuple(sorted(spec.overrides))


def earlier_speeds(runs: Path, *, gpu: bool) -> Speeds:
    """Read the speeds of all multi-task runs below a folder.

    Runs that were split over several processes, and damaged ones, are skipped.

    Args:
        runs: folder of all runs.
        gpu: whether to read runs on GPUs; else runs on CPUs.
    """
    seconds: dict[Settings, list[float]] = {}
    devices: set[str] = set()
    for file in sorted(runs.glob("*/*/*/seed*/timing.csv")):
        if file.parent.parent.name in TASKS:  # a single-task run
            continue
        try:
            spec = read_json(file.with_name("spec.json"), TimedSpec)
            numeric = read_json(file.with_name("numeric.json"), TimedPath)
            column = "updates_per_second"
            table = pd.read_csv(regular(file), usecols=[column], dtype={column: float})
            speeds = table[column].dropna()
        except (OSError, UserError, ValueError):  # a damaged run tells nothing
            continue
        if spec is None or numeric is None or spec.get("budget_unit") != "num_updates":
            continue
        if (numeric["device"] == "cuda") == gpu and "split" not in numeric and len(speeds):
            key = spec["method"], tuple(sorted(spec["overrides"].items()))
            seconds.setdefault(key, []).append(1 / float(speeds.iloc[-1]))
            devices.add(numeric.get("gpu") or numeric["cpu"])
    medians = {key: statistics.median(values) for key, values in seconds.items()}
    return Speeds(medians, tuple(sorted(devices)))


def cost_of(
    spec: RunSpec, options: Mapping[str, Any], speeds: Speeds, *, gpu: bool
) -> tuple[Cost, Source]:
    """Estimate the cost of a multi-task run.

    Args:
        spec: identity and budget of the run.
        options: run options; `eval_every`, `eval_episodes` and `log_every` are used.
        speeds: speeds of earlier runs.
        gpu: whether it runs on a GPU; else on one core.

    Returns:
        The cost, and the source of its seconds.
    """
    config = make_config(spec.method, dict(spec.overrides), spec.task)
    seconds, source = _seconds(spec, config, options, speeds, gpu=gpu)
    model = parameters(spec.method, config) * BYTES_PER_PARAMETER
    rounds = 1 + spec.budget / (options.get("eval_every") or OFFLINE_EVAL_EVERY)
    lines = rounds * len(spec.tasks) + 2 * spec.budget / (options.get("log_every") or 1000)
    disk = 2 * model + lines * RECORD_BYTES_PER_LINE
    memory = PROCESS_BYTES + 2 * model + ENV_BYTES * len(spec.tasks)
    return Cost(seconds, memory, disk, disk), source


def _seconds(
    spec: RunSpec, config: Any, options: Mapping[str, Any], speeds: Speeds, *, gpu: bool
) -> tuple[float, Source]:
    """Estimate the seconds of a whole run, and name the source of the estimate."""
    per_update = speeds.seconds.get(settings_of(spec))
    if per_update is not None:
        return spec.budget * per_update, "earlier"
    days = GPU_DAYS.get(str(config.model_size))
    if gpu and days is not None:
        return spec.budget * days * 86_400 / GPU_DAYS_UPDATES, "paper"
    return _counted(spec, config, options, gpu=gpu), "counted"


def _counted(spec: RunSpec, config: Any, options: Mapping[str, Any], *, gpu: bool) -> float:
    """Estimate the seconds of a run by counting operations, as for single-task runs."""
    tasks = [get_task(name) for name in spec.tasks]
    if hasattr(config, "for_task"):
        config = config.for_task("")
    obs_dim = max(task.obs_dim for task in tasks) + config.task_dim
    action_dim = max(task.action_dim for task in tasks)
    act, learn = seconds_per_call(spec.method, config, obs_dim, action_dim, gpu=gpu)
    lengths = [task.episode_length for task in tasks]
    # On a GPU, actions of all tasks with the same episode length are selected as one batch.
    acting = sum(set(lengths)) * act if gpu else sum(lengths) * BATCHED * act
    stepping = sum(t.episode_length * ADAPTERS[t.domain].seconds_per_decision for t in tasks)
    rounds = 1 + spec.budget / (options.get("eval_every") or OFFLINE_EVAL_EVERY)
    return spec.budget * learn + rounds * (options.get("eval_episodes") or 10) * (acting + stepping)


def estimate(
    planned: Sequence[PlannedRun], options: Mapping[str, Any], runs: Path, *, gpu: bool
) -> tuple[list[Cost], str]:
    """Estimate the costs of all runs, and describe the sources of the estimates.

    Args:
        planned: the runs.
        options: run options of the sweep.
        runs: folder of all runs; earlier runs in it are used as a source.
        gpu: whether the runs get a GPU.
    """
    speeds = earlier_speeds(runs, gpu=gpu)
    estimates = [cost_of(r.spec, {**options, **r.options}, speeds, gpu=gpu) for r in planned]
    return [cost for cost, _ in estimates], describe([source for _, source in estimates], speeds)


def describe(sources: Sequence[Source], speeds: Speeds) -> str:
    """Describe the sources of the estimates of several runs."""
    how = {
        "earlier": f"the speed of earlier runs here ({', '.join(speeds.devices)})",
        "paper": "the paper's Table 1 (TD-MPC2, 80 tasks, an RTX 3090; assuming 10M updates)",
        "counted": "counted operations, a rough estimate",
    }
    present = [source for source in how if source in sources]
    if len(present) == 1:
        return f"by {how[present[0]]}"
    return "; ".join(f"{sources.count(s):,} runs by {how[s]}" for s in present)
