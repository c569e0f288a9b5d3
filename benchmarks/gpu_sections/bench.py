"""Make an agent with a filled replay buffer, and time its calls."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
from meters import WARM_UP, Stopwatch

from gpu_sections.report import Settings
from sweeps.planning.grid import SMOKE
from tdmpc2.common.interfaces import EnvSpec
from tdmpc2.common.numerics.numeric_path import numeric_path
from tdmpc2.common.numerics.torch_setup import set_up_torch
from tdmpc2.runners.registry import make_agent
from tdmpc2.runners.setup import make_replay
from tdmpc2.runners.specs import make_spec
from tdmpc2.runners.work import random_episode, store

# Shapes of walker-walk, so that no simulator is needed.
WALKER = EnvSpec(
    obs_shape=(24,),
    action_dim=6,
    episode_lengths=(500,),
    action_repeats=(2,),
    action_dims=(6,),
    task_names=("walker-walk",),
)


def make_filled_agent(
    settings: Settings,
    *,
    method: str = "tdmpc2",
    seed: int = 0,
    rows: int = 10_000,
    **overrides: Any,
) -> tuple[Any, Any]:
    """Make an agent with the shapes of walker-walk, and a replay buffer of random episodes.

    Args:
        settings: device and model size.
        method: method of the agent.
        seed: seed of its parameters and noise.
        rows: number of rows to fill; 100 per environment for replay across episodes.
        **overrides: further settings of the agent.

    Returns:
        The agent and its replay buffer.
    """
    defaults = settings.agent_settings if method == "tdmpc2" else _small_baseline(settings, method)
    spec = make_spec(method, "walker-walk", seed, overrides={**defaults, **overrides})
    agent: Any = make_agent(spec, WALKER, settings.device)
    replay = make_replay(agent, WALKER, seed, settings.device)
    across, rng = agent.replay_across_episodes, np.random.default_rng(seed)
    decisions = 100 if across else WALKER.episode_lengths[0]
    for place in range(agent.num_envs if across else max(rows // (decisions + 1), 1)):
        store(replay, random_episode(WALKER, decisions, rng), place, across_episodes=across)
    return agent, replay


def _small_baseline(settings: Settings, method: str) -> dict[str, Any]:
    """Return the overrides of a baseline's configuration: none, or those of a tiny model."""
    return dict(SMOKE.overrides[method]) if settings.small else {}


def set_up(settings: Settings, precision: str = "fp32") -> None:
    """Set up torch as a run on this device does."""
    path = numeric_path(settings.device, None, compiled=False, precision=precision)
    set_up_torch(path)


def observation(num: int = 1) -> np.ndarray:
    """Return random observations `(num, 24)`."""
    return np.random.default_rng(0).normal(size=(num, 24)).astype(np.float32)


def seconds_of(settings: Settings, call: Callable[[], object], repetitions: int) -> float:
    """Return the median seconds of a call, including the device's work.

    Args:
        settings: settings with the device.
        call: function to time.
        repetitions: number of timed calls.
    """
    watch = Stopwatch(settings.device)
    times = [watch(call) for _ in range(WARM_UP + repetitions)]
    return statistics.median(times[WARM_UP:])
