"""What multi-task runs cost: by the speed of earlier ones, by the paper, or by counting."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from sweeps.planning.costs import (
    BATCHED,
    BYTES_PER_PARAMETER,
    ENV_SECONDS,
    MILLION_PARAMETERS,
    PROCESS_BYTES,
    Cost,
    seconds_per_call,
)
from sweeps.planning.planned_run import PlannedRun
from tdmpc2.common.run.spec import RunSpec, Scalar
from tdmpc2.common.system.atomic_files import read_json
from tdmpc2.envs.tasks import TASKS, get_task
from tdmpc2.runners.offline import EVAL_EVERY
from tdmpc2.runners.registry import OFFLINE_UPDATES, make_config

# Table 1 of the paper: GPU-days of TD-MPC2's training on 80 tasks, by model size, on an RTX 3090.
# For how many updates it does not say; taken to be for those that its code does.
GPU_DAYS = {"1": 3.7, "5": 4.2, "19": 5.3, "48": 12.0, "317": 33.0}
GPU_DAYS_UPDATES = OFFLINE_UPDATES
ENV_BYTES = 40e6  # of a simulator in an evaluation
RECORD_BYTES_PER_LINE = 300

Source = Literal["earlier", "paper", "counted"]
Settings = tuple[str, tuple[tuple[str, Scalar], ...]]  # method, and what it does not leave alone


@dataclass(frozen=True)
class Speeds:
    """What earlier runs took.

    Attributes:
        seconds: of an update, evaluations included: the median of runs of the same settings.
        devices: that they ran on.
    """

    seconds: Mapping[Settings, float]
    devices: tuple[str, ...] = ()


def settings_of(spec: RunSpec) -> Settings:
    """What decides how long an update takes, the model's size among it."""
    return spec.method, tuple(sorted(spec.overrides))


def earlier_speeds(runs: Path, *, gpu: bool) -> Speeds:
    """Speeds of all multi-task runs below a folder, on GPUs or on CPUs.

    Args:
        runs: folder of all runs.
        gpu: which of them.
    """
    found: dict[Settings, list[float]] = {}
    devices: set[str] = set()
    for file in sorted(runs.glob("*/*/*/seed*/timing.csv")):
        if file.parent.parent.name in TASKS:  # of a single task
            continue
        spec, numeric = (read_json(file.with_name(f"{n}.json")) for n in ("spec", "numeric"))
        if spec is None or numeric is None or spec.get("budget_unit") != "num_updates":
            continue
        if (numeric["device"] == "cuda") != gpu or "split" in numeric:
            continue
        speeds = pd.read_csv(file).updates_per_second.dropna()
        if len(speeds):
            key = spec["method"], tuple(sorted(spec["overrides"].items()))
            found.setdefault(key, []).append(1 / float(speeds.iloc[-1]))
            devices.add(numeric.get("gpu") or numeric["cpu"])
    medians = {key: statistics.median(values) for key, values in found.items()}
    return Speeds(medians, tuple(sorted(devices)))


def cost_of(
    spec: RunSpec, options: Mapping[str, Any], speeds: Speeds, *, gpu: bool
) -> tuple[Cost, Source]:
    """An estimate, and where its seconds come from.

    Args:
        spec: of the run.
        options: `eval_every`, `eval_episodes` and `log_every`, where they are set.
        speeds: of earlier runs.
        gpu: whether it runs on one; else on one core.
    """
    config = make_config(spec.method, dict(spec.overrides), spec.task)
    seconds, source = _seconds(spec, config, options, speeds, gpu=gpu)
    size = str(config.model_size)
    parameters = 1e6 * float(MILLION_PARAMETERS.get(size) or size) * BYTES_PER_PARAMETER
    rounds = 1 + spec.budget / (options.get("eval_every") or EVAL_EVERY)
    lines = rounds * len(spec.tasks) + 2 * spec.budget / (options.get("log_every") or 1000)
    disk = 2 * parameters + lines * RECORD_BYTES_PER_LINE
    memory = PROCESS_BYTES + 2 * parameters + ENV_BYTES * len(spec.tasks)
    return Cost(seconds, memory, disk, disk), source


def _seconds(
    spec: RunSpec, config: Any, options: Mapping[str, Any], speeds: Speeds, *, gpu: bool
) -> tuple[float, Source]:
    """Seconds of a whole run, and where they come from."""
    known = speeds.seconds.get(settings_of(spec))
    if known is not None:
        return spec.budget * known, "earlier"
    days = GPU_DAYS.get(str(config.model_size))
    if gpu and days is not None:
        return spec.budget * days * 86_400 / GPU_DAYS_UPDATES, "paper"
    return _counted(spec, config, options, gpu=gpu), "counted"


def _counted(spec: RunSpec, config: Any, options: Mapping[str, Any], *, gpu: bool) -> float:
    """Seconds by the operations of updates and plans, as for runs of a single task."""
    tasks = [get_task(name) for name in spec.tasks]
    if hasattr(config, "for_task"):
        config = config.for_task("")
    obs_dim = max(task.obs_dim for task in tasks) + config.task_dim
    action_dim = max(task.action_dim for task in tasks)
    act, learn = seconds_per_call(spec.method, config, obs_dim, action_dim, gpu=gpu)
    lengths = [task.episode_length for task in tasks]
    # Tasks with episodes of one length act as one batch.
    acting = sum(set(lengths)) * act if gpu else sum(lengths) * BATCHED * act
    stepping = sum(t.episode_length * ENV_SECONDS.get(t.domain, 0.001) for t in tasks)
    rounds = 1 + spec.budget / (options.get("eval_every") or EVAL_EVERY)
    return spec.budget * learn + rounds * (options.get("eval_episodes") or 10) * (acting + stepping)


def estimate(
    planned: Sequence[PlannedRun], options: Mapping[str, Any], runs: Path, *, gpu: bool
) -> tuple[list[Cost], str]:
    """Costs of all runs, and for people where they come from.

    Args:
        planned: the runs.
        options: of all of them.
        runs: folder of all runs, with earlier ones perhaps.
        gpu: whether they get one.
    """
    speeds = earlier_speeds(runs, gpu=gpu)
    found = [cost_of(r.spec, {**options, **r.options}, speeds, gpu=gpu) for r in planned]
    return [cost for cost, _ in found], describe([source for _, source in found], speeds)


def describe(sources: Sequence[Source], speeds: Speeds) -> str:
    """Where estimates come from."""
    how = {
        "earlier": f"the speed of earlier runs here ({', '.join(speeds.devices)})",
        "paper": "the paper's Table 1 (TD-MPC2, 80 tasks, an RTX 3090; taken for 10M updates)",
        "counted": "counted operations, a rough estimate",
    }
    present = [source for source in how if source in sources]
    if len(present) == 1:
        return f"by {how[present[0]]}"
    return "; ".join(f"{sources.count(s):,} runs by {how[s]}" for s in present)
