"""Estimate time, memory and disk space of runs, corrected by the speed of finished runs."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sweeps.planning.planned_run import PlannedRun
from tdmpc2.common.numerics import fused_bf16
from tdmpc2.common.replay.ram_budget import replay_bytes
from tdmpc2.common.run.spec import RunSpec
from tdmpc2.envs.adapters import ADAPTERS
from tdmpc2.envs.tasks import get_task
from tdmpc2.runners.registry import agent_class, config_class
from tdmpc2.runners.work import gflop_of, parameters_of

# Measured on one core of a 2.5 GHz Xeon with AVX-512 (`benchmarks/speed.py`): its speed at matrix
# multiplications (GFLOP/s); the time of planning and updates as a multiple of the time of their
# matrix multiplications; and the fixed time of a call.
CORE_GFLOPS = 100.0
OVERHEAD = 1.5
CALL_SECONDS = 0.01
# In bfloat16, CPUs with AMX or AVX512-BF16 (AMD) took 0.20 to 0.23 of this time: TD-MPC2 on both,
# the other methods on an AMD CPU (docs/performance.md). Seed batches have other kernels.
BF16_SHARE = 0.25
# An H200 takes 3.5 ms for a plan and 3.0 ms for an update of TD-MPC2 in float32 (docs/gpu.md); the
# official code is published at 10.8 ms for both on an RTX 3090. The other methods are assumed to
# have the same kernel launch overhead. Models above 5M parameters are limited by their matrix
# multiplications. A GPU launches the kernels of several seeds in one process once: three seeds took
# 6.1 ms for plans and updates of all.
GPU_CALL_SECONDS = 0.0035
GPU_GFLOPS = 20_000.0
# Evaluations select the actions of all episodes as one batch. On a CPU, that takes this fraction
# of the time for single episodes.
BATCHED = 0.8

BYTES_PER_PARAMETER = 16  # fp32: the parameter, two moments of Adam, the target network's copy
PROCESS_BYTES = 1.5e9  # torch, a simulator, evaluation environments
RECORD_BYTES_PER_EPISODE = 400


@dataclass(frozen=True)
class Cost:
    """Estimated resources of a run.

    Attributes:
        seconds: time of the whole run, including evaluations.
        memory: RAM in bytes at its end.
        disk_running: disk space in bytes while it runs: checkpoints, replay buffer, records.
        disk: disk space in bytes after its end.
    """

    seconds: float
    memory: float
    disk_running: float
    disk: float


def cost_of(spec: RunSpec, options: Mapping[str, Any], *, gpu: bool, seeds: int = 1) -> Cost:
    """Estimate the cost of a single-task run without building the agent or reading files.

    Args:
        spec: identity and budget of the run.
        options: run options; `eval_every`, `eval_episodes` and `keep_replay` are used.
        gpu: whether it runs on a GPU; else on one core.
        seeds: number of seeds in its process; `seconds` is the run's share of the process's time.
    """
    task = get_task(spec.task)
    decisions = spec.budget / task.action_repeat
    config = _config(spec.method, spec.task, spec.overrides)
    obs_dim = task.obs_dim if spec.obs == "state" else 0
    shapes = (obs_dim, task.action_dim)
    act, learn = seconds_per_call(spec.method, config, *shapes, gpu=gpu, seeds=seeds)
    env = ADAPTERS[task.domain].seconds_per_decision
    method = agent_class(spec.method)
    across = method.replay_across_episodes
    updates = method.updates_per_decision(config)
    training = decisions * (act + updates * learn + env)
    episodes = options.get("eval_episodes") or 10
    rounds = 1 + spec.budget / (options.get("eval_every") or task.eval_every)
    acting = act if gpu else BATCHED * act * episodes
    evaluating = rounds * task.episode_length * (acting + episodes * env)
    rows = int(decisions * 1.01)
    shape = (task.obs_dim,) if spec.obs == "state" else (9, 64, 64)
    whole, replay = (
        replay_bytes(number, shape, task.action_dim, frame_stack=3, across_episodes=across)
        for number in (rows, min(rows, config.buffer_size))
    )
    # A run that keeps its episodes has also those that the buffer has dropped.
    on_disk = whole if options.get("keep_replay") else replay
    model = parameters(spec.method, config) * BYTES_PER_PARAMETER
    records = RECORD_BYTES_PER_EPISODE * decisions / task.episode_length
    kept = 2 * model + records
    return Cost(
        seconds=training + evaluating,
        memory=PROCESS_BYTES + replay + 2 * model,
        disk_running=kept + on_disk,
        disk=kept + (on_disk if options.get("keep_replay") else 0),
    )


@cache
def _config(method: str, task: str, overrides: tuple[tuple[str, Any], ...]) -> Any:
    """Build the config that all seeds of a task share."""
    config = config_class(method).make(**dict(overrides))
    return config.for_task(task) if hasattr(config, "for_task") else config


def seconds_per_call(
    method: str, config: Any, obs_dim: int, action_dim: int, *, gpu: bool, seeds: int = 1
) -> tuple[float, float]:
    """Estimate the seconds of selecting one action and of one gradient update, for one seed.

    Args:
        method: a key of `METHODS`.
        config: config of the method.
        obs_dim: observation dimension; for multi-task agents plus that of the task embedding.
        action_dim: action dimension.
        gpu: whether the calls run on a GPU; else on one core.
        seeds: number of seeds in the process, which share the fixed time of a call on a GPU.
    """
    gflops = gflop_of(method, config, obs_dim, action_dim)
    bf16 = getattr(config, "precision", "") == "bf16"
    fast = bf16 and seeds == 1 and fused_bf16.choice().used
    core = BF16_SHARE if fast else 1.0  # a launch on SLURM takes its nodes for CPUs of this kind
    seconds = {
        name: GPU_CALL_SECONDS / seeds + gflop / GPU_GFLOPS
        if gpu
        else core * (CALL_SECONDS + OVERHEAD * gflop / CORE_GFLOPS)
        for name, gflop in gflops.items()
    }
    return seconds.get("plan", 0.001), seconds["update"]


def gflop_per_update(spec: RunSpec) -> float:
    """Return the operations of one gradient update of a single-task run, in GFLOP."""
    task = get_task(spec.task)
    obs_dim = task.obs_dim if spec.obs == "state" else 0
    config = _config(spec.method, spec.task, spec.overrides)
    return gflop_of(spec.method, config, obs_dim, task.action_dim)["update"]


def parameters(method: str, config: Any) -> float:
    """Return the number of parameters: that of the model size's name, or of an agent."""
    size = str(getattr(config, "model_size", ""))
    return 1e6 * float(size) if size.isdigit() else parameters_of(method, config, 24, 6)


