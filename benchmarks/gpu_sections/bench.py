"""An agent with a filled replay buffer, as the sections measure it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from gpu_sections.report import Settings
from sweeps.planning.grid import SMOKE
from tdmpc2.common.interfaces import EnvSpec
from tdmpc2.common.numerics.numeric_path import numeric_path, set_up_torch
from tdmpc2.common.replay.types import Episode, Transition
from tdmpc2.runners.registry import make_agent, make_spec
from tdmpc2.runners.setup import make_replay

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
    """An agent of walker-walk's shapes, and a replay buffer with random episodes.

    Args:
        settings: device and size.
        method: of the agent.
        seed: of its parameters and noise.
        rows: that are filled.
        overrides: further settings of the agent.
    """
    own = settings.agent_settings if method == "tdmpc2" else _small_baseline(settings, method)
    spec = make_spec(method, "walker-walk", seed, overrides={**own, **overrides})
    agent: Any = make_agent(spec, WALKER, settings.device)
    replay = make_replay(agent, WALKER, seed, settings.device)
    if agent.replay_across_episodes:
        fill_streams(replay, agent.num_envs)
    else:
        fill_episodes(replay, rows, seed)
    return agent, replay


def fill_episodes(replay: Any, rows: int, seed: int) -> None:
    """Adds random episodes of 500 decisions up to so many rows, at least one."""
    rng = np.random.default_rng(seed)
    for _ in range(max(rows // 501, 1)):
        replay.add(
            Episode(
                obs=rng.normal(size=(501, 24)).astype(np.float32),
                action=rng.uniform(-1, 1, (500, 6)).astype(np.float32),
                reward=rng.uniform(size=500).astype(np.float32),
            )
        )


def fill_streams(replay: Any, num_envs: int) -> None:
    """Plays 100 random decisions in each environment, for replay across episodes."""
    rng = np.random.default_rng(0)
    for place in range(num_envs):
        obs = rng.normal(size=(101, 24)).astype(np.float32)
        for t in range(100):
            action = rng.uniform(-1, 1, 6).astype(np.float32)
            replay.append(Transition(obs[t], action, 0.5, obs[t + 1], False), place)


def _small_baseline(settings: Settings, method: str) -> dict[str, Any]:
    """Overrides of a baseline's configuration: none, or a tiny one."""
    return dict(SMOKE.overrides[method]) if settings.small else {}


def set_up(settings: Settings, precision: str = "fp32") -> None:
    """Makes torch compute as a run on this device would."""
    path = numeric_path(settings.device, None, compiled=False, precision=precision)
    set_up_torch(path)


def observation(num: int = 1) -> np.ndarray:
    """Observations `(num, 24)`."""
    return np.random.default_rng(0).normal(size=(num, 24)).astype(np.float32)


def seconds_of(
    settings: Settings, call: Callable[[], object], repetitions: int, warm_up: int = 3
) -> float:
    """Median seconds of a call, the device's work included.

    Args:
        settings: of the device.
        call: to be timed.
        repetitions: that count.
        warm_up: calls before those.
    """
    times = []
    for place in range(warm_up + repetitions):
        wait(settings)
        start = time.perf_counter()
        call()
        wait(settings)
        if place >= warm_up:
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def wait(settings: Settings) -> None:
    """Waits for the device."""
    if settings.on_gpu:
        torch.cuda.synchronize(settings.device)