# --- corrections by finished runs --------------------------------------------------------

Group = tuple[str, str, bool]  # method, domain, on a GPU


def group_of(spec: RunSpec, *, gpu: bool) -> Group:
    """Return the group of runs whose estimates are assumed to be wrong by the same factor."""
    return spec.method, spec.task if spec.tasks else get_task(spec.task).domain, gpu


def corrections(
    runs: Iterable[tuple[PlannedRun, bool, int]], options: Mapping[str, Any]
) -> dict[Group, float]:
    """Compute the median ratio of actual to estimated seconds by method, domain and device.

    Args:
        runs: finished runs with their status, whether each ran on a GPU, and the number of seeds in
            its process.
        options: run options of the sweep.
    """
    ratios: dict[Group, list[float]] = {}
    for run, gpu, seeds in runs:
        speed = (run.status or {}).get("env_steps_per_second")
        if speed:
            estimate = cost_of(run.spec, {**options, **run.options}, gpu=gpu, seeds=seeds)
            actual = run.spec.budget / speed / seeds
            ratios.setdefault(group_of(run.spec, gpu=gpu), []).append(actual / estimate.seconds)
    return {group: statistics.median(values) for group, values in ratios.items()}


def seconds_left(
    runs: Sequence[PlannedRun],
    costs: Sequence[Cost],
    factors: Mapping[Group, float],
    *,
    gpu: bool,
) -> list[float]:
    """Estimate the remaining seconds of each run.

    Args:
        runs: runs with their status.
        costs: estimated cost of each run.
        factors: ratios of actual to estimated seconds, see `corrections`.
        gpu: whether they run on a GPU.
    """
    left = []
    for run, cost in zip(runs, costs, strict=True):
        done = min(run.step / run.spec.budget, 1.0)
        factor = factors.get(group_of(run.spec, gpu=gpu), 1.0)
        left.append(cost.seconds * factor * (1 - done))
    return left
